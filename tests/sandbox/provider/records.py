"""The requests that reached the token and revocation endpoints, without their secrets."""

import json
import threading
from collections import deque
from typing import Any

from django.http import HttpRequest, HttpResponseBase

SECRET_PARAMETERS = {
    "assertion",
    "client_assertion",
    "client_secret",
    "code",
    "code_verifier",
    "password",
    "refresh_token",
    "token",
}
KEPT_REQUESTS = 10_000

_lock = threading.Lock()
_records: deque[dict[str, Any]] = deque(maxlen=KEPT_REQUESTS)
_last_number = 0


def add(
    request: HttpRequest, response: HttpResponseBase, *, started_at: float, is_fault: bool
) -> None:
    global _last_number
    record = {
        "time": started_at,
        "endpoint": request.path.strip("/"),
        "client_authentication": _client_authentication(request),
        "grant_type": request.POST.get("grant_type", ""),
        "status": response.status_code,
        "error": _error(response),
        "is_fault": is_fault,
        "parameters": [
            (name, "***" if name in SECRET_PARAMETERS else value)
            for name, values in request.POST.lists()
            for value in values
        ],
        "headers": [
            (name, value) for name, value in request.headers.items() if name != "Authorization"
        ],
    }
    with _lock:
        _last_number += 1
        _records.append({"number": _last_number, **record})


def since(number: int, *, endpoint: str) -> list[dict[str, Any]]:
    with _lock:
        return [one for one in _records if one["number"] > number and one["endpoint"] == endpoint]


def clear() -> None:
    with _lock:
        _records.clear()


def _client_authentication(request: HttpRequest) -> str:
    is_basic = request.headers.get("Authorization", "").lower().startswith("basic ")
    is_body = "client_secret" in request.POST
    if is_basic and is_body:
        return "both"
    return "basic" if is_basic else "body" if is_body else "none"


def _error(response: HttpResponseBase) -> str:
    try:
        return str(json.loads(getattr(response, "content", b"")).get("error", ""))
    except (ValueError, AttributeError):
        return ""
