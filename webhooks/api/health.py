"""`/healthz` reports that the process responds, `/readyz` that its dependencies do too.

Both are public, so they name what fails and never why: no addresses, versions or error texts.
Figures and the opened networks are for staff and for API keys with `health:read`.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import redis
from django.conf import settings
from django.db import Error as DatabaseError
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from webhooks.api.events import bearer_token
from webhooks.delivery import backlog, queue
from webhooks.delivery.limited_calls import LimitedCalls
from webhooks.models import ApiKey, ApiScope, MissingScopeError
from webhooks.models.tables import missing_migrations
from webhooks.network import Policy
from webhooks.security import key_check

logger = logging.getLogger(__name__)

_BROKER_SECONDS = 1.0
_broker_calls = LimitedCalls(_BROKER_SECONDS)
# An older transaction of any client of the database may slow deliveries down.
LONG_TRANSACTION_SECONDS = 600.0
# A key that is written to test whether the broker accepts writes.
_PROBE = "webhooks:probe"
_OK = "ok"


# So that another method gets 405 and not the page about a missing CSRF token.
@csrf_exempt
@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": _OK})


@csrf_exempt
@never_cache
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """Respond 200 if everything works and 503 otherwise, with a word or sentence for each check.

    A resource that a worker's machine lacks is shown, and so is a transaction that may slow
    deliveries down, but these do not take this process out of service.
    """
    found = {name: look() for name, look in _LOOKS.items()}
    failing = [name for name, state in found.items() if state != _OK]
    is_ready = not set(failing) - _DEGRADING
    status = "not ready" if not is_ready else "degraded" if failing else _OK
    figures = _figures() if _is_staff(request) or _has_key(request) else {}
    return JsonResponse({"status": status, **found, **figures}, status=200 if is_ready else 503)


def _is_staff(request: HttpRequest) -> bool:
    try:
        return request.user.is_active and getattr(request.user, "is_staff", False)
    except (DatabaseError, redis.RedisError, OSError):
        # The user is unknown while the database or the session store does not respond.
        return False


def _has_key(request: HttpRequest) -> bool:
    """Return whether the request has an API key with `health:read`."""
    plain = bearer_token(request)
    try:
        return bool(plain and ApiKey.objects.verify(plain, ApiScope.HEALTH_READ))
    except (MissingScopeError, DatabaseError):
        return False


def _figures() -> dict[str, Any]:
    """Return the backlog, and the opened networks so that a forgotten entry is noticed."""
    networks: list[str] = settings.WEBHOOKS_ALLOWED_NETWORKS
    try:
        swept = _sweep_seconds()
    except (redis.RedisError, OSError):
        swept = None
    return {
        "networks_opened": len(networks),
        "opened": networks,
        "sweep_seconds_ago": swept,
        "queue": _queue(),
        "oldest_transaction": _oldest_transaction(),
    }


def _queue() -> dict[str, float] | None:
    """Return how far behind the engine is, or None while the database does not respond."""
    try:
        return asdict(backlog.read())
    except DatabaseError:
        return None


def _oldest_transaction() -> dict[str, Any] | None:
    try:
        found = queue.backend().oldest_transaction()
    except DatabaseError:
        return None
    return found._asdict() | {"seconds": round(found.seconds, 1)} if found else None


def _transactions() -> str:
    """Report a transaction that somebody forgot, or that takes very long, such as a dump."""
    try:
        found = queue.backend().oldest_transaction()
    except DatabaseError:
        return "unknown: the database does not answer"
    if found is None or found.seconds < LONG_TRANSACTION_SECONDS:
        return _OK
    return "one has been open for over ten minutes and may slow deliveries down"


def _database() -> str:
    try:
        if missing_migrations():
            return "lacks tables or columns of this version: run “manage.py migrate”"
        takes_events = queue.backend().takes_events()
    except DatabaseError as error:
        logger.error("database_not_ready error=%s", queue.backend().described(error))
        return "does not answer or refuses us: see database_not_ready in the log"
    return _OK if takes_events else "takes no events: it is read-only, or our role may not write"


def _secrets() -> str:
    try:
        return "cannot be read with FIELD_ENCRYPTION_KEY" if key_check.problem() else _OK
    except DatabaseError:
        return "unknown: the database does not answer"


def _networks() -> str:
    try:
        Policy.from_settings()
    except ValueError:
        return "WEBHOOKS_ALLOWED_NETWORKS cannot be read"
    return _OK


def _broker() -> str:
    if not settings.REDIS_URL:
        # The broker is in the memory of this process.
        return _OK
    try:
        _broker_calls.run(_write_probe)
    except redis.AuthenticationError:
        return "does not let us in: the user or password of REDIS_URL is wrong"
    except redis.ResponseError:
        return "takes no writes: it is read-only or full, or our user may not write"
    except (redis.RedisError, OSError):
        return "does not answer"
    return _OK


def _write_probe() -> None:
    with redis.Redis.from_url(
        settings.REDIS_URL,
        socket_connect_timeout=_BROKER_SECONDS,
        socket_timeout=_BROKER_SECONDS,
        retry=None,
    ) as client:
        client.set(_PROBE, b"", px=1000)


def _last_sweep() -> str:
    try:
        if backlog.noted(backlog.SWEPT_RECENTLY) is True:
            return _OK
        is_known = _sweep_seconds() is not None
    except (redis.RedisError, OSError):
        return "unknown: the broker does not answer"
    return f"{'late' if is_known else 'none yet'}: {_how_to_sweep()}"


def _how_to_sweep() -> str:
    if not settings.REDIS_URL:
        return "without REDIS_URL “manage.py run” sweeps; if this is it, see its log"
    name = settings.CELERY_TASK_DEFAULT_QUEUE
    return (
        "start “manage.py worker”, or both “celery -A config beat” and a “celery -A config worker” "
        f"that takes the queue “{name}”; if they run, see their log"
    )


def _sweep_seconds() -> float | None:
    """Return the seconds since the last sweep, as measured by two clocks; None if unknown."""
    swept_at = backlog.noted(backlog.LAST_SWEEP)
    return max(0.0, round(time.time() - swept_at, 1)) if isinstance(swept_at, float) else None


def _machine() -> str:
    """Report what a worker's machine lacks: descriptors, ports, buffers, memory, name servers."""
    try:
        lack = backlog.noted(backlog.MACHINE_LACKS)
    except (redis.RedisError, OSError):
        return "unknown: the broker does not answer"
    return f"a worker cannot send: {lack}" if lack else _OK


_LOOKS: dict[str, Callable[[], str]] = {
    "database": _database,
    "secrets": _secrets,
    "networks": _networks,
    "broker": _broker,
    "last_sweep": _last_sweep,
    "machine": _machine,
    "transactions": _transactions,
}
# Checks of other processes; this one serves while they fail.
_DEGRADING = {"machine", "transactions"}
