"""The requests a receiver got, and whether their signatures are valid."""

import base64
import re
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from standardwebhooks import Webhook

# Far more than a test sends, and few enough to keep in memory.
KEPT_REQUESTS = 50_000

SECRET_FORM = re.compile(r"whsec_[A-Za-z0-9+/]{2,}={0,2}")

NO_SECRET = "no secret known"
NOT_SIGNED = "not signed"
VALID = "valid"
# The verifying library's message for a signature that is wrong or made with another secret.
NO_MATCH = "No matching signature found"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest:
    """One request as received; header names and values are Latin-1 text, in their order."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        """Return the first value of a header, or ""; `name` is in lower case."""
        return next((value for key, value in self.headers if key.lower() == name), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A request with its number, arrival (Unix seconds), response status and signature verdict."""

    number: int
    time: float
    request: LoggedRequest
    # None: the connection was reset without a response.
    status: int | None
    signature: str

    def as_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "time": self.time,
            "method": self.request.method,
            "path": self.request.path,
            "query": self.request.query,
            "headers": self.request.headers,
            "body": base64.b64encode(self.request.body).decode(),
            "status": self.status,
            "signature": self.signature,
        }


class RequestLog:
    """The latest requests, safe to use from many threads."""

    def __init__(self, secrets: list[str]) -> None:
        self._entries: deque[Entry] = deque(maxlen=KEPT_REQUESTS)
        self._last_number = 0
        self._lock = threading.Lock()
        self._webhooks = {secret: Webhook(secret) for secret in secrets}

    def add(self, request: LoggedRequest, status: int | None) -> None:
        signature = self._judge(request)
        with self._lock:
            self._last_number += 1
            self._entries.append(
                Entry(
                    number=self._last_number,
                    time=time.time(),
                    request=request,
                    status=status,
                    signature=signature,
                )
            )

    def entries(self, *, since: int = 0, path_prefix: str = "") -> list[Entry]:
        """Return the entries after number `since`, oldest first."""
        with self._lock:
            return self._matching(since, path_prefix)

    def wait_for(
        self, count: int, *, since: int, path_prefix: str, timeout_seconds: float
    ) -> list[Entry]:
        """Return the entries once there are `count`, or those present at the timeout."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            entries = self.entries(since=since, path_prefix=path_prefix)
            if len(entries) >= count or time.monotonic() > deadline:
                return entries
            # Polling is cheaper than waking up at every arrival when thousands arrive.
            time.sleep(0.02)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    def add_secret(self, secret: str) -> None:
        """Check signatures with this secret too, also for earlier requests; ValueError if bad."""
        # The package itself accepts almost any text as Base64.
        if not SECRET_FORM.fullmatch(secret):
            raise ValueError("A signing secret is whsec_ followed by Base64 text.")
        webhook = Webhook(secret)
        with self._lock:
            self._webhooks[secret] = webhook
            entries = [
                entry
                if entry.signature == VALID
                else replace(entry, signature=self._judge(entry.request))
                for entry in self._entries
            ]
            self._entries.clear()
            self._entries.extend(entries)

    @property
    def secret_count(self) -> int:
        return len(self._webhooks)

    def _matching(self, since: int, path_prefix: str) -> list[Entry]:
        return [
            entry
            for entry in self._entries
            if entry.number > since and entry.request.path.startswith(path_prefix)
        ]

    def _judge(self, request: LoggedRequest) -> str:
        if not request.header("webhook-signature"):
            return NOT_SIGNED
        verdict = NO_SECRET
        for webhook in list(self._webhooks.values()):
            try:
                webhook.verify(request.body, dict(request.headers), json_parse=False)
            except Exception as error:  # a malformed header can raise any exception
                verdict = str(error) or type(error).__name__
            else:
                return VALID
        return verdict
