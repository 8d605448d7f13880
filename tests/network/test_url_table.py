"""The shared table of URLs, judged in four ways: the form, the command and both senders."""

import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pycurl
import pytest
from django.core.management import call_command

from tests.network.test_guard import PUBLIC, UrlRow, answer_with, url_rows
from tests.security import oracle
from tests.ui.webhook_form.test_forms import bound
from webhooks import network
from webhooks.network import Policy, UnsafeURLError, hosts

pytestmark = pytest.mark.security
CLOSED = Policy()
ROOT = Path(__file__).resolve().parents[2]
Way = Callable[[UrlRow], str]


@pytest.fixture(autouse=True)
def _nothing_is_open(settings: Any) -> None:
    settings.WEBHOOKS_ALLOWED_NETWORKS = []


def by_the_form(row: UrlRow) -> str:
    form = bound(url=row.url)
    form.is_valid()
    assert set(form.errors) <= {"url"}
    return "block" if form.errors else "allow"


def by_the_command(row: UrlRow) -> str:
    printed, status = io.StringIO(), 0
    try:
        call_command("check_url", row.url, stdout=printed)
    except SystemExit as stop:
        status = int(stop.code or 0)
    verdict, url, reason = printed.getvalue().splitlines()[0].split("\t")
    assert url == ascii(row.url)
    assert reason
    assert status == (verdict == "block")
    return verdict


def by_requests(row: UrlRow) -> str:
    """Return whether a connect is tried, which is stopped before it leaves the machine."""
    tried: list[Any] = []

    def refuse(opener: Any, family: int, kind: int, protocol: int, where: Any) -> int:
        tried.append(where[0])
        bad: int = pycurl.SOCKET_BAD
        return bad

    with (
        pytest.MonkeyPatch.context() as patched,
        network.GuardedSession(policy=CLOSED) as session,
        contextlib.suppress(network.NetworkError),
    ):
        patched.setattr(network.SocketOpener, "open", refuse)
        session.get(row.url)
    assert [address for address in tried if oracle.is_denied(address, allowed=())] == []
    return "allow" if tried else "block"


def verdicts(row: UrlRow, ways: list[Way], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(socket, "getaddrinfo", answer_with(*(row.answers or ())))
    return [way(row) for way in ways]


# libcurl, in a process of its own.


def curl_pins(row: UrlRow) -> list[str]:
    """Pin every spelling of the row's host, to loopback where the row gives no answers."""
    match = re.match(r"[a-zA-Z]+://([^/?#]*)", row.url)
    host, _, port_text = (match[1] if match else "").rpartition("@")[2].partition(":")
    port = port_text or ("443" if row.url.lower().startswith("https") else "80")
    spellings = {host.lower(), host.lower().rstrip(".") + ".", host.lower().rstrip(".")}
    with contextlib.suppress(UnsafeURLError):
        spellings.add(network.parse_url(row.url, policy=CLOSED).host)
    # The hosts that libcurl finds in "http:example.com" and "https//example.com".
    pins = ["https:80:127.0.0.1"] if match else ["example.com:80:127.0.0.1", "https:80:127.0.0.1"]
    for spelling in sorted(spellings):
        if re.fullmatch(r"[0-9a-z_.-]+", spelling) and re.fullmatch(r"[0-9]{1,5}", port):
            literal = (spelling,) if hosts.is_ip_address(spelling) else ("127.0.0.1",)
            pins.append(f"{spelling}:{port}:{','.join(row.answers or literal)}")
    return pins


@pytest.fixture
def control() -> Iterator[int]:
    """Run a server that hangs up at once; a connection to it shows that the trace works."""
    listener = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        with contextlib.suppress(OSError):
            while True:
                listener.accept()[0].close()

    thread = threading.Thread(target=hang_up, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def sent_by_libcurl(rows: list[UrlRow], control: int, command: tuple[str, ...] = ()) -> list[Any]:
    given = [[row.url, row.answers or (), curl_pins(row)] for row in rows]
    given.append([f"http://127.0.0.1:{control}/", [], []])
    environment = {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "PUBLIC_URL": "https://hooks.example.com",
        "WEBHOOKS_ALLOWED_NETWORKS": f"127.0.0.1:{control}",
        "http_proxy": f"http://127.0.0.1:{control}/",
    }
    run = subprocess.run(
        [*command, sys.executable, "-m", "tests.security.curl_table"],
        input=json.dumps({"rows": given, "control": control}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
        env=os.environ | environment,
    )
    assert run.returncode == 0, run.stderr
    found: list[Any] = json.loads(run.stdout)
    assert found.pop()[0] == ["127.0.0.1"]
    return found


@pytest.mark.once
@pytest.mark.django_db
def test_form_command_and_both_senders_agree_with_every_row(
    monkeypatch: pytest.MonkeyPatch, control: int, security_figure: Callable[..., None]
) -> None:
    rows = url_rows()
    wrong = []
    for row, sent in zip(rows, sent_by_libcurl(rows, control), strict=True):
        with monkeypatch.context() as patched:
            found = verdicts(row, [by_the_form, by_the_command, by_requests], patched)
        found += ["allow" if passed else "block" for passed in sent[:2]]
        if set(found) != {row.verdict}:
            wrong.append((row, found))
    security_figure("urls", right=len(rows) - len(wrong), of=len(rows))
    assert wrong == []


# The same kinds as the table's rows, with allowed hosts.
_LIKE_THE_TABLE = [
    *(f"{mark}http://8.8.8.8/" for mark in " \t\n\r\x0b\x1f\xa0\u2003\u2028\u3000\ufeff"),
    *(f"http://8.8.8.8/{mark}" for mark in " \t\n\r\x0b\x1f\xa0\u2003\u2028\u3000\ufeff"),
    *("http://@8.8.8.8/", "http://8.8.8.8\\@1.1.1.1/", "http://%38.8.8.8/", "http://8.8.8.8:080/"),
    *("http://8.8.8.8/\r\nX: y", "http://8.8.8.8/{x}", "http://[2606:4700:4700:0:0:0:0:1111]/"),
    *("http://example.com%2e/", "http://\u212a.com/", "http://\u017f.com/", "http://\u0130.com/"),
]


@pytest.mark.once
@pytest.mark.django_db
def test_form_command_and_both_senders_agree_about_urls_that_only_some_parsers_repair(
    monkeypatch: pytest.MonkeyPatch, control: int
) -> None:
    refused = [
        UrlRow(url=url, verdict="block", answers=(PUBLIC,), why="") for url in _LIKE_THE_TABLE
    ]
    names = ["https://BÜCHER.example.com/", "https://Пример.рф/"]
    sent = [UrlRow(url=url, verdict="allow", answers=(PUBLIC,), why="") for url in names]
    rows = [*refused, *sent]
    wrong = []
    for row, passed in zip(rows, sent_by_libcurl(rows, control), strict=True):
        with monkeypatch.context() as patched:
            found = verdicts(row, [by_the_form, by_the_command, by_requests], patched)
        found += ["allow" if way else "block" for way in passed[:2]]
        if set(found) != {row.verdict}:
            wrong.append((row.url, found))
    assert wrong == []


def test_libcurl_asks_the_kernel_for_no_denied_address_of_the_table(
    control: int, tmp_path: Path, security_figure: Callable[..., None]
) -> None:
    oracle.need_strace()
    rows, trace = url_rows(), tmp_path / "trace"
    found = sent_by_libcurl(rows, control, tuple(oracle.strace(trace)))
    seen = oracle.tcp(oracle.connects(trace.read_text()))
    denied = [one for one in seen if one[1:] != ("127.0.0.1", control)]
    security_figure("connects", seen=len(seen), denied=len(denied))
    assert denied == []
    # One control connection from each way to send shows that the trace is complete.
    assert len(seen) == 3
    # The guard let only public addresses pass, in either way.
    passed = [address for ways in found for way in ways for address in way]
    assert len(passed) > 20
    assert [address for address in passed if oracle.is_denied(address, allowed=())] == []
