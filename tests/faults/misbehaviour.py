"""Misbehaving receivers, as handlers of plain sockets. Independent of the sender."""

import asyncio
import itertools
import socket
import struct
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer

from tests.faults.receiver import Handler, read_request
from tests.services import HOST

# Longer than any timeout of the run; the client disconnects first.
_LONG_SECONDS = 30.0
# 256 MiB of zeros by `brotli -q 11 -w 24`, 211 bytes.
BROTLI_BOMB = bytes.fromhex(
    "cfffff7ff82700e2b14020f7fe9ffffffff04f00c4610180eefd3fffffffe19f0088c32200ddfb7ffeffffc33f"
    "0110870500baf7fffcffff877f02200e0b0074effff9ffff0fff04401c1600e8defff3ffff1ffe0980382c00d0"
    "bdffe7ffff3ffc1300715800a07bffcfffff7ff82700e2b00040f7fe9ffffffff04f00c4610180eefd3fffffff"
    "e19f0088c30200ddfb7ffeffffc33f0110870500baf7fffcffff877f02200e0b0074effff9ffff0fff04401c16"
    "00e8defff3ffff1ffe0980382c00d0bdffe7ffff3ffc1300715800a07bff3f"
)


def zstd_bomb(blocks: int) -> bytes:
    """Return a zstd frame (RFC 8878) of run-length blocks of 128 KiB each."""
    size = 128 * 1024
    frame = b"\x28\xb5\x2f\xfd" + b"\x00\x58"
    for number in range(blocks):
        is_last = number == blocks - 1
        frame += struct.pack("<I", size << 3 | 1 << 1 | is_last)[:3] + b"\x00"
    return frame


def answer(raw: bytes, *, closes: bool = True) -> Handler:
    """Read a request, write `raw`, and close unless `closes` is false."""

    async def handler(reader: Reader, writer: Writer) -> None:
        while True:
            await read_request(reader)
            writer.write(raw)
            await writer.drain()
            if closes:
                return

    return handler


def status(code: int, *headers: str, body: bytes = b"") -> Handler:
    lines = [f"HTTP/1.1 {code} Said", f"Content-Length: {len(body)}", *headers]
    return answer("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body, closes=False)


def body(body: bytes, *headers: str) -> Handler:
    return status(200, *headers, body=body)


def drip(head: bytes, drop: bytes) -> Handler:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(head)
        for byte in itertools.cycle(drop):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    return handler


def flood(head: bytes, chunk: bytes) -> Handler:
    """Write the head and then the chunk until the client disconnects."""

    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(head)
        while True:
            writer.write(chunk)
            await writer.drain()
            # Let other handlers of this loop run.
            await asyncio.sleep(0)

    return handler


def reset_after(raw: bytes, *, reads: bool = True) -> Handler:
    async def handler(reader: Reader, writer: Writer) -> None:
        if reads:
            await read_request(reader)
        writer.write(raw)
        await writer.drain()
        # Time for the written data to arrive before the reset.
        await asyncio.sleep(0.05)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return handler


async def silent(reader: Reader, writer: Writer) -> None:
    await asyncio.sleep(_LONG_SECONDS)


async def unread(reader: Reader, writer: Writer) -> None:
    """Read nothing, so that the connection's receive window closes."""
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    await asyncio.sleep(_LONG_SECONDS)


async def hang_up(reader: Reader, writer: Writer) -> None:
    await reader.read(16)


async def plain_http(reader: Reader, writer: Writer) -> None:
    await reader.read(1024)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()


async def late(reader: Reader, writer: Writer) -> None:
    await read_request(reader)
    await asyncio.sleep(3.0)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def closes_when_idle(reader: Reader, writer: Writer) -> None:
    """Promise keep-alive, respond once, and close a little later."""
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()
    await asyncio.sleep(0.3)


async def closes_when_used_again(reader: Reader, writer: Writer) -> None:
    """Respond once; close when the next request comes on the same connection."""
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()
    await reader.read(1)


def early(code: int, *, stays: bool) -> Handler:
    """Respond after the headers, without reading the body."""

    async def handler(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d Said\r\nContent-Length: 0\r\n\r\n" % code)
        await writer.drain()
        if stays:
            await asyncio.sleep(_LONG_SECONDS)

    return handler


class Seen:
    """Forbidden requests that handlers noticed."""

    def __init__(self) -> None:
        self.cookies: list[str] = []
        self.redirected = 0

    async def cookie(self, reader: Reader, writer: Writer) -> None:
        while True:
            _, headers, _ = await read_request(reader)
            if "cookie" in headers:
                self.cookies.append(headers["cookie"])
            writer.write(
                b"HTTP/1.1 200 OK\r\nSet-Cookie: session=stolen; Path=/\r\n"
                b"Content-Length: 0\r\n\r\n"
            )
            await writer.drain()

    async def target(self, reader: Reader, writer: Writer) -> None:
        self.redirected += 1


class Refusing:
    """A port without a listener, reserved for the duration of the run."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind((HOST, 0))
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()


class Blackhole:
    """A listener with a full backlog: the kernel drops connection attempts, like a dead network."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind((HOST, 0))
        self._socket.listen(0)
        self.port: int = self._socket.getsockname()[1]
        self._fillers: list[socket.socket] = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((HOST, self.port))
            self._fillers.append(filler)

    def close(self) -> None:
        for filler in self._fillers:
            filler.close()
        self._socket.close()
