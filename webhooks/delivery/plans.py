"""Plans of webhooks, made in the background and cached until something they contain changes.

A plan needs the database and decryption, which must not block the engine, so a webhook whose plan
is not ready is not claimed yet. One thread makes plans of hundreds of webhooks with two queries. A
token that has to be fetched first needs the network: that waits in a `TokenPool`, so that no other
webhook waits for an authorization server.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from django.db import Error as DatabaseError
from django.db import connection
from django.db.models import Model
from django.db.models.base import ModelState
from django.utils import timezone
from django.utils.translation import gettext as _

from webhooks import oauth
from webhooks.delivery import outcomes, queue
from webhooks.delivery.auth import (
    Authorization,
    BasicAuthorization,
    BearerAuthorization,
    NoAuthorization,
    QueryAuthorization,
)
from webhooks.delivery.db_session import DatabaseSession
from webhooks.delivery.queue.rows import Candidate
from webhooks.delivery.recorder import note_unusable
from webhooks.delivery.requests import RequestPlan, make_plan
from webhooks.delivery.token_pool import TokenPool
from webhooks.models import (
    Credential,
    HoldReason,
    OAuthToken,
    TokenPlacement,
    Webhook,
    WebhookState,
    may_be_sent_to,
)
from webhooks.models.messages import Message, cut
from webhooks.models.webhook import sent_version
from webhooks.network import Target, UnsafeURLError, parse_url
from webhooks.payloads import MappingError
from webhooks.security import key_check
from webhooks.security.encryption import SecretUnreadableError

logger = logging.getLogger(__name__)

# Webhooks whose plans are made with one query.
_BATCH = 500
# Columns that no plan uses and that take time to read. Secrets and their origins are always read: a
# secret that was not read counts as bound to every receiver.
_UNUSED = frozenset(
    """
    alert_recipients alerts_are_muted alerts_muted_until alert_after_failures alert_failure_percent
    secrets_changed_at created_at created_by updated_at deleted_at pause_reason paused_at purged_at
    cancels_before event_types filter authorization_parameters token_parameters refresh_parameters
    assertion_claims reauthorization_words next_send_at last_success_at failing_since_at last_error
    """.split()  # noqa: SIM905 - read as prose.
)


def _used(model: type[Model]) -> list[str]:
    return [field.attname for field in model._meta.concrete_fields if field.name not in _UNUSED]


_WEBHOOK_COLUMNS, _CREDENTIAL_COLUMNS, _STATE_COLUMNS = map(
    _used, (Webhook, Credential, WebhookState)
)
_COLUMNS = (
    *_WEBHOOK_COLUMNS,
    *(f"credential__{name}" for name in _CREDENTIAL_COLUMNS),
    *(f"state__{name}" for name in _STATE_COLUMNS),
)
# The wait after a database fault.
_FAULT_SECONDS = 0.2
# When a wrong encryption key or a lost database is tried again, and the longest wait for unusable
# settings: a change of these is noticed at once.
RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 10.0, 300.0
# An unexpected failure is tried again after this, before it counts.
AGAIN_SECONDS = 1.0
# A failure is logged in full if no plan failed for this long before it.
_LOG_SECONDS = 1.0


class PlanEntry(NamedTuple):
    """What is known about one webhook; exactly one of `plan` and `problem` is set."""

    version: int
    token_version: int
    refused_version: int
    plan: RequestPlan | None
    problem: str
    # Set when deliveries wait for a person, not for time.
    hold_reason: str
    # Monotonic seconds: when to make the entry again although nothing changed.
    expires: float
    # Requests in a row without a response, as last written; None before the first request.
    failures: int | None = None
    # How long unusable settings are left alone.
    retry_seconds: float = 0.0


class Versions(NamedTuple):
    """What a plan was made from, as it is now."""

    webhook: int
    # 0 without a token.
    token: int


def present_versions(webhook_ids: Collection[int]) -> dict[int, Versions]:
    """Return the current versions of each webhook; -1 for one that does not exist any more."""
    # No model instances: this runs every second for all webhooks with waiting requests.
    rows = Webhook.objects.filter(pk__in=webhook_ids).values_list(
        "pk", "credential__token__version", "version", "credential__version", "credential_id"
    )
    present = {pk: Versions(sent_version(*parts), token or 0) for pk, token, *parts in rows}
    return {**dict.fromkeys(webhook_ids, Versions(-1, 0)), **present}


class Plans:
    """A cache of entries by webhook; `hand_over` forgets unused ones."""

    def __init__(self) -> None:
        # Used by the thread that makes plans, while it does.
        self._session = DatabaseSession(queue.backend())
        # Called by other threads with the webhooks whose plans were made or could not be made.
        self.on_ready: Callable[[Collection[int]], None] = lambda _: None
        self.entries: dict[int, PlanEntry] = {}
        self.before: dict[int, PlanEntry] = {}
        self._in_progress: set[int] = set()
        self._wanted: deque[Candidate] = deque()
        # Credential id -> (token version that a receiver refused, its webhook), until the token's
        # row has it.
        self._refused: dict[int, tuple[int, int]] = {}
        self._logged_at = float("-inf")
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="plans")
        self._tokens = TokenPool(self._make_with_token)

    def get(self, candidate: Candidate) -> PlanEntry | None:
        """Return a fresh entry, or None while it is being made."""
        webhook_id = candidate.webhook_id
        entry = self.entries.get(webhook_id) or self.before.get(webhook_id)
        if (
            entry is not None
            and entry.version == candidate.version
            and entry.token_version == candidate.token_version
            and entry.refused_version == candidate.refused_version
            and time.monotonic() < entry.expires
        ):
            self.entries[webhook_id] = entry
            return entry
        if webhook_id not in self._in_progress:
            self._in_progress.add(webhook_id)
            self._wanted.append(candidate)
            if len(self._wanted) == 1:
                self._pool.submit(self._make_wanted)
        return None

    def made_again_at(self, webhook_id: int) -> float | None:
        """Return when, on the monotonic clock, a plan that could not be made is made again.

        None while the plan exists, is being made, or was not requested.
        """
        entry = self.entries.get(webhook_id)
        if entry is None or entry.plan is not None or webhook_id in self._in_progress:
            return None
        return entry.expires

    def is_token_used(self, plan: RequestPlan) -> bool:
        """Return whether new requests still use the token of a plan."""
        entry = self.entries.get(plan.webhook_id)
        return entry is not None and entry.token_version <= plan.token_version

    def token_refused(self, plan: RequestPlan) -> bool:
        """Note that the receiver refused a token; return whether to send again, as no retry.

        False while the token is on trial: it replaced a refused one and is refused as well, so the
        receiver has another reason.
        """
        if time.monotonic() < plan.trial_ends:
            return False
        webhook_id = plan.webhook_id
        entry = self.entries.get(webhook_id)
        if entry is None or entry.token_version <= plan.token_version:
            known = self._refused.get(plan.credential_id, (0, 0))
            self._refused[plan.credential_id] = max(known, (plan.token_version, webhook_id))
            self.entries.pop(webhook_id, None)
            self.before.pop(webhook_id, None)
        return True

    def token_worked(self, plan: RequestPlan) -> None:
        """Forget a plan whose token was on trial: its refusals count again."""
        for entries in (self.entries, self.before):
            entry = entries.get(plan.webhook_id)
            if entry is not None and entry.plan is plan:
                entries.pop(plan.webhook_id, None)

    def hand_over(self, *, forgets: bool) -> None:
        """Begin a drain with all entries; with `forgets`, with those used since it last forgot."""
        self.on_ready = lambda _: None
        if forgets:
            self.before, self.entries = self.entries, {}

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._tokens.close()

    # Called in other threads.

    def _make_wanted(self) -> None:
        """Make all plans that are requested by now."""
        try:
            while batch := [self._wanted.popleft() for _ in range(min(_BATCH, len(self._wanted)))]:
                try:
                    self.make(batch)
                except Exception:
                    # A webhook that stays in progress would never get a plan.
                    logger.exception("plans_failed webhooks=%d", len(batch))
                    time.sleep(_FAULT_SECONDS)
                    self._done(batch)
        finally:
            self._session.close()

    def make(self, batch: Sequence[Candidate]) -> None:
        found = self._session.run(lambda: rows_of([one.webhook_id for one in batch]))
        if found is None:
            logger.warning("plans_delayed webhooks=%d", len(batch))
            time.sleep(_FAULT_SECONDS)
            self._done(batch)
            return
        webhooks, tokens = found
        ready = []
        unusable: dict[int, str] = {}
        for candidate in batch:
            webhook = webhooks.get(candidate.webhook_id)
            if webhook is None or self._store_entry(
                candidate, partial(self._entry, webhook, tokens), unusable
            ):
                ready.append(candidate)
            else:
                server = _server_of(webhook.credential)
                is_good = _gave_token(tokens.get(webhook.credential_id))
                self._tokens.submit(server, candidate, is_good=is_good)
        _note_unusable(unusable)
        self._done(ready)

    def _make_with_token(self, candidate: Candidate) -> bool:
        """Make the plan of a webhook whose token has to be fetched; waits for the server.

        Return whether a new token was obtained.
        """
        try:
            unusable: dict[int, str] = {}
            self._store_entry(candidate, self._entry_with_token, unusable)
            _note_unusable(unusable)
            entry = self.entries.get(candidate.webhook_id)
            return entry is not None and entry.token_version > candidate.token_version
        finally:
            connection.close()
            self._done([candidate])

    def _store_entry(
        self,
        candidate: Candidate,
        make: Callable[[Candidate], PlanEntry | None],
        unusable: dict[int, str],
    ) -> bool:
        """Keep the entry that `make` returns, or one for its error; False if a token comes first.

        Webhooks with unusable settings are added to `unusable`, with the reason.
        """
        try:
            entry = self._made(candidate, make, unusable)
        except DatabaseError as error:
            logger.warning("plan_delayed webhook=%d error=%s", candidate.webhook_id, error)
            connection.close()
            time.sleep(_FAULT_SECONDS)
            return True
        except Exception as error:
            self._log_failure(candidate.webhook_id, error)
            reason = outcomes.stored(Message("not_built", {"error": type(error).__name__}))
            entry = self._unexpected(candidate, reason)
            if entry.retry_seconds:
                unusable[candidate.webhook_id] = reason
        if entry is not None:
            self.entries[candidate.webhook_id] = entry
        return entry is not None

    def _log_failure(self, webhook_id: int, error: Exception) -> None:
        """Log an unexpected failure, in full now and then: thousands may fail in the same way."""
        now = time.monotonic()
        is_full, self._logged_at = now - self._logged_at > _LOG_SECONDS, now
        name = type(error).__name__
        logger.error("plan_failed webhook=%d error=%s", webhook_id, name, exc_info=is_full)

    def _made(
        self,
        candidate: Candidate,
        make: Callable[[Candidate], PlanEntry | None],
        unusable: dict[int, str],
    ) -> PlanEntry | None:
        try:
            return make(candidate)
        except oauth.TokenUnavailableError as error:
            return _token_unavailable(candidate, error)
        except (SecretUnreadableError, UnsafeURLError, MappingError) as error:
            reason = outcomes.stored(outcomes.of_error(error))
            unusable[candidate.webhook_id] = reason
            return self._unavailable(candidate, reason)

    def _unexpected(self, candidate: Candidate, problem: str) -> PlanEntry:
        """Return the entry of a failure that may be temporary: it counts when it occurs again.

        Until then the webhook shows no problem, and its tests wait like its other deliveries.
        """
        entry = self._unavailable(candidate, problem)
        before = self.entries.get(candidate.webhook_id) or self.before.get(candidate.webhook_id)
        if before is not None and (before.version, before.problem) == (entry.version, problem):
            return entry
        return entry._replace(expires=time.monotonic() + AGAIN_SECONDS, retry_seconds=0.0)

    def _unavailable(self, candidate: Candidate, problem: str) -> PlanEntry:
        """Return the entry of unusable settings; the wait doubles each time."""
        webhook_id, retry = candidate.webhook_id, RETRY_SECONDS
        before = self.entries.get(webhook_id) or self.before.get(webhook_id)
        if before is not None and before.version == candidate.version and key_check.is_proven():
            retry = min(_LONGEST_RETRY_SECONDS, max(retry, 2 * before.retry_seconds))
        return PlanEntry(
            candidate.version,
            candidate.token_version,
            candidate.refused_version,
            None,
            problem,
            "",
            time.monotonic() + retry,
            retry_seconds=retry,
        )

    def _done(self, candidates: Sequence[Candidate]) -> None:
        self._in_progress.difference_update(candidate.webhook_id for candidate in candidates)
        if candidates:
            self.on_ready([candidate.webhook_id for candidate in candidates])

    def _entry(
        self, webhook: Webhook, tokens: Mapping[int, OAuthToken], candidate: Candidate
    ) -> PlanEntry | None:
        """Return the entry, or None when its token has to be fetched first."""
        credential, target = webhook.credential, parse_url(webhook.url)
        _check_destination(webhook, target)
        # Even for a webhook without a secret: with a wrong key nothing is sent at all.
        key_check.require()
        if credential.is_basic:
            basic = BasicAuthorization(credential.basic_login, credential.basic_password)
            return _entry_of(candidate, webhook, target, basic)
        if not credential.is_oauth:
            return _entry_of(candidate, webhook, target, NoAuthorization())
        row = tokens.get(credential.pk)
        if row is None or credential.pk in self._refused:
            return None
        token = oauth.current_token(row, webhook_id=webhook.pk)
        return _entry_with(token, candidate, webhook, target) if token else None

    def _entry_with_token(self, candidate: Candidate) -> PlanEntry | None:
        """Fetch the token of a webhook and return the entry."""
        webhook = Webhook.objects.select_related("credential", "state").get(pk=candidate.webhook_id)
        credential = webhook.credential
        if not credential.is_oauth:
            # The authorization type was changed a moment ago.
            return self._entry(webhook, {}, candidate)
        target = parse_url(webhook.url)
        _check_destination(webhook, target)
        key_check.require()
        if refused := self._refused.get(credential.pk):
            # The recorder may not have written it yet.
            version, refused_by = refused
            oauth.record_refusal(credential.pk, version, webhook_id=refused_by)
            if self._refused.get(credential.pk) == refused:
                del self._refused[credential.pk]
        token = oauth.usable_token(credential.pk, webhook_id=webhook.pk)
        return _entry_with(token, candidate, webhook, target)


def rows_of(webhook_ids: list[int]) -> tuple[dict[int, Webhook], dict[int, OAuthToken]]:
    """Read webhooks, and the tokens of those that use one, by credential id."""
    rows = Webhook.objects.filter(pk__in=webhook_ids).values_list(*_COLUMNS)
    webhooks = {webhook.pk: webhook for webhook in map(_webhook_of, rows)}
    credentials = (webhook.credential for webhook in webhooks.values())
    users = {one.pk for one in credentials if one.is_oauth}
    return webhooks, OAuthToken.objects.in_bulk(users)


def _webhook_of(row: tuple[Any, ...]) -> Webhook:
    """Make a webhook with its credential and state from the values of `_COLUMNS`."""
    values = iter(row)
    webhook = _partial(Webhook, _WEBHOOK_COLUMNS, values)
    webhook.credential = _partial(Credential, _CREDENTIAL_COLUMNS, values)
    state = _partial(WebhookState, _STATE_COLUMNS, values)
    related: Any = WebhookState._meta.get_field("webhook")
    related.remote_field.set_cached_value(webhook, state if state.webhook_id else None)
    return webhook


_Row = TypeVar("_Row", Webhook, Credential, WebhookState)


def _partial(model: type[_Row], names: Sequence[str], values: Iterator[Any]) -> _Row:
    """Make an instance with these columns only, like `only()`, but without checking all fields.

    Other columns are read from the database on access.
    """
    row = model.__new__(model)
    row._state = ModelState()
    row._state.adding, row._state.db = False, connection.alias
    row.__dict__.update(zip(names, values, strict=False))
    return row


def _server_of(credential: Credential) -> str:
    """Return the authorization server that a token request goes to; "" without an address."""
    try:
        return urlsplit(credential.token_url).netloc
    except ValueError:
        return ""


def _gave_token(row: OAuthToken | None) -> bool | None:
    """Return whether the last exchange returned a token; None before the first one."""
    if row is None or not (row.obtained_at or row.refresh_failures):
        return None
    return not row.refresh_failures


def _entry_with(
    token: oauth.UsableToken, candidate: Candidate, webhook: Webhook, target: Target
) -> PlanEntry:
    oauth.check_receiver(webhook.credential, token, webhook.url)
    authorization = token_authorization(webhook.credential, token.access_token)
    return _entry_of(candidate, webhook, target, authorization, token)


def _entry_of(
    candidate: Candidate,
    webhook: Webhook,
    target: Target,
    authorization: Authorization,
    token: oauth.UsableToken | None = None,
) -> PlanEntry:
    plan = make_plan(webhook, authorization, target=target, **_token_fields(webhook, token))
    token_version = token.version if token else candidate.token_version
    refused_version = token.refused_version if token else candidate.refused_version
    expires = min(_token_expires(token), _secret_expires(webhook))
    failures = _failures(webhook.known_state)
    return PlanEntry(plan.version, token_version, refused_version, plan, "", "", expires, failures)


def _token_fields(webhook: Webhook, token: oauth.UsableToken | None) -> dict[str, Any]:
    """Return what a plan keeps about a token, apart from the token itself."""
    if token is None:
        return {}
    left = 0.0
    if token.is_refused_only_by(webhook.pk):
        left = math.inf
    elif token.trial_ends_at is not None:
        left = (token.trial_ends_at - timezone.now()).total_seconds()
    is_on_trial = left > 0 and webhook.pk in token.refused_by
    return {
        "token_version": token.version,
        "trial_ends": time.monotonic() + left if left > 0 else 0.0,
        "is_tried_here": is_on_trial or token.is_refused(),
    }


def _failures(state: WebhookState | None) -> int | None:
    """Return how many requests in a row got no response; None before the first request."""
    if state is None or state.last_attempt_at is None:
        return None
    return 0 if state.last_status_code else state.failures_in_a_row


def token_authorization(credential: Credential, access_token: str) -> Authorization:
    """Return how a credential sends its access token."""
    if credential.token_placement == TokenPlacement.QUERY:
        return QueryAuthorization(access_token, credential.token_query_parameter or "access_token")
    return BearerAuthorization(
        access_token, credential.header_prefix, name=credential.token_header or "Authorization"
    )


def _check_destination(webhook: Webhook, target: Target) -> None:
    """Raise TokenUnavailableError when a webhook's secrets may not go to its receiver."""
    if problem := destination_problem(webhook, target.origin):
        raise oauth.TokenUnavailableError(problem, hold_reason=HoldReason.MISCONFIGURED)


def destination_problem(webhook: Webhook, origin: str) -> str:
    """Return why a webhook's secrets may not go to the origin of its receiver; "" if they may."""
    credential = webhook.credential
    if credential.is_shared and origin not in credential.receiver_origins:
        sentence = _(
            "The connection “%(name)s” may not be sent to %(origin)s. Add it to the hosts of the "
            "connection, or choose another one."
        )
    elif not may_be_sent_to(credential, origin):
        sentence = _(
            "There is no password or client secret that was entered for %(origin)s. Enter it again."
        )
    elif not may_be_sent_to(webhook, origin, "headers_json") and any(
        header.is_secret for header in webhook.read_headers()
    ):
        sentence = _(
            "The secret headers were entered for another address than %(origin)s. Enter their "
            "values again."
        )
    else:
        return ""
    return sentence % {"name": credential.name, "origin": origin}


def _token_expires(token: oauth.UsableToken | None) -> float:
    """Return when, on the monotonic clock, to ask for the token again, in time to refresh it."""
    if token is None or token.expires_at is None:
        return float("inf")
    return time.monotonic() + max(
        1.0, (token.expires_at - timezone.now()).total_seconds() - oauth.refresh_margin(token)
    )


def _secret_expires(webhook: Webhook) -> float:
    """Return when the previous signing secrets expire, on the monotonic clock."""
    until = webhook.rotation_ends_at
    left = (until - timezone.now()).total_seconds() if until else math.inf
    return time.monotonic() + left


def _note_unusable(reasons: Mapping[int, str]) -> None:
    """Record why nothing can be sent, unless the encryption key is the problem."""
    if not reasons:
        return
    (first, reason), *_ = reasons.items()
    logger.error("plans_unavailable webhooks=%d first=%d reason=%s", len(reasons), first, reason)
    try:
        if not key_check.problem():
            note_unusable(reasons)
    except DatabaseError as error:
        # It is recorded when the webhooks are tried again.
        logger.warning("unusable_not_noted webhooks=%d error=%s", len(reasons), error)


def _token_unavailable(candidate: Candidate, error: oauth.TokenUnavailableError) -> PlanEntry:
    wait = RETRY_SECONDS
    if error.retry_at is not None:
        wait = min(max((error.retry_at - timezone.now()).total_seconds(), 0.5), 300.0)
    return PlanEntry(
        candidate.version,
        candidate.token_version,
        candidate.refused_version,
        None,
        # The token's row may hold a longer message.
        cut(error.message, outcomes.MAX_STORED),
        error.hold_reason or "",
        time.monotonic() + wait,
    )
