"""One HTTP request to a sandbox server: standard library only, no proxy from the environment."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit


def call(
    url: str, method: str, path: str, payload: dict[str, Any] | None = None, *, timeout: float = 30
) -> Any:
    """Send a request and return the JSON of its response; RuntimeError unless the status is 2xx."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout)
    try:
        body = None if payload is None else json.dumps(payload)
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status not in range(200, 300):
        raise RuntimeError(f"{method} {path} -> {response.status}: {content[:500]!r}")
    return json.loads(content) if content else None
