"""What `manage.py worker` must not load, its clock, and how Celery's own worker ends.

tests/test_deployment.py starts the worker and lets it deliver.
"""

import datetime as dt
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from django.conf import settings

from config.celery import Clock, app
from tests.polling import eventually
from tests.services import RedisServer

ROOT = Path(__file__).resolve().parents[2]
# Prints the modules loaded when the worker starts, including those of a token request.
LOADED = """
import runpy, sys
from celery.apps.worker import Worker
def start(self):
    from webhooks.models import Credential
    from webhooks.oauth import token_requests
    token_requests.client_credentials_request(Credential(token_url="https://login.example/token"))
    print(*sys.modules)
Worker.start = start
sys.argv = ["manage.py", "worker"]
runpy.run_path("manage.py", run_name="__main__")
"""
# Megabytes that a worker does not need: Celery's command line with its shell, other kinds of
# pools, web servers and page rendering, and the URLconfs that load every screen.
UNUSED = {
    "celery.bin.celery", "prompt_toolkit", "pygments", "celery.concurrency.prefork", "uvicorn",
    "waitress", "markdown_it", "config.urls", "webhooks.urls", "webhooks.ui.webhook_form.forms",
}  # fmt: skip


def test_a_worker_loads_no_shell_and_no_addresses() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADED],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    loaded = set(done.stdout.split())
    assert "webhooks.delivery.engine" in loaded, done.stderr
    assert loaded & UNUSED == set()


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "ERROR"])
def test_a_worker_logs_what_log_level_says(level: str) -> None:
    code = "print(*sys.modules)"
    of_root = 'import logging; print("level", logging.getLogger().level)'
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADED.replace(code, of_root)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LOG_LEVEL": level},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"level {logging.getLevelName(level)}" in done.stdout, done.stderr


def test_the_schedule_goes_on_when_the_clock_was_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(SimpleNamespace(), clock=True).create(SimpleNamespace(app=app))
    schedule = clock.service.scheduler
    ran: list[str] = []
    monkeypatch.setattr(schedule, "apply_async", lambda entry, **_: ran.append(entry.name))

    def tick(now: dt.datetime) -> list[str]:
        """Return the names of the tasks that run at `now`."""
        ran.clear()
        monkeypatch.setattr(app, "now", lambda: now)
        while schedule.tick() == 0:
            pass
        return sorted(ran)

    everything = sorted(settings.CELERY_BEAT_SCHEDULE)
    assert tick(dt.datetime(2036, 2, 29, tzinfo=dt.UTC)) == everything
    now = dt.datetime(2026, 11, 29, tzinfo=dt.UTC)
    assert tick(now) == []
    assert tick(now + dt.timedelta(seconds=11)) == ["sweep"]
    assert tick(now + dt.timedelta(seconds=301)) == everything


def test_the_clock_does_not_spin_until_something_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's scheduler looks 10 ms too early, and then asks for a negative pause."""
    clock = Clock(SimpleNamespace(), clock=True).create(SimpleNamespace(app=app))
    schedule = clock.service.scheduler
    monkeypatch.setattr(schedule, "apply_async", lambda entry, **_: None)
    now = dt.datetime(2026, 11, 29, tzinfo=dt.UTC)
    monkeypatch.setattr(app, "now", lambda: now)
    while schedule.tick() == 0:
        pass
    early = now + dt.timedelta(seconds=9.995)
    monkeypatch.setattr(app, "now", lambda: early)
    assert schedule.tick() > 0


def test_the_clock_sleeps_until_something_is_due() -> None:
    clock = Clock(SimpleNamespace(), clock=True).create(SimpleNamespace(app=app))
    periods = [entry["schedule"] for entry in settings.CELERY_BEAT_SCHEDULE.values()]
    assert clock.service.scheduler.max_interval > min(periods)


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_sigterm_to_the_whole_group_ends_a_worker_and_none_of_its_tasks(
    pool: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "celery", "-A", "config", "worker"]
    command += ["-Q", "nothing", "-c", "1", "--pool", pool, "-l", "INFO"]
    log = tmp_path / "log"
    with RedisServer() as redis, log.open("wb") as output:
        environment = {**os.environ, "REDIS_URL": redis.url}
        worker = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            eventually(lambda: " ready." in log.read_text(), saw=log.read_text)
            children = psutil.Process(worker.pid).children()
            assert len(children) == (pool == "prefork")
            for child in children:
                child.send_signal(signal.SIGTERM)
                with pytest.raises(psutil.TimeoutExpired):
                    child.wait(1)
            os.killpg(worker.pid, signal.SIGTERM)
            assert worker.wait(60) == 0, log.read_text()
        finally:
            worker.kill()
