"""A TCP relay whose target can change while its open connections stay, as a name's address can."""

import contextlib
import socket
import socketserver
import threading
import time
from typing import Any, Self


class Relay(socketserver.ThreadingTCPServer):
    """Listens on a free port of 127.0.0.1 and forwards each connection to `target`, a port."""

    daemon_threads = True

    def __init__(self, target: int, *, byte_seconds: float = 0.0) -> None:
        """With `byte_seconds`, responses come byte by byte, each after this time."""
        super().__init__(("127.0.0.1", 0), _RelayHandler)
        self.target = target
        self.byte_seconds = byte_seconds
        # How many clients have not closed their connection.
        self.open_connections = 0

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _RelayHandler(socketserver.BaseRequestHandler):
    server: Any

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.target)) as there:
            ends = (there, self.request, self.server.byte_seconds)
            back = threading.Thread(target=_forward, args=ends, daemon=True)
            back.start()
            self.server.open_connections += 1
            _forward(self.request, there)
            self.server.open_connections -= 1


def _forward(source: socket.socket, target: socket.socket, byte_seconds: float = 0.0) -> None:
    with contextlib.suppress(OSError):
        while received := source.recv(1 if byte_seconds else 65536):
            time.sleep(byte_seconds)
            target.sendall(received)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
