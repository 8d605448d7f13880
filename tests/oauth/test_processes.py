"""Eight processes, one token, single-use refresh tokens: one refresh per version (F29).

`OAUTH_ROUNDS=200` runs as many rounds as the fault tests.
"""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.oauth_rows import query_of
from tests.sandbox import AUTHORIZATION_CLIENT, Provider, Receiver, answer_consent

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 8
ROUNDS = int(os.environ.get("OAUTH_ROUNDS", "20"))


class TokenWorker:
    """A process that runs commands, one per line."""

    def __init__(self, port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            self._lines = connection.makefile("rw")

    def tell(self, do: str, **arguments: Any) -> None:
        self._lines.write(json.dumps({"do": do, **arguments}) + "\n")
        self._lines.flush()

    def hear(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._lines.readline())
        assert "error" not in answer, answer
        return answer

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        self.tell(do, **arguments)
        return self.hear()

    def close(self) -> None:
        self._lines.close()


@contextmanager
def running_workers(environment: Mapping[str, str], count: int) -> Iterator[list[TokenWorker]]:
    """Run worker processes on the environment's database, whose tables they create."""
    command = [sys.executable, "-m", "tests.oauth_worker", str(count)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        port = int(started.stdout.readline())
        workers = [TokenWorker(port) for _ in range(count)]
        yield workers
        for worker in workers:
            worker.close()


@pytest.fixture
def workers(database_url: str) -> Iterator[list[TokenWorker]]:
    with running_workers({**os.environ, "DATABASE_URL": database_url}, PROCESSES) as started:
        yield started


def connect(worker: TokenWorker, provider: Provider, url: str) -> int:
    """Get a token for a webhook with this receiver; return its version."""
    fields = {
        "url": url,
        "auth_url": provider.auth_url,
        "token_url": provider.token_url,
        "client_id": AUTHORIZATION_CLIENT.client_id,
        "scope": "events:write",
    }
    begun = worker.ask("begin", fields=fields, secret=AUTHORIZATION_CLIENT.client_secret)
    version: int = worker.ask("finish", query=query_of(answer_consent(begun["url"])))["version"]
    provider.clear_requests()
    return version


@pytest.mark.timeout(120 + 5 * ROUNDS)
def test_eight_processes_refresh_each_version_once(
    workers: list[TokenWorker], provider: Provider, receiver: Receiver
) -> None:
    first, url = workers[0], f"{receiver.url}/bearer/"
    version = connect(first, provider, url)
    outcomes: Counter[tuple[int, int]] = Counter()

    for number in range(ROUNDS):
        provider.expire_tokens()
        # Half of the rounds meet a 401, the others an expiry that was known before.
        is_refused = number % 2 == 0
        if not is_refused:
            first.ask("expire")
        for worker in workers:
            dead_version = version if is_refused else None
            worker.tell("use", url=url, dead_version=dead_version)
        answers = [worker.hear() for worker in workers]
        version += 1
        outcomes.update((one["version"] - version, one["status"]) for one in answers)

    requests = provider.token_requests()
    assert [one.grant_type for one in requests] == ["refresh_token"] * ROUNDS
    assert [one.error for one in requests] == [""] * ROUNDS
    # Every process got the new version, and no request carried a dead token.
    assert outcomes == {(0, 200): ROUNDS * PROCESSES}
    count = first.ask("count")
    assert count["exchanges"].count(["refresh", "ok"]) == ROUNDS
    assert count["state"] == "valid"


@pytest.mark.timeout(120 + 5 * ROUNDS)
def test_people_who_press_refresh_at_once_lose_no_token(
    workers: list[TokenWorker], provider: Provider, receiver: Receiver
) -> None:
    """A manual refresh may cause one more, but never sends a refresh token that is used up."""
    first, url = workers[0], f"{receiver.url}/bearer/"
    version = connect(first, provider, url)

    for number in range(ROUNDS):
        provider.expire_tokens()
        if number % 2:
            first.ask("expire")
        for worker in workers[:5]:
            dead_version = None if number % 2 else version
            worker.tell("use", url=url, dead_version=dead_version)
        for worker in workers[5:]:
            worker.tell("refresh_manually")
        newest = max(worker.hear()["version"] for worker in workers)
        assert newest > version
        version = newest

    requests = provider.token_requests()
    assert {(one.grant_type, one.error) for one in requests} == {("refresh_token", "")}
    assert first.ask("count")["state"] == "valid"
