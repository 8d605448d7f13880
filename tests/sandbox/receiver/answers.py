"""The response of each path of the receiver, and the failures that tests request."""

import base64
import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote_plus, unquote, urlencode, urlsplit

from tests.sandbox.clients import BASIC_LOGIN, BASIC_PASSWORD, MACHINE_CLIENT
from tests.sandbox.receiver.log import LoggedRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxAnswer:
    """A response; `status` None resets the connection instead."""

    status: int | None = 200
    body: bytes = b'{"received": true}\n'
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    delay_seconds: float = 0.0
    # Pause between two bytes of the body.
    drip_seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class SandboxFailure:
    """A response in place of the real one below a path, `times` times or always (None)."""

    path: str
    status: int | None = 503
    times: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    delay_seconds: float = 0.0

    def as_answer(self) -> SandboxAnswer:
        return SandboxAnswer(
            status=self.status,
            body=self.body.encode(),
            content_type="text/plain; charset=utf-8",
            headers=tuple(self.headers.items()),
            delay_seconds=self.delay_seconds,
        )


def text(status: int, sentence: str, *headers: tuple[str, str]) -> SandboxAnswer:
    return SandboxAnswer(
        status=status,
        body=f"{sentence}\n".encode(),
        content_type="text/plain; charset=utf-8",
        headers=headers,
    )


class Answers:
    """Chooses the response to a request. Safe to use from many threads."""

    def __init__(self, provider_url: str) -> None:
        self._provider_url = provider_url
        self._failures: list[SandboxFailure] = []
        self._flaky: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._routes: dict[str, Callable[[LoggedRequest, str], SandboxAnswer]] = {
            "": lambda request, rest: SandboxAnswer(),
            "open": lambda request, rest: SandboxAnswer(),
            "basic": _basic,
            "bearer": self._bearer,
            "status": _status,
            "flaky": self._flaky_path,
            "slow": lambda request, rest: SandboxAnswer(delay_seconds=float(rest)),
            "drip": lambda request, rest: SandboxAnswer(drip_seconds=float(rest)),
            "big": lambda request, rest: SandboxAnswer(
                body=b"x" * int(rest), content_type="text/plain"
            ),
            "gone": lambda request, rest: text(410, "Gone for good."),
            "retry-after": lambda request, rest: text(429, "Later.", ("Retry-After", rest)),
            "redirect": _redirect,
            "reset": lambda request, rest: SandboxAnswer(status=None),
            "echo": _echo,
        }

    def to(self, request: LoggedRequest) -> SandboxAnswer:
        """Return the response: a requested failure, or else the path's own response."""
        failure = self._take_failure(request.path)
        if failure:
            return failure.as_answer()
        first, _, rest = request.path.lstrip("/").partition("/")
        route = self._routes.get(first)
        if route is None:
            return text(404, "The sandbox receiver does not know this path.")
        try:
            return route(request, unquote(rest))
        except ValueError as error:
            return text(400, f"The path cannot be read: {error}")

    def fail(self, failure: SandboxFailure) -> None:
        with self._lock:
            self._failures = [one for one in self._failures if one.path != failure.path]
            self._failures.append(failure)

    def recover(self) -> None:
        with self._lock:
            self._failures.clear()

    def clear(self) -> None:
        with self._lock:
            self._failures.clear()
            self._flaky.clear()

    def _take_failure(self, path: str) -> SandboxFailure | None:
        with self._lock:
            for failure in self._failures:
                if not path.startswith(failure.path) or failure.times == 0:
                    continue
                if failure.times is not None:
                    failure.times -= 1
                return failure
        return None

    def _flaky_path(self, request: LoggedRequest, rest: str) -> SandboxAnswer:
        key = f"{request.path} {request.header('webhook-id')}"
        with self._lock:
            self._flaky[key] += 1
            is_failing = self._flaky[key] <= int(rest.partition("/")[0])
        return text(503, "Not yet.") if is_failing else SandboxAnswer()

    def _bearer(self, request: LoggedRequest, rest: str) -> SandboxAnswer:
        if not self._provider_url:
            return text(503, "Start the receiver with --provider to have tokens checked.")
        scheme, _, token = request.header("authorization").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return text(401, "A token is needed.", ("WWW-Authenticate", 'Bearer realm="sandbox"'))
        try:
            is_active = _introspect(self._provider_url, token)
        except (OSError, http.client.HTTPException, ValueError):
            return text(503, "The provider does not say whether the token is good.")
        if is_active:
            return SandboxAnswer()
        challenge = 'Bearer realm="sandbox", error="invalid_token"'
        return text(401, "The token is not valid.", ("WWW-Authenticate", challenge))


def _introspect(provider_url: str, token: str) -> bool:
    """Return whether the provider says that a token is active (RFC 7662)."""
    credentials = ":".join(map(quote_plus, MACHINE_CLIENT))
    headers = {
        "Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    connection = http.client.HTTPConnection(urlsplit(provider_url).netloc, timeout=5)
    try:
        # Header text is Latin-1: send the provider the original bytes.
        body = urlencode({"token": token.encode("latin-1")})
        connection.request("POST", "/introspect/", body, headers)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(f"introspection answered {response.status}")
    return bool(json.loads(content)["active"])


def _basic(request: LoggedRequest, rest: str) -> SandboxAnswer:
    expected = base64.b64encode(f"{BASIC_LOGIN}:{BASIC_PASSWORD}".encode()).decode()
    scheme, _, credentials = request.header("authorization").partition(" ")
    if scheme.lower() == "basic" and credentials == expected:
        return SandboxAnswer()
    challenge = 'Basic realm="sandbox", charset="UTF-8"'
    return text(401, "Login or password is wrong.", ("WWW-Authenticate", challenge))


def _status(request: LoggedRequest, rest: str) -> SandboxAnswer:
    code = int(rest.partition("/")[0])
    if code not in range(200, 600):
        raise ValueError("a final status is 200 to 599")
    return text(code, f"Answered {code} as asked.")


def _redirect(request: LoggedRequest, rest: str) -> SandboxAnswer:
    code = int(rest or 302)
    target = parse_qs(request.query).get("to", ["/open/redirected"])[0]
    return text(code, "Moved.", ("Location", target))


def _echo(request: LoggedRequest, rest: str) -> SandboxAnswer:
    """Return the request, credentials included: the sender must mask them in its log."""
    echo: dict[str, Any] = {
        "headers": request.headers,
        "body": request.body.decode(errors="replace"),
    }
    return SandboxAnswer(body=json.dumps(echo, ensure_ascii=False, indent=2).encode())
