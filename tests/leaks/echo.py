"""A receiver that repeats the request in headers and body, in every spelling it knows."""

import base64
import html
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from urllib.parse import quote, quote_plus

from tests.oauth_fakes import serving


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_POST(self) -> None:
        """Respond with the status at the end of the path."""
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        values = [self.path, *(value for _, value in self.headers.items())]
        # A server that knows the scheme would repeat the decoded credentials.
        values += [word for value in values for word in _inside(value)]
        body = json.dumps([list(_spellings(one)) for one in values], indent=1)
        body += "\n" + "\n".join(f"{name}: {value}" for name, value in self.headers.items())
        body += "\n" + "\n".join(values) + "\n" + sent.decode(errors="replace")
        self._answer(int(self.path.partition("?")[0].rpartition("/")[2]), body.encode(), values)

    do_PUT = do_GET = do_POST

    def _answer(self, status: int, body: bytes, values: list[str]) -> None:
        self.send_response(status, f"Got {self.headers.get('Authorization', '')}")
        for number, value in enumerate(values):
            self.send_header(f"X-Echo-{number}", value)
            self.send_header(f"X-Echo-{number}-Quoted", quote(value, safe="", encoding="latin-1"))
        self.send_header("WWW-Authenticate", f'Basic realm="{values[-1]}"')
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _inside(value: str) -> Iterator[str]:
    scheme, _, credentials = value.partition(" ")
    if credentials:
        yield credentials
    if scheme == "Basic":
        login_and_password = base64.b64decode(credentials).decode()
        yield login_and_password.partition(":")[2].encode().decode("latin-1")


def _spellings(text: str) -> Iterator[str]:
    yield from (text, html.escape(text), quote(text, safe=""), quote_plus(text))
    for offset in range(3):
        data = ("x" * offset + text).encode()
        yield base64.b64encode(data).decode()
        yield base64.urlsafe_b64encode(data).decode()


def running_echo() -> AbstractContextManager[str]:
    """Run the echo in this process; `<url>/anything/<status>` responds with that status."""
    return serving(_Handler)
