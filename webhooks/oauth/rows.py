"""The writes to a token's row: each one UPDATE that counts only where it may.

A refresh is owned by a lease on the database's clock. Whatever it leads to is written in one
statement that still asks for the lease and the version; a count of zero means that somebody else
was faster, and nothing is lost. Knows no HTTP.
"""

import secrets as random
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from webhooks import audit
from webhooks.models import Action, OAuthToken, TokenState
from webhooks.oauth import lifetimes
from webhooks.oauth.answers import Answer
from webhooks.oauth.grants import GrantedToken
from webhooks.oauth.verdicts import Result
from webhooks.security.encryption import Sealed, SecretField, seal

# Longer than any exchange (10 s) by enough to write its outcome through a database's hiccup.
LEASE_SECONDS = 30.0
# After a failure that time can heal: 5 s, doubled each time, at most 5 minutes.
_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS = 5.0, 300.0
_MAX_ERROR = 1000

BLOCKED = (TokenState.NEEDS_REAUTHORIZATION, TokenState.MISCONFIGURED)


def read(webhook_id: int) -> OAuthToken | None:
    return OAuthToken.objects.filter(webhook_id=webhook_id).first()


def ensure(webhook_id: int) -> OAuthToken:
    """Return the row of a webhook, made empty if there was none."""
    row = OAuthToken(webhook_id=webhook_id)
    OAuthToken.objects.bulk_create([row], ignore_conflicts=True)
    return OAuthToken.objects.get(webhook_id=webhook_id)


def refresh_at(row: OAuthToken) -> datetime | None:
    """Return when to refresh a token before it expires, or None while that is unknown."""
    return lifetimes.refresh_at(row.refreshed_at or row.obtained_at, row.expires_at)


def take_lease(row: OAuthToken, *, is_forced: bool = False) -> str:
    """Return a lease for refreshing exactly this version of a token, or "" if it is not free.

    A token that waits for a person is refreshed only when that person asks (`is_forced`).
    """
    lease = random.token_hex(16)
    free = Q(refresh_lease="") | Q(refresh_lease_until__lt=Now()) | Q(refresh_lease_until=None)
    rows = OAuthToken.objects.filter(free, webhook_id=row.webhook_id, version=row.version)
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
    """Write a refreshed token; False when the row belongs to somebody else by now."""
    columns = _token_columns(row.webhook_id, token, answered_at)
    if not token.refresh_token:
        # RFC 6749 section 6: without a new refresh token the old one goes on.
        del columns["refresh_token"], columns["refresh_token_expires_at"]
    if token.scope is None:
        del columns["granted_scope"]
    was_over = lifetimes.is_over(row.refreshed_at or row.obtained_at, row.expires_at)
    if was_over and lifetimes.is_over(answered_at, columns["expires_at"]):
        # Expired from the start for the second time: the provider's clock or number is wrong.
        columns["expires_at"] = None
        warning = f"{warning} {_odd_expiry()}".strip()
    if row.obtained_at is None:
        columns["obtained_at"] = answered_at
    columns |= {"refreshed_at": answered_at, "warning": warning[:_MAX_ERROR]}
    return bool(_leased(row, lease).update(**columns))


def store_granted(
    webhook_id: int,
    token: GrantedToken,
    *,
    warning: str,
    answered_at: datetime,
    requested_scope: str,
    user: AbstractBaseUser | None,
) -> None:
    """Write the token a person just got; it wins over whatever a worker is doing."""
    columns = _token_columns(webhook_id, token, answered_at)
    if token.scope is None:
        # RFC 6749 section 5.1: not told means as asked for.
        columns["granted_scope"] = requested_scope
    if not token.refresh_token and lifetimes.is_over(answered_at, columns["expires_at"]):
        columns["expires_at"] = None
        warning = f"{warning} {_odd_expiry()}".strip()
    columns |= {
        "obtained_at": answered_at,
        "refreshed_at": None,
        "granted_by": user,
        "warning": warning[:_MAX_ERROR],
    }
    OAuthToken.objects.filter(webhook_id=webhook_id).update(**columns)


def store_failure(row: OAuthToken, lease: str, answer: Answer, *, now: datetime) -> bool:
    """Write why a refresh failed; the tokens stay. False when the row is somebody else's."""
    columns: dict[str, Any] = {
        "refresh_lease": "",
        "refresh_lease_until": None,
        "refresh_failures": F("refresh_failures") + 1,
        "last_error": answer.message[:_MAX_ERROR],
        "retry_refresh_at": None,
    }
    if answer.result is Result.NEEDS_REAUTHORIZATION:
        columns["state"] = TokenState.NEEDS_REAUTHORIZATION
    elif answer.result is Result.MISCONFIGURED:
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
    rows = OAuthToken.objects.filter(webhook_id=row.webhook_id, version=row.version)
    state = TokenState.NEEDS_REAUTHORIZATION
    with transaction.atomic():
        is_stored = bool(
            rows.exclude(state__in=BLOCKED).update(state=state, last_error=message[:_MAX_ERROR])
        )
        if is_stored:
            _write_down(row, state)
    return is_stored


def _write_down(row: OAuthToken, state: str) -> None:
    """Let the audit trail say that only a person can go on."""
    note = str(TokenState(state).label)
    audit.record(Action.AUTHORIZATION_LOST, row.webhook, user=None, note=note)


def drop(webhook_id: int, *, message: str = "") -> bool:
    """Erase the tokens of a webhook; a refresh in progress can no longer write."""
    return bool(
        OAuthToken.objects.filter(webhook_id=webhook_id).update(
            **_NOTHING,
            access_token="",
            refresh_token="",
            version=F("version") + 1,
            last_error=message[:_MAX_ERROR],
        )
    )


def reopen(webhook_id: int) -> bool:
    """Let a misconfigured token be tried again, after its settings were corrected."""
    rows = OAuthToken.objects.filter(webhook_id=webhook_id, state=TokenState.MISCONFIGURED)
    return any(
        OAuthToken.objects.filter(
            webhook_id=row.webhook_id, version=row.version, state=TokenState.MISCONFIGURED
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


def _token_columns(webhook_id: int, token: GrantedToken, answered_at: datetime) -> dict[str, Any]:
    return {
        "state": TokenState.VALID,
        "access_token": _sealed(webhook_id, "access_token", token.access_token),
        "refresh_token": _sealed(webhook_id, "refresh_token", token.refresh_token),
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


def _sealed(webhook_id: int, name: str, value: str) -> Sealed:
    column = OAuthToken._meta.get_field(name)
    assert isinstance(column, SecretField)
    return seal(value, column.place(OAuthToken(webhook_id=webhook_id)))


def _leased(row: OAuthToken, lease: str) -> Any:
    return OAuthToken.objects.filter(
        webhook_id=row.webhook_id, version=row.version, refresh_lease=lease
    )


def _after(moment: datetime, seconds: float | None) -> datetime | None:
    return None if seconds is None else moment + timedelta(seconds=max(0.0, seconds))


def _odd_expiry() -> str:
    return _(
        "The provider says that its new tokens have expired already, so they are used until the "
        "receiver refuses them."
    )


def _resting_state(row: OAuthToken, *, failed: bool = False) -> TokenState:
    if not row.has_access_token():
        return TokenState.NONE
    if row.state in BLOCKED:
        return TokenState(row.state)
    return TokenState.EXPIRING if failed else TokenState.VALID


def _backoff(failures: int, answer: Answer) -> timedelta:
    seconds = min(_FIRST_RETRY_SECONDS * 2 ** min(failures, 10), _MAX_RETRY_SECONDS)
    # Up to a tenth longer, so that many webhooks do not come back at once.
    seconds *= 1 + random.randbelow(100) / 1000
    return timedelta(seconds=max(seconds, answer.retry_after_seconds or 0.0))
