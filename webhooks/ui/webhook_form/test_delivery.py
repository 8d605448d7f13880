"""Send a test through the real delivery path and show what came of it."""

from datetime import timedelta

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required, permission_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from webhooks import audit, catalogue, events
from webhooks.models import (
    Action,
    Attempt,
    AuthorizationType,
    Delivery,
    GrantType,
    OAuthToken,
    Status,
    TokenState,
    Trigger,
    Webhook,
)

# A page asks for the result that long, then leaves it to the person.
_PATIENCE = timedelta(seconds=15)
_UNUSABLE = (TokenState.NONE, TokenState.NEEDS_REAUTHORIZATION, TokenState.MISCONFIGURED)
_OPEN = {Status.PENDING, Status.SENDING}


@require_POST
@never_cache
@login_required
@permission_required("webhooks.test_webhook", raise_exception=True)
def send_test(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    event_type = request.POST.get("test_event_type") or catalogue.first_type(webhook.event_types)
    if not catalogue.is_known(event_type):
        return HttpResponseBadRequest(_("There is no such event type."))
    if sentence := _missing_token(webhook):
        return _refuse(request, webhook, sentence)
    with transaction.atomic():
        delivery = events.send_test(webhook, event_type)
        audit.record(Action.TESTED, delivery, user=request.user, note=event_type)
    if request.headers.get("HX-Request"):
        return _show_panel(request, delivery)
    return redirect("webhooks:test_result", pk, delivery.pk)


@require_safe
@never_cache
@login_required
@permission_required("webhooks.test_webhook", raise_exception=True)
def test_result(request: HttpRequest, pk: int, delivery_id: str) -> HttpResponse:
    """Show the result alone to htmx, and a page that reloads itself to everything else."""
    delivery = get_object_or_404(
        Delivery.objects.select_related("event", "webhook"),
        pk=delivery_id.replace("\0", ""),
        webhook_id=pk,
        webhook__deleted_at=None,
        trigger=Trigger.TEST,
    )
    if request.headers.get("HX-Request"):
        return _show_panel(request, delivery)
    return render(request, "webhooks/webhook_form/form_test_result.html", _context(delivery))


def _missing_token(webhook: Webhook) -> str:
    """Return what to do first when a test could not be authorized, else an empty string."""
    owner = webhook.credentials
    if owner.authorization_type != AuthorizationType.OAUTH2:
        return ""
    token = OAuthToken.objects.filter(webhook=owner).first()
    state = token.state if token else TokenState.NONE
    if state == TokenState.NONE and owner.grant_type == GrantType.CLIENT_CREDENTIALS:
        # No person is needed: the engine fetches one.
        return ""
    if state not in _UNUSABLE:
        return ""
    return _("No test was sent: there is no access token. Press Get new access token first.")


def _refuse(request: HttpRequest, webhook: Webhook, sentence: str) -> HttpResponse:
    if request.headers.get("HX-Request"):
        return render(request, "webhooks/webhook_form/_test_result.html", {"refusal": sentence})
    messages.warning(request, sentence)
    if request.user.has_perm("webhooks.change_webhook"):
        return redirect(reverse("webhooks:edit", args=[webhook.pk]) + "#token")
    return redirect("webhooks:detail", webhook.pk)


def _show_panel(request: HttpRequest, delivery: Delivery) -> HttpResponse:
    context = _context(delivery)
    if request.method == "GET" and context["is_asking"]:
        # Nothing new: htmx changes nothing and asks again.
        return HttpResponse(status=204)
    return render(request, "webhooks/webhook_form/_test_result.html", context)


def _context(delivery: Delivery) -> dict[str, object]:
    is_open = delivery.status in _OPEN
    attempt = delivery.attempts.last()
    return {
        "delivery": delivery,
        "webhook": delivery.webhook,
        "attempt": attempt,
        "request_body": _request_body(delivery, attempt),
        "receiver_url": _receiver_url(delivery.webhook),
        "is_open": is_open,
        "is_asking": is_open and timezone.now() - delivery.created_at < _PATIENCE,
    }


def _receiver_url(webhook: Webhook) -> str:
    """Return the page of the sandbox's receiver, or an empty string if it is not sent to."""
    url = settings.WEBHOOKS_SANDBOX_URL
    return url if url and webhook.url.startswith(f"{url}/") else ""


def _request_body(delivery: Delivery, attempt: Attempt | None) -> bytes:
    """Return what was sent: the attempt's own body, or else the event's bytes unchanged."""
    if attempt is None:
        return b""
    if attempt.request_body is None:
        return bytes(delivery.event.payload)
    return bytes(attempt.request_body)
