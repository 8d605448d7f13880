"""Finds current problems of webhooks in the rows that the engine and token refreshes write.

Decides which problems people are notified of. An incident stores a code with parameters; `sentence`
renders it in the reader's language. `notifications` sends it.
"""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from django.conf import settings
from django.db.models import F, Min, Q, QuerySet, Sum
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy

from webhooks.delivery import outcomes
from webhooks.delivery_log.charts import hour_of
from webhooks.models import (
    BY_PERSON,
    AuthorizationType,
    Credential,
    HourlyCount,
    Incident,
    IncidentKind,
    OAuthToken,
    Outcome,
    PauseReason,
    TokenState,
    Webhook,
    WebhookState,
    token_of,
)
from webhooks.models.messages import Sentence, dump, render

# Blocked token states, and the kinds of their incidents.
_OF_STATES = {
    TokenState.NEEDS_REAUTHORIZATION.value: IncidentKind.REAUTHORIZATION,
    TokenState.MISCONFIGURED.value: IncidentKind.MISCONFIGURED,
}
# How long before a refresh token's known expiry an incident opens.
TOKEN_ENDS_WITHIN = timedelta(days=7)
# The share of failures is computed over the current clock hour and this many hours before it.
_WINDOW_HOURS = 1
# Fewer attempts give no meaningful share: one failure of two would be 50 %.
_LEAST_ATTEMPTS = 10


def _with_last_error(*, message: str, error: str) -> str:
    texts = {"sentence": sentence(message), "error": sentence(error)}
    return str(_("%(sentence)s Last error: %(error)s") % texts)


def _paused(*, reason: str) -> str:
    return f"{PauseReason(reason).label}."


# Messages that an incident stores; an incident of a token stores the token's error unchanged.
SENTENCES: Mapping[str, Sentence] = {
    "attempts_failed": ngettext_lazy(
        "%(count)d attempt in a row failed.", "%(count)d attempts in a row failed.", "count"
    ),
    "failing_since": _("No success since %(time)s UTC."),
    "share_failed": _(
        "%(percent)d%% of the attempts in this hour and the one before failed: "
        "%(failed)d of %(all)d."
    ),
    "paused": _paused,
    "refresh_token_ends": _("The refresh token ends on %(date)s."),
    "with_last_error": _with_last_error,
}
_SENTENCES = {**outcomes.SENTENCES, **SENTENCES}


def sentence(message: str) -> str:
    """Return the stored message of an incident in the active language."""
    return render(message, _SENTENCES)


# Ids of the webhook and of the connection, one of them None, and the kind.
Key = tuple[int | None, int | None, IncidentKind]


class Problem(NamedTuple):
    """A problem of a webhook or a connection."""

    subject: Webhook | Credential
    kind: IncidentKind
    # As stored: a code of SENTENCES, or the error of a token.
    message: str
    began_at: datetime

    @property
    def key(self) -> Key:
        pk = self.subject.pk
        is_connection = isinstance(self.subject, Credential)
        return (None, pk, self.kind) if is_connection else (pk, None, self.kind)


def key_of(incident: Incident) -> Key:
    return incident.webhook_id, incident.credential_id, IncidentKind(incident.kind)


def open_incidents(webhook: Webhook) -> QuerySet[Incident]:
    """Return the open incidents of a webhook and of the credential that it uses."""
    concerned = Q(webhook=webhook) | Q(credential=webhook.credential_id)
    return Incident.objects.filter(concerned, closed_at=None)


class _Share(NamedTuple):
    """Numbers of attempts of one webhook within the window."""

    failed: int
    total: int
    # The hour of the first failure among them.
    began_at: datetime | None = None

    @property
    def percent(self) -> float:
        return 100 * self.failed / self.total if self.total else 0.0


def find(now: datetime, *, known: Collection[Key] = ()) -> dict[Key, Problem]:
    """Return all current problems; `known` are the keys of open incidents."""
    found = [*_token_problems(now, known), *_pauses(now), *_failures(now, known)]
    return {problem.key: problem for problem in found}


def sentence_now(incident: Incident, webhook: Webhook, now: datetime) -> str:
    """Return the current description of an open incident of this webhook or of its credential."""
    token = token_of(webhook.credential)
    current = ""
    match IncidentKind(incident.kind):
        case IncidentKind.FAILING:
            current = _failing_now(webhook, now)
        case IncidentKind.TOKEN_ENDING if token and token.refresh_token_expires_at:
            current = _ending(token)
        case IncidentKind.REAUTHORIZATION | IncidentKind.MISCONFIGURED if token:
            current = token.last_error
    return sentence(current or incident.message)


def is_failing(webhook: Webhook, now: datetime) -> bool:
    """Return whether a webhook counts as failing, as `are_failing` says it for a query."""
    if not webhook.is_active or not may_fail(webhook):
        return False
    if _in_a_row(webhook, webhook.known_state, now):
        return True
    incidents = Incident.objects.filter(kind=IncidentKind.FAILING, closed_at=None)
    return incidents.filter(webhook=webhook).exists()


def are_failing(now: datetime) -> Q:
    """Match the webhooks that alerts are sent about: the rule of `_in_a_row`, or an open incident.

    An incident also knows the share of failures. Other alert settings do not end it.
    """
    fails = Q(state__failing_since_at__isnull=False)
    in_a_row = fails & Q(state__failures_in_a_row__gte=F("alert_after_failures"))
    after = timedelta(minutes=settings.WEBHOOKS_ALERT_AFTER_MINUTES)
    has_no_limit = Q(alert_after_failures=None, alert_failure_percent=None)
    for_minutes = has_no_limit & Q(state__failing_since_at__lte=now - after)
    incidents = Incident.objects.filter(kind=IncidentKind.FAILING, closed_at=None)
    is_reported = Q(pk__in=incidents.exclude(webhook=None).values("webhook"))
    may_be = fails | Q(alert_failure_percent__isnull=False)
    return Q(is_active=True) & (in_a_row | for_minutes | is_reported & may_be)


def may_fail(webhook: Webhook) -> bool:
    """Return whether an incident of a failing webhook may still apply: the next check decides."""
    state = webhook.known_state
    return bool(state and state.failing_since_at) or bool(webhook.alert_failure_percent)


def _failing_now(webhook: Webhook, now: datetime) -> str:
    """Return how a webhook fails now, as a stored message; "" if it no longer fails."""
    state = webhook.known_state
    message = ""
    if webhook.alert_failure_percent and not _in_a_row(webhook, state, now):
        share = _shares([webhook.pk], now).get(webhook.pk, _Share(0, 0))
        message = _share_of(share) if share.failed else ""
    if not message and state and state.failing_since_at:
        message = _count_in_a_row(state) if state.failures_in_a_row else _failing_since(state)
    return _with_error(message, state) if message else ""


def _token_problems(now: datetime, known: Collection[Key]) -> Iterator[Problem]:
    soon = Q(token__refresh_token_expires_at__lte=now + TOKEN_ENDS_WITHIN)
    # An expiry that each refresh moves needs no person.
    ends = soon & Q(token__refresh_end_moves=False) & ~Q(token__state=TokenState.NONE)
    with_tokens = Credential.objects.in_use().filter(authorization_type=AuthorizationType.OAUTH2)
    affected = with_tokens.filter(Q(token__state__in=_OF_STATES) | ends)
    for one in affected.select_related("token", "webhook"):
        kind = _OF_STATES.get(one.token.state, IncidentKind.TOKEN_ENDING)
        is_ending = kind == IncidentKind.TOKEN_ENDING
        message = _ending(one.token) if is_ending else one.token.last_error
        yield Problem(one.subject, kind, message, now)
    yield from _cleared(with_tokens, now, known)


def _cleared(
    credentials: QuerySet[Credential], now: datetime, known: Collection[Key]
) -> Iterator[Problem]:
    """Yield the problems of tokens cleared since: they last until a person has got a new token."""
    blocked = {key for key in known if key[2] in _OF_STATES.values()}
    if not blocked:
        return
    has_none = Q(token__isnull=True) | Q(token__state=TokenState.NONE)
    # A pasted refresh token that waits for the provider.
    has_none |= Q(token__state=TokenState.EXPIRING, token__obtained_at=None)
    webhooks, connections = ({key[part] for key in blocked} for part in (0, 1))
    concerned = Q(webhook__pk__in=webhooks - {None}) | Q(pk__in=connections - {None})
    rows = credentials.filter(has_none, concerned, grant_type__in=BY_PERSON)
    for one in rows.select_related("token", "webhook"):
        for kind in _OF_STATES.values():
            problem = Problem(one.subject, kind, "", now)
            if problem.key in blocked:
                yield problem


def _ending(token: OAuthToken) -> str:
    return dump("refresh_token_ends", date=f"{token.refresh_token_expires_at:%Y-%m-%d}")


def _pauses(now: datetime) -> Iterator[Problem]:
    paused = Webhook.objects.present().select_related("state")
    for webhook in paused.filter(pause_reason__in=(PauseReason.GONE, PauseReason.FAILING)):
        state = webhook.known_state
        message = _with_error(dump("paused", reason=webhook.pause_reason), state)
        yield Problem(webhook, IncidentKind.PAUSED, message, webhook.paused_at or now)


def _failures(now: datetime, known: Collection[Key]) -> Iterator[Problem]:
    """Check each webhook by its alert settings: failures in a row, a share, else minutes."""
    interesting = Q(state__failing_since_at__isnull=False) | Q(alert_failure_percent__isnull=False)
    webhooks = list(Webhook.objects.active().filter(interesting).select_related("state"))
    asked = [webhook.pk for webhook in webhooks if webhook.alert_failure_percent]
    shares = _shares(asked, now) if asked else {}
    for webhook in webhooks:
        state = webhook.known_state
        is_known = (webhook.pk, None, IncidentKind.FAILING) in known
        share = shares.get(webhook.pk, _Share(0, 0))
        message = _in_a_row(webhook, state, now) or _share_exceeded(webhook, state, share, is_known)
        if is_known and state and state.failing_since_at and not webhook.alert_failure_percent:
            # Other alert settings do not end an incident: the webhook still fails.
            message = message or _failing_since(state)
        if message:
            since = [state and state.failing_since_at, share.began_at]
            began_at = min((moment for moment in since if moment), default=now)
            message = _with_error(message, state)
            yield Problem(webhook, IncidentKind.FAILING, message, began_at)


def _in_a_row(webhook: Webhook, state: WebhookState | None, now: datetime) -> str:
    """Return a message if all attempts have failed often or long enough, else ""."""
    if state is None or state.failing_since_at is None:
        return ""
    if limit := webhook.alert_after_failures:
        return _count_in_a_row(state) if state.failures_in_a_row >= limit else ""
    after = timedelta(minutes=settings.WEBHOOKS_ALERT_AFTER_MINUTES)
    if webhook.alert_failure_percent or state.failing_since_at > now - after:
        return ""
    return _failing_since(state)


def _count_in_a_row(state: WebhookState) -> str:
    return dump("attempts_failed", count=state.failures_in_a_row)


def _failing_since(state: WebhookState) -> str:
    return dump("failing_since", time=f"{state.failing_since_at:%Y-%m-%d %H:%M}")


def _share_exceeded(
    webhook: Webhook, state: WebhookState | None, share: _Share, is_known: bool
) -> str:
    """Return a message if the share of failed attempts reaches the webhook's limit, else "".

    An open incident ends only below half the limit, so that a receiver close to the limit does not
    cause a mail every minute.
    """
    limit = webhook.alert_failure_percent
    if not limit:
        return ""
    if is_known and not share.total:
        # The next attempt may be hours away.
        return _failing_since(state) if state and state.failing_since_at else ""
    if is_known:
        is_over = share.percent < limit / 2
    else:
        is_over = share.percent < limit or share.total < _LEAST_ATTEMPTS
    if is_over:
        return ""
    return _share_of(share)


def _share_of(share: _Share) -> str:
    return dump("share_failed", percent=int(share.percent), failed=share.failed, all=share.total)


def _shares(webhook_ids: list[int], now: datetime) -> Mapping[int, _Share]:
    """Count the attempts of each webhook in the current hour and the hours of the window before."""
    since = hour_of(now) - timedelta(hours=_WINDOW_HOURS)
    counts = HourlyCount.objects.filter(webhook__in=webhook_ids, hour__gte=since)
    rows = (
        counts.order_by()
        .values("webhook_id")
        .annotate(
            total=Sum("count"),
            good=Sum("count", filter=Q(outcome=Outcome.SUCCEEDED), default=0),
            began_at=Min("hour", filter=~Q(outcome=Outcome.SUCCEEDED)),
        )
    )
    return {
        row["webhook_id"]: _Share(row["total"] - row["good"], row["total"], row["began_at"])
        for row in rows
    }


def _with_error(message: str, state: WebhookState | None) -> str:
    if state is None or not state.last_error:
        return message
    return dump("with_last_error", message=message, error=state.last_error)
