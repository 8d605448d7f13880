"""Sends to every URL of a table with libcurl: `python -m tests.security.curl_table`, under strace.

Reads `{"rows": [[url, answers, pins]], "control": port}` as JSON and prints, for each row, the
addresses that passed the guard: as the product's sender and as OAuth send, both without the form's
check, and then with libcurl alone, without parser or resolver. Only the control's socket is opened,
which shows that the trace is complete.
"""

import contextlib
import json
import os
import socket
import sys
import threading
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

# Models can be imported only after the setup.
import pycurl  # noqa: E402

from tests.network.dns import by_getaddrinfo  # noqa: E402
from webhooks import network  # noqa: E402
from webhooks.delivery.auth import NoAuthorization  # noqa: E402
from webhooks.delivery.limiter import Limiters  # noqa: E402
from webhooks.delivery.queue.rows import Claimed  # noqa: E402
from webhooks.delivery.requests import make_plan, prepare  # noqa: E402
from webhooks.delivery.sender import Sender  # noqa: E402
from webhooks.models import Webhook  # noqa: E402

_SECONDS = 10.0


class Passed:
    """Record what passed the guard, and open nothing but the control's socket."""

    control = 0
    addresses: list[str] = []
    _open = network.SocketOpener.open

    @classmethod
    def open(cls, opener: Any, family: int, kind: int, protocol: int, where: Any) -> Any:
        cls.addresses.append(where[0])
        is_control = where[:2] == ("127.0.0.1", cls.control)
        return cls._open(opener, family, kind, protocol, where) if is_control else pycurl.SOCKET_BAD


def fake_look_up(answers: list[str]) -> Any:
    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers]

    return getaddrinfo


class SendingAsTheEngine:
    """The engine's own steps from the stored URL to the socket, for one URL at a time."""

    def __init__(self, policy: network.Policy) -> None:
        self._answered, self._resolved = threading.Event(), threading.Event()
        self._policy = policy
        self._sender = Sender(
            policy=policy, limiters=Limiters(4), max_in_flight=4, on_response=self._answered.set
        )
        self._sender.start()

    def send(self, url: str, answers: list[str]) -> list[str]:
        """Return the addresses that passed; none if nothing reached the socket."""
        Passed.addresses = []
        webhook = Webhook(pk=1, url=url)
        webhook.set_secret("signing_secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        try:
            plan = make_plan(webhook, NoAuthorization())
        except network.UnsafeURLError:
            return []
        if not plan.target.is_literal and not self._pin(plan.target, answers):
            return []
        claimed = Claimed(**_CLAIMED)  # type: ignore[arg-type]
        self._answered.clear()
        self._sender.submit([prepare(claimed, plan, 0.0)], lease_ends=float("inf"))
        assert self._answered.wait(_SECONDS), url
        self._sender.responses.clear()
        return Passed.addresses

    def _pin(self, target: network.Target, answers: list[str]) -> bool:
        socket.getaddrinfo = fake_look_up(answers)
        # A new resolver, so that nothing is remembered from the row before.
        self._resolved.clear()
        resolver = network.HostResolver(
            self._policy, wake=lambda *_: self._resolved.set(), ask=by_getaddrinfo
        )
        resolver.lookup(target.host, target.port)
        assert self._resolved.wait(_SECONDS), target
        found = resolver.lookup(target.host, target.port)
        self._sender.pin(resolver.curl_resolve_entries(target.host, target.port))
        resolver.close()
        return bool(found and found.addresses)


_CLAIMED = {
    "id": "dlv_1", "webhook_id": 1, "event_id": "evt_1", "payload": b"{}", "number": 1,
    "failure_count": 0, "trigger": "event",
}  # fmt: skip


def send_as_oauth(url: str, answers: list[str], policy: network.Policy) -> list[str]:
    """Return the addresses that passed when requests sends through the guarded adapter."""
    Passed.addresses = []
    socket.getaddrinfo = fake_look_up(answers)
    with (
        contextlib.suppress(network.NetworkError),
        network.GuardedSession(policy=policy, total_seconds=2.0) as session,
    ):
        session.get(url)
    return Passed.addresses


def send_unchecked(url: str, pins: list[str], policy: network.Policy) -> list[str]:
    """Give a URL to libcurl as it stands, and return the addresses that passed."""
    Passed.addresses = []
    handle = pycurl.Curl()
    try:
        network.configure_curl(handle, network.SocketOpener(policy))
        handle.setopt(pycurl.URL, url)
        handle.setopt(pycurl.RESOLVE, pins)
        handle.setopt(pycurl.TIMEOUT_MS, 2000)
        handle.setopt(pycurl.WRITEFUNCTION, lambda chunk: None)
        handle.perform()
    except (pycurl.error, UnicodeError, ValueError):
        # The socket opener has recorded what passed.
        return Passed.addresses
    finally:
        handle.close()
    return Passed.addresses


def main() -> None:
    given = json.load(sys.stdin)
    setattr(network.SocketOpener, "open", lambda *args: Passed.open(*args))  # noqa: B010
    Passed.control = given["control"]
    allowed = network.parse_allowed_network(f"127.0.0.1:{Passed.control}")
    policy = network.Policy(allowed_networks=(allowed,))
    engine = SendingAsTheEngine(policy)
    found = [
        [
            engine.send(url, answers),
            send_as_oauth(url, answers, policy),
            send_unchecked(url, pins, policy),
        ]
        for url, answers, pins in given["rows"]
    ]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
