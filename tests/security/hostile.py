"""A receiver that responds with given raw bytes, valid or not, by request path."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping

_MOST_READ = 2_000_000
# An engine opens hundreds of connections at once, and a busy machine accepts them late.
_BACKLOG = 4096
# Request heads by the URL of the server that received them.
_asked: dict[str, list[bytes]] = {}


def asked(address: str) -> list[bytes]:
    """Return the request heads that a server received, byte for byte."""
    return _asked.pop(address, [])


@contextlib.contextmanager
def answering(answers: Mapping[str, bytes]) -> Iterator[str]:
    """Serve raw responses by path on a loopback port; yield the server's URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        heads = _asked[address] = []
        thread = threading.Thread(target=_accept, args=(server, answers, heads), daemon=True)
        thread.start()
        yield address
        # Wakes accept(), which does not notice that its socket was closed.
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def _accept(server: socket.socket, answers: Mapping[str, bytes], heads: list[bytes]) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        given = (connection, answers, heads)
        threading.Thread(target=_answer, args=given, daemon=True).start()


def _answer(connection: socket.socket, answers: Mapping[str, bytes], heads: list[bytes]) -> None:
    with connection, contextlib.suppress(OSError):
        connection.settimeout(60)
        head, body = _read_head(connection)
        heads.append(head)
        path = head.split(b" ", 2)[1].partition(b"?")[0].decode("latin-1")
        _read_rest(connection, head, body)
        connection.sendall(
            answers.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        )
        # Read until the sender closes: closing with unread bytes would reset the connection.
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


def _read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    read = b""
    while b"\r\n\r\n" not in read and len(read) < _MOST_READ:
        piece = connection.recv(65536)
        if not piece:
            break
        read += piece
    head, _separator, body = read.partition(b"\r\n\r\n")
    return head, body


def _read_rest(connection: socket.socket, head: bytes, body: bytes) -> None:
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _colon, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        piece = connection.recv(65536)
        if not piece:
            return
        body += piece
