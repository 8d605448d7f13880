"""The servers and the environment that every other test stands on."""

import os
import subprocess
import sys
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


def test_frozen_redis_answers_nobody_and_goes_on_afterwards(redis_server: RedisServer) -> None:
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
