"""The stored tokens: one usable token per credential, refreshed once per version.

A refresh needs a lease, timed by the database's clock. The process that holds it refreshes; the
others poll the row for the new token. After a transient failure no lease is given until the wait is
over, so each failure is one step of the backoff. No transaction is open during HTTP. The outcome is
stored by one UPDATE that still checks lease and version; a count of zero means that another process
was faster, and nothing is lost. The row also stores the version that a receiver refused, so no
process sends it any more. Concurrency: safe across threads, processes and machines.
"""

import json
import logging
import secrets as random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Case, F, PositiveIntegerField, Q, When
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from webhooks import audit
from webhooks.models import (
    BLOCKED_STATES,
    Action,
    Credential,
    ExchangeKind,
    HoldReason,
    OAuthToken,
    TokenState,
    messages,
    origin_of,
)
from webhooks.oauth import client, exchange_log, granted_token, revocation, token_requests
from webhooks.oauth.endpoints import fingerprint
from webhooks.oauth.errors import (
    MisconfiguredError,
    TokenResult,
    TokenUnavailableError,
    joined,
    stored,
)
from webhooks.oauth.exchange_log import Transcript
from webhooks.oauth.granted_token import GrantedToken
from webhooks.oauth.token_errors import normalized
from webhooks.oauth.token_response import MAX_RETRY_AFTER_SECONDS, TokenResponse
from webhooks.security import key_check
from webhooks.security.encryption import Sealed, SecretField, SecretUnreadableError, seal

logger = logging.getLogger(__name__)

Stored = TypeVar("Stored")

# How long to wait for another process's refresh: a little longer than most exchanges may take. Most
# take less than a second, so polling starts at a short interval, which grows up to the longest.
WAIT_SECONDS = 12.0
_FIRST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.02, 1.0
# Time limit of one `refresh_expiring` run; beat starts one every 30 seconds.
_BEAT_SECONDS = 25.0
_SLOW_SECONDS = 5.0
# A receiver that also refuses the token refreshed after its refusal does so for another reason: for
# this long that triggers no further refresh, unless that webhook has succeeded with the new token.
_TRIAL_SECONDS = 300.0
# A refused token that cannot be refreshed is still tried by webhooks that were not refused yet.
# Once this many were refused, the token itself is considered bad.
_MAX_REFUSALS = 100
# One statement names each row several times.
_UPDATED_AT_ONCE = 200
# The share by which a wait before a retry is lengthened at random at most.
_JITTER = 0.1
# The longest wait before a retry, plus five minutes of clock difference. A stored time further
# ahead was written by a clock that has been set back since, and is ignored.
_LONGEST_WAIT = timedelta(seconds=MAX_RETRY_AFTER_SECONDS * (1 + _JITTER) + 300.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsableToken:
    """A token that may be sent now."""

    access_token: str = field(repr=False)
    version: int
    expires_at: datetime | None
    # When the token is due for refresh, before it expires.
    refresh_at: datetime | None = None
    # Copied from the row, to detect later changes.
    refused_version: int = 0
    refused_by: tuple[int, ...] = ()
    # Until then a refusal triggers no further refresh; a refused webhook's success ends it early.
    trial_ends_at: datetime | None = None
    bound_origins: tuple[str, ...] = ()

    def is_refused(self) -> bool:
        """Return whether receivers refused this version; a success would prove them wrong."""
        return 0 < self.version == self.refused_version

    def is_refused_only_by(self, webhook_id: int) -> bool:
        """Return whether this webhook's receiver refuses a token that is good for others."""
        return self.refused_version == 0 and webhook_id in self.refused_by


def usable_token(
    credential_id: int, *, webhook_id: int | None = None, now: datetime | None = None
) -> UsableToken:
    """Return the credential's token for a webhook, refreshed first when it is about to expire.

    Blocks for up to 12 seconds while another process refreshes, or for its own exchange. Errors:
    TokenUnavailableError.
    """
    row = read_row(credential_id) or ensure_row(credential_id)
    moment = now or timezone.now()
    if token := current_token(row, webhook_id=webhook_id, now=moment):
        return token
    credential = Credential.objects.get(pk=credential_id)
    if not can_refresh(row, credential):
        return _without_refresh(row, credential, webhook_id, now)
    return _refreshed(row, now=now)


def current_token(
    row: OAuthToken, *, webhook_id: int | None = None, now: datetime | None = None
) -> UsableToken | None:
    """Return the token of a row, or None when it is missing or has to be refreshed.

    Neither blocks nor writes. Errors: TokenUnavailableError if a person has to act, or while the
    next refresh waits after a transient failure.
    """
    moment = now or timezone.now()
    if _may_try_refused(row, webhook_id, moment):
        return _usable(row)
    _raise_if_blocked(row)
    is_dead = not row.has_access_token() or is_refused(row)
    if not is_dead and not is_due(row, moment):
        return _usable(row)
    return (
        _current_or_raise(row, moment, may_use_current=True) if _is_waiting(row, moment) else None
    )


def refresh(credential: Credential, *, now: datetime | None = None) -> UsableToken:
    """Refresh the token now at a person's request, even in a blocked state, and return it.

    Errors: TokenUnavailableError.
    """
    row = ensure_row(credential.pk)
    current = Credential.objects.get(pk=credential.pk)
    if can_refresh(row, current):
        return _refreshed(row, now=now, is_forced=True, may_use_current=False)
    if not row.has_access_token():
        raise _no_token()
    code = "no_refresh_token" if _is_alive(row, now) else "token_expired"
    message = stored(code, provider=current.provider)
    raise TokenUnavailableError(message, hold_reason=HoldReason.REAUTHORIZATION)


def store_refresh_token(
    credential: Credential, refresh_token: str, *, user: AbstractBaseUser
) -> UsableToken:
    """Replace the stored tokens with a refresh token obtained elsewhere, and refresh with it.

    Errors: TokenUnavailableError; after a transient failure a retry uses the new refresh token.
    """
    ensure_row(credential.pk)
    with transaction.atomic():
        drop(credential.pk)
        OAuthToken.objects.filter(credential_id=credential.pk).update(
            state=TokenState.EXPIRING,
            refresh_token=_sealed(credential.pk, "refresh_token", refresh_token),
            granted_by=user,
            bound_origins=credential.token_origins,
        )
    return refresh(credential)


def record_refusal(credential_id: int, version: int, *, webhook_id: int | None = None) -> None:
    """Record that a receiver refused a version; see `record_refusals`."""
    record_refusals({credential_id: (version, webhook_id)})


def record_refusals(refused: Mapping[int, tuple[int, int | None]]) -> None:
    """Record which versions receivers refused, so that no process sends them any more.

    Takes the version and the webhook by credential. A token that cannot be refreshed may still be
    tried once by each other webhook. After another webhook's success, or the provider, has shown
    that the token is good, a refusal is recorded as this webhook's own problem.
    """
    with transaction.atomic():
        rows = _locked(refused)
        changed = [row for row in rows if _note_refusal(row, refused[row.credential_id][1])]
        fields = ["refused_version", "refused_by"]
        OAuthToken.objects.bulk_update(changed, fields, batch_size=_UPDATED_AT_ONCE)


def _note_refusal(row: OAuthToken, webhook_id: int | None) -> bool:
    """Note that a webhook's receiver refused this version; return whether that is new."""
    if row.refused_version == 0 and webhook_id in row.refused_by:
        return False
    before = row.refused_by if row.refused_version in (0, row.version) else []
    is_noted = webhook_id is None or webhook_id in before or len(before) >= _MAX_REFUSALS
    if is_refused(row) and is_noted:
        return False
    refused_by = dict.fromkeys(one for one in (*before, webhook_id) if one is not None)
    row.refused_version = 0 if _provider_says_valid(row, timezone.now()) else row.version
    row.refused_by = list(refused_by)[-_MAX_REFUSALS:]
    return True


def record_successes(proved: Mapping[int, tuple[int, int]]) -> None:
    """Record successes with versions that replaced a refused one, or that other receivers refused.

    Takes the version and the webhook by credential. A refused webhook that succeeds with a newer
    version proves that one good. A success with the refused version itself shows that the other
    receivers refused it for another reason.
    """
    with transaction.atomic():
        rows = _locked(proved)
        changed = [row for row in rows if _note_success(row, proved[row.credential_id][1])]
        fields = ["refused_version", "refused_by", "state", "last_error"]
        OAuthToken.objects.bulk_update(changed, fields, batch_size=_UPDATED_AT_ONCE)


def _note_success(row: OAuthToken, webhook_id: int) -> bool:
    """Note that a webhook succeeded with this version; return whether that changes anything."""
    was_refused = webhook_id in row.refused_by
    if 0 < row.refused_version < row.version and was_refused:
        row.refused_version, row.refused_by = 0, []
    elif row.refused_version == 0 and was_refused:
        row.refused_by = [one for one in row.refused_by if one != webhook_id]
    elif _may_try_refused(row, webhook_id, timezone.now()):
        row.refused_version, row.state, row.last_error = 0, TokenState.VALID, ""
    else:
        return False
    return True


def _locked(versions: Mapping[int, tuple[int, int | None]]) -> list[OAuthToken]:
    """Return the rows of these versions, by credential, locked until the transaction ends."""
    rows = OAuthToken.objects.filter(credential_id__in=versions).order_by("pk")
    found = rows.select_for_update()
    return [row for row in found if row.version == versions[row.credential_id][0]]


def check_receiver(credential: Credential, token: UsableToken, url: str) -> None:
    """Erase the token and raise TokenUnavailableError if it was not granted for this receiver."""
    if (origin := origin_of(url)) in token.bound_origins:
        return
    message = stored("granted_elsewhere", origin=origin)
    drop(credential.pk, message=message)
    hold_reason = None if credential.is_machine else HoldReason.NO_TOKEN
    raise TokenUnavailableError(message, hold_reason=hold_reason)


def is_refused(row: OAuthToken) -> bool:
    return row.version > 0 and row.refused_version == row.version


def _provider_says_valid(row: OAuthToken, now: datetime) -> bool:
    """Return whether the provider called a refused token valid, and the next refresh waits."""
    is_cleared = row.refused_version == 0 and bool(row.refused_by)
    return is_cleared and row.has_refresh_token() and _is_waiting(row, now)


def _may_try_refused(row: OAuthToken, webhook_id: int | None, now: datetime) -> bool:
    """Return whether a webhook may try a token that was blocked by other receivers' refusals.

    False for a token with a refresh token: there one refusal leads to a new token for all webhooks.
    """
    return (
        row.state == TokenState.NEEDS_REAUTHORIZATION
        and is_refused(row)
        and not row.has_refresh_token()
        and (row.expires_at is None or row.expires_at > now)
        and webhook_id is not None
        and webhook_id not in row.refused_by
        and 0 < len(row.refused_by) < _MAX_REFUSALS
    )


def refresh_margin(token: UsableToken) -> float:
    """Return how many seconds before its expiry a token is due for refresh."""
    if token.expires_at is None or token.refresh_at is None:
        return 0.0
    return (token.expires_at - token.refresh_at).total_seconds()


def is_due(row: OAuthToken, now: datetime) -> bool:
    """Return whether the token is due for refresh; a token without known expiry never is."""
    at = refresh_at(row)
    return at is not None and now >= at


def can_refresh(row: OAuthToken, credential: Credential) -> bool:
    return credential.is_machine or row.has_refresh_token()


def refresh_expiring(now: datetime | None = None) -> int:
    """Refresh the tokens that are about to expire, or missing; return how many were refreshed."""
    if problem := key_check.problem():
        logger.error("refresh_refused reason=%s", problem)
        return 0
    moment = now or timezone.now()
    ends_at = time.monotonic() + _BEAT_SECONDS
    refreshed = 0
    # Token URLs that failed slowly are skipped, so that one that hangs does not delay the others.
    slow: set[str] = set()
    expiring = (
        OAuthToken.objects.select_related("credential")
        .filter(credential__deleted_at=None, credential__authorization_type="oauth2")
        .filter(Q(expires_at__lt=moment + timedelta(minutes=1)) | Q(state=TokenState.EXPIRING))
        .exclude(state__in=BLOCKED_STATES)
        .exclude(_waits(moment))
        .order_by("refresh_failures", "expires_at")
    )
    # What another transaction locked would take the others' time in each run.
    with transaction.atomic():
        rows = OAuthToken.objects.filter(pk__in=[row.pk for row in expiring])
        free = rows.select_for_update(skip_locked=True, no_key=True)
        unlocked = set(free.values_list("pk", flat=True))
    for row in expiring:
        if row.pk not in unlocked:
            continue
        began_at = time.monotonic()
        if began_at > ends_at:
            break
        if row.credential.token_url in slow:
            continue
        if row.has_access_token() and not is_due(row, moment):
            continue
        if not can_refresh(row, row.credential):
            continue
        try:
            refreshed += _refreshed(row, now=now, may_wait=False).version > row.version
        except TokenUnavailableError as error:
            logger.info(
                "refresh_failed credential=%d hold=%s", row.credential_id, error.hold_reason
            )
            if time.monotonic() - began_at > _SLOW_SECONDS:
                slow.add(row.credential.token_url)
        except Exception:
            # An unexpected failure of one token does not stop the run for those after it.
            logger.exception("refresh_crashed credential=%d", row.credential_id)
    return refreshed


def _refreshed(
    row: OAuthToken,
    *,
    now: datetime | None,
    is_forced: bool = False,
    may_use_current: bool = True,
    may_wait: bool = True,
) -> UsableToken:
    """Refresh this version, or wait for the process that does, and return the new token."""
    version, waited_until = row.version, time.monotonic() + WAIT_SECONDS
    pause = _FIRST_POLL_SECONDS
    while True:
        moment = now or timezone.now()
        if not is_forced:
            _raise_if_blocked(row)
            if _is_waiting(row, moment):
                return _current_or_raise(row, moment, may_use_current=may_use_current)
        taken_at = time.monotonic()
        if lease := take_lease(row, is_forced=is_forced, now=now):
            if renew(row, lease, taken_at, now):
                # The outcome is in the row now and applies to every process.
                is_forced, may_wait = False, True
        elif not may_wait or taken_at > waited_until:
            return _current_or_raise(row, moment, may_use_current=may_use_current)
        else:
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)
            is_forced = False
        row = ensure_row(row.credential_id)
        if row.version != version and row.has_access_token():
            return _usable(row)
        if row.version != version:
            # The token was erased, by changed settings or by a person.
            return usable_token(row.credential_id, now=now)


def _is_waiting(row: OAuthToken, now: datetime) -> bool:
    """Return whether the next refresh still waits after a transient failure."""
    wait = row.retry_refresh_at - now if row.retry_refresh_at else timedelta()
    return timedelta() < wait <= _LONGEST_WAIT


def _waits(now: datetime) -> Q:
    """Return `_is_waiting` as a query condition, by the local clock that wrote the times."""
    return Q(retry_refresh_at__gt=now, retry_refresh_at__lte=now + _LONGEST_WAIT)


def _current_or_raise(row: OAuthToken, now: datetime, *, may_use_current: bool) -> UsableToken:
    """Return the current token while it is valid, else raise TokenUnavailableError to retry."""
    is_alive = (row.expires_at is None or row.expires_at > now) and not is_refused(row)
    if may_use_current and is_alive and row.has_access_token():
        return _usable(row)
    message = row.last_error or stored("being_refreshed")
    retry_at = row.retry_refresh_at if _is_waiting(row, now) else now + timedelta(seconds=1)
    raise TokenUnavailableError(message, retry_at=retry_at)


def _without_refresh(
    row: OAuthToken, credential: Credential, webhook_id: int | None, now: datetime | None
) -> UsableToken:
    if not row.has_access_token():
        raise _no_token()
    was_refused = is_refused(row)
    if not was_refused and _is_alive(row, now):
        return _usable(row)
    message = stored(
        "token_refused" if was_refused else "token_expired", provider=credential.provider
    )
    store_ended(row, message)
    row.state = TokenState.NEEDS_REAUTHORIZATION
    if _may_try_refused(row, webhook_id, now or timezone.now()):
        return _usable(row)
    raise TokenUnavailableError(message, hold_reason=HoldReason.REAUTHORIZATION)


def _is_alive(row: OAuthToken, now: datetime | None) -> bool:
    """Return whether a token has not expired by the database's clock.

    This machine's clock may be ahead, and a token ended by mistake would need a person.
    """
    if row.expires_at is None:
        return True
    if now is not None:
        return row.expires_at > now
    return OAuthToken.objects.filter(pk=row.pk, expires_at__gt=Now()).exists()


def _no_token() -> TokenUnavailableError:
    return TokenUnavailableError(stored("no_token_yet"), hold_reason=HoldReason.NO_TOKEN)


def _raise_if_blocked(row: OAuthToken) -> None:
    if row.state == TokenState.NEEDS_REAUTHORIZATION:
        raise TokenUnavailableError(row.last_error, hold_reason=HoldReason.REAUTHORIZATION)
    if row.state == TokenState.MISCONFIGURED:
        raise TokenUnavailableError(row.last_error, hold_reason=HoldReason.MISCONFIGURED)


def _usable(row: OAuthToken) -> UsableToken:
    try:
        access_token = row.access_token
    except SecretUnreadableError as error:
        raise _unreadable(error) from error
    is_on_trial = 0 < row.refused_version < row.version
    began_at = row.refreshed_at or row.obtained_at
    return UsableToken(
        access_token=access_token,
        version=row.version,
        expires_at=row.expires_at,
        refresh_at=refresh_at(row),
        refused_version=row.refused_version,
        trial_ends_at=began_at + timedelta(seconds=_TRIAL_SECONDS)
        if is_on_trial and began_at
        else None,
        refused_by=tuple(row.refused_by),
        bound_origins=tuple(row.bound_origins),
    )


# Time that must remain in a lease after the exchange, to store its outcome.
_WRITE_SECONDS = 5.0
# Responses from something in front of a token endpoint that has worked before: a maintenance or
# login page, a server without its routes. They count as an outage for about a day (retries are
# usually 60 s apart); after that the URL is considered wrong.
_PROXY_REASONS = frozenset({"html", "empty", "not_json", "not_an_object", "too_large", "truncated"})
_PROXY_CODES = frozenset({"redirected", "redirected_unsafely", "no_endpoint", "other_format"})
_OUTAGE_TRIES = 1440
# Delay before a retry after a secret could not be decrypted (wrong encryption key).
_UNREADABLE_SECONDS = 30.0
# Delays between attempts to store an outcome, within the rest of the lease.
STORE_WAITS_SECONDS = (0.1, 0.5, 1.0, 2.0, 4.0)
# PostgreSQL's SQLSTATE for a wait that took too long, and the pause before the next one.
_LOCK_NOT_AVAILABLE, _LOCKED_SECONDS = "55P03", 0.5


def renew(seen: OAuthToken, lease: str, taken_at: float, now: datetime | None) -> bool:
    """Make the one exchange that the lease is for and store its outcome; False if too late."""
    # Read after taking the lease: only then no other process can use this refresh token.
    row = OAuthToken.objects.select_related("credential").get(pk=seen.pk)
    if row.version != seen.version or row.refresh_lease != lease:
        return False
    # Taking the lease set REFRESHING; a transient failure must not lift a blocked state.
    row.state = seen.state
    try:
        request, problem = _request(row)
    except SecretUnreadableError as error:
        release_lease(row, lease)
        raise _unreadable(error) from error
    needed = (client.timeout_seconds(request) if request else 0.0) + _WRITE_SECONDS
    if row.response_lost_at:
        needed += client.TOTAL_SECONDS
    if time.monotonic() - taken_at > lease_seconds() - needed:
        # This process was suspended; the lease may expire before the response arrives.
        release_lease(row, lease)
        return False
    if connection.vendor == "postgresql" and not connection.in_atomic_block:
        # Many threads may wait for servers at once; none should hold a database connection.
        connection.close()
    answer, transcripts = (problem, []) if request is None else _exchange(row, request)
    assert answer is not None
    answer = _as_outage(row, answer, transcripts)
    is_stored = store_with_retries(row.pk, lambda: _store(row, lease, answer, transcripts, now))
    for transcript in transcripts:
        exchange_log.record(
            row.credential, transcript, result=answer.result, message=answer.message
        )
    if not is_stored:
        logger.warning("refresh_outdated credential=%d result=%s", row.pk, answer.result)
        if answer.token is not None:
            revocation.revoke_unstored(row.credential, answer.token, row.bound_origins)
    return is_stored


def _exchange(
    row: OAuthToken, request: token_requests.TokenRequest
) -> tuple[TokenResponse, list[Transcript]]:
    """Send the token request; the message of the result says whether a response was lost.

    After a lost response the provider may still be processing that request, and would see the same
    refresh token twice. So a probe with a refresh token that does not exist is sent first. Only
    once the provider responds to the probe, the real one is sent, once.
    """
    lost_at = row.response_lost_at if request.is_single_use is not False else None
    if lost_at:
        question = token_requests.refresh_request(
            row.credential,
            random.token_urlsafe(32),
            placeholder_values=stored_placeholder_values(row),
        )
        reply, transcript, _raw = client.send_once(question, seconds=client.TOTAL_SECONDS)
        transcript = replace(transcript, kind=ExchangeKind.CHECK)
        if reply.result is TokenResult.TRANSIENT:
            # A failed probe loses no token.
            message = joined(stored("response_lost", time=_utc_text(lost_at)), reply.message)
            return replace(reply, is_lost=False, message=message), [transcript]
        exchange_log.record(
            row.credential, transcript, result=reply.result, message=stored("only_checked")
        )
    answer, transcripts = client.send(request)
    if request.is_single_use is False:
        return replace(answer, is_lost=False), transcripts
    if len(transcripts) > 1:
        # The first response was truncated.
        lost_at = lost_at or client.answered_at(transcripts[:1])
    if answer.is_lost:
        lost = stored("response_lost", time=_utc_text(client.answered_at(transcripts)))
        return replace(answer, message=joined(lost, answer.message)), transcripts
    if lost_at and answer.result is TokenResult.NEEDS_REAUTHORIZATION:
        refusal = messages.load(answer.message)
        said = str(refusal.params.get("said", "")) if refusal else ""
        message = stored("response_lost_and_used", time=_utc_text(lost_at), said=said)
        return replace(answer, message=message), transcripts
    return answer, transcripts


def _as_outage(
    row: OAuthToken, answer: TokenResponse, transcripts: list[Transcript]
) -> TokenResponse:
    """Treat a response that is not a token endpoint's as transient if the endpoint has worked."""
    has_worked = row.refreshed_at or (row.obtained_at and not row.credential.refresh_url)
    # A response with an error code of its own comes from the endpoint, whatever the status.
    is_bare = answer.reason.startswith("http_") or normalized(answer.reason) == "not_found"
    is_in_front = answer.reason in _PROXY_REASONS or (is_bare and answer.code in _PROXY_CODES)
    if not (has_worked and is_in_front) or row.refresh_failures >= _OUTAGE_TRIES:
        return answer
    status = transcripts[-1].status_code or 0
    message = joined(stored("unavailable", status=status), answer.message)
    return replace(answer, result=TokenResult.TRANSIENT, message=message)


def _utc_text(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _unreadable(error: SecretUnreadableError) -> TokenUnavailableError:
    """Return the error for a wrong encryption key: transient, because no token is lost."""
    retry_at = timezone.now() + timedelta(seconds=_UNREADABLE_SECONDS)
    return TokenUnavailableError(str(error), retry_at=retry_at)


def _request(row: OAuthToken) -> tuple[token_requests.TokenRequest | None, TokenResponse | None]:
    """Return the request that renews a token, or the failure that prevents it."""
    credential = row.credential
    try:
        if credential.is_machine:
            return token_requests.machine_request(credential), None
        request = token_requests.refresh_request(
            credential,
            row.refresh_token,
            is_single_use=row.is_single_use,
            placeholder_values=stored_placeholder_values(row),
        )
        if (origin := origin_of(request.url)) not in row.bound_origins:
            raise MisconfiguredError(stored("granted_elsewhere", origin=origin))
        return request, None
    except MisconfiguredError as error:
        return None, TokenResponse(
            result=TokenResult.MISCONFIGURED, reason="settings", message=error.message
        )


def _store(
    row: OAuthToken,
    lease: str,
    answer: TokenResponse,
    transcripts: list[Transcript],
    now: datetime | None,
) -> bool:
    """Store the outcome if this process still holds the lease for this version.

    The same UPDATE proves that no other process has replaced a refresh token that was rejected.
    """
    if answer.token is None:
        lost_at = client.answered_at(transcripts) if answer.is_lost else None
        moment = now or timezone.now()
        return store_failure(row, lease, answer, now=moment, lost_at=lost_at)
    return store_refreshed(
        row,
        lease,
        answer.token,
        warning=answer.warning,
        answered_at=now or client.answered_at(transcripts),
    )


def store_with_retries(credential_id: int, store: Callable[[], Stored]) -> Stored:
    """Store the outcome of an exchange, with retries through a short database outage.

    Until it is stored, a granted or rotated token exists only in this process. So it waits for as
    long as another transaction locks the row.
    """
    waits = iter(STORE_WAITS_SECONDS)
    while True:
        try:
            return store()
        except (OperationalError, InterfaceError) as error:
            is_locked = getattr(error.__cause__, "sqlstate", None) == _LOCK_NOT_AVAILABLE
            wait = _LOCKED_SECONDS if is_locked else next(waits, None)
            if connection.in_atomic_block or wait is None:
                raise
            logger.warning("token_store_retried credential=%d", credential_id)
            connection.close()
            time.sleep(wait)


# Lease time beyond the longest exchange, to store its outcome through a short database outage.
_LEASE_MARGIN_SECONDS = 10.0
# Backoff after a transient failure: 5 s, doubled each time, at most 60 s because deliveries wait.
_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS = 5.0, 60.0
# Warn if a provider ends a grant after this long, or less, without a refresh.
_SHORT_IDLE_SECONDS = 86_400.0
# Least time between two refreshes that can show whether they move the refresh token's expiry.
_LEAST_APART_SECONDS = 5.0


def read_row(credential_id: int) -> OAuthToken | None:
    return OAuthToken.objects.filter(credential_id=credential_id).first()


def stored_placeholder_values(row: OAuthToken) -> dict[str, str]:
    """Return the values of the authorization response for placeholders in refresh parameters."""
    values: dict[str, str] = json.loads(row.placeholder_values or "{}")
    return values


def ensure_row(credential_id: int) -> OAuthToken:
    """Return the token row of a credential; create an empty one if there is none."""
    row = OAuthToken(credential_id=credential_id)
    OAuthToken.objects.bulk_create([row], ignore_conflicts=True)
    return OAuthToken.objects.get(credential_id=credential_id)


def refresh_at(row: OAuthToken) -> datetime | None:
    """Return when to refresh a token before it expires, or None if its expiry is unknown."""
    return granted_token.refresh_at(row.refreshed_at or row.obtained_at, row.expires_at)


def lease_seconds() -> float:
    """Return the length of a lease: longer than the longest exchange, with its probe."""
    longest = max(client.TOTAL_SECONDS, float(settings.WEBHOOKS_REFRESH_SECONDS))
    return longest + client.TOTAL_SECONDS + _LEASE_MARGIN_SECONDS


def take_lease(row: OAuthToken, *, is_forced: bool = False, now: datetime | None = None) -> str:
    """Take the lease to refresh exactly this version of a token; return "" if it is not free.

    It is not free after a failure that `row` does not show yet, while the wait after a failure
    lasts, or in a blocked state. A person's request (`is_forced`) ignores the wait and the state.
    """
    lease = random.token_hex(16)
    free = Q(refresh_lease="") | Q(refresh_lease_until__lt=Now()) | Q(refresh_lease_until=None)
    rows = OAuthToken.objects.filter(
        free,
        credential_id=row.credential_id,
        version=row.version,
        refresh_failures=row.refresh_failures,
    )
    if not is_forced:
        rows = rows.exclude(state__in=BLOCKED_STATES).exclude(_waits(now or timezone.now()))
    taken = rows.update(
        refresh_lease=lease,
        refresh_lease_until=Now() + timedelta(seconds=lease_seconds()),
        # An expired lease was left by a process that died during its exchange: response lost.
        response_lost_at=Case(
            When(refresh_lease="", then=F("response_lost_at")),
            default=Coalesce("response_lost_at", "refresh_lease_until"),
        ),
        state=TokenState.REFRESHING,
    )
    return lease if taken else ""


def release_lease(row: OAuthToken, lease: str) -> None:
    """Release an unused lease; a blocked state in `row` is restored."""
    _leased(row, lease).update(
        refresh_lease="", refresh_lease_until=None, state=_resting_state(row)
    )


def store_refreshed(
    row: OAuthToken, lease: str, token: GrantedToken, *, warning: str, answered_at: datetime
) -> bool:
    """Store a refreshed token; False if the lease or the version has changed."""
    columns = _token_columns(row.credential_id, token, answered_at)
    columns["is_single_use"] = token.refresh_token not in ("", row.refresh_token)
    columns["refresh_end_moves"] = end_moves = _end_moves(row, token, answered_at)
    if not token.refresh_token:
        # RFC 6749 section 6: without a new refresh token the old one stays valid.
        del columns["refresh_token"]
        if token.refresh_expires_in is None:
            del columns["refresh_token_expires_at"]
    warning = joined(
        _lasting_warning(row),
        warning,
        _idle_warning(token, row.credential.scope, end_moves=end_moves),
    )
    if token.scope is None and row.credential.is_machine:
        # RFC 6749 section 5.1: without a scope in the response the requested one is granted.
        columns["granted_scope"] = row.credential.scope
    elif token.scope is None:
        # RFC 6749 section 6: the scope stays the same, so what was not granted is still missing.
        del columns["granted_scope"]
        granted_scope = row.granted_scope or None
        warning = joined(warning, granted_token.scope_change(granted_scope, row.credential.scope))
    was_over = granted_token.is_over(row.refreshed_at or row.obtained_at, row.expires_at)
    if was_over and granted_token.is_over(answered_at, columns["expires_at"]):
        # Expired when issued for the second time: the provider's clock or expiry is wrong.
        columns["expires_at"] = None
        warning = joined(warning, stored("always_expired"))
    if row.obtained_at is None:
        columns["obtained_at"] = answered_at
    if not row.refused_version:
        # Webhooks with a problem of their own start afresh: their next refusal counts again.
        columns["refused_by"] = []
    if row.credential.is_machine:
        columns["bound_origins"] = row.credential.token_origins
    columns |= {"refreshed_at": answered_at, "warning": warning}
    return bool(_leased(row, lease).update(**columns))


def store_granted(
    credential_id: int,
    token: GrantedToken,
    *,
    warning: str,
    answered_at: datetime,
    requested_scope: str,
    user: AbstractBaseUser | None,
    bound_origins: list[str],
    account: str = "",
    placeholder_values: Mapping[str, str] | None = None,
) -> None:
    """Store the token a person just obtained; a refresh in progress can no longer store its own."""
    columns = _token_columns(credential_id, token, answered_at)
    if token.scope is None:
        # RFC 6749 section 5.1: without a scope in the response the requested one is granted.
        columns["granted_scope"] = requested_scope
    if not token.refresh_token and granted_token.is_over(answered_at, columns["expires_at"]):
        columns["expires_at"] = None
        warning = joined(warning, stored("always_expired"))
    # Assume that refreshes move the refresh token's expiry, until the first refresh shows whether
    # it is the end of the grant.
    ends_at, expires_at = columns["refresh_token_expires_at"], columns["expires_at"]
    end_moves = None not in (ends_at, expires_at) and ends_at > expires_at
    columns |= {
        "obtained_at": answered_at,
        "refreshed_at": None,
        "granted_by": user,
        "account": account[:255],
        "placeholder_values": _sealed(
            credential_id,
            "placeholder_values",
            json.dumps(placeholder_values) if placeholder_values else "",
        ),
        "is_single_use": None,
        "refresh_end_moves": end_moves,
        "refused_version": 0,
        "refused_by": [],
        "bound_origins": bound_origins,
        "warning": joined(warning, _idle_warning(token, requested_scope, end_moves=end_moves)),
    }
    OAuthToken.objects.filter(credential_id=credential_id).update(**columns)


def _lasting_warning(row: OAuthToken) -> str:
    """Return the warning about the authorization itself, which no refresh resolves, else ""."""
    no_nonce = stored("no_nonce")
    return no_nonce if no_nonce in row.warning.splitlines() else ""


def _end_moves(row: OAuthToken, token: GrantedToken, answered_at: datetime) -> bool:
    """Return whether a refresh moves the refresh token's expiry by about the time that has passed.

    Such an expiry is the provider's limit for time without a refresh (Keycloak's SSO Session Idle).
    """
    before = row.refreshed_at or row.obtained_at
    if token.refresh_expires_in is None or row.refresh_token_expires_at is None or before is None:
        return row.refresh_end_moves
    passed = (answered_at - before).total_seconds()
    if passed < _LEAST_APART_SECONDS:
        return row.refresh_end_moves
    ends_at = answered_at + timedelta(seconds=token.refresh_expires_in)
    return (ends_at - row.refresh_token_expires_at).total_seconds() > passed / 2


def _idle_warning(token: GrantedToken, requested_scope: str, *, end_moves: bool) -> str:
    """Return a warning if the grant ends after a short time without a refresh, else ""."""
    seconds = token.refresh_expires_in
    asked = requested_scope.replace(",", " ").split()
    if not end_moves or not seconds or seconds > _SHORT_IDLE_SECONDS or "offline_access" in asked:
        return ""
    return stored("short_idle_time", minutes=max(1, round(seconds / 60)))


def store_failure(
    row: OAuthToken,
    lease: str,
    answer: TokenResponse,
    *,
    now: datetime,
    lost_at: datetime | None = None,
) -> bool:
    """Store why a refresh failed; False if the lease or the version has changed.

    The tokens stay, but a refresh token in the response replaces the one that was sent.
    """
    columns: dict[str, Any] = {
        "refresh_lease": "",
        "refresh_lease_until": None,
        "refresh_failures": F("refresh_failures") + 1,
        "last_error": answer.message,
        "retry_refresh_at": None,
    }
    if lost_at is not None:
        columns["response_lost_at"] = lost_at
    if answer.refresh_token:
        columns["refresh_token"] = _sealed(row.credential_id, "refresh_token", answer.refresh_token)
        columns["is_single_use"] = answer.refresh_token != row.refresh_token
        columns |= {"refresh_token_expires_at": None, "response_lost_at": None}
    if answer.result is TokenResult.NEEDS_REAUTHORIZATION:
        columns["state"] = TokenState.NEEDS_REAUTHORIZATION
    elif answer.result is TokenResult.MISCONFIGURED:
        columns["state"] = TokenState.MISCONFIGURED
    else:
        columns["state"] = _resting_state(row, failed=True)
        if row.state in BLOCKED_STATES:
            # Keep the instruction for the person, below the error of this attempt.
            columns["last_error"] = joined(answer.message, *row.last_error.splitlines()[-1:])
        retry_at = now + _backoff(row.refresh_failures, answer)
        if answer.code == "not_expired":
            if row.expires_at is not None and now < row.expires_at <= now + _LONGEST_WAIT:
                retry_at = row.expires_at
            if is_refused(row):
                # The provider says that the token is valid; receivers have another reason.
                columns["refused_version"] = 0
        # A forced refresh before the provider's Retry-After is over must not shorten that wait.
        before = row.retry_refresh_at if _is_waiting(row, now) else None
        columns["retry_refresh_at"] = max(retry_at, before or retry_at)
    with transaction.atomic():
        is_stored = bool(_leased(row, lease).update(**columns))
        if is_stored and columns["state"] in BLOCKED_STATES:
            _record_audit(row, columns["state"])
    return is_stored


def store_ended(row: OAuthToken, message: str) -> bool:
    """Store that a person has to authorize again, without having tried a refresh."""
    # Not if a webhook has succeeded with the token since this row was read.
    rows = OAuthToken.objects.filter(
        credential_id=row.credential_id, version=row.version, refused_version=row.refused_version
    )
    state = TokenState.NEEDS_REAUTHORIZATION
    with transaction.atomic():
        is_stored = bool(
            rows.exclude(state__in=BLOCKED_STATES).update(state=state, last_error=message)
        )
        if is_stored:
            _record_audit(row, state)
    return is_stored


def _record_audit(row: OAuthToken, state: str) -> None:
    """Record in the audit trail that the token needs a person."""
    note = audit.note("token_state", value=state)
    audit.record(Action.AUTHORIZATION_LOST, row.credential, user=None, note=note)


def drop(credential_id: int, *, message: str = "") -> bool:
    """Erase the tokens of a credential; a refresh in progress can no longer store its outcome."""
    return bool(
        OAuthToken.objects.filter(credential_id=credential_id).update(
            **_EMPTY_COLUMNS,
            access_token="",
            refresh_token="",
            version=F("version") + 1,
            last_error=message,
        )
    )


def clear_token(credential: Credential) -> bool:
    """Erase the stored token, then revoke it; return False if the provider did not revoke it.

    Erased first, so that no process uses the token, whatever the provider responds.
    """
    row, issued = read_row(credential.pk), revocation.stored_tokens(credential.pk)
    had_token = row is not None and (row.has_access_token() or row.has_refresh_token())
    drop(credential.pk)
    return not had_token or revocation.revoke(credential, issued)


def unblock_misconfigured(credential_id: int) -> bool:
    """Unblock a misconfigured token after its settings changed; return whether there was one."""
    rows = OAuthToken.objects.filter(credential_id=credential_id, state=TokenState.MISCONFIGURED)
    return any(
        OAuthToken.objects.filter(
            credential_id=row.credential_id, version=row.version, state=TokenState.MISCONFIGURED
        ).update(
            state=_open_state(row),
            version=F("version") + 1,
            # The access token is the same, so a refused one stays refused.
            refused_version=Case(
                When(refused_version=F("version"), then=F("version") + 1),
                default=F("refused_version"),
                output_field=PositiveIntegerField(),
            ),
            last_error="",
            refresh_failures=0,
        )
        for row in rows
    )


_EMPTY_COLUMNS: dict[str, Any] = {
    "state": TokenState.NONE,
    "token_type": "",
    "granted_scope": "",
    "obtained_at": None,
    "expires_at": None,
    "refresh_token_expires_at": None,
    "refresh_end_moves": False,
    "is_single_use": None,
    "account": "",
    "placeholder_values": "",
    "refreshed_at": None,
    "granted_by": None,
    "refresh_lease": "",
    "refresh_lease_until": None,
    "retry_refresh_at": None,
    "refresh_failures": 0,
    "response_lost_at": None,
    "refused_version": 0,
    "refused_by": [],
    "warning": "",
    "bound_origins": [],
    "replaced_secret": "",
}


def _token_columns(
    credential_id: int, token: GrantedToken, answered_at: datetime
) -> dict[str, Any]:
    return {
        "state": TokenState.VALID,
        "access_token": _sealed(credential_id, "access_token", token.access_token),
        "refresh_token": _sealed(credential_id, "refresh_token", token.refresh_token),
        "token_type": token.token_type,
        "granted_scope": token.scope or "",
        "expires_at": _after(answered_at, token.expires_in),
        "refresh_token_expires_at": _after(answered_at, token.refresh_expires_in),
        "version": F("version") + 1,
        "refresh_lease": "",
        "refresh_lease_until": None,
        "retry_refresh_at": None,
        "refresh_failures": 0,
        "response_lost_at": None,
        "last_error": "",
        "replaced_secret": "",
    }


def keep_replaced_secret(credential_id: int, *, old: str, origins: list[str], new: str) -> None:
    """Keep the client secret that the token was obtained with, after another one was saved.

    The oldest one is kept: secrets saved since then have obtained no token. Storing a new token
    clears it.
    """
    row = read_row(credential_id)
    if row is None or not row.has_access_token() or old == new:
        return
    kept = row.replaced_secret if row.has_replaced_secret() else old
    origins = row.replaced_secret_origins if row.has_replaced_secret() else origins
    sealed = _sealed(credential_id, "replaced_secret", kept) if kept and kept != new else ""
    OAuthToken.objects.filter(pk=row.pk, version=row.version).update(
        replaced_secret=sealed, replaced_secret_origins=origins
    )


def restore_secret(credential: Credential) -> bool:
    """Restore the client secret that the token was obtained with; False if none is kept.

    It stays bound to the origins that it was entered for, whatever the URLs are now. A token that
    became misconfigured with the other secret is unblocked.
    """
    row = read_row(credential.pk)
    if row is None or not row.has_replaced_secret():
        return False
    with transaction.atomic():
        credential.set_secret("client_secret", row.replaced_secret)
        bound = {"client_secret": row.replaced_secret_origins}
        credential.secret_origins = {**credential.secret_origins, **bound}
        credential.save(update_fields=["client_secret", "secrets_changed_at"])
        OAuthToken.objects.filter(pk=row.pk).update(replaced_secret="")
    unblock_misconfigured(credential.pk)
    return True


def _sealed(credential_id: int, name: str, value: str) -> Sealed:
    column = OAuthToken._meta.get_field(name)
    assert isinstance(column, SecretField)
    return seal(value, column.place(OAuthToken(credential_id=credential_id)))


def _leased(row: OAuthToken, lease: str) -> Any:
    return OAuthToken.objects.filter(
        credential_id=row.credential_id, version=row.version, refresh_lease=lease
    )


def _after(moment: datetime, seconds: float | None) -> datetime | None:
    return None if seconds is None else moment + timedelta(seconds=max(0.0, seconds))


def _resting_state(row: OAuthToken, *, failed: bool = False) -> TokenState:
    return TokenState(row.state) if row.state in BLOCKED_STATES else _open_state(row, failed=failed)


def _open_state(row: OAuthToken, *, failed: bool = False) -> TokenState:
    """Return the state of a token that needs no person; a refresh token alone is refreshed."""
    if not row.has_access_token():
        return TokenState.EXPIRING if row.has_refresh_token() else TokenState.NONE
    return TokenState.EXPIRING if failed else TokenState.VALID


def _backoff(failures: int, answer: TokenResponse) -> timedelta:
    seconds = min(_FIRST_RETRY_SECONDS * 2 ** min(failures, 10), _MAX_RETRY_SECONDS)
    seconds = max(seconds, answer.retry_after_seconds or 0.0)
    # So that many credentials do not retry at once.
    return timedelta(seconds=seconds * (1 + _JITTER * random.randbelow(1000) / 1000))


def drop_if_changed(old_fingerprint: str, credential: Credential, receiver_url: str) -> bool:
    """Erase the tokens if the settings they belong to have changed; return whether any existed.

    A corrected client secret keeps them, because the grant belongs to the client, and unblocks a
    misconfigured token.
    """
    row = read_row(credential.pk)
    if row is None:
        return False
    if fingerprint(credential, receiver_url) == old_fingerprint:
        unblock_misconfigured(credential.pk)
        return False
    had_token = row.has_access_token() or row.has_refresh_token()
    drop(credential.pk)
    return had_token
