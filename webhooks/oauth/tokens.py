"""The stored tokens: one usable token per credential, refreshed once per version.

A refresh is owned by a lease on the database's clock. The process that gets it refreshes; the
others wait for its token by looking at the row. No transaction is open during HTTP. What comes of
it is written in one UPDATE that still asks for lease and version; a count of zero means that
another process was faster, and nothing is lost. Concurrency: safe across threads, processes and
machines.
"""

import logging
import secrets as random
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from webhooks import audit
from webhooks.models import Action, Credential, GrantType, HoldReason, OAuthToken, TokenState
from webhooks.oauth import client, exchange_log, granted_token, token_requests
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
from webhooks.oauth.token_response import TokenAnswer
from webhooks.security import key_check
from webhooks.security.encryption import Sealed, SecretField, SecretUnreadableError, seal

logger = logging.getLogger(__name__)

# A little longer than an exchange may take.
_WAIT_SECONDS = 12.0
_FIRST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.02, 0.25
# Beat comes every 30 seconds.
_BEAT_SECONDS = 25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UsableToken:
    """A token to send now."""

    access_token: str = field(repr=False)
    version: int
    expires_at: datetime | None
    # When it is refreshed in advance.
    refresh_at: datetime | None = None


def usable_token(credential_id: int, *, now: datetime | None = None) -> UsableToken:
    """Return the credential's token, refreshed first when it is about to expire.

    Blocks for up to 12 seconds. Errors: TokenUnavailableError.
    """
    row = read_row(credential_id) or ensure_row(credential_id)
    moment = now or timezone.now()
    if token := token_at_hand(row, now=moment):
        return token
    credential = Credential.objects.get(pk=credential_id)
    if not can_refresh(row, credential):
        return _without_refresh(row, credential, moment)
    return _refreshed(row, now=now)


def token_at_hand(row: OAuthToken, *, now: datetime | None = None) -> UsableToken | None:
    """Return the token of a row, or None when it is missing or has to be refreshed.

    Neither waits nor writes. Errors: TokenUnavailableError when it waits for a person.
    """
    _raise_if_blocked(row)
    if row.has_access_token() and not is_due(row, now or timezone.now()):
        return _usable(row)
    return None


def refresh(
    credential: Credential, *, dead_version: int | None = None, now: datetime | None = None
) -> UsableToken:
    """Return a token newer than `dead_version`, the one a receiver refused.

    Without it a person asks: the token is refreshed now, also when it waits for that person.
    One refresh per version, however many ask. Errors: TokenUnavailableError.
    """
    row = ensure_row(credential.pk)
    is_forced = dead_version is None
    if not is_forced:
        _raise_if_blocked(row)
        if row.version != dead_version and row.has_access_token():
            return usable_token(credential.pk, now=now)
    current = Credential.objects.get(pk=credential.pk)
    if not can_refresh(row, current):
        message = _no_refresh_token(current, was_refused=not is_forced)
        if not is_forced:
            store_ended(row, message)
        if not row.has_access_token():
            raise _no_token()
        raise TokenUnavailableError(message, hold_reason=HoldReason.REAUTHORIZATION)
    return _refreshed(row, now=now, is_forced=is_forced, may_use_old=False)


def refresh_margin(token: UsableToken) -> float:
    """Return how many seconds before its expiry a token is refreshed."""
    if token.expires_at is None or token.refresh_at is None:
        return 0.0
    return (token.expires_at - token.refresh_at).total_seconds()


def is_due(row: OAuthToken, now: datetime) -> bool:
    """Return whether the token should be refreshed by now; one of unknown life never is."""
    at = refresh_at(row)
    return at is not None and now >= at


def can_refresh(row: OAuthToken, credential: Credential) -> bool:
    return credential.grant_type == GrantType.CLIENT_CREDENTIALS or row.has_refresh_token()


def refresh_expiring(now: datetime | None = None) -> int:
    """Refresh what is about to expire; return how many were refreshed."""
    if problem := key_check.problem():
        logger.error("refresh_refused reason=%s", problem)
        return 0
    moment = now or timezone.now()
    ends_at = time.monotonic() + _BEAT_SECONDS
    refreshed = 0
    expiring = (
        OAuthToken.objects.select_related("credential")
        .filter(credential__deleted_at=None, credential__authorization_type="oauth2")
        .filter(expires_at__lt=moment + timedelta(minutes=1))
        .exclude(state__in=BLOCKED)
        .exclude(retry_refresh_at__gt=moment)
        .order_by("expires_at")
    )
    for row in expiring:
        if time.monotonic() > ends_at:
            break
        if not (row.has_access_token() and is_due(row, moment)):
            continue
        if not can_refresh(row, row.credential):
            continue
        try:
            refreshed += _refreshed(row, now=now, may_wait=False).version > row.version
        except TokenUnavailableError as error:
            logger.info(
                "refresh_failed credential=%d hold=%s", row.credential_id, error.hold_reason
            )
    return refreshed


def _refreshed(
    row: OAuthToken,
    *,
    now: datetime | None,
    is_forced: bool = False,
    may_use_old: bool = True,
    may_wait: bool = True,
) -> UsableToken:
    """Refresh this version, or wait for the process that does, and return its token."""
    version, waited_until = row.version, time.monotonic() + _WAIT_SECONDS
    pause = _FIRST_POLL_SECONDS
    while True:
        moment = now or timezone.now()
        if not is_forced:
            _raise_if_blocked(row)
            if _is_waiting(row, moment):
                return _old_or_raise(row, moment, may_use_old=may_use_old)
        taken_at = time.monotonic()
        if lease := take_lease(row, is_forced=is_forced):
            if renew(row.credential_id, version, lease, taken_at, now):
                # Whatever came of it is in the row, and the same for everybody.
                is_forced, may_wait = False, True
        elif not may_wait or taken_at > waited_until:
            return _old_or_raise(row, moment, may_use_old=may_use_old)
        else:
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)
            is_forced = False
        row = ensure_row(row.credential_id)
        if row.version != version and row.has_access_token():
            return _usable(row)
        if row.version != version:
            # Dropped, by a change of the settings or by a person.
            return usable_token(row.credential_id, now=now)


def _is_waiting(row: OAuthToken, now: datetime) -> bool:
    """Return whether the provider failed a moment ago and is not asked again yet."""
    return row.retry_refresh_at is not None and row.retry_refresh_at > now


def _old_or_raise(row: OAuthToken, now: datetime, *, may_use_old: bool) -> UsableToken:
    """Return the token at hand while it lives; else say when to ask again."""
    is_alive = row.expires_at is None or row.expires_at > now
    if may_use_old and is_alive and row.has_access_token():
        return _usable(row)
    message = row.last_error or stored("being_refreshed")
    retry_at = row.retry_refresh_at or now + timedelta(seconds=1)
    raise TokenUnavailableError(message, retry_at=retry_at)


def _without_refresh(row: OAuthToken, credential: Credential, now: datetime) -> UsableToken:
    if not row.has_access_token():
        raise _no_token()
    if row.expires_at is None or row.expires_at > now:
        return _usable(row)
    message = _no_refresh_token(credential)
    store_ended(row, message)
    raise TokenUnavailableError(message, hold_reason=HoldReason.REAUTHORIZATION)


def _no_token() -> TokenUnavailableError:
    return TokenUnavailableError(stored("no_token_yet"), hold_reason=HoldReason.NO_TOKEN)


def _no_refresh_token(credential: Credential, *, was_refused: bool = False) -> str:
    return stored("token_refused" if was_refused else "token_expired", provider=credential.provider)


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
    return UsableToken(
        access_token=access_token,
        version=row.version,
        expires_at=row.expires_at,
        refresh_at=refresh_at(row),
    )


# What a lease must have left when the request is sent: an exchange and its outcome's writing.
_NEEDED_SECONDS = 15.0
# A wrong encryption key is looked at again after so long.
_UNREADABLE_SECONDS = 30.0
# Waits between the tries to write an outcome, within the rest of the lease.
_STORE_WAITS_SECONDS = (0.1, 0.5, 1.0, 2.0, 4.0, None)


def renew(
    credential_id: int, version: int, lease: str, taken_at: float, now: datetime | None
) -> bool:
    """Do the one exchange the lease is for and write what came of it; False when it was late."""
    # Read after the lease is there: only now this refresh token is ours alone.
    row = OAuthToken.objects.select_related("credential").get(credential_id=credential_id)
    if row.version != version or row.refresh_lease != lease:
        return False
    try:
        request, problem = _request(row)
    except SecretUnreadableError as error:
        release_lease(row, lease)
        raise _unreadable(error) from error
    if time.monotonic() - taken_at > LEASE_SECONDS - _NEEDED_SECONDS:
        # This process slept; another may have the lease before the answer comes.
        release_lease(row, lease)
        return False
    answer, transcripts = (problem, []) if request is None else client.ask(request)
    assert answer is not None
    is_stored = _store(row, lease, answer, transcripts, now)
    for transcript in transcripts:
        exchange_log.record(
            row.credential, transcript, result=answer.result, message=answer.message
        )
    if not is_stored:
        logger.warning("refresh_outdated credential=%d result=%s", credential_id, answer.result)
    return is_stored


def _unreadable(error: SecretUnreadableError) -> TokenUnavailableError:
    """Return the error of a wrong encryption key: nothing is lost, and time may heal it."""
    retry_at = timezone.now() + timedelta(seconds=_UNREADABLE_SECONDS)
    return TokenUnavailableError(str(error), retry_at=retry_at)


def _request(row: OAuthToken) -> tuple[token_requests.TokenRequest | None, TokenAnswer | None]:
    """Return the request that renews a token, or why there can be none."""
    credential = row.credential
    try:
        if credential.grant_type == GrantType.CLIENT_CREDENTIALS:
            return token_requests.client_credentials_request(credential), None
        return token_requests.refresh_request(credential, row.refresh_token), None
    except MisconfiguredError as error:
        return None, TokenAnswer(
            result=TokenResult.MISCONFIGURED, reason="settings", message=error.message
        )


def _store(
    row: OAuthToken,
    lease: str,
    answer: TokenAnswer,
    transcripts: list[Transcript],
    now: datetime | None,
) -> bool:
    """Write the outcome, through a short loss of the database: a rotated token exists only here.

    A refusal is written only while version and lease are ours: the same statement proves that no
    other process has rotated the token.
    """
    for wait in _STORE_WAITS_SECONDS:
        try:
            if answer.token is None:
                return store_failure(row, lease, answer, now=now or timezone.now())
            return store_refreshed(
                row,
                lease,
                answer.token,
                warning=answer.warning,
                answered_at=now or client.answered_at(transcripts),
            )
        except (OperationalError, InterfaceError):
            if wait is None or connection.in_atomic_block:
                raise
            logger.warning("token_store_retried credential=%d", row.credential_id)
            connection.close()
            time.sleep(wait)
    return False


# Longer than any exchange (10 s) by enough to write its outcome through a database's hiccup.
LEASE_SECONDS = 30.0
# After a failure that time can heal: 5 s, doubled each time, at most 5 minutes.
_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS = 5.0, 300.0

BLOCKED = (TokenState.NEEDS_REAUTHORIZATION, TokenState.MISCONFIGURED)


def read_row(credential_id: int) -> OAuthToken | None:
    return OAuthToken.objects.filter(credential_id=credential_id).first()


def ensure_row(credential_id: int) -> OAuthToken:
    """Return the row of a credential, made empty if there was none."""
    row = OAuthToken(credential_id=credential_id)
    OAuthToken.objects.bulk_create([row], ignore_conflicts=True)
    return OAuthToken.objects.get(credential_id=credential_id)


def refresh_at(row: OAuthToken) -> datetime | None:
    """Return when to refresh a token before it expires, or None while that is unknown."""
    return granted_token.refresh_at(row.refreshed_at or row.obtained_at, row.expires_at)


def take_lease(row: OAuthToken, *, is_forced: bool = False) -> str:
    """Return a lease for refreshing exactly this version of a token, or "" if it is not free.

    A token that waits for a person is refreshed only when that person asks (`is_forced`).
    """
    lease = random.token_hex(16)
    free = Q(refresh_lease="") | Q(refresh_lease_until__lt=Now()) | Q(refresh_lease_until=None)
    rows = OAuthToken.objects.filter(free, credential_id=row.credential_id, version=row.version)
    if not is_forced:
        rows = rows.exclude(state__in=BLOCKED)
    taken = rows.update(
        refresh_lease=lease,
        refresh_lease_until=Now() + timedelta(seconds=LEASE_SECONDS),
        state=TokenState.REFRESHING,
    )
    return lease if taken else ""


def release_lease(row: OAuthToken, lease: str) -> None:
    """Give a lease back unused; the state is what it was when the row was read."""
    _leased(row, lease).update(
        refresh_lease="", refresh_lease_until=None, state=_resting_state(row)
    )


def store_refreshed(
    row: OAuthToken, lease: str, token: GrantedToken, *, warning: str, answered_at: datetime
) -> bool:
    """Write a refreshed token; False when the lease or version is no longer ours."""
    columns = _token_columns(row.credential_id, token, answered_at)
    if not token.refresh_token:
        # RFC 6749 section 6: without a new refresh token the old one goes on.
        del columns["refresh_token"], columns["refresh_token_expires_at"]
    if token.scope is None:
        del columns["granted_scope"]
    was_over = granted_token.is_over(row.refreshed_at or row.obtained_at, row.expires_at)
    if was_over and granted_token.is_over(answered_at, columns["expires_at"]):
        # Expired from the start for the second time: the provider's clock or number is wrong.
        columns["expires_at"] = None
        warning = joined(warning, stored("always_expired"))
    if row.obtained_at is None:
        columns["obtained_at"] = answered_at
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
) -> None:
    """Write the token a person just got; it wins over whatever a worker is doing."""
    columns = _token_columns(credential_id, token, answered_at)
    if token.scope is None:
        # RFC 6749 section 5.1: without a scope in the answer it is as requested.
        columns["granted_scope"] = requested_scope
    if not token.refresh_token and granted_token.is_over(answered_at, columns["expires_at"]):
        columns["expires_at"] = None
        warning = joined(warning, stored("always_expired"))
    columns |= {
        "obtained_at": answered_at,
        "refreshed_at": None,
        "granted_by": user,
        "warning": warning,
    }
    OAuthToken.objects.filter(credential_id=credential_id).update(**columns)


def store_failure(row: OAuthToken, lease: str, answer: TokenAnswer, *, now: datetime) -> bool:
    """Write why a refresh failed; False when lease or version are no longer ours. Tokens stay."""
    columns: dict[str, Any] = {
        "refresh_lease": "",
        "refresh_lease_until": None,
        "refresh_failures": F("refresh_failures") + 1,
        "last_error": answer.message,
        "retry_refresh_at": None,
    }
    if answer.result is TokenResult.NEEDS_REAUTHORIZATION:
        columns["state"] = TokenState.NEEDS_REAUTHORIZATION
    elif answer.result is TokenResult.MISCONFIGURED:
        columns["state"] = TokenState.MISCONFIGURED
    else:
        columns["state"] = _resting_state(row, failed=True)
        columns["retry_refresh_at"] = now + _backoff(row.refresh_failures, answer)
    with transaction.atomic():
        is_stored = bool(_leased(row, lease).update(**columns))
        if is_stored and columns["state"] in BLOCKED:
            _write_down(row, columns["state"])
    return is_stored


def store_ended(row: OAuthToken, message: str) -> bool:
    """Write that only a person can go on, without a refresh having been tried."""
    rows = OAuthToken.objects.filter(credential_id=row.credential_id, version=row.version)
    state = TokenState.NEEDS_REAUTHORIZATION
    with transaction.atomic():
        is_stored = bool(rows.exclude(state__in=BLOCKED).update(state=state, last_error=message))
        if is_stored:
            _write_down(row, state)
    return is_stored


def _write_down(row: OAuthToken, state: str) -> None:
    """Let the audit trail say that only a person can go on."""
    note = audit.note("token_state", value=state)
    audit.record(Action.AUTHORIZATION_LOST, row.credential, user=None, note=note)


def drop(credential_id: int, *, message: str = "") -> bool:
    """Erase the tokens of a credential; a refresh in progress can no longer write."""
    return bool(
        OAuthToken.objects.filter(credential_id=credential_id).update(
            **_NOTHING,
            access_token="",
            refresh_token="",
            version=F("version") + 1,
            last_error=message,
        )
    )


def reopen(credential_id: int) -> bool:
    """Let a misconfigured token be tried again, after its settings were corrected."""
    rows = OAuthToken.objects.filter(credential_id=credential_id, state=TokenState.MISCONFIGURED)
    return any(
        OAuthToken.objects.filter(
            credential_id=row.credential_id, version=row.version, state=TokenState.MISCONFIGURED
        ).update(
            state=TokenState.VALID if row.has_access_token() else TokenState.NONE,
            version=F("version") + 1,
            last_error="",
            refresh_failures=0,
        )
        for row in rows
    )


_NOTHING: dict[str, Any] = {
    "state": TokenState.NONE,
    "token_type": "",
    "granted_scope": "",
    "obtained_at": None,
    "expires_at": None,
    "refresh_token_expires_at": None,
    "refreshed_at": None,
    "granted_by": None,
    "refresh_lease": "",
    "refresh_lease_until": None,
    "retry_refresh_at": None,
    "refresh_failures": 0,
    "warning": "",
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
        "last_error": "",
    }


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
    if not row.has_access_token():
        return TokenState.NONE
    if row.state in BLOCKED:
        return TokenState(row.state)
    return TokenState.EXPIRING if failed else TokenState.VALID


def _backoff(failures: int, answer: TokenAnswer) -> timedelta:
    seconds = min(_FIRST_RETRY_SECONDS * 2 ** min(failures, 10), _MAX_RETRY_SECONDS)
    # Up to a tenth longer, so that many webhooks do not come back at once.
    seconds *= 1 + random.randbelow(100) / 1000
    return timedelta(seconds=max(seconds, answer.retry_after_seconds or 0.0))


def drop_if_changed(old_fingerprint: str, credential: Credential, receiver_url: str) -> bool:
    """Erase the tokens when they belong to settings from before; return whether there were any.

    A corrected client secret keeps them: the grant is the client's, and a misconfigured token is
    tried again.
    """
    row = read_row(credential.pk)
    if row is None:
        return False
    if fingerprint(credential, receiver_url) == old_fingerprint:
        reopen(credential.pk)
        return False
    had_token = row.has_access_token() or row.has_refresh_token()
    drop(credential.pk)
    return had_token
