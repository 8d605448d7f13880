"""Try a filter on events that happened, and explain why an event was not sent."""

from collections import defaultdict
from typing import Any

from django.contrib.auth.decorators import login_required, permission_required
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from webhooks.delivery_log import explain, filter_preview
from webhooks.filters import compile_filter, refusal_words
from webhooks.models import Delivery, Event, Webhook
from webhooks.ui.webhook_form.filter_section import ACTION, FilterSection

# How the tried events are listed; the first is how the page begins.
SHOWN = {
    "": _("Count only"),
    "all": _("All"),
    "passed": _("Sent"),
    "refused": _("Not sent"),
}
EVENTS_PER_PAGE = 30
_MAX_FOUND = 50


@require_POST
@never_cache
@login_required
def try_filter(request: HttpRequest) -> HttpResponse:
    """Answer htmx: after a button the whole section, while somebody types only what it matches."""
    user = request.user
    if not (user.has_perm("webhooks.add_webhook") or user.has_perm("webhooks.change_webhook")):
        raise PermissionDenied
    section = FilterSection({}, request.POST, patterns=request.POST.getlist("event_types"))
    section.show_mistakes()
    is_button = request.POST.get("action", "").startswith(ACTION)
    context = {"section": section, "is_live": not is_button, **trial_context(request, section)}
    template = "_filter.html" if is_button else "_filter_result.html"
    return render(request, f"webhooks/webhook_form/{template}", context)


def trial_context(request: HttpRequest, section: FilterSection) -> dict[str, Any]:
    """Try a filter that is right; values only for those who may see payloads."""
    if section.is_wrong:
        # A number would be that of another filter.
        return {}
    trial = filter_preview.attempt(compile_filter(section.usable_tree), section.types)
    may_see = trial.is_of_samples or request.user.has_perm("webhooks.view_payload")
    wanted = request.POST.get("filter-shown", "") if may_see else ""
    rows = [
        {"event": one, "reason": refusal_words(one.refusals)}
        for one in trial.tried
        if wanted and wanted in ("all", "passed" if one.passes else "refused")
    ]
    return {
        "trial": trial,
        "rows": rows,
        "may_see_values": may_see,
        "shown": wanted if wanted in SHOWN else "",
        "shown_choices": SHOWN.items(),
    }


@require_safe
@never_cache
@login_required
@permission_required("webhooks.view_webhook", raise_exception=True)
def why_not_sent(request: HttpRequest, pk: int) -> HttpResponse:
    """Explain one event, or list those to choose from, each with its verdict."""
    webhook = get_object_or_404(Webhook.objects.filter(is_connection=False), pk=pk)
    words = request.GET.get("q", "").replace("\0", "").strip()[:200]
    wanted = request.GET.get("event", "").replace("\0", "")[:30]
    found = list(_search(words)) if words else []
    if words and len(found) == 1:
        address = reverse("webhooks:why_not_sent", args=[pk])
        return redirect(f"{address}?event={found[0].pk}")
    event = Event.objects.filter(pk=wanted).first() if wanted else None
    before = request.GET.get("before", "").replace("\0", "")[:30]
    listed = found if words else [] if event else _newest(before)
    judge = explain.judge_for(webhook)
    deliveries = _deliveries(webhook, [event] if event else listed)
    context = {
        "webhook": webhook,
        "words": words,
        "wanted": wanted,
        "event": event,
        "verdict": judge.verdict(event, deliveries[event.pk]) if event else None,
        "rows": [(one, judge.verdict(one, deliveries[one.pk])) for one in listed],
        "older": listed[-1].pk if not words and len(listed) == EVENTS_PER_PAGE else "",
        "before": before,
        "may_see_payload": request.user.has_perm("webhooks.view_payload"),
    }
    return render(request, "webhooks/webhook_detail/why_not_sent.html", context)


def _search(words: str) -> QuerySet[Event]:
    """Find events by their id or by the id of a call; both have an index."""
    if words.startswith("evt_"):
        return Event.objects.filter(pk=words)
    if words.startswith("dlv_"):
        return Event.objects.filter(deliveries=words)
    return Event.objects.filter(call_id=words).order_by("-id")[:_MAX_FOUND]


def _newest(before: str) -> list[Event]:
    """Return a page of events, newest first; `before` is the last one of the page before."""
    events = Event.objects.order_by("-id")
    if before:
        events = events.filter(pk__lt=before)
    return list(events[:EVENTS_PER_PAGE])


def _deliveries(webhook: Webhook, events: list[Event]) -> dict[str, list[Delivery]]:
    """Return this webhook's deliveries of each event, newest first."""
    found: dict[str, list[Delivery]] = defaultdict(list)
    ids = [event.pk for event in events]
    for delivery in Delivery.objects.filter(event_id__in=ids, webhook=webhook).order_by("-id"):
        found[delivery.event_id].append(delivery)
    return found
