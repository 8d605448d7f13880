"""The page of one webhook: how it stands, what it sends, what waits; and the parts that refresh."""

import zlib
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_required, permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from webhooks.delivery_log import charts
from webhooks.delivery_log.charts import Period
from webhooks.models import (
    CREDENTIAL_SECRETS,
    WEBHOOK_SECRETS,
    AuthorizationType,
    Delivery,
    Status,
    Webhook,
)
from webhooks.ui import notices
from webhooks.ui.chart_drawing import draw
from webhooks.ui.columns import TOKEN_SECRETS
from webhooks.ui.log_links import chart_link, log_url, may_read_log
from webhooks.ui.notices import MAX_COUNTED, counted
from webhooks.ui.status import needs_token, standing_of, token_of
from webhooks.ui.trail import audit_trail

RECENT_DELIVERIES = 15
_View = Callable[[HttpRequest, int], HttpResponse]


@require_safe
@never_cache
@login_required
@permission_required("webhooks.view_webhook", raise_exception=True)
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = _find(pk)
    credential = webhook.credential
    situation = notices.situation(webhook)
    context = {
        "webhook": webhook,
        "credential": credential,
        "token": token_of(credential),
        "needs_token": needs_token(credential),
        "is_oauth": credential.authorization_type == AuthorizationType.OAUTH2,
        "secrets": {
            **{field: webhook.has_secret(field) for field in WEBHOOK_SECRETS},
            **{field: credential.has_secret(field) for field in CREDENTIAL_SECRETS},
        },
        **situation,
        # The token's error stands in a notice already.
        "error_is_told": any(
            one.action in ("authorize", "settings") and one.kind == "danger"
            for one in situation["notices"]
        ),
        **_charts(request, webhook),
        **_recent(request, webhook, held=situation["held"], parked=situation["parked"]),
        **audit_trail(webhook),
    }
    return render(request, "webhooks/webhook_detail/detail.html", context)


def _find(pk: int) -> Webhook:
    related = ("state", "created_by", "credential__token__granted_by")
    present = Webhook.objects.present().select_related(*related)
    return get_object_or_404(present.defer(*(f"credential__{one}" for one in TOKEN_SECRETS)), pk=pk)


# ---- Parts that refresh ----------------------------------------------------------------------


def _part_of_page(view: _View) -> _View:
    """Answer htmx alone: a person gets the page, and a session that ended gets no login form."""

    @wraps(view)
    def part(request: HttpRequest, pk: int) -> HttpResponse:
        if not request.headers.get("HX-Request"):
            return redirect("webhooks:detail", pk)
        if not request.user.is_authenticated:
            return HttpResponse(status=401)
        return view(request, pk)

    return part


@require_safe
@never_cache
@_part_of_page
@permission_required("webhooks.view_webhook", raise_exception=True)
def charts_part(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.present().only("pk"), pk=pk)
    context = {"webhook": webhook, **_charts(request, webhook)}
    if request.GET.get("seen") == context["charts_seen"]:
        return HttpResponse(status=204)
    return render(request, "webhooks/ui/_charts.html", context)


@require_safe
@never_cache
@_part_of_page
@permission_required("webhooks.view_webhook", raise_exception=True)
def recent_part(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = _find(pk)
    held, parked = count(webhook, Status.HELD), count(webhook, Status.PARKED)
    context = {"webhook": webhook, **_recent(request, webhook, held=held, parked=parked)}
    if request.GET.get("seen") == context["recent_seen"]:
        # Nothing new: htmx changes nothing.
        return HttpResponse(status=204)
    # Told with the standing above them, so that both name the same last error.
    context |= {"needs_token": needs_token(webhook.credential), **notices.problems_of(webhook)}
    return render(request, "webhooks/webhook_detail/_recent_part.html", context)


def _charts(request: HttpRequest, webhook: Webhook) -> dict[str, Any]:
    wanted = request.GET.get("period", "")
    period = Period(wanted) if wanted in Period.values else Period.DAY
    chart = charts.read(webhook.pk, period)
    return {
        "chart": draw(chart, chart_link(webhook.pk, request.user)),
        "periods": list(Period),
        # Tells whether anything was sent since, or an hour has begun.
        "charts_seen": f"{chart.whole.total}-{chart.whole.ends_at:%d%H}",
    }


def _recent(request: HttpRequest, webhook: Webhook, *, held: str, parked: str) -> dict[str, Any]:
    """Return the newest deliveries and what waits; `recent_seen` changes when any of it does."""
    found = list(
        Delivery.objects.filter(webhook=webhook)
        .select_related("event")
        .defer("event__payload")
        .order_by("-id")[:RECENT_DELIVERIES]
    )
    standing = standing_of(webhook)
    waiting = count(webhook, Status.PENDING, Status.SENDING)
    state = [(row.pk, row.status, row.attempt_count, row.next_attempt_at) for row in found]
    told = (state, waiting, held, parked, standing.full_sentence)
    _, _, newest_seen = request.GET.get("seen", "").partition("-")
    newest = found[0].pk if found else ""
    return {
        "standing": standing,
        "deliveries": found,
        "new_ids": {row.pk for row in found if newest_seen and row.pk > newest_seen},
        "recent_seen": f"{zlib.crc32(repr(told).encode()):08x}-{newest}",
        # Nothing changes while it is paused and nothing is on its way.
        "may_change": webhook.is_active or waiting != "0",
        "waiting": waiting,
        "held": held,
        "parked": parked,
        **_log_addresses(request, webhook),
    }


def _log_addresses(request: HttpRequest, webhook: Webhook) -> dict[str, str]:
    if not may_read_log(request.user):
        return {}
    return {
        "log_url": log_url(webhook.pk),
        **{f"{status}_url": log_url(webhook.pk, status=status) for status in Status},
    }


def count(webhook: Webhook, *statuses: Status) -> str:
    """Count a webhook's deliveries up to a limit, as text: "12" or "1,000+".

    Asks for each status alone, because each has a partial index of its own.
    """
    count = 0
    for status in statuses:
        rows = Delivery.objects.filter(webhook=webhook, status=status)
        count += rows[: MAX_COUNTED + 1].count()
    return counted(count)
