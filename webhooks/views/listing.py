"""The list of webhooks: searched, filtered and page by page."""

import re
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_required, permission_required
from django.core.paginator import Paginator
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from webhooks import backlog
from webhooks.models import (
    AuthorizationType,
    Delivery,
    GrantType,
    PauseReason,
    TokenState,
    Webhook,
)
from webhooks.views.columns import CONNECTION_SECRETS, SECRETS, TOKEN_SECRETS
from webhooks.views.standing import standing_of, token_of

WEBHOOKS_PER_PAGE = 50

STATUS_CHOICES = {
    "active": gettext_lazy("Active"),
    "paused": gettext_lazy("Paused"),
    "attention": gettext_lazy("Needs attention"),
}
_FILTERS = ("q", "status", "authorization", "connection")


@require_safe
@login_required
@permission_required("webhooks.view_webhook", raise_exception=True)
def list_webhooks(request: HttpRequest) -> HttpResponse:
    found = _search(request)
    page = Paginator(found, WEBHOOKS_PER_PAGE).get_page(request.GET.get("page"))
    last_ids = {webhook.pk: getattr(webhook, "last_delivery_id", None) for webhook in page}
    last = Delivery.objects.in_bulk([pk for pk in last_ids.values() if pk])
    rows = [
        {
            "webhook": webhook,
            "token": token_of(webhook.credentials),
            "standing": standing_of(webhook),
            "last": last.get(last_ids[webhook.pk] or ""),
        }
        for webhook in page
    ]
    context = {
        "rows": rows,
        "page": page,
        "is_filtered": any(request.GET.get(key) for key in _FILTERS),
        "connection": _wanted_connection(request),
        "has_any": bool(rows) or Webhook.objects.present().exists(),
        "status_choices": STATUS_CHOICES.items(),
        "authorization_choices": AuthorizationType.choices,
        "sandbox_url": settings.WEBHOOKS_SANDBOX_URL,
        "backlog": backlog.report(),
    }
    return render(request, "webhooks/list.html", context)


def _search(request: HttpRequest) -> QuerySet[Webhook]:
    found = (
        Webhook.objects.present()
        .select_related("token", "state", "connection__token")
        .defer(*SECRETS, *TOKEN_SECRETS, *CONNECTION_SECRETS)
        .annotate(last_delivery_id=Subquery(newest_delivery(OuterRef("pk"))))
    )
    if words := request.GET.get("q", "").replace("\0", "").strip():
        found = found.filter(Q(name__icontains=words) | Q(url__icontains=words))
    if (authorization := request.GET.get("authorization")) in AuthorizationType.values:
        found = found.annotate(sends=_sends()).filter(sends=authorization)
    if connection := _wanted_connection(request):
        found = found.filter(connection=connection)
    match request.GET.get("status"):
        case "active":
            found = found.filter(is_active=True)
        case "paused":
            found = found.filter(is_active=False)
        case "attention":
            found = found.filter(_needs_attention())
    return found


def newest_delivery(webhook: int | OuterRef) -> QuerySet[Delivery, Any]:
    """Return a query for the id of a webhook's newest delivery: one step into an index."""
    return Delivery.objects.filter(webhook=webhook).order_by("-id").values("pk")[:1]


def _wanted_connection(request: HttpRequest) -> Webhook | None:
    """Return the connection whose webhooks are asked for."""
    wanted = request.GET.get("connection", "")
    if not re.fullmatch("[0-9]{1,18}", wanted):
        return None
    return Webhook.objects.connections().defer(*SECRETS).filter(pk=wanted).first()


def _sends() -> Coalesce:
    """Return the authorization type of what authorizes a webhook's requests."""
    return Coalesce("connection__authorization_type", "authorization_type")


def _needs_attention() -> Q:
    """Match what `standing_of` colours as warning or danger."""
    own = Q(connection=None) & _is_unauthorized("")
    shared = Q(connection__isnull=False) & _is_unauthorized("connection__")
    is_active_but = Q(state__failing_since_at__isnull=False) | own | shared
    return Q(pause_reason__in=[PauseReason.GONE, PauseReason.FAILING]) | (
        Q(is_active=True) & is_active_but
    )


def _is_unauthorized(owner: str) -> Q:
    """Match webhooks whose credentials, reached by the prefix `owner`, wait for a person."""
    token = f"{owner}token"
    has_no_token = Q(**{token: None}) | Q(**{f"{token}__state": TokenState.NONE})
    broken = [TokenState.NEEDS_REAUTHORIZATION, TokenState.MISCONFIGURED]
    is_broken = Q(**{f"{token}__state__in": broken})
    waits = has_no_token & Q(**{f"{owner}grant_type": GrantType.AUTHORIZATION_CODE})
    return Q(**{f"{owner}authorization_type": AuthorizationType.OAUTH2}) & (waits | is_broken)
