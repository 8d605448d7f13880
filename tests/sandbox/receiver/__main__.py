"""Serve the receiver: `python -m tests.sandbox.receiver --port 8001`."""

import argparse
import json
import socket
import struct
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.sandbox.loopback import LoopbackServer, add_serving_arguments, serve
from tests.sandbox.receiver.answers import Answers, SandboxAnswer, SandboxFailure, text
from tests.sandbox.receiver.log import LoggedRequest, RequestLog
from tests.sandbox.receiver.page import SHOWN_REQUESTS, render_requests, render_secret_form

STATIC = Path(__file__).resolve().parent.parent / "static"
STATIC_TYPES = {".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
MAX_BODY_BYTES = 16 * 1024 * 1024
PAGE_HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "same-origin"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
)


class ReceiverServer(LoopbackServer, ThreadingHTTPServer):
    """One thread per connection; connections stay open."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, *, provider_url: str, secrets: list[str]) -> None:
        self.log = RequestLog(secrets)
        self.answers = Answers(provider_url)
        super().__init__(("127.0.0.1", port), ReceiverHandler)


class ReceiverHandler(BaseHTTPRequestHandler):
    """Reads a request of any method, records it, and sends its response in one write."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 300
    server: ReceiverServer

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Accept every method: `http.server` looks for `do_<METHOD>`."""
        if name.startswith("do_"):
            return self.respond
        raise AttributeError(name)

    def log_message(self, format: str, *args: object) -> None:
        """Write no access log; the page shows the requests."""

    def respond(self) -> None:
        try:
            body = self._read_body()
        except ValueError as error:
            self.close_connection = True
            return self._send(text(400, f"The body cannot be read: {error}"))
        parts = urlsplit(self.path if self.path.startswith("/") else f"/{self.path}")
        request = LoggedRequest(
            method=self.command,
            path=parts.path,
            query=parts.query,
            headers=list(self.headers.items()),
            body=body,
        )
        if self._is_own_page(request):
            return self._send(self._own_page(request))
        answer = self.server.answers.to(request)
        # Recorded before responding, so that a client with a response finds the record.
        self.server.log.add(request, answer.status)
        return self._send(answer)

    @staticmethod
    def _is_own_page(request: LoggedRequest) -> bool:
        if request.path == "/":
            return request.method in ("GET", "HEAD")
        return request.path.startswith("/_") or request.path == "/favicon.ico"

    def _own_page(self, request: LoggedRequest) -> SandboxAnswer:
        # Against DNS rebinding: another site must not read the requests through its own host name.
        if request.header("host").rpartition(":")[0] not in ("127.0.0.1", "localhost"):
            return text(403, "This page is for this machine only.")
        try:
            return self._page(request)
        except (ValueError, TypeError, KeyError) as error:
            return text(400, f"This request cannot be understood: {error}")

    def _page(self, request: LoggedRequest) -> SandboxAnswer:
        query = {name: values[-1] for name, values in parse_qs(request.query).items()}
        match request.method, request.path:
            case "GET" | "HEAD", "/":
                return self._requests_page(query)
            case "GET", "/_requests":
                return self._requests_json(query)
            case "DELETE", "/_requests":
                self.server.log.clear()
                self.server.answers.clear()
                return SandboxAnswer(status=204)
            case "POST", "/_fail":
                self.server.answers.fail(SandboxFailure(**json.loads(request.body)))
                return SandboxAnswer(status=204)
            case "DELETE", "/_fail":
                self.server.answers.recover()
                return SandboxAnswer(status=204)
            case "GET", "/_secret":
                return _html(render_secret_form(secret_count=self.server.log.secret_count))
            case "POST", "/_secret":
                return self._add_secret(request)
            case "GET", "/_static/sandbox.css" | "/_static/sandbox.svg":
                file = STATIC / request.path.rpartition("/")[2]
                return SandboxAnswer(body=file.read_bytes(), content_type=STATIC_TYPES[file.suffix])
        return text(404, "There is no such page.")

    def _requests_page(self, query: dict[str, str]) -> SandboxAnswer:
        page = render_requests(
            self.server.log.entries()[-SHOWN_REQUESTS:],
            url=self.server.url,
            show=int(query["show"]) if "show" in query else None,
            is_paused=query.get("refresh") == "off",
            secret_count=self.server.log.secret_count,
        )
        return _html(page)

    def _requests_json(self, query: dict[str, str]) -> SandboxAnswer:
        entries = self.server.log.wait_for(
            int(query.get("at_least", 0)),
            since=int(query.get("since", 0)),
            path_prefix=query.get("path_prefix", ""),
            timeout_seconds=float(query.get("timeout", 0)),
        )
        return SandboxAnswer(body=json.dumps([entry.as_json() for entry in entries]).encode())

    def _add_secret(self, request: LoggedRequest) -> SandboxAnswer:
        if request.header("content-type").startswith("application/json"):
            self.server.log.add_secret(json.loads(request.body)["secret"])
            return SandboxAnswer(status=204)
        secret = parse_qs(request.body.decode()).get("secret", [""])[0].strip()
        try:
            self.server.log.add_secret(secret)
        except ValueError as error:
            count = self.server.log.secret_count
            return _html(render_secret_form(secret_count=count, error=str(error)), status=400)
        return text(303, "Known.", ("Location", "/"))

    def _read_body(self) -> bytes:
        """Return the body, with a length or chunked; ValueError if it is malformed."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._read_chunks()
        length = int(self.headers.get("Content-Length", 0))
        if length not in range(MAX_BODY_BYTES + 1):
            raise ValueError("it is too long")
        return self.rfile.read(length)

    def _read_chunks(self) -> bytes:
        body = bytearray()
        while size := int(self.rfile.readline(100).partition(b";")[0], 16):
            if len(body) + size > MAX_BODY_BYTES:
                raise ValueError("it is too long")
            body += self.rfile.read(size)
            self.rfile.readline(3)
        while self.rfile.readline(65_536).strip():
            pass  # trailers
        return bytes(body)

    def _send(self, answer: SandboxAnswer) -> None:
        time.sleep(answer.delay_seconds)
        if answer.status is None:
            return self._reset()
        head = self._head(answer, answer.status)
        if self.command == "HEAD" or answer.status in (204, 304):
            self.wfile.write(head)
        elif not answer.drip_seconds:
            self.wfile.write(head + answer.body)
        else:
            self.wfile.write(head)
            for position in range(len(answer.body)):
                time.sleep(answer.drip_seconds)
                self.wfile.write(answer.body[position : position + 1])
        return None

    def _head(self, answer: SandboxAnswer, status: int) -> bytes:
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Custom"
        lines = [f"HTTP/1.1 {status} {phrase}", f"Date: {self.date_time_string()}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        if status not in (204, 304):
            lines += [f"Content-Type: {answer.content_type}"]
            lines += [f"Content-Length: {len(answer.body)}"]
        if self.close_connection:
            lines += ["Connection: close"]
        return "\r\n".join([*lines, "", ""]).encode("latin-1", errors="replace")

    def _reset(self) -> None:
        """Close with a TCP reset: no lingering, nothing sent."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.close_connection = True


def _html(page: str, *, status: int = 200) -> SandboxAnswer:
    return SandboxAnswer(
        status=status,
        body=page.encode(),
        content_type="text/html; charset=utf-8",
        headers=PAGE_HEADERS,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.sandbox.receiver", description=__doc__)
    add_serving_arguments(parser, port=8001)
    parser.add_argument("--provider", default="", help="URL of the sandbox provider")
    parser.add_argument("--secret", action="append", default=[], help="a signing secret to know")
    arguments = parser.parse_args()
    server = ReceiverServer(
        arguments.port, provider_url=arguments.provider, secrets=arguments.secret
    )
    serve("Receiver", server, exit_with_stdin=arguments.exit_with_stdin)


if __name__ == "__main__":
    main()
