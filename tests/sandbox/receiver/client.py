"""Access to the receiver from another process."""

import base64
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tests.sandbox.http_request import call


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as received; `time` is Unix seconds, header text is Latin-1."""

    number: int
    time: float
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes
    # The status of the response; None when the connection was reset.
    status: int | None
    # "valid", "no secret known", "not signed", or the error of the verifying library.
    signature: str

    def header(self, name: str) -> str | None:
        """Return the first value of a header, ignoring case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """Client of a running receiver."""

    def __init__(self, url: str) -> None:
        self.url = url

    def requests(self, path_prefix: str | None = None, since: int = 0) -> list[Received]:
        """Return the requests after number `since`, oldest first."""
        return self._received(path_prefix, since=since)

    def wait_for(
        self, count: int, timeout: float = 10.0, path_prefix: str | None = None
    ) -> list[Received]:
        """Return the requests once there are `count`; TimeoutError after `timeout` seconds."""
        received = self._received(path_prefix, at_least=count, timeout=timeout)
        if len(received) < count:
            seen = [f"{one.method} {one.path} -> {one.status}" for one in received[-20:]]
            raise TimeoutError(f"{len(received)} of {count} requests after {timeout} s: {seen}")
        return received

    def clear(self) -> None:
        """Delete requests, requested failures and the counts of `/flaky`; numbering continues."""
        call(self.url, "DELETE", "/_requests")

    def fail(
        self,
        path: str,
        status: int | None = 503,
        times: int | None = None,
        *,
        headers: dict[str, str] | None = None,
        body: str = "",
        delay_seconds: float = 0.0,
    ) -> None:
        """Respond with `status` to the next `times` requests below `path` (all of them when None).

        `status` None closes the connection without a response.
        """
        failure = {
            "path": path,
            "status": status,
            "times": times,
            "headers": headers or {},
            "body": body,
            "delay_seconds": delay_seconds,
        }
        call(self.url, "POST", "/_fail", failure)

    def recover(self) -> None:
        """Remove every requested failure."""
        call(self.url, "DELETE", "/_fail")

    def add_secret(self, secret: str) -> None:
        """Add a `whsec_` secret, so that signatures are checked with it."""
        call(self.url, "POST", "/_secret", {"secret": secret})

    def _received(self, path_prefix: str | None, **query: float) -> list[Received]:
        parameters = urlencode({"path_prefix": path_prefix or "", **query})
        timeout = 30 + query.get("timeout", 0)
        rows = call(self.url, "GET", f"/_requests?{parameters}", timeout=timeout)
        return [
            Received(
                **{
                    **row,
                    "body": base64.b64decode(row["body"]),
                    "headers": [(name, value) for name, value in row["headers"]],
                }
            )
            for row in rows
        ]
