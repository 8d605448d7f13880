"""Plans of webhooks, made in the background and kept until something they hold changes.

A plan needs the database, decryption and sometimes a token refresh over the network; none of that
may stop the engine. So a webhook whose plan is not ready is not claimed yet.
"""

import logging
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from django.db import Error as DatabaseError
from django.db import connection
from django.utils import timezone
from django.utils.translation import gettext as _

from webhooks import oauth
from webhooks.delivery import outcomes
from webhooks.delivery.auth import (
    Authorization,
    BasicAuthorization,
    BearerAuthorization,
    NoAuthorization,
    QueryAuthorization,
)
from webhooks.delivery.queue.rows import Candidate
from webhooks.delivery.recorder import note_unusable
from webhooks.delivery.requests import RequestPlan, make_plan, read_headers
from webhooks.models import (
    AuthorizationType,
    Credential,
    HoldReason,
    TokenPlacement,
    Webhook,
    may_be_sent_to,
)
from webhooks.models.messages import Message
from webhooks.network import UnsafeURLError, parse_url
from webhooks.payloads import MappingError
from webhooks.security import key_check
from webhooks.security.encryption import SecretUnreadableError

logger = logging.getLogger(__name__)

_THREADS = 4
# A wrong encryption key or a lost database is looked at again after so long.
_RETRY_SECONDS = 10.0
# A token that was refreshed because of a 401 and is refused again is not refreshed sooner.
_REFUSED_SECONDS = 300.0


class PlanEntry(NamedTuple):
    """What is known of one webhook; exactly one of `plan` and `problem` is set."""

    version: int
    token_version: int
    plan: RequestPlan | None
    problem: str
    # Set when deliveries wait for a person and not for time.
    hold_reason: str
    # Monotonic seconds: when to make it again although nothing changed.
    expires: float


def present_versions(webhook_ids: Collection[int]) -> dict[int, int]:
    """Return the version of each webhook as it is now; -1 for one that is no more."""
    columns = ("version", "credential__version")
    rows = Webhook.objects.filter(pk__in=webhook_ids).select_related("credential").only(*columns)
    present = {webhook.pk: webhook.version_sent for webhook in rows}
    return {**dict.fromkeys(webhook_ids, -1), **present}


class Plans:
    """A cache of entries by webhook, filled by a few threads."""

    def __init__(self, on_ready: Callable[[], None]) -> None:
        self._entries: dict[int, PlanEntry] = {}
        self._in_progress: set[int] = set()
        # Webhook id -> token version that the receiver refused.
        self._refused: dict[int, int] = {}
        # Webhook id -> (when a refusal last led to a refresh, version it led to, proven).
        self._forced_at: dict[int, float] = {}
        self._on_ready = on_ready
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="plans")

    def get(self, candidate: Candidate) -> PlanEntry | None:
        """Return a fresh entry, or None while it is being made."""
        webhook_id = candidate.webhook_id
        entry = self._entries.get(webhook_id)
        if (
            entry is not None
            and entry.version == candidate.version
            and entry.token_version == candidate.token_version
            and time.monotonic() < entry.expires
        ):
            return entry
        if webhook_id not in self._in_progress:
            self._in_progress.add(webhook_id)
            self._pool.submit(self._make, candidate)
        return None

    def token_refused(self, plan: RequestPlan) -> bool:
        """Note that the receiver refused a token; return whether a new one will be fetched."""
        now = time.monotonic()
        webhook_id = plan.webhook_id
        if self._refused.get(webhook_id) == plan.token_version:
            return True
        entry = self._entries.get(webhook_id)
        if entry is not None and entry.token_version > plan.token_version:
            return True
        if now - self._forced_at.get(webhook_id, float("-inf")) < _REFUSED_SECONDS:
            return False
        self._forced_at[webhook_id] = now
        self._refused[webhook_id] = plan.token_version
        self._entries.pop(webhook_id, None)
        return True

    def token_worked(self, webhook_id: int) -> None:
        self._forced_at.pop(webhook_id, None)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _make(self, candidate: Candidate) -> None:
        try:
            self._entries[candidate.webhook_id] = self._entry(candidate)
        except DatabaseError as error:
            logger.warning("plan_delayed webhook=%d error=%s", candidate.webhook_id, error)
            time.sleep(0.2)
        except Exception:
            logger.exception("plan_failed webhook=%d", candidate.webhook_id)
            self._entries[candidate.webhook_id] = _unavailable(
                candidate, outcomes.stored(Message("unreadable_settings", {}))
            )
        finally:
            connection.close()
            self._in_progress.discard(candidate.webhook_id)
            self._on_ready()

    def _entry(self, candidate: Candidate) -> PlanEntry:
        webhook = Webhook.objects.select_related("credential").get(pk=candidate.webhook_id)
        try:
            # Also for a webhook without a secret: with a wrong key nothing is sent at all.
            key_check.require()
            authorization, token = self._authorization(webhook)
            plan = make_plan(webhook, authorization, token_version=token.version if token else 0)
        except oauth.TokenUnavailableError as error:
            return _token_unavailable(candidate, error)
        except (SecretUnreadableError, UnsafeURLError, MappingError) as error:
            logger.error("plan_unavailable webhook=%d reason=%s", webhook.pk, error)
            reason = outcomes.stored(outcomes.of_error(error))
            if not key_check.problem():
                note_unusable(webhook.pk, reason)
            return _unavailable(candidate, reason)
        token_version = token.version if token else candidate.token_version
        expires = min(_token_expires(token), _secret_expires(webhook))
        return PlanEntry(plan.version, token_version, plan, "", "", expires)

    def _authorization(self, webhook: Webhook) -> tuple[Authorization, oauth.UsableToken | None]:
        credential = webhook.credential
        if problem := destination_problem(webhook):
            raise oauth.TokenUnavailableError(problem, hold_reason=HoldReason.MISCONFIGURED)
        if credential.authorization_type == AuthorizationType.BASIC:
            return BasicAuthorization(credential.basic_login, credential.basic_password), None
        if credential.authorization_type == AuthorizationType.OAUTH2:
            token = self._token(webhook.pk, credential)
            return token_authorization(credential, token.access_token), token
        return NoAuthorization(), None

    def _token(self, webhook_id: int, credential: Credential) -> oauth.UsableToken:
        refused = self._refused.get(webhook_id)
        if refused is None:
            return oauth.usable_token(credential.pk)
        token = oauth.refresh(credential, dead_version=refused)
        self._refused.pop(webhook_id, None)
        return token


def token_authorization(credential: Credential, access_token: str) -> Authorization:
    """Return how a credential sends its access token."""
    if credential.token_placement == TokenPlacement.QUERY:
        return QueryAuthorization(access_token, credential.token_query_parameter or "access_token")
    return BearerAuthorization(access_token, credential.header_prefix)


def destination_problem(webhook: Webhook) -> str:
    """Return why a webhook's secrets may not go to its receiver, if so. Errors: UnsafeURLError."""
    credential, origin = webhook.credential, parse_url(webhook.url).origin
    if credential.is_shared and origin not in credential.receiver_origins:
        sentence = _(
            "The connection “%(name)s” may not be sent to %(origin)s. Add it to the hosts of the "
            "connection, or choose another one."
        )
    elif not may_be_sent_to(credential, origin):
        sentence = _(
            "There is no password or client secret that was entered for %(origin)s. Enter it again."
        )
    elif not may_be_sent_to(webhook, origin, "headers_json") and _has_secret_header(webhook):
        sentence = _(
            "The secret headers were entered for another address than %(origin)s. Enter their "
            "values again."
        )
    else:
        return ""
    return sentence % {"name": credential.name, "origin": origin}


def _has_secret_header(webhook: Webhook) -> bool:
    return any(is_secret for _, _, is_secret in read_headers(webhook.headers_json))


def _token_expires(token: oauth.UsableToken | None) -> float:
    """Return when, on the monotonic clock, to ask the vault again: it refreshes in time."""
    if token is None or token.expires_at is None:
        return float("inf")
    return time.monotonic() + max(
        1.0, (token.expires_at - timezone.now()).total_seconds() - oauth.refresh_margin(token)
    )


def _secret_expires(webhook: Webhook) -> float:
    """Return when the previous signing secret ends."""
    until = webhook.previous_signing_secret_until
    left = (until - timezone.now()).total_seconds() if until else 0.0
    return time.monotonic() + left if left > 0 else float("inf")


def _unavailable(candidate: Candidate, problem: str) -> PlanEntry:
    return PlanEntry(
        candidate.version,
        candidate.token_version,
        None,
        problem,
        "",
        time.monotonic() + _RETRY_SECONDS,
    )


def _token_unavailable(candidate: Candidate, error: oauth.TokenUnavailableError) -> PlanEntry:
    wait = _RETRY_SECONDS
    if error.retry_at is not None:
        wait = min(max((error.retry_at - timezone.now()).total_seconds(), 0.5), 300.0)
    return PlanEntry(
        candidate.version,
        candidate.token_version,
        None,
        outcomes.of_text(error.message),
        error.hold_reason or "",
        time.monotonic() + wait,
    )
