"""The one exchange that a lease on a token is for, and the writing of what came of it."""

import logging
import time
from datetime import datetime, timedelta

from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from webhooks.models import GrantType, OAuthToken
from webhooks.oauth import client, exchanges, rows, token_requests
from webhooks.oauth.answers import Answer
from webhooks.oauth.errors import Misconfigured, TokenUnavailable
from webhooks.oauth.exchanges import Transcript
from webhooks.oauth.verdicts import Result
from webhooks.security.encryption import SecretUnreadableError

logger = logging.getLogger(__name__)

# What a lease must have left when the request is sent: an exchange and its outcome's writing.
_NEEDED_SECONDS = 15.0
# A wrong encryption key is looked at again after so long.
_UNREADABLE_SECONDS = 30.0
# Waits between the tries to write an outcome, within the rest of the lease.
_STORE_WAITS_SECONDS = (0.1, 0.5, 1.0, 2.0, 4.0, None)


def renew(webhook_id: int, version: int, lease: str, taken_at: float, now: datetime | None) -> bool:
    """Do the one exchange the lease is for and write what came of it; False when it was late."""
    # Read after the lease is there: only now nobody else uses this refresh token.
    row = OAuthToken.objects.select_related("webhook").get(webhook_id=webhook_id)
    if row.version != version or row.refresh_lease != lease:
        return False
    try:
        request, problem = _request(row)
    except SecretUnreadableError as error:
        rows.release_lease(row, lease)
        raise unreadable(error) from error
    if time.monotonic() - taken_at > rows.LEASE_SECONDS - _NEEDED_SECONDS:
        # This process slept; another may have the lease before the answer comes.
        rows.release_lease(row, lease)
        return False
    answer, transcripts = (problem, []) if request is None else client.ask(request)
    assert answer is not None
    is_stored = _store(row, lease, answer, transcripts, now)
    for transcript in transcripts:
        exchanges.record(row.webhook, transcript, result=answer.result, message=answer.message)
    if not is_stored:
        logger.warning("refresh_outdated webhook=%d result=%s", webhook_id, answer.result)
    return is_stored


def unreadable(error: SecretUnreadableError) -> TokenUnavailable:
    """Return the error of a wrong encryption key: nothing is lost, and time may heal it."""
    retry_at = timezone.now() + timedelta(seconds=_UNREADABLE_SECONDS)
    return TokenUnavailable(str(error), retry_at=retry_at)


def _request(row: OAuthToken) -> tuple[token_requests.TokenRequest | None, Answer | None]:
    """Return the request that renews a token, or why there can be none."""
    webhook = row.webhook
    try:
        if webhook.grant_type == GrantType.CLIENT_CREDENTIALS:
            return token_requests.client_credentials_request(webhook), None
        return token_requests.refresh_request(webhook, row.refresh_token), None
    except Misconfigured as error:
        return None, Answer(result=Result.MISCONFIGURED, reason="settings", message=str(error))


def _store(
    row: OAuthToken,
    lease: str,
    answer: Answer,
    transcripts: list[Transcript],
    now: datetime | None,
) -> bool:
    """Write the outcome, through a short loss of the database: a rotated token exists only here.

    A refusal is written, and so believed, only while version and lease are ours: in the same
    statement it is known that nobody else has rotated the token.
    """
    for wait in _STORE_WAITS_SECONDS:
        try:
            if answer.token is None:
                return rows.store_failure(row, lease, answer, now=now or timezone.now())
            return rows.store_refreshed(
                row,
                lease,
                answer.token,
                warning=answer.warning,
                answered_at=now or client.answered_at(transcripts),
            )
        except (OperationalError, InterfaceError):
            if wait is None or connection.in_atomic_block:
                raise
            logger.warning("token_store_retried webhook=%d", row.webhook_id)
            connection.close()
            time.sleep(wait)
    return False
