"""A receiver in one thread over epoll: notes when each request arrived, or never responds.

`python -m tests.bench.receiver PORT SILENT_PORT`. Requests to PORT get 204; `GET /arrivals` there
returns and clears the lines `Unix time, webhook-id, path` so far. SILENT_PORT accepts connections
and sends nothing. nginx is faster but notes arrivals in whole milliseconds only.
"""

import select
import socket
import sys
import time

_ANSWER = b"HTTP/1.1 204 No Content\r\nServer: bench\r\n\r\n"
_BACKLOG = 4096


class BenchReceiver:
    def __init__(self, port: int, silent_port: int) -> None:
        self._epoll = select.epoll()
        self._open: dict[int, socket.socket] = {}
        self._unread: dict[int, bytes] = {}
        self._listening = {}
        for number in (port, silent_port):
            server = socket.create_server(("127.0.0.1", number), backlog=_BACKLOG)
            server.setblocking(False)
            self._listening[server.fileno()] = server
            self._epoll.register(server.fileno(), select.EPOLLIN)
        self._silent = server.fileno()
        self._silent_connections: set[int] = set()
        self._arrivals: list[bytes] = []

    def run(self) -> None:
        while True:
            for fd, _events in self._epoll.poll():
                if fd in self._listening:
                    self._accept(fd)
                else:
                    self._read(fd)

    def _accept(self, listening: int) -> None:
        while True:
            try:
                client, _ = self._listening[listening].accept()
            except BlockingIOError:
                return
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            fd = client.fileno()
            self._open[fd] = client
            self._unread[fd] = b""
            if listening == self._silent:
                self._silent_connections.add(fd)
            self._epoll.register(fd, select.EPOLLIN)

    def _read(self, fd: int) -> None:
        try:
            data = self._open[fd].recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(fd)
        elif fd not in self._silent_connections:
            self._unread[fd] = self._answer_all(fd, self._unread[fd] + data)

    def _close(self, fd: int) -> None:
        self._epoll.unregister(fd)
        self._silent_connections.discard(fd)
        del self._unread[fd]
        self._open.pop(fd).close()

    def _answer_all(self, fd: int, data: bytes) -> bytes:
        """Respond to every complete request; return the remaining bytes."""
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head = data[: end + 2]
            length = int(_header(head, b"content-length") or 0)
            if len(data) < end + 4 + length:
                break
            data = data[end + 4 + length :]
            path = head.split(b" ", 2)[1]
            if path == b"/arrivals":
                self._give_arrivals(fd)
                continue
            moment = b"%.6f" % time.time()
            self._arrivals.append(b"%b %b %b" % (moment, _header(head, b"webhook-id"), path))
            self._open[fd].send(_ANSWER)
        return data

    def _give_arrivals(self, fd: int) -> None:
        body = b"\n".join(self._arrivals)
        self._arrivals.clear()
        client = self._open[fd]
        client.setblocking(True)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        client.setblocking(False)


def _header(head: bytes, name: bytes) -> bytes:
    lowered = head.lower()
    start = lowered.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    return head[start : head.index(b"\r\n", start)].strip()


if __name__ == "__main__":
    BenchReceiver(int(sys.argv[1]), int(sys.argv[2])).run()
