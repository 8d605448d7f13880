"""The page of one webhook: its status, charts and deliveries, and its actions."""

from collections import defaultdict
from functools import wraps
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _

from webhooks import audit, catalogue, events
from webhooks.audit.versions import FIELDS
from webhooks.delivery import holds, trash
from webhooks.delivery_log import charts, explain
from webhooks.delivery_log.charts import Period
from webhooks.models import (
    AUTHORIZATION_FIELDS,
    CREDENTIAL_SECRETS,
    FINAL_STATUSES,
    OPEN_STATUSES,
    WEBHOOK_SECRETS,
    Action,
    Delivery,
    Event,
    PauseReason,
    Status,
    Webhook,
    token_of,
)
from webhooks.security.encryption import SecretUnreadableError
from webhooks.ui import event_limit, shared_credentials
from webhooks.ui.deliveries.views import act, seen_rows
from webhooks.ui.requests import (
    HtmxRequest,
    View,
    button,
    offer_undo,
    own_address,
    page,
    redirect_back,
)
from webhooks.ui.status import (
    SECRETS_OF_TOKEN,
    count_open,
    held_by_pause,
    needs_token,
    open_problems,
    page_status,
    status_of,
    sweep_progress,
)
from webhooks.ui.trail import audit_trail
from webhooks.ui.webhook_detail.charts import chart_link, draw, log_url
from webhooks.ui.webhook_form import context as form_context

RECENT_DELIVERIES = 15
EVENTS_PER_PAGE = 30
_MAX_FOUND = 50


@page("webhooks.view_webhook")
def detail(request: HtmxRequest, pk: int) -> HttpResponse:
    webhook = _find(pk)
    credential = webhook.credential
    above = page_status(webhook)
    context = {
        "webhook": webhook,
        "credential": credential,
        "token": token_of(credential),
        "needs_token": needs_token(credential),
        "is_oauth": credential.is_oauth,
        "secrets": {
            **{field: webhook.has_secret(field) for field in WEBHOOK_SECRETS},
            **{field: credential.has_secret(field) for field in CREDENTIAL_SECRETS},
        },
        "previous_secret_until": webhook.rotation_ends_at,
        **above,
        # Whether a notice already shows the token's error.
        "has_error_notice": any(
            one["action"] in ("authorize", "settings") and one["kind"] == "danger"
            for one in above["notices"]
        ),
        **_charts(request, webhook),
        **_recent(request, webhook, held=above["held"], parked=above["parked"]),
        **audit_trail(webhook),
    }
    return render(request, "webhooks/webhook_detail/detail.html", context)


def _find(pk: int) -> Webhook:
    related = ("state", "created_by", "credential__token__granted_by")
    present = Webhook.objects.present().select_related(*related)
    return get_object_or_404(
        present.defer(*(f"credential__{one}" for one in SECRETS_OF_TOKEN)), pk=pk
    )


# ---- Parts that refresh ----------------------------------------------------------------------


def _part_of_page(view: View) -> View:
    """Serve only htmx: a browser gets the whole page, and an expired session 401, not a login."""

    @login_not_required
    @wraps(view)
    def part(request: HtmxRequest, pk: int) -> HttpResponseBase:
        if not request.htmx:
            return redirect("webhooks:detail", pk)
        if not request.user.is_authenticated:
            return HttpResponse(status=401)
        return view(request, pk)

    return part


@page("webhooks.view_webhook", guard=_part_of_page)
def charts_part(request: HtmxRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.present().only("pk"), pk=pk)
    context = {"webhook": webhook, **_charts(request, webhook)}
    if request.GET.get("seen") == context["charts_seen"]:
        return HttpResponse(status=204)
    return render(request, "webhooks/webhook_detail/_charts.html", context)


@page("webhooks.view_webhook", guard=_part_of_page)
def recent_part(request: HtmxRequest, pk: int) -> HttpResponse:
    webhook = _find(pk)
    held, parked = count_open(webhook, Status.HELD), count_open(webhook, Status.PARKED)
    context = {"webhook": webhook, **_recent(request, webhook, held=held, parked=parked)}
    if request.GET.get("seen") == context["recent_seen"]:
        # No changes: htmx leaves the page as it is.
        return HttpResponse(status=204)
    # The status above is part of the response, so that both show the same last error.
    context |= {"needs_token": needs_token(webhook.credential), **open_problems(webhook)}
    return render(request, "webhooks/webhook_detail/_recent_part.html", context)


def _charts(request: HtmxRequest, webhook: Webhook) -> dict[str, Any]:
    wanted = request.GET.get("period", "")
    period = Period(wanted) if wanted in Period.values else Period.DAY
    chart = charts.read(webhook.pk, period)
    return {
        "chart": draw(chart, chart_link(webhook.pk, request.user)),
        "periods": list(Period),
        # Changes when something was sent, or when a new hour begins.
        "charts_seen": f"{chart.whole.total}-{chart.whole.ends_at:%d%H}",
    }


def _recent(request: HtmxRequest, webhook: Webhook, *, held: str, parked: str) -> dict[str, Any]:
    """Return the newest deliveries and what waits; `recent_seen` changes with any of them."""
    found = list(
        Delivery.objects.filter(webhook=webhook)
        .select_related("event")
        .defer("event__payload")
        .order_by("-id")[:RECENT_DELIVERIES]
    )
    judged = status_of(webhook)
    waiting = count_open(webhook, Status.PENDING, Status.SENDING)
    moving = sweep_progress(webhook)
    shown = (waiting, held, parked, moving, judged["full_sentence"])
    seen, new_ids = seen_rows(request, found, *shown)
    return {
        "status": judged,
        "deliveries": found,
        "newest": found[0] if found else None,
        "new_ids": new_ids,
        "recent_seen": seen,
        # A paused webhook with nothing in flight does not change.
        "may_change": webhook.is_active or waiting != "0",
        "moving": moving,
        "waiting": waiting,
        "held": held,
        "parked": parked,
        **_log_addresses(request, webhook),
    }


def _log_addresses(request: HtmxRequest, webhook: Webhook) -> dict[str, str]:
    if not request.user.has_perm("webhooks.view_delivery"):
        return {}
    return {
        "log_url": log_url(webhook.pk),
        **{f"{status}_url": log_url(webhook.pk, status=status) for status in Status},
    }


# ---- Pause, resume, copy, delete --------------------------------------------------------------


@button("webhooks.change_webhook")
def pause(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    if webhook.is_active:
        with transaction.atomic():
            events.pause(webhook)
            audit.record(Action.PAUSED, webhook, user=request.user)
        messages.success(
            request, _("“%s” is paused. Nothing is sent until it is resumed.") % webhook
        )
    else:
        messages.info(request, _("Nothing changed: “%s” is paused already.") % webhook)
    return redirect_back(request, "webhooks:detail", webhook.pk)


@button("webhooks.change_webhook")
def resume(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    choice = request.POST.get("held", "")
    if not webhook.is_active:
        if choice not in ("send", "cancel") and held_by_pause(webhook):
            messages.info(request, _("Choose below what happens to the deliveries on hold."))
            return redirect(reverse("webhooks:detail", args=[webhook.pk]) + "#resume")
        messages.success(request, resumed(request, webhook, cancels_held=choice == "cancel"))
    else:
        messages.info(request, _("Nothing changed: “%s” is active already.") % webhook)
    return redirect_back(request, "webhooks:detail", webhook.pk)


def resumed(request: HttpRequest, webhook: Webhook, *, cancels_held: bool) -> str:
    """Resume a webhook; return a sentence, also for the audit trail, about its held deliveries."""
    with transaction.atomic():
        count = events.resume(webhook, cancels_held=cancels_held)
        note = audit.note("resumed", name=webhook.name)
        if count:
            code = "resumed_and_cancelled" if cancels_held else "resumed_and_sent"
            code += "_many" if count >= holds.ROWS_AT_ONCE else ""
            note = audit.note(code, name=webhook.name, count=count)
        audit.record(Action.RESUMED, webhook, user=request.user, note=note)
    return audit.sentence(note)


@button("webhooks.add_webhook", "webhooks.view_webhook")
def duplicate(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    types = catalogue.types_for(webhook.event_types)
    if full := event_limit.exceeded(types, event_limit.count_webhooks()):
        sentence = _(
            "Not copied: %(types)s already has %(limit)d webhooks, the limit for one event type. "
            "Delete one first."
        )
        messages.error(request, sentence % full)
        return redirect_back(request, "webhooks:detail", webhook.pk)
    try:
        copy = _copy_of(webhook)
        copy.created_by_id = request.user.pk
        with transaction.atomic():
            if webhook.credential.is_shared:
                shared_credentials.lock_connection(webhook.credential_id)
                # The copy also has its own credential, as on the form.
                copy.credential.save()
                copy.credential = webhook.credential
            copy.save()
            note = audit.note("copy_of", name=webhook.name)
            audit.record(Action.CREATED, copy, user=request.user, note=note)
    except (SecretUnreadableError, shared_credentials.ConnectionUnavailableError) as error:
        messages.error(request, str(error))
        return redirect_back(request, "webhooks:detail", webhook.pk)
    text = _(
        "This is a copy of “%s” with its settings and credentials. It is paused, and has "
        "its own signing secret and no access token. Review it, then resume it."
    )
    messages.success(request, text % webhook)
    if not request.user.has_perm("webhooks.change_webhook"):
        return redirect("webhooks:detail", copy.pk)
    form_context.reveal_signing_secret(request, copy)
    return redirect("webhooks:edit", copy.pk)


def _copy_of(webhook: Webhook) -> Webhook:
    """Return an unsaved, paused copy. Secrets are decrypted and encrypted again for the new row."""
    copy = Webhook()
    copy.copy_columns(webhook, {*FIELDS, "headers_json", "alerts_muted_until"})
    copy.credential.copy_columns(webhook.private_credential, AUTHORIZATION_FIELDS)
    longest = 100 - len(_("%s (copy)") % "")
    copy.name = _("%s (copy)") % webhook.name[:longest]
    copy.pause(PauseReason.PERSON)
    return copy


@page("webhooks.delete_webhook", has_form=True)
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    found = Webhook.objects.present().select_related("credential__token")
    webhook = get_object_or_404(found, pk=pk)
    if request.method == "POST":
        with transaction.atomic():
            events.delete(webhook)
            audit.record(Action.DELETED, webhook, user=request.user)
        offer_undo(request, _("“%s” is deleted.") % webhook, "restore", [pk])
        return redirect_back(request, "webhooks:list")
    context = {
        "webhook": webhook,
        # The filtered list, if it linked here.
        "next": own_address(request, request.GET.get("next", "")),
        "open_count": count_open(webhook, *OPEN_STATUSES),
        "retention_days": settings.WEBHOOKS_RETENTION_DAYS,
        "kept_days": trash.KEPT_DAYS,
    }
    return render(request, "webhooks/webhook_detail/confirm_delete.html", context)


# ---- The delivery that blocks an ordered webhook ----------------------------------------------


@button("webhooks.test_webhook")
def send_blocking(request: HttpRequest, pk: int, delivery_id: str) -> HttpResponse:
    return _unblock(request, pk, delivery_id, Action.RESENT)


@button("webhooks.change_webhook")
def cancel_blocking(request: HttpRequest, pk: int, delivery_id: str) -> HttpResponse:
    return _unblock(request, pk, delivery_id, Action.CANCELLED)


def _unblock(request: HttpRequest, pk: int, delivery_id: str, action: Action) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    found = get_object_or_404(Delivery, pk=delivery_id.replace("\0", ""), webhook=webhook)
    # A delivery that has finished since then is not resent as a new one.
    if found.status in FINAL_STATUSES or not act(request, action, [found]):
        messages.warning(request, _("%s is no longer waiting. View it in the log.") % delivery_id)
    elif action == Action.RESENT:
        messages.success(request, _("The next attempt of %s starts now.") % delivery_id)
    else:
        sentence = _("%s is cancelled. The deliveries behind it are sent now.")
        messages.success(request, sentence % delivery_id)
    return redirect("webhooks:detail", pk)


# ---- Why an event was not sent ----------------------------------------------------------------


@page("webhooks.view_webhook")
def why_not_sent(request: HttpRequest, pk: int) -> HttpResponse:
    """Explain one event, or list events to choose from, each with its verdict."""
    webhook = get_object_or_404(Webhook, pk=pk)
    words = request.GET.get("q", "").replace("\0", "").strip()[:200]
    wanted = request.GET.get("event", "").replace("\0", "")[:30]
    found = list(_find_events(words)) if words else []
    if words and len(found) == 1:
        address = reverse("webhooks:why_not_sent", args=[pk])
        return redirect(f"{address}?event={found[0].pk}")
    event = Event.objects.filter(pk=wanted).first() if wanted else None
    before = request.GET.get("before", "").replace("\0", "")[:30]
    listed = found if words else [] if event else _newest_events(before)
    older = listed[EVENTS_PER_PAGE - 1].pk if not words and len(listed) > EVENTS_PER_PAGE else ""
    listed = listed if words else listed[:EVENTS_PER_PAGE]
    judge = explain.judge_for(webhook)
    deliveries = _deliveries_of(webhook, [event] if event else listed)
    context = {
        "webhook": webhook,
        "words": words,
        "wanted": wanted,
        "event": event,
        "verdict": judge.verdict(event, deliveries[event.pk]) if event else None,
        "rows": [(one, judge.verdict(one, deliveries[one.pk])) for one in listed],
        "older": older,
        "before": before,
        "may_see_payload": request.user.has_perm("webhooks.view_payload"),
    }
    return render(request, "webhooks/webhook_detail/why_not_sent.html", context)


def _find_events(words: str) -> QuerySet[Event]:
    """Find events by the id of the event, a delivery or a call; each has an index."""
    if words.startswith("evt_"):
        return Event.objects.filter(pk=words)
    if words.startswith("dlv_"):
        return Event.objects.filter(deliveries=words)
    return Event.objects.filter(call_id=words).order_by("-id")[:_MAX_FOUND]


def _newest_events(before: str) -> list[Event]:
    """Return a page of events, newest first, and one more if there are older ones.

    `before` is the last id of the previous page.
    """
    events = Event.objects.order_by("-id")
    if before:
        events = events.filter(pk__lt=before)
    return list(events[: EVENTS_PER_PAGE + 1])


def _deliveries_of(webhook: Webhook, events: list[Event]) -> dict[str, list[Delivery]]:
    """Return this webhook's deliveries of each event, newest first."""
    found: dict[str, list[Delivery]] = defaultdict(list)
    ids = [event.pk for event in events]
    for delivery in Delivery.objects.of_events(ids, webhook=webhook.pk):
        found[delivery.event_id].append(delivery)
    return found
