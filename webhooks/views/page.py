"""The page of one webhook."""

from django.contrib.auth.decorators import login_required, permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from webhooks.models import AuthorizationType, Delivery, Status, Webhook
from webhooks.views import notices
from webhooks.views.columns import CONNECTION_SECRETS, SECRETS, TOKEN_SECRETS
from webhooks.views.notices import MAX_COUNTED, counted
from webhooks.views.standing import needs_token, standing_of, token_of

RECENT_DELIVERIES = 20


@require_safe
@login_required
@permission_required("webhooks.view_webhook", raise_exception=True)
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(
        Webhook.objects.present()
        .select_related("token__granted_by", "state", "created_by", "connection__token__granted_by")
        .defer(*TOKEN_SECRETS, *CONNECTION_SECRETS),
        pk=pk,
    )
    recent = (
        Delivery.objects.filter(webhook=webhook)
        .select_related("event")
        .defer("event__payload")
        .order_by("-id")[:RECENT_DELIVERIES]
    )
    context = {
        "webhook": webhook,
        "standing": standing_of(webhook),
        "credentials": webhook.credentials,
        "token": token_of(webhook.credentials),
        "needs_token": needs_token(webhook),
        "is_oauth": webhook.credentials.authorization_type == AuthorizationType.OAUTH2,
        "waiting": count(webhook, Status.PENDING, Status.SENDING),
        **notices.situation(webhook),
        "deliveries": recent,
        "secrets": {field: webhook.has_secret(field) for field in SECRETS},
    }
    return render(request, "webhooks/detail.html", context)


def count(webhook: Webhook, *statuses: Status) -> str:
    """Count a webhook's deliveries up to a limit, as text: "12" or "1,000+".

    Asks for each status alone, because each has a partial index of its own.
    """
    count = 0
    for status in statuses:
        rows = Delivery.objects.filter(webhook=webhook, status=status)
        count += rows[: MAX_COUNTED + 1].count()
    return counted(count)
