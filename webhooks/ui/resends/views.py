"""Resends: choose and count deliveries, start, watch and stop a resend."""

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from webhooks import audit, events
from webhooks.alerts import problems
from webhooks.delivery import resends
from webhooks.delivery_log import query as log_query
from webhooks.models import (
    WEBHOOK_SECRETS,
    Action,
    Delivery,
    IncidentKind,
    Resend,
    ResendScope,
    ResendStatus,
    Status,
    Trigger,
    Webhook,
    ids,
)
from webhooks.ui.deliveries.forms import RateForm, ResendForm
from webhooks.ui.deliveries.views import act
from webhooks.ui.expired_session import is_shown_again, keeps_selection
from webhooks.ui.fields import focus_mistake
from webhooks.ui.requests import HtmxRequest, button, own_address, page, redirect_back

_EARLIER_SHOWN = 5
# These are due at once and need no copy; held deliveries stay on hold.
_WAITING = (Status.PENDING, Status.PARKED)
# Longer than any delivery id; longer values do not come from this page.
_MAX_ID_LENGTH = 30
# How far before a problem its first delivery is searched for, and limits of that search.
_MADE_WITHIN = timedelta(days=30)
_MAX_EARLIER = 2000
_SEARCH_SECONDS = 0.3
# A failed attempt and the webhook's failing state are recorded within this time.
_WRITTEN_WITHIN = timedelta(seconds=10)
# Times of “the last 24 hours” that are this close come from the same form, sent twice.
_SENT_TWICE_WITHIN = timedelta(minutes=1)
# How far the clock that makes ids may be ahead of the database's, in a link to the log.
_LINKED_BEYOND = timedelta(seconds=10)


@page("webhooks.view_delivery", "webhooks.test_webhook", has_form=True, guard=keeps_selection)
def create(request: HtmxRequest, pk: int | None = None) -> HttpResponse:
    """Show how many deliveries would be resent, then start: of a webhook, or of a selection."""
    if pk is None:
        return _of_selection(request)
    present = Webhook.objects.present().select_related("state").defer(*WEBHOOK_SECRETS)
    return _since(request, get_object_or_404(present, pk=pk))


@page("webhooks.view_delivery", "webhooks.test_webhook", has_form=True, guard=keeps_selection)
def create_for_all(request: HtmxRequest) -> HttpResponse:
    """Show how many deliveries of all webhooks would be resent, then start."""
    return _since(request, None)


def _of_selection(request: HtmxRequest) -> HttpResponse:
    data = request.POST if request.method == "POST" else request.GET
    chosen = [key for key in data.getlist("delivery") if key.startswith("dlv_")]
    chosen = [key for key in chosen if len(key) <= _MAX_ID_LENGTH and "\0" not in key]
    if not chosen:
        messages.warning(request, _("Select deliveries first."))
        return redirect_back(request, "webhooks:deliveries")
    chosen = sorted(set(chosen))[: resends.MAX_SELECTED]
    waiting = list(Delivery.objects.filter(pk__in=chosen, status__in=_WAITING))
    resend = Resend(scope=ResendScope.SELECTION, delivery_ids=chosen)
    counted = _counted(resend)
    is_confirmed = "confirm" in request.POST
    # Waiting deliveries are sent at once, so the page asks for a rate only if there are others.
    form = RateForm(request.POST if is_confirmed and counted["count"] else None)
    total = counted["count"] + len(waiting)
    if is_confirmed and total and not form.errors and not is_shown_again(request):
        at_once = act(request, Action.RESENT, waiting)
        if counted["count"]:
            resend.rate = form.cleaned_data["rate"]
            return _start(request, resend)
        text = ngettext("%d delivery is sent now.", "%d deliveries are sent now.", at_once)
        messages.success(request, text % at_once)
        return redirect_back(request, "webhooks:deliveries")
    focus_mistake(form)
    context = {
        **counted,
        "form": form,
        "chosen": chosen,
        "total": total,
        "left_out": len(chosen) - total,
        "back_url": own_address(request, data.get("next", "")) or reverse("webhooks:deliveries"),
    }
    status = 422 if form.errors else 200
    return render(request, "webhooks/resends/selection.html", context, status=status)


def _since(request: HtmxRequest, webhook: Webhook | None) -> HttpResponse:
    data: Any = request.POST if request.method == "POST" else request.GET
    incident_at = _incident_at(webhook) if webhook else None
    form = ResendForm(data if "scope" in data else None, incident_at=incident_at)
    resend = Resend(webhook=webhook, scope=ResendScope.FAILED)
    is_valid = not form.is_bound or form.is_valid()
    if form.is_bound and is_valid:
        resend.scope = form.cleaned_data["scope"]
        resend.since_at = form.begins_at()
        resend.rate = form.cleaned_data["rate"]
        is_asked = "recount" in request.POST or is_shown_again(request)
        if request.method == "POST" and not is_asked:
            return _start(request, resend)
    elif not form.is_bound:
        resend.since_at = incident_at or timezone.now() - timedelta(days=1)
    focus_mistake(form)
    context = {
        "webhook": webhook,
        "form": form,
        **(_counted(resend) if is_valid else {}),
        "earlier": Resend.objects.filter(webhook=webhook)[:_EARLIER_SHOWN],
        "is_live": bool(request.htmx),
    }
    if context["is_live"]:
        return render(request, "webhooks/resends/_count.html", context)
    status = 422 if form.errors else 200
    return render(request, "webhooks/resends/form.html", context, status=status)


def _incident_at(webhook: Webhook) -> datetime | None:
    """Return the start of an open problem of the webhook or its connection; None without one."""
    # A token that ends soon has not made deliveries fail.
    opened = problems.open_incidents(webhook).exclude(kind=IncidentKind.TOKEN_ENDING)
    opened_at = opened.order_by("opened_at").values_list("opened_at", flat=True).first()
    if opened_at is None:
        return None
    state = webhook.known_state
    failing_since_at = state.failing_since_at if state else None
    return _first_made(webhook, min(opened_at, failing_since_at or opened_at))


def _first_made(webhook: Webhook, began_at: datetime) -> datetime:
    """Return when the first delivery that failed was created, which is before the problem."""
    conditions = log_query.Conditions(
        webhook=webhook.pk, status=Status.FAILED, since=began_at - _MADE_WITHIN, until=began_at
    )
    found = log_query.pages(conditions, limit=_MAX_EARLIER, seconds=_SEARCH_SECONDS)
    made = [
        row.pk
        for page_ in found
        for row in page_.rows
        if row.trigger != Trigger.TEST
        and row.finished_at
        and row.finished_at >= began_at - _WRITTEN_WITHIN
    ]
    return ids.moment(min(made)) if made else began_at


def _counted(resend: Resend) -> dict[str, Any]:
    count = resends.count(resend)
    return {
        "resend": resend,
        "count": count,
        "is_more": count > resends.COUNT_LIMIT,
        "limit": resends.COUNT_LIMIT,
        "seconds": count / resend.rate,
    }


def _start(request: HtmxRequest, resend: Resend) -> HttpResponse:
    # A login is required, so the user has a primary key.
    resend.created_by_id = request.user.pk
    try:
        with transaction.atomic():
            events.start_resend(resend)
            audit.record(Action.RESEND_STARTED, resend, user=request.user, note=_note(resend))
    except resends.AlreadyRunningError as other:
        if _is_repeated(resend, other.resend):
            messages.info(request, _("This resend was already started."))
        else:
            text = _(
                "Not started: this resend is still running. Stop it, or wait until it has ended."
            )
            messages.warning(request, text)
        return redirect("webhooks:resend", other.resend.pk)
    return redirect("webhooks:resend", resend.pk)


def _is_repeated(resend: Resend, earlier: Resend) -> bool:
    """Return whether the form was sent twice, as by a double click."""
    if resend.since_at is None or earlier.since_at is None:
        # A selection is refused only for the same selection.
        return True
    is_same = (resend.scope, resend.rate) == (earlier.scope, earlier.rate)
    return is_same and abs(resend.since_at - earlier.since_at) < _SENT_TWICE_WITHIN


def _note(resend: Resend) -> str:
    if resend.total:
        return audit.note("deliveries", count=resend.total)
    return audit.note("resend_scope", value=resend.scope)


@page("webhooks.view_delivery")
def detail(request: HtmxRequest, pk: int) -> HttpResponse:
    """Show the progress of a resend; the page polls while it runs."""
    resend = get_object_or_404(_resends(), pk=pk)
    is_running = resend.status == ResendStatus.RUNNING
    left = max(resend.total - resend.done, 0)
    context = {
        "resend": resend,
        "webhook": resend.webhook,
        "is_running": is_running,
        "is_counting": is_running and not resend.total,
        "left": left,
        "left_seconds": left / resend.rate,
        "skipped": left if resend.status == ResendStatus.FINISHED else 0,
        "results": _results(resend),
        "log_query": _log_query(resend),
    }
    is_part = bool(request.htmx)
    name = "webhooks/resends/_progress.html" if is_part else "webhooks/resends/detail.html"
    return render(request, name, context)


def _resends() -> QuerySet[Resend]:
    """Return resends with their webhooks, without secrets."""
    secrets = [f"webhook__{name}" for name in WEBHOOK_SECRETS]
    return Resend.objects.select_related("webhook", "created_by").defer(*secrets)


def _results(resend: Resend) -> list[tuple[str, str, int]]:
    """Return (status, label, count) of the new deliveries of a webhook's resend."""
    if not resend.webhook_id or resend.scope == ResendScope.SELECTION:
        return []
    counts = resends.results(resend)
    return [(one.value, str(one.label), counts[one]) for one in Status if counts[one]]


def _log_query(resend: Resend) -> str:
    """Return the filters that show the new deliveries in the log."""
    query: dict[str, Any] = {"trigger": Trigger.BULK.value, "since": resend.created_at.isoformat()}
    if resend.finished_at:
        # Not those of a later resend.
        query["until"] = (resend.finished_at + _LINKED_BEYOND).isoformat()
    return urlencode(query | ({"webhook": resend.webhook_id} if resend.webhook_id else {}))


@button("webhooks.view_delivery", "webhooks.test_webhook")
def stop(request: HtmxRequest, pk: int) -> HttpResponse:
    resend = get_object_or_404(_resends(), pk=pk)
    with transaction.atomic():
        if stopped := resends.stop(resend):
            audit.record(Action.RESEND_STOPPED, resend, user=request.user)
    if stopped:
        messages.success(request, _("Stopped. Deliveries resent before that still go out."))
    else:
        messages.info(request, _("It had ended already."))
    return redirect("webhooks:resend", resend.pk)
