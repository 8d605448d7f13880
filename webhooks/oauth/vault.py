"""The token vault: one usable token per webhook, refreshed once per version by whoever needs it.

No transaction is open during HTTP. The process that gets the lease refreshes; the others wait for
its token by looking at the row. Concurrency: safe across threads, processes and machines.
"""

import logging
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.translation import gettext as _

from webhooks.models import GrantType, HoldReason, OAuthToken, TokenState, Webhook
from webhooks.oauth import presets, rows
from webhooks.oauth.errors import TokenUnavailable
from webhooks.oauth.renewal import renew, unreadable
from webhooks.security import key_check
from webhooks.security.encryption import SecretUnreadableError

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
    # When the vault will refresh it by itself.
    refresh_at: datetime | None = None


def usable_token(webhook_id: int, *, now: datetime | None = None) -> UsableToken:
    """Return the webhook's token, refreshed first when it is about to expire.

    Blocks for up to 12 seconds. Errors: TokenUnavailable.
    """
    row = rows.read(webhook_id) or rows.ensure(webhook_id)
    moment = now or timezone.now()
    _raise_if_blocked(row)
    if row.has_access_token() and not is_due(row, moment):
        return _usable(row)
    webhook = Webhook.objects.get(pk=webhook_id)
    if not can_refresh(row, webhook):
        return _without_refresh(row, webhook, moment)
    return _refreshed(row, now=now)


def refresh(
    webhook: Webhook, *, dead_version: int | None = None, now: datetime | None = None
) -> UsableToken:
    """Return a token newer than `dead_version`, the one a receiver refused.

    Without it a person asks: the token is refreshed now, also when it waits for that person.
    One refresh per version, however many ask. Errors: TokenUnavailable.
    """
    row = rows.ensure(webhook.pk)
    is_forced = dead_version is None
    if not is_forced:
        _raise_if_blocked(row)
        if row.version != dead_version and row.has_access_token():
            return usable_token(webhook.pk, now=now)
    current = Webhook.objects.get(pk=webhook.pk)
    if not can_refresh(row, current):
        message = _no_refresh_token(current, was_refused=not is_forced)
        if not is_forced:
            rows.store_ended(row, message)
        if not row.has_access_token():
            raise _no_token()
        raise TokenUnavailable(message, hold_reason=HoldReason.REAUTHORIZATION)
    return _refreshed(row, now=now, is_forced=is_forced, may_use_old=False)


def refresh_margin(token: UsableToken) -> float:
    """Return how many seconds before its expiry a token is refreshed."""
    if token.expires_at is None or token.refresh_at is None:
        return 0.0
    return (token.expires_at - token.refresh_at).total_seconds()


def is_due(row: OAuthToken, now: datetime) -> bool:
    """Say whether the token should be refreshed by now; one of unknown life never is."""
    at = rows.refresh_at(row)
    return at is not None and now >= at


def can_refresh(row: OAuthToken, webhook: Webhook) -> bool:
    return webhook.grant_type == GrantType.CLIENT_CREDENTIALS or row.has_refresh_token()


def refresh_expiring(now: datetime | None = None) -> int:
    """Refresh what is about to expire; return how many were refreshed."""
    if problem := key_check.problem():
        logger.error("refresh_refused reason=%s", problem)
        return 0
    moment = now or timezone.now()
    ends_at = time.monotonic() + _BEAT_SECONDS
    refreshed = 0
    expiring = (
        OAuthToken.objects.select_related("webhook")
        .filter(webhook__deleted_at=None, webhook__authorization_type="oauth2")
        .filter(expires_at__lt=moment + timedelta(minutes=1))
        .exclude(state__in=rows.BLOCKED)
        .exclude(retry_refresh_at__gt=moment)
        .order_by("expires_at")
    )
    for row in expiring:
        if time.monotonic() > ends_at:
            break
        if not (row.has_access_token() and is_due(row, moment)):
            continue
        if not can_refresh(row, row.webhook):
            continue
        try:
            refreshed += _refreshed(row, now=now, may_wait=False).version > row.version
        except TokenUnavailable as error:
            logger.info("refresh_failed webhook=%d hold=%s", row.webhook_id, error.hold_reason)
    return refreshed


def _refreshed(
    row: OAuthToken,
    *,
    now: datetime | None,
    is_forced: bool = False,
    may_use_old: bool = True,
    may_wait: bool = True,
) -> UsableToken:
    """Refresh this version, or wait for whoever does, and return what came of it."""
    version, waited_until = row.version, time.monotonic() + _WAIT_SECONDS
    pause = _FIRST_POLL_SECONDS
    while True:
        moment = now or timezone.now()
        if not is_forced:
            _raise_if_blocked(row)
            if _is_waiting(row, moment):
                return _old_or_raise(row, moment, may_use_old=may_use_old)
        taken_at = time.monotonic()
        if lease := rows.take_lease(row, is_forced=is_forced):
            if renew(row.webhook_id, version, lease, taken_at, now):
                # Whatever came of it is in the row, and the same for everybody.
                is_forced, may_wait = False, True
        elif not may_wait or taken_at > waited_until:
            return _old_or_raise(row, moment, may_use_old=may_use_old)
        else:
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)
            is_forced = False
        row = rows.ensure(row.webhook_id)
        if row.version != version and row.has_access_token():
            return _usable(row)
        if row.version != version:
            # Dropped, by a change of the settings or by a person.
            return usable_token(row.webhook_id, now=now)


def _is_waiting(row: OAuthToken, now: datetime) -> bool:
    """Say whether the provider failed a moment ago and is not asked again yet."""
    return row.retry_refresh_at is not None and row.retry_refresh_at > now


def _old_or_raise(row: OAuthToken, now: datetime, *, may_use_old: bool) -> UsableToken:
    """Return the token at hand while it lives; else say when to ask again."""
    is_alive = row.expires_at is None or row.expires_at > now
    if may_use_old and is_alive and row.has_access_token():
        return _usable(row)
    message = row.last_error or _("The access token is being refreshed.")
    retry_at = row.retry_refresh_at or now + timedelta(seconds=1)
    raise TokenUnavailable(message, retry_at=retry_at)


def _without_refresh(row: OAuthToken, webhook: Webhook, now: datetime) -> UsableToken:
    if not row.has_access_token():
        raise _no_token()
    if row.expires_at is None or row.expires_at > now:
        return _usable(row)
    message = _no_refresh_token(webhook)
    rows.store_ended(row, message)
    raise TokenUnavailable(message, hold_reason=HoldReason.REAUTHORIZATION)


def _no_token() -> TokenUnavailable:
    message = _("There is no access token yet. Press “Get new access token”.")
    return TokenUnavailable(message, hold_reason=HoldReason.NO_TOKEN)


def _no_refresh_token(webhook: Webhook, *, was_refused: bool = False) -> str:
    if was_refused:
        ended = _("The receiver refused the access token, and there is no refresh token.")
    else:
        ended = _("The access token has expired, and there is no refresh token.")
    press = _("Press “Get new access token”.")
    return f"{ended} {press} {presets.refresh_hint(webhook.provider)}"


def _raise_if_blocked(row: OAuthToken) -> None:
    if row.state == TokenState.NEEDS_REAUTHORIZATION:
        raise TokenUnavailable(row.last_error, hold_reason=HoldReason.REAUTHORIZATION)
    if row.state == TokenState.MISCONFIGURED:
        raise TokenUnavailable(row.last_error, hold_reason=HoldReason.MISCONFIGURED)


def _usable(row: OAuthToken) -> UsableToken:
    try:
        access_token = row.access_token
    except SecretUnreadableError as error:
        raise unreadable(error) from error
    return UsableToken(
        access_token=access_token,
        version=row.version,
        expires_at=row.expires_at,
        refresh_at=rows.refresh_at(row),
    )
