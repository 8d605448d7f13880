"""A small real forward proxy, as an operator would put one in front of the internet.

Accepts CONNECT and absolute-form requests, over TLS if it is given a context. It forwards all of
them to one upstream on loopback, so that the names in tests need no name server.
"""

import contextlib
import select
import socket
import ssl
import threading


class ForwardProxy:
    """Records its requests in `asked`: request lines and headers, never tunnelled bytes."""

    def __init__(
        self, upstream_port: int, *, context: ssl.SSLContext | None = None, refuses: bytes = b""
    ) -> None:
        self.asked: list[bytes] = []
        self._upstream_port = upstream_port
        self._context = context
        self._refuses = refuses
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def hosts(self) -> list[str]:
        """Return the requested destinations, in order."""
        return [asked.split(b" ", 2)[1].decode() for asked in self.asked]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in (self._acceptor, *self._threads):
            thread.join(5)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(5)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(client.close)
            if self._context is not None:
                client = stack.enter_context(self._context.wrap_socket(client, server_side=True))
            if not (head := _read_head(client)):
                return
            self.asked.append(head)
            if self._refuses:
                client.sendall(self._refuses)
                return
            upstream = stack.enter_context(socket.socket())
            upstream.settimeout(5)
            # Without a look-up: tests change what names resolve to.
            upstream.connect(("127.0.0.1", self._upstream_port))
            if head.startswith(b"CONNECT "):
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                upstream.sendall(_origin_form(head))
            _pipe(client, upstream)


def _read_head(client: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        if not (chunk := client.recv(65_536)):
            break
        head += chunk
    return head


def _origin_form(head: bytes) -> bytes:
    """Turn `GET http://host/path HTTP/1.1` into `GET /path HTTP/1.1`, for one request."""
    line, _, rest = head.partition(b"\r\n")
    method, url, version = line.split(b" ")
    path = b"/" + url.split(b"/", 3)[3]
    return b" ".join((method, path, version)) + b"\r\nConnection: close\r\n" + rest


def _pipe(one: socket.socket, other: socket.socket) -> None:
    while True:
        # select() does not see bytes that TLS has already read.
        ready = [one] if isinstance(one, ssl.SSLSocket) and one.pending() else None
        ready = ready or select.select([one, other], [], [], 5)[0]
        if not ready:
            return
        for source in ready:
            if not (chunk := source.recv(65_536)):
                return
            (other if source is one else one).sendall(chunk)
