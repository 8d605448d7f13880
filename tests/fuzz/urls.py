"""URLs: those the parser accepts mean the same to other parsers, and lead to public addresses."""

import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import urllib3
from hypothesis import strategies as st

from tests.fuzz.target import FuzzTarget
from tests.network.test_guard import url_rows
from tests.security import oracle
from webhooks import network
from webhooks.network import NameNotResolvedError, Policy, UnsafeURLError

CLOSED = Policy()
_ROWS = url_rows()
_PRIVATE = st.sampled_from(
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.1.1", "0.0.0.0", "100.64.0.1", "8.8.8.8"]
).map(lambda text: int(ipaddress.IPv4Address(text)))
_FOUR = st.one_of(_PRIVATE, st.integers(0, 2**32 - 1))
_SIX_FORMS = (
    "::ffff:{}", "::{}", "::ffff:0:{}", "64:ff9b::{}", "64:ff9b:1::{}", "2002:{h}::1",
    "2001:0:{h}::1", "2001:db8::{}", "fe80::5efe:{}", "2606:4700::5efe:{}", "fd00::{}", "fec0::{}",
    "2001:4860:4860::{}", "ff0e::{}", "2002:{h}:{h}::", "3fff::{}", "5f00::{}", "100::{}", "::{h}",
)  # fmt: skip


def _spell_four(number: int, how: int) -> str:
    parts = [number >> shift & 255 for shift in (24, 16, 8, 0)]
    spellings = (
        ".".join(map(str, parts)),
        str(number),
        hex(number),
        f"0{number:o}",
        ".".join(f"0{part:o}" for part in parts),
        ".".join(map(hex, parts)),
        f"{parts[0]}.{number & 0xFFFFFF}",
        f"{parts[0]}.{parts[1]}.{number & 0xFFFF}",
        ".".join(f"{part:03d}" for part in parts),
        ".".join(map(str, parts)) + ".",
        "。".join(map(str, parts)),
        "".join(chr(0xFF10 + int(digit)) if digit.isdigit() else digit for digit in str(number)),
        ".".join(str(part + 256) for part in parts),
    )
    return spellings[how % len(spellings)]


def _spell_six(number: int, how: int) -> str:
    address = str(ipaddress.IPv4Address(number))
    in_hex = f"{number >> 16:x}:{number & 0xFFFF:x}"
    return f"[{_SIX_FORMS[how % len(_SIX_FORMS)].format(address, h=in_hex)}]"


_NAME = st.lists(
    st.sampled_from(
        ["example", "com", "bücher", "xn--bcher-kva", "localhost", "internal", "a", "-a", "a_b", "",
         "0x7f", "1", "08", "EXAMPLE", "nip", "io", "svc", "ⓔxample", "xn--", "日本", "arpa", "K8s"]
    ),
    min_size=1,
    max_size=4,
).map(".".join)  # fmt: skip
_HOST = st.one_of(
    st.builds(_spell_four, _FOUR, st.integers(0, 12)),
    st.builds(_spell_six, _FOUR, st.integers(0, 99)),
    st.integers(0, 2**128 - 1).map(lambda number: f"[{ipaddress.IPv6Address(number)}]"),
    _NAME,
)
_URL = st.builds(
    lambda *parts: "".join(parts),
    st.sampled_from(["http://", "https://", "HTTP://", "http:/", "http:", "ftp://", "//", ""]),
    st.sampled_from(["", "", "", "", "a@", "a:b@", "@", "127.0.0.1@", "a%40"]),
    _HOST,
    st.sampled_from(["", "", "", ".", "%25lo", "%00", "\\", ":80", ":443", ":8443", ":22", ":080",
                     ":0", ":65536", ":", ":80:80", ":٨٠"]),
    st.sampled_from(["", "/", "/hook?x=1", "/#@127.0.0.1", "?a", "#b", "\\@a", "/ä", "/%0d%0a",
                     ";"]),
)  # fmt: skip
_PLAIN = st.builds(
    lambda *parts: "".join(parts),
    st.sampled_from(["http://", "https://"]),
    st.sampled_from(["example.com", "bücher.example.org", "a-b.example.net.", "93.184.215.14"]),
    st.sampled_from(["", ":443", ":8443"]),
    st.text(max_size=20).map(lambda text: f"/{text}"),
)
_ANSWER = st.one_of(
    _FOUR.map(lambda number: str(ipaddress.IPv4Address(number))),
    st.builds(_spell_six, _FOUR, st.integers(0, 99)).map(lambda text: text.strip("[]")),
)
_PUBLIC = ("93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "8.8.8.8")
INPUTS = st.tuples(
    st.one_of(_URL, _PLAIN, st.sampled_from([row.url for row in _ROWS]), st.text(max_size=30)),
    st.one_of(
        st.lists(st.sampled_from(_PUBLIC), min_size=1, max_size=2), st.lists(_ANSWER, max_size=3)
    ).map(tuple),
)
# The addresses that the stand-in for getaddrinfo returns.
given_answers: list[str] = []


def _getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
    if not given_answers:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return [(0, socket.SOCK_STREAM, 6, "", (address, port)) for address in given_answers]


@contextlib.contextmanager
def names_are_answered() -> Iterator[list[str]]:
    """Answer every DNS lookup of Python from the list, without a name server."""
    real = socket.getaddrinfo
    socket.getaddrinfo = _getaddrinfo
    try:
        yield given_answers
    finally:
        socket.getaddrinfo = real


def check(given: tuple[str, tuple[str, ...]]) -> bool:
    url, answers = given
    try:
        target = network.parse_url(url, policy=CLOSED)
    except UnsafeURLError as error:
        assert error.reason.endswith(".")
        return False
    _check_target(target)
    given_answers[:] = answers
    try:
        addresses = network.checked_addresses(target.host, target.port, CLOSED)
    except (UnsafeURLError, NameNotResolvedError):
        return False
    assert all(map(oracle.is_public, addresses)), addresses
    return True


def _check_target(target: network.Target) -> None:
    assert network.parse_url(target.url, policy=CLOSED) == target
    assert target.url.isascii()
    assert target.url.isprintable()
    assert " " not in target.url
    default = {"http": 80, "https": 443}[target.scheme]
    parts = urlsplit(target.url)
    assert (parts.hostname, parts.port or default) == (target.host, target.port)
    assert (parts.username, parts.password) == (None, None)
    other = urllib3.util.parse_url(target.url)
    assert ((other.host or "").strip("[]"), other.port or default) == (target.host, target.port)
    assert other.auth is None
    if target.is_literal:
        assert str(ipaddress.ip_address(target.host)) == target.host
        return
    with contextlib.suppress(OSError):
        # The C library accepts more spellings of an address than other parsers.
        socket.inet_aton(target.host)
        raise AssertionError(f"{target.host} is an address to the C library")


TARGET = FuzzTarget(name="urls", inputs=INPUTS, check=check, around=names_are_answered, share=8)
