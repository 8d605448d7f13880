"""Faults on demand: faults of endpoints and the lifetime of tokens, in memory."""

import threading
from dataclasses import dataclass, field
from typing import Any

# Name of an endpoint in `POST /_control`, and the path it is served at.
ENDPOINTS = {
    "token_endpoint": "/token/",
    "revocation_endpoint": "/revoke/",
    "introspection_endpoint": "/introspect/",
    "metadata_endpoint": "/.well-known/oauth-authorization-server",
}


@dataclass(slots=True, kw_only=True)
class ProviderFault:
    """A response in place of the real one; `status` None only delays the real one."""

    status: int | None = None
    body: str = ""
    content_type: str = "text/html"
    headers: dict[str, str] = field(default_factory=dict)
    # Number of requests it affects; None for all of them.
    times: int | None = 1
    delay_seconds: float = 0.0
    # Pause between two bytes of the body.
    drip_seconds: float = 0.0
    # Whether the request is processed first and its real response lost.
    after: bool = False


_lock = threading.Lock()
_faults: dict[str, ProviderFault] = {}
_token_seconds = 3600


def set_fault(endpoint: str, description: dict[str, Any] | None) -> None:
    """Set the fault of an endpoint, or clear it with None; KeyError or TypeError on a typo."""
    path = ENDPOINTS[endpoint]
    with _lock:
        _faults.pop(path, None)
        if description is not None:
            _faults[path] = ProviderFault(**description)


def take_fault(path: str) -> ProviderFault | None:
    """Return the fault of the next request to a path, or None, and count it down."""
    with _lock:
        fault = _faults.get(path)
        if fault is None or fault.times == 0:
            return None
        if fault.times is not None:
            fault.times -= 1
        return fault


def set_token_seconds(seconds: int) -> None:
    global _token_seconds
    _token_seconds = seconds


def token_seconds(request: object) -> int:
    """Return the lifetime of the access token being issued; oauthlib calls it with its request."""
    return _token_seconds
