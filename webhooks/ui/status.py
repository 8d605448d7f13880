"""The state of a webhook: status, open problems, waiting deliveries, settings, and token.

Every query is bounded, whatever the size of the log. Template contexts are dictionaries.
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from webhooks import oauth
from webhooks.alerts import channels, problems
from webhooks.alerts.problems import TOKEN_ENDS_WITHIN
from webhooks.delivery import outcomes
from webhooks.delivery.fan_out import is_readable
from webhooks.delivery.plans import destination_problem
from webhooks.delivery_log import figures
from webhooks.models import (
    BLOCKED_STATES,
    CREDENTIAL_SECRETS,
    TOKEN_SECRETS,
    WEBHOOK_SECRETS,
    Credential,
    Delivery,
    HoldReason,
    Incident,
    IncidentKind,
    OAuthExchange,
    OAuthToken,
    PauseReason,
    Status,
    TokenState,
    Trigger,
    Webhook,
    ids,
    token_of,
)
from webhooks.network import UnsafeURLError, parse_url

# Encrypted columns of related rows; no list or page of a webhook decrypts them.
SECRETS_OF_TOKEN = tuple(f"token__{name}" for name in TOKEN_SECRETS)
# Encrypted columns of a webhook, of the credential it uses, and of that credential's token.
SECRETS_OF_WEBHOOK = (
    *WEBHOOK_SECRETS,
    *(f"credential__{name}" for name in (*CREDENTIAL_SECRETS, *SECRETS_OF_TOKEN)),
)
# Counting stops here and shows "1,000+".
MAX_COUNTED = 1000
# With ordered delivery only the first delivery fails; others failed before it was turned on.
_MAX_FAILING = 20
_EXCHANGES_SHOWN = 10
# Long enough that a user who is away for a few days still sees it in time.
_GRANT_ENDS_WITHIN = timedelta(days=7)


# ---- The status: one word and one sentence -----------------------------------------------------


def status_of(webhook: Webhook, *, is_failing: bool | None = None) -> dict[str, Any]:
    """Return the status of a webhook, by the first problem: a pause, its token, its receiver.

    `kind` sets the colour: success, held, warning, danger or neutral. `error` explains the
    provider's last error; a page that shows it elsewhere uses `sentence` instead of
    `full_sentence`. A list that asks `problems.are_failing` in its query passes `is_failing`.
    """
    if not webhook.is_active:
        return _paused(webhook)
    if webhook.cancels_before:
        sentence = _("Waiting deliveries are being cancelled. New events are sent after that.")
        return _status("neutral", _("Active"), sentence)
    if problem := _credentials_problem(webhook):
        return problem
    if not is_readable(webhook.filter):
        sentence = _("The webhook's filter cannot be read. Edit it and save it again.")
        return _status("held", _("On hold"), sentence)
    if is_failing is None:
        is_failing = problems.is_failing(webhook, timezone.now())
    state = webhook.known_state
    since = state.failing_since_at if state else None
    if not is_failing and not since:
        return _status("success", _("Active"), _("Events are sent as they happen."))
    error = outcomes.sentence(state.last_error) if state else ""
    if not is_failing:
        judged = _status("warning", _("Retrying"), _("The last attempt failed."), error)
    elif since:
        sentence = _("No success since %s.") % figures.time_or_day(since)
        judged = _status("danger", _("Failing"), sentence, error)
    else:
        judged = _status("danger", _("Failing"), _("Too many attempts fail."), error)
    # The error says more than the sentence, where there is room for one of them only.
    return judged | {"full_sentence": f"{error} {judged['sentence']}".strip()}


def _status(kind: str, label: str, sentence: str, error: str = "") -> dict[str, Any]:
    return {
        "kind": kind,
        "label": label,
        "sentence": sentence,
        "full_sentence": f"{sentence} {error}".strip(),
        "error": error,
    }


def _paused(webhook: Webhook) -> dict[str, Any]:
    sentences = {
        PauseReason.GONE: _(
            "Paused because the receiver answered 410 Gone. Correct the URL, then resume."
        ),
        PauseReason.FAILING: _(
            "Paused because no delivery succeeded for days. Fix the receiver, then resume."
        ),
    }
    if sentence := sentences.get(PauseReason(webhook.pause_reason)):
        return _status("danger", _("Paused"), sentence)
    sentence = _("Nothing is sent. Deliveries are on hold until it is resumed.")
    return _status("neutral", _("Paused"), sentence)


def _credentials_problem(webhook: Webhook) -> dict[str, Any] | None:
    credential = webhook.credential
    problem = _token_problem(credential) if credential.is_oauth else None
    if elsewhere := _destination_problem(webhook):
        return _status("held", _("On hold"), elsewhere)
    if problem is None or not credential.is_shared:
        return problem
    sentence = _("Connection “%(name)s”: %(sentence)s") % {"name": credential.name, **problem}
    return _status(problem["kind"], problem["label"], sentence, problem["error"])


def _destination_problem(webhook: Webhook) -> str:
    with suppress(UnsafeURLError):
        return destination_problem(webhook, parse_url(webhook.url).origin)
    return ""


def _token_problem(credential: Credential) -> dict[str, Any] | None:
    token = token_of(credential)
    if token is None or token.state == TokenState.NONE:
        if credential.is_machine:
            return None
        sentence = _("Deliveries are on hold until you get a new access token.")
        return _status("held", _("On hold"), sentence)
    if token.state == TokenState.NEEDS_REAUTHORIZATION:
        sentence = _("Deliveries are on hold until the webhook is authorized again.")
        return _status("held", _("On hold"), sentence, oauth.sentence(token.last_error))
    if token.state == TokenState.MISCONFIGURED:
        sentence = _("Deliveries are on hold until the OAuth settings are corrected.")
        return _status("held", _("On hold"), sentence, oauth.sentence(token.last_error))
    return None


def has_token_problem(credential: Credential) -> bool:
    """Return whether requests cannot be authorized until the token or the settings are fixed."""
    return credential.is_oauth and _token_problem(credential) is not None


def needs_token(credential: Credential) -> bool:
    """Return whether a user has to press Get new access token before anything is sent."""
    return not credential.is_machine and has_token_problem(credential)


# ---- The webhook's page: open problems and waiting deliveries ----------------------------------


def page_status(webhook: Webhook) -> dict[str, Any]:
    """Return the context of the part of the page above the recent deliveries."""
    held = _held(webhook)
    parked = Delivery.objects.in_status(Status.PARKED, webhook=webhook.pk).count_to(MAX_COUNTED)
    problems_shown = open_problems(webhook)
    has_only_channels = not webhook.alert_recipients and problems_shown["has_channel"]
    return {
        **problems_shown,
        "held": capped_count(sum(held.values())),
        "held_by_pause": held[HoldReason.PAUSED],
        "held_by_pause_text": capped_count(held[HoldReason.PAUSED]),
        "parked": capped_count(parked),
        "waiting_groups": _waiting_groups(webhook, held, parked),
        "blocking": _blocking(webhook),
        "asks_before_resume": not webhook.is_active
        and bool(held[HoldReason.PAUSED] or webhook.pause_reason != PauseReason.PERSON),
        "needs_test": webhook.pause_reason in (PauseReason.GONE, PauseReason.FAILING),
        "last_test": _last_test(webhook),
        "delivery_summary": delivery_summary(vars(webhook)),
        "alerts_summary": _("Only the channels on the Alerts page")
        if has_only_channels
        else alerts_summary(vars(webhook)),
    }


def open_problems(webhook: Webhook) -> dict[str, Any]:
    """Return the context of the open problems, the part that a page refresh replaces."""
    has_channel = channels.covering([webhook.pk]).exists()
    notices = _notices(webhook, has_channel=has_channel)
    return {
        "notices": [one for one in notices if one["action"] != "resume"],
        "pause_notice": next((one for one in notices if one["action"] == "resume"), None),
        "has_channel": has_channel,
    }


def capped_count(count: int) -> str:
    return figures.counted(count, MAX_COUNTED)


def count_open(webhook: Webhook, *statuses: Status) -> str:
    """Count a webhook's deliveries up to a limit, as text: "12" or "1,000+".

    Queries each status separately, because each has its own partial index.
    """
    rows = [Delivery.objects.in_status(status, webhook=webhook.pk) for status in statuses]
    return capped_count(sum(found.count_to(MAX_COUNTED) for found in rows))


def held_by_pause(webhook: Webhook) -> int:
    """Count the deliveries that a resume would release; above MAX_COUNTED: at least as many."""
    return _held(webhook)[HoldReason.PAUSED]


def sweep_progress(webhook: Webhook) -> str:
    """Return how many deliveries the sweep still has to move after a pause or resume, or ""."""
    stops = not webhook.is_active or webhook.cancels_before
    waiting = Delivery.objects.in_status(Status.PENDING).filter(webhook=webhook)
    left = waiting.exclude(trigger=Trigger.TEST).count_to(MAX_COUNTED) if stops else 0
    held = held_by_pause(webhook) if webhook.is_active else 0
    if not left and not held:
        return ""
    if not webhook.is_active:
        text = _("Putting deliveries on hold: %(count)s left.")
    elif webhook.cancels_before:
        text = _("Cancelling deliveries: %(count)s left.")
    else:
        text = _("Releasing deliveries: %(count)s left.")
    return text % {"count": capped_count(min(left + held, MAX_COUNTED + 1))}


def _held(webhook: Webhook) -> Counter[str]:
    """Count the oldest and the newest deliveries on hold by reason, about MAX_COUNTED of each.

    No index names the reason. A token that is lost holds the older ones, a pause the newer ones.
    """
    rows = Delivery.objects.in_status(Status.HELD).filter(webhook=webhook)
    found = rows.values_list("pk", "hold_reason")
    reasons = dict(found.order_by("id")[: MAX_COUNTED + 1])
    if len(reasons) > MAX_COUNTED:
        reasons |= dict(found.order_by("-id")[: MAX_COUNTED + 1])
    return Counter(reasons.values())


def _waiting_groups(webhook: Webhook, held: Counter[str], parked: int) -> list[dict[str, Any]]:
    """Return the deliveries that need action from a user, by reason, with what releases them."""
    releases = {
        HoldReason.PAUSED: _("Sent in order when the webhook is resumed."),
        HoldReason.REAUTHORIZATION: _("Press Get new access token to send them in order."),
        HoldReason.MISCONFIGURED: _(
            "Correct the OAuth settings, then press Get new access token to send them in order."
        ),
        HoldReason.NO_TOKEN: _("Press Get new access token to send them in order."),
    }
    if held[HoldReason.MISCONFIGURED] and not has_token_problem(webhook.credential):
        # A missing password or host of a connection, or a filter that cannot be read.
        releases[HoldReason.MISCONFIGURED] = _destination_problem(webhook) or _(
            "Correct the settings to send them in order."
        )
    groups = [
        {
            "label": reason.label,
            "status": Status.HELD,
            "count": capped_count(held[reason]),
            "release": sentence,
        }
        for reason, sentence in releases.items()
        if held[reason]
    ]
    if parked:
        groups.append(
            {
                "label": _("Sending crashed three times"),
                "status": Status.PARKED,
                "count": capped_count(parked),
                "release": _("Resend or cancel them in the log."),
            }
        )
    return groups


def _notices(webhook: Webhook, *, has_channel: bool) -> list[dict[str, Any]]:
    """Return the open incidents of a webhook and its credential that still apply.

    An incident stays open until the next check closes it.
    """
    found = problems.open_incidents(webhook)
    applying = [one for one in found if _still_applies(IncidentKind(one.kind), webhook)]
    kinds = {one.kind for one in applying}
    if webhook.is_active and IncidentKind.FAILING not in kinds:
        state, judged = webhook.known_state, status_of(webhook)["kind"]
        if state and state.failing_since_at and judged in ("warning", "danger"):
            # There are too few failures for an alert, or the next check opens the incident.
            since = state.failing_since_at
            applying.append(Incident(webhook=webhook, kind=IncidentKind.FAILING, opened_at=since))
    reached = {one.credential_id for one in applying}
    facts = {
        pk: _reach(webhook.credential if pk else webhook, has_channel=has_channel) for pk in reached
    }
    return [
        _notice(one, webhook)
        | facts[one.credential_id]
        | (_failing_facts(webhook) if one.kind == IncidentKind.FAILING else {})
        for one in applying
    ]


def _failing_facts(webhook: Webhook) -> dict[str, Any]:
    """Return the newest delivery that was tried, and when the next attempt is due."""
    pending = Delivery.objects.in_status(Status.PENDING, webhook=webhook.pk)
    newest = Delivery.objects.filter(webhook=webhook).order_by("-id")[:_MAX_FAILING]
    # A retry is due last; behind many that wait, it is not among the newest.
    last_due = pending.order_by("-next_attempt_at")[:_MAX_FAILING]
    tried = [one.pk for one in (*newest, *last_due) if one.attempt_count]
    times = pending.order_by("next_attempt_at").values_list("next_attempt_at", flat=True)
    return {"tried": max(tried, default=""), "next_attempt_at": times.first()}


def _still_applies(kind: IncidentKind, webhook: Webhook) -> bool:
    token = token_of(webhook.credential)
    match kind:
        case IncidentKind.REAUTHORIZATION:
            return bool(token and token.state == TokenState.NEEDS_REAUTHORIZATION)
        case IncidentKind.MISCONFIGURED:
            return bool(token and token.state == TokenState.MISCONFIGURED)
        case IncidentKind.TOKEN_ENDING:
            is_usable = not needs_token(webhook.credential)
            ends_at = token.refresh_token_expires_at if token and is_usable else None
            if token and token.refresh_end_moves:
                return False
            return ends_at is not None and ends_at <= timezone.now() + TOKEN_ENDS_WITHIN
        case IncidentKind.FAILING:
            return webhook.is_active and problems.may_fail(webhook)
        case IncidentKind.PAUSED:
            return not webhook.is_active


def _reach(subject: Webhook | Credential, *, has_channel: bool) -> dict[str, bool]:
    """Return whether alerts about a webhook or a connection have no recipients, or muted ones.

    Those of a connection go to the recipients of its webhooks, too. A mute spares the channels.
    """
    concerned: list[Webhook | Credential] = [subject]
    if isinstance(subject, Credential):
        users = list(subject.users.filter(deleted_at=None).defer(*WEBHOOK_SECRETS))
        has_channel = has_channel or channels.covering([one.pk for one in users]).exists()
        concerned += users
    people = [one for one in concerned if one.alert_recipients]
    now = timezone.now()
    return {
        "has_no_recipients": not people and not has_channel,
        "is_muted": not has_channel and all(one.mutes_alerts(now) for one in people),
    }


# For each kind of incident: colour, headline, advice, and the action that ends it.
_INCIDENT_TEXTS: dict[str, tuple[str, str | Promise, str | Promise, str]] = {
    IncidentKind.REAUTHORIZATION: (
        "danger",
        gettext_lazy("Needs re-authorization"),
        gettext_lazy("Deliveries are on hold and are sent in order after the next access token."),
        "authorize",
    ),
    IncidentKind.MISCONFIGURED: (
        "danger",
        gettext_lazy("OAuth client misconfigured"),
        gettext_lazy(
            "Deliveries are on hold until the settings are corrected and a token is obtained."
        ),
        "settings",
    ),
    IncidentKind.FAILING: (
        "danger",
        gettext_lazy("Failing"),
        gettext_lazy("Deliveries are retried on the retry schedule."),
        "inspect",
    ),
    IncidentKind.PAUSED: (
        "danger",
        gettext_lazy("Paused"),
        "",
        "resume",
    ),
    IncidentKind.TOKEN_ENDING: (
        "warning",
        gettext_lazy("Needs re-authorization soon"),
        gettext_lazy("Get a new access token before that, and nothing goes on hold."),
        "authorize",
    ),
}


def _notice(incident: Incident, webhook: Webhook) -> dict[str, Any]:
    """Return the context of an open incident.

    `action` is what ends it: authorize, settings, inspect or resume.
    """
    kind, headline, advice, action = _INCIDENT_TEXTS[incident.kind]
    since, state = _began_at(incident, webhook), webhook.known_state
    sentence = problems.sentence_now(incident, webhook, timezone.now())
    if incident.kind == IncidentKind.FAILING and not problems.is_failing(webhook, timezone.now()):
        kind, headline = "warning", _("The last attempt failed")
        if state:
            since = state.last_attempt_at or since
        if state and state.failures_in_a_row <= 1:
            sentence = outcomes.sentence(state.last_error)
    elif incident.kind != IncidentKind.TOKEN_ENDING:
        texts = {"headline": headline, "time": figures.time_or_day(since)}
        headline = _("%(headline)s since %(time)s") % texts
    return {
        "kind": kind,
        "headline": headline,
        "sentence": sentence,
        "advice": advice,
        "action": action,
        "since": since,
        "notified_at": incident.notified_at,
    }


def _began_at(incident: Incident, webhook: Webhook) -> datetime:
    state = webhook.known_state
    since = state.failing_since_at if state and incident.kind == IncidentKind.FAILING else None
    return min(incident.opened_at, since or incident.opened_at)


def _blocking(webhook: Webhook) -> dict[str, Any] | None:
    """Return the failing delivery that blocks an ordered webhook; None if none waits behind it."""
    if not webhook.is_ordered or not webhook.is_active:
        return None
    pending = Delivery.objects.in_status(Status.PENDING).filter(webhook=webhook)
    # A retry is due last, so the failing delivery is at the end of the index of due rows.
    last_due = list(pending.order_by("-next_attempt_at")[:_MAX_FAILING])
    sending = list(
        Delivery.objects.in_status(Status.SENDING).filter(webhook=webhook)[:_MAX_FAILING]
    )
    failing = [one for one in (*last_due, *sending) if one.failure_count]
    if not failing:
        return None
    first = min(failing, key=lambda one: one.pk)
    behind = pending.exclude(pk=first.pk).count_to(MAX_COUNTED)
    if not behind:
        return None
    return {
        "delivery": first,
        "behind": behind,
        "behind_text": capped_count(behind),
        "is_sending": first.status == Status.SENDING,
    }


def _last_test(webhook: Webhook) -> Delivery | None:
    """Return the newest test since the webhook was paused, unless a user paused it."""
    if webhook.is_active or webhook.pause_reason == PauseReason.PERSON or not webhook.paused_at:
        return None
    tests = Delivery.objects.filter(webhook=webhook, trigger=Trigger.TEST)
    since = ids.floor("dlv", min(webhook.paused_at, timezone.now()).timestamp())
    return tests.filter(pk__gte=since).order_by("-pk").first()


# ---- Settings: one line per section of the form ------------------------------------------------


def delivery_summary(values: Mapping[str, Any]) -> str:
    """Return one line about how a webhook is delivered, from its columns."""
    parts = []
    if rate := values["rate_limit"]:
        is_minute = values["rate_limit_seconds"] == 60
        text = _("at most %d per minute") if is_minute else _("at most %d per second")
        parts.append(text % rate)
    if values["is_ordered"]:
        parts.append(_("in order, one at a time"))
    elif most := values["concurrency_limit"]:
        text = ngettext("%d request at a time", "%d requests at a time", most)
        parts.append(text % most)
    if steps := values["retry_schedule_seconds"]:
        text = ngettext(
            "%(count)d retry within %(time)s", "%(count)d retries within %(time)s", len(steps)
        )
        parts.append(text % {"count": len(steps), "time": figures.rough_duration(sum(steps))})
    words = ", ".join(parts) or _("No limits, default retries")
    return words[:1].upper() + words[1:]


def alerts_summary(values: Mapping[str, Any]) -> str:
    """Return one line about who is notified of a webhook's problems, from its columns."""
    count = len(values["alert_recipients"] or ())
    until = values["alerts_muted_until"]
    if not count:
        return _("No recipients")
    if values["alerts_are_muted"] and until is None:
        return _("Muted")
    if values["alerts_are_muted"] and until > timezone.now():
        return _("Muted until %(time)s") % {"time": figures.minute(until)}
    return ngettext("%d recipient", "%d recipients", count) % count


# ---- The token ---------------------------------------------------------------------------------


def token_facts(credential: Credential, token: OAuthToken | None) -> dict[str, Any]:
    """Return what the token panel shows beside the token: end of the grant, latest exchanges."""
    found = OAuthExchange.objects.filter(credential_id=credential.pk)[:_EXCHANGES_SHOWN]
    return {
        "exchanges": found if credential.pk else [],
        "grant_ends_at": _grant_ends_at(credential, token),
        "is_machine": credential.is_machine,
    }


def _grant_ends_at(credential: Credential, token: OAuthToken | None) -> datetime | None:
    """Return when a user has to authorize again, if that is known and soon."""
    if not token or token.state in (TokenState.NONE, *BLOCKED_STATES):
        return None
    if credential.is_machine or token.refresh_end_moves:
        return None
    ends_at = token.refresh_token_expires_at if token.has_refresh_token() else token.expires_at
    is_soon = ends_at is not None and ends_at - timezone.now() < _GRANT_ENDS_WITHIN
    return ends_at if is_soon else None
