"""Code that both sandbox servers share: a loopback socket, the announcement, a clean end."""

import argparse
import os
import signal
import socketserver
import sys
import threading
from types import FrameType
from typing import Any

HOST = "127.0.0.1"


class LoopbackServer(socketserver.TCPServer):
    """Mixed in before an HTTP server: binds without a DNS lookup of this machine's name."""

    # Enough for a whole drain: hundreds of connections arrive within a millisecond.
    request_queue_size = 1024
    server_name: str
    server_port: int

    def server_bind(self) -> None:
        """Bind, and use the address as the server's name; `HTTPServer` would call `getfqdn`."""
        socketserver.TCPServer.server_bind(self)
        self.server_name = HOST
        self.server_port = int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that closed the connection; report all other errors."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def add_serving_arguments(parser: argparse.ArgumentParser, *, port: int) -> None:
    parser.add_argument("--port", type=int, default=port, help="0 takes a free one")
    parser.add_argument(
        "--exit-with-stdin",
        action="store_true",
        help="end when standard input is closed, so that no server outlives its test run",
    )


def serve(name: str, server: LoopbackServer, *, exit_with_stdin: bool) -> None:
    """Announce the server on standard output; serve until SIGTERM, SIGINT or the end of stdin."""
    signal.signal(signal.SIGTERM, _exit)
    if exit_with_stdin:
        threading.Thread(target=_terminate_after_stdin, daemon=True).start()
    print(f"{name} listening on {server.url}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


def _exit(signal_number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def _terminate_after_stdin() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
