"""Eight processes, one token, single-use refresh tokens: one refresh per version (F29).

`OAUTH_ROUNDS=200` makes as many rounds as the faults ask for.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.oauth_rows import query_of
from tests.sandbox import AUTHORIZATION_CLIENT, Provider, Receiver, answer_consent

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 8
ROUNDS = int(os.environ.get("OAUTH_ROUNDS", "20"))


class Worker:
    """A process that does what it is told, line by line."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.oauth_worker"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, do: str, **arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer
        return answer

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        self.tell(do, **arguments)
        return self.hear()

    def close(self) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()


@pytest.fixture
def workers(database_url: str) -> Iterator[list[Worker]]:
    environment = {**os.environ, "DATABASE_URL": database_url}
    command = [sys.executable, "manage.py", "migrate", "--verbosity=0"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    started = [Worker(environment) for _ in range(PROCESSES)]
    yield started
    for worker in started:
        worker.close()


@pytest.mark.timeout(120 + 5 * ROUNDS)
def test_eight_processes_refresh_each_version_once(
    workers: list[Worker], provider: Provider, receiver: Receiver
) -> None:
    first = workers[0]
    fields = {
        "url": f"{receiver.url}/bearer/",
        "auth_url": provider.auth_url,
        "token_url": provider.token_url,
        "client_id": AUTHORIZATION_CLIENT.client_id,
        "scope": "events:write",
    }
    begun = first.ask("begin", fields=fields, secret=AUTHORIZATION_CLIENT.client_secret)
    version = first.ask("finish", query=query_of(answer_consent(begun["url"])))["version"]
    provider.clear_requests()
    outcomes: Counter[tuple[int, int]] = Counter()

    for number in range(ROUNDS):
        provider.expire_tokens()
        # One half of the rounds meets a 401, the other an expiry that was known before.
        is_refused = number % 2 == 0
        if not is_refused:
            first.ask("expire")
        for worker in workers:
            dead_version = version if is_refused else None
            worker.tell("use", url=fields["url"], dead_version=dead_version)
        answers = [worker.hear() for worker in workers]
        version += 1
        outcomes.update((one["version"] - version, one["status"]) for one in answers)

    requests = provider.token_requests()
    assert [one.grant_type for one in requests] == ["refresh_token"] * ROUNDS
    assert [one.error for one in requests] == [""] * ROUNDS
    # Everybody got the new version, and no request left with a dead token.
    assert outcomes == {(0, 200): ROUNDS * PROCESSES}
    count = first.ask("count")
    assert count["exchanges"].count(["refresh", "ok"]) == ROUNDS
    assert count["state"] == "valid"
