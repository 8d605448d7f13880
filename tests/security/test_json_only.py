"""Write access to Redis runs no code here: everything read from it is JSON, or dropped."""

import base64
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings
from django.core.cache.backends.redis import RedisCache
from django.test import Client
from kombu import Connection
from pytest_django import Settings

from config.celery import app
from tests.services import RedisServer
from webhooks.delivery.backlog import LAST_SWEEP

ROOT = Path(__file__).resolve().parents[2]
CACHE = {
    "BACKEND": "django.core.cache.backends.redis.RedisCache",
    "KEY_PREFIX": "webhooks",
    "OPTIONS": {"serializer": "webhooks.security.json_serializer.JSONSerializer"},
}


class Trap:
    """An object that runs a command when it is unpickled."""

    ran: list[int] = []

    def __reduce__(self) -> Any:
        return self.ran.append, (1,)


def with_redis(url: str) -> dict[str, Any]:
    """Return the settings that depend on Redis, read in a separate process."""
    code = (
        "import json; from django.conf import settings as s; "
        "print(json.dumps([s.CACHES, s.SESSION_SERIALIZER, s.CELERY_ACCEPT_CONTENT]))"
    )
    environment = os.environ | {
        "REDIS_URL": url,
        "ENV_FILE": os.devnull,
        "DJANGO_SETTINGS_MODULE": "config.settings",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    caches, sessions, celery = json.loads(done.stdout)
    return {"cache": caches["default"], "sessions": sessions, "celery": celery}


def test_cache_sessions_and_celery_read_json_alone() -> None:
    found = with_redis("redis://127.0.0.1:6379/0")
    assert found["cache"]["OPTIONS"]["serializer"] == CACHE["OPTIONS"]["serializer"]  # type: ignore[index]
    assert found["sessions"] == "django.contrib.sessions.serializers.JSONSerializer"
    assert found["celery"] == ["json"]
    conf = app.conf
    assert (conf.task_serializer, conf.result_serializer, conf.event_serializer) == ("json",) * 3
    assert conf.accept_content == conf.result_accept_content == ["json"]
    assert not conf.worker_enable_remote_control
    assert found["sessions"] == settings.SESSION_SERIALIZER


@pytest.mark.django_db
@pytest.mark.parametrize("garbage", [pickle.dumps(Trap()), b"[" * 100_000, b"\xff\xfe", b""])
def test_what_somebody_else_put_into_the_cache_runs_nothing(
    redis_url: str, garbage: bytes, client: Client, settings: Settings
) -> None:
    url = redis_url.removesuffix("/0") + "/7"
    settings.CACHES = {"default": {**CACHE, "LOCATION": url}}
    cache = RedisCache(url, {**CACHE, "OPTIONS": dict(CACHE["OPTIONS"])})  # type: ignore[call-overload]
    for value in (1, 1.5, "text", None, {"a": [True]}):
        cache.set("kept", value)
        assert cache.get("kept") == value
    with redis.Redis.from_url(url) as server:
        server.set(cache.make_and_validate_key(LAST_SWEEP), garbage)
    assert client.get("/readyz").json()["last_sweep"].startswith("none yet")
    assert Trap.ran == []
    settings.CACHES = {}


def envelope(body: bytes, **properties: Any) -> bytes:
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "binary",
            "content-type": "application/x-python-serialize",
            "headers": {"task": "webhooks.tasks.sweep", "id": "1", "lang": "py"},
            "properties": {
                "body_encoding": "base64",
                "delivery_tag": "1",
                "delivery_info": {"exchange": "", "routing_key": "default"},
                **properties,
            },
        }
    ).encode()


GARBAGE = [
    b"no JSON",
    b"\xff\xfe\x00",
    pickle.dumps(Trap()),
    b"[" * 100_000,
    b"[1]",
    b"{}",
    b"null",
    b'"text"',
    b'{"properties": {}}',
    b'{"properties": {"delivery_tag": "2", "delivery_info": []}, "body": "%"}',
    envelope(pickle.dumps(Trap())),
    envelope(b"no JSON", body_encoding="unknown"),
    envelope(b"[]").replace(b"x-python-serialize", b"json"),
    envelope(b"null").replace(b'"id": "1"', b'"no_id": "1"'),
]


def test_no_message_ends_a_worker(
    tmp_path: Path, redis_server: RedisServer, database_url: str
) -> None:
    """After each of them the same worker still runs its tasks."""
    environment = os.environ | {
        "ENV_FILE": os.devnull,
        "DATA_DIR": str(tmp_path),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_server.url,
        "DJANGO_SETTINGS_MODULE": "config.settings",
    }
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--noinput", "-v0"],
        cwd=ROOT, env=environment, check=True,
    )  # fmt: skip
    log = (tmp_path / "log").open("wb")
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "config", "worker", "-Q", "default", "-c", "1",
         "--without-gossip", "--without-mingle", "-l", "WARNING"],
        cwd=ROOT, env=environment, stdout=log, stderr=log,
    )  # fmt: skip
    try:
        with redis.Redis.from_url(redis_server.url) as server:
            for garbage in GARBAGE:
                server.rpush("default", garbage)
                _ask_for_sweep(redis_server.url)
                _wait_for_sweep(server, worker, tmp_path)
        assert worker.poll() is None
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    finally:
        worker.kill()
        worker.wait()
        log.close()
    text = (tmp_path / "log").read_text()
    assert "message_dropped" in text
    assert "Unrecoverable" not in text


def _ask_for_sweep(url: str) -> None:
    with Connection(url) as connection:
        app.tasks["webhooks.tasks.sweep"].apply_async(connection=connection, queue="default")


def _wait_for_sweep(server: Any, worker: subprocess.Popen[bytes], folder: Path) -> None:
    ends_at = time.monotonic() + 60
    while not (found := server.keys("webhooks:*last*")):
        assert worker.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < ends_at, (folder / "log").read_text()
        time.sleep(0.05)
    server.delete(*found)
