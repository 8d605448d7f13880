"""A proxy in front of an authorization server that delays, drops or cuts responses."""

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from tests.oauth_fakes import serving
from tests.sandbox import Provider


class ProviderProxy:
    """Forwards POST requests to the provider; each fault set here affects one request."""

    def __init__(self, url: str, provider: Provider) -> None:
        self.token_url = f"{url}/token/"
        self.provider = urlsplit(provider.url)
        # The request bodies, in order of arrival.
        self.bodies: list[bytes] = []
        # Delays before the provider gets the request, and before the client gets the response.
        self.freeze_seconds = 0.0
        self.hold_seconds = 0.0
        self.drops_answer = False
        self.cuts_answer = False
        self.omits_access_token = False
        # Number of requests in flight.
        self.busy = 0

    def take(self) -> tuple[float, float, bool, bool]:
        taken = (self.freeze_seconds, self.hold_seconds, self.drops_answer, self.cuts_answer)
        self.freeze_seconds = self.hold_seconds = 0.0
        self.drops_answer = self.cuts_answer = False
        return taken

    def forward(self, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
        there = http.client.HTTPConnection(self.provider.hostname or "", self.provider.port)
        with closing(there):
            there.request("POST", "/token/", body, headers)
            answer = there.getresponse()
            return answer.status, answer.headers.get("Content-Type", ""), answer.read()


@contextmanager
def proxy_to(provider: Provider) -> Iterator[ProviderProxy]:
    class ProxyHandler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            proxy.bodies.append(body)
            proxy.busy += 1
            try:
                self._pass_on(body)
            finally:
                proxy.busy -= 1
                self.close_connection = True

        def _pass_on(self, body: bytes) -> None:
            freeze_seconds, hold_seconds, drops_answer, cuts_answer = proxy.take()
            time.sleep(freeze_seconds)
            names = ("Authorization", "Content-Type", "Accept")
            kept = {name: value for name in names if (value := self.headers.get(name))}
            status, content_type, answer = proxy.forward(kept, body)
            if proxy.omits_access_token:
                fields = json.loads(answer)
                fields.pop("access_token")
                answer = json.dumps(fields).encode()
                proxy.omits_access_token = False
            time.sleep(hold_seconds)
            if drops_answer:
                return
            answer = answer[: len(answer) // 2] if cuts_answer else answer
            try:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
            except OSError:
                # The client gave up.
                return

        def log_message(self, format: str, *args: object) -> None:
            """Suppress the log."""

    with serving(ProxyHandler) as url:
        proxy = ProviderProxy(url, provider)
        yield proxy
