"""What a webhook's page says first: open problems, what waits, and what releases it.

Reads rows, bounded at any size of the log; writes nothing.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db.models import Q
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks.alerts import problems
from webhooks.alerts.problems import TOKEN_ENDS_WITHIN
from webhooks.models import (
    Delivery,
    HoldReason,
    Incident,
    IncidentKind,
    PauseReason,
    Status,
    TokenState,
    Trigger,
    Webhook,
    ids,
)
from webhooks.ui.status import needs_token, state_of, token_of
from webhooks.ui.webhook_form import alerts, delivery

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

# Counting stops here: "1,000+" says enough, and a webhook may hold millions.
MAX_COUNTED = 1000
# Only the head of an ordered webhook fails; a few more come from before it was ordered.
_MAX_HEADS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """An open incident; `action` ends it: authorize, settings, resume, or empty for nothing."""

    kind: str
    headline: "StrOrPromise"
    sentence: str
    advice: "StrOrPromise"
    action: str
    since: datetime
    told_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A group of deliveries that does not move by itself."""

    label: "StrOrPromise"
    status: Status
    count: str
    release: "StrOrPromise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blockage:
    """The head of an ordered webhook that fails, and how many wait behind it."""

    head: Delivery
    behind: int
    behind_text: str
    is_sending: bool


def situation(webhook: Webhook) -> dict[str, Any]:
    """Return the context of everything above the recent deliveries."""
    held = _held(webhook)
    parked = _parked(webhook)
    return {
        **problems_of(webhook),
        "held": counted(sum(held.values())),
        "held_by_pause": held[HoldReason.PAUSED],
        "held_by_pause_text": counted(held[HoldReason.PAUSED]),
        "parked": counted(parked),
        "waiting_groups": _groups(held, parked),
        "blockage": _block(webhook),
        "asks_before_resume": not webhook.is_active
        and bool(held[HoldReason.PAUSED] or webhook.pause_reason != PauseReason.PERSON),
        "needs_probe": webhook.pause_reason in (PauseReason.GONE, PauseReason.FAILING),
        "probe": _probe(webhook),
        "delivery_summary": delivery.summary(
            **{name: getattr(webhook, name) for name in delivery.FIELDS}
        ),
        "alerts_summary": alerts.summary(
            **{name: getattr(webhook, name) for name in alerts.FIELDS}
        ),
    }


def problems_of(webhook: Webhook) -> dict[str, Any]:
    """Return the context of the open problems, which a refresh of the page brings anew."""
    notices = _notices(webhook)
    return {
        "notices": [one for one in notices if one.action != "resume"],
        "pause_notice": next((one for one in notices if one.action == "resume"), None),
        "hears_nobody": not (webhook.alert_recipients or settings.WEBHOOKS_ALERT_RECIPIENTS),
        "is_muted": webhook.mutes_alerts(timezone.now()),
    }


def counted(count: int) -> str:
    shown = number_format(min(count, MAX_COUNTED), force_grouping=True)
    return f"{shown}+" if count > MAX_COUNTED else str(shown)


def held_by_pause(webhook: Webhook) -> int:
    """Count what a resume would release, up to one more than MAX_COUNTED."""
    return _held(webhook)[HoldReason.PAUSED]


def _held(webhook: Webhook) -> Counter[str]:
    rows = Delivery.objects.filter(webhook=webhook, status=Status.HELD).order_by()
    return Counter(rows.values_list("hold_reason", flat=True)[: MAX_COUNTED + 1])


def _parked(webhook: Webhook) -> int:
    rows = Delivery.objects.filter(webhook=webhook, status=Status.PARKED).order_by()
    return len(rows.values_list("pk")[: MAX_COUNTED + 1])


def _groups(held: Counter[str], parked: int) -> list[Waiting]:
    releases = {
        HoldReason.PAUSED: _("Released in order when the webhook is resumed."),
        HoldReason.REAUTHORIZATION: _("Released in order by the next Get new access token."),
        HoldReason.MISCONFIGURED: _(
            "Correct the OAuth settings, then press Get new access token: it releases them."
        ),
        HoldReason.NO_TOKEN: _("Released in order by the first Get new access token."),
    }
    groups = [
        Waiting(
            label=reason.label, status=Status.HELD, count=counted(held[reason]), release=sentence
        )
        for reason, sentence in releases.items()
        if held[reason]
    ]
    if parked:
        groups.append(
            Waiting(
                label=_("The process died three times while it was sending"),
                status=Status.PARKED,
                count=counted(parked),
                release=_("Look at them in the log, then press Send now there."),
            )
        )
    return groups


def _notices(webhook: Webhook) -> list[Notice]:
    """Return what is open, here or of its connection, and still true: closing takes a look."""
    concerned = Q(webhook=webhook) | Q(credential=webhook.credential_id)
    found = Incident.objects.filter(concerned, closed_at=None)
    return [_notice(one, webhook) for one in found if _is_true(IncidentKind(one.kind), webhook)]


def _is_true(kind: IncidentKind, webhook: Webhook) -> bool:
    token, state = token_of(webhook.credential), state_of(webhook)
    match kind:
        case IncidentKind.REAUTHORIZATION:
            return bool(token and token.state == TokenState.NEEDS_REAUTHORIZATION)
        case IncidentKind.MISCONFIGURED:
            return bool(token and token.state == TokenState.MISCONFIGURED)
        case IncidentKind.TOKEN_ENDING:
            is_usable = token and not needs_token(webhook.credential)
            ends_at = token.refresh_token_expires_at if token and is_usable else None
            return ends_at is not None and ends_at <= timezone.now() + TOKEN_ENDS_WITHIN
        case IncidentKind.FAILING:
            # A share of failures is judged by who opened the incident.
            fails = bool(state and state.failing_since_at) or bool(webhook.alert_failure_percent)
            return webhook.is_active and fails
        case IncidentKind.PAUSED:
            return not webhook.is_active


# Of each kind of incident: its colour, headline, advice, and the action that ends it.
_WORDS: dict[str, tuple[str, "StrOrPromise", "StrOrPromise", str]] = {
    IncidentKind.REAUTHORIZATION: (
        "danger",
        gettext_lazy("It needs re-authorization"),
        gettext_lazy("Deliveries are held and go out in order after the next access token."),
        "authorize",
    ),
    IncidentKind.MISCONFIGURED: (
        "danger",
        gettext_lazy("Its OAuth client is misconfigured"),
        gettext_lazy(
            "Deliveries are held until the settings are corrected and a token is obtained."
        ),
        "settings",
    ),
    IncidentKind.FAILING: (
        "danger",
        gettext_lazy("It is failing"),
        gettext_lazy("Deliveries are tried again by the retry schedule."),
        "",
    ),
    IncidentKind.PAUSED: (
        "danger",
        gettext_lazy("It was paused because the receiver does not take deliveries"),
        "",
        "resume",
    ),
    IncidentKind.TOKEN_ENDING: (
        "warning",
        gettext_lazy("It needs re-authorization soon"),
        gettext_lazy("Get a new access token before that, and nothing is held."),
        "authorize",
    ),
}


def _notice(incident: Incident, webhook: Webhook) -> Notice:
    kind, headline, advice, action = _WORDS[incident.kind]
    return Notice(
        kind=kind,
        headline=headline,
        sentence=problems.sentence_now(incident, webhook, timezone.now()),
        advice=advice,
        action=action,
        since=_began_at(incident, webhook),
        told_at=incident.told_at,
    )


def _began_at(incident: Incident, webhook: Webhook) -> datetime:
    state = state_of(webhook)
    since = state.failing_since_at if state and incident.kind == IncidentKind.FAILING else None
    return min(incident.opened_at, since or incident.opened_at)


def _block(webhook: Webhook) -> Blockage | None:
    """Find the failing head of an ordered webhook; None when nothing waits behind one."""
    if not webhook.is_ordered or not webhook.is_active:
        return None
    pending = Delivery.objects.filter(webhook=webhook, status=Status.PENDING)
    # A retry is due last, so the failing head is at the far end of the index of due rows.
    last_due = list(pending.order_by("-next_attempt_at")[:_MAX_HEADS])
    sending = list(Delivery.objects.filter(webhook=webhook, status=Status.SENDING)[:_MAX_HEADS])
    failing = [one for one in (*last_due, *sending) if one.failure_count]
    if not failing:
        return None
    head = min(failing, key=lambda one: one.pk)
    behind = len(pending.exclude(pk=head.pk).order_by().values_list("pk")[: MAX_COUNTED + 1])
    if not behind:
        return None
    return Blockage(
        head=head,
        behind=behind,
        behind_text=counted(behind),
        is_sending=head.status == Status.SENDING,
    )


def _probe(webhook: Webhook) -> Delivery | None:
    """Return the newest test since the webhook was paused."""
    if webhook.is_active or webhook.pause_reason == PauseReason.PERSON or not webhook.paused_at:
        return None
    tests = Delivery.objects.filter(webhook=webhook, trigger=Trigger.TEST)
    since = ids.floor("dlv", min(webhook.paused_at, timezone.now()).timestamp())
    return tests.filter(pk__gte=since).order_by("-pk").first()
