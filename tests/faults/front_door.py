"""F50: the web server dies while it accepts events over HTTP."""

import http.client
import json
import threading
import time
from collections.abc import Iterable
from typing import Any

from tests.faults.catalogue import fault
from tests.faults.processes import Process
from tests.faults.world import EVENT, World, check
from tests.services import HOST, free_port
from webhooks.models import ApiKey, Event

_CLIENTS = 8
_EVENTS = 1200
_PATIENCE_SECONDS = 60.0


@fault("F50", "web killed between commit and answer")
def kill_web(world: World) -> None:
    """Clients repeat unanswered requests with the same idempotency key: each makes one event."""
    world.webhook()
    world.worker()
    port, key = free_port(), ApiKey.objects.issue("faults")[1]
    web = start_web(world, port)
    clients = [_Client(port, key, range(first, _EVENTS, _CLIENTS)) for first in range(_CLIENTS)]
    for client in clients:
        client.start()
    for share in (0.2, 0.4, 0.6, 0.8):
        world.wait(lambda share=share: _accepted(clients) > share * _EVENTS, 60, "accepting")  # type: ignore[misc]
        web.kill()
        web = start_web(world, port)
    for client in clients:
        client.join(_PATIENCE_SECONDS)
    check(_accepted(clients) == _EVENTS, f"{_accepted(clients)} of {_EVENTS} were accepted")
    stored = Event.objects.count()
    check(stored == _EVENTS, f"{_EVENTS} keys made {stored} events")
    repeated = sum(client.repeated for client in clients)
    world.notes.append(f"{repeated} were committed and not answered")
    world.accepted += _EVENTS
    world.settle()
    world.verify()


def start_web(world: World, port: int) -> Process:
    log = world.directory / f"web-{len(world.processes)}.log"
    return world.own(Process(["manage.py", "web", f"--bind={HOST}:{port}"], log))


def _accepted(clients: Iterable["_Client"]) -> int:
    return sum(client.accepted for client in clients)


class _Client(threading.Thread):
    """Posts an event for each number until it is accepted."""

    def __init__(self, port: int, key: str, numbers: Iterable[int]) -> None:
        super().__init__(daemon=True)
        self._port, self._key, self._numbers = port, key, numbers
        self.accepted = self.repeated = 0

    def run(self) -> None:
        for number in self._numbers:
            while not (answer := self._post(number)):
                time.sleep(0.05)
            self.accepted += 1
            self.repeated += answer["duplicate"]

    def _post(self, number: int) -> dict[str, Any] | None:
        """Return the response of an accepted event, or None if it has to be sent again."""
        body = {"type": EVENT, "payload": {"n": number}, "idempotency_key": f"key-{number}"}
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(HOST, self._port, timeout=20)
        try:
            connection.request("POST", "/api/v1/events", json.dumps(body), headers)
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        check(response.status in (202, 503), f"the answer was {response.status}: {answer}")
        return answer if response.status == 202 else None
