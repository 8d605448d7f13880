"""What a run without a program says and does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import chromium, programs, services

pytestmark = pytest.mark.once
_NEEDS_A_SHELL = "tests/curl/test_writer.py::test_an_empty_body_is_sent_as_an_empty_body"


def _run(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a test that needs bash and curl where PATH has no program."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", _NEEDS_A_SHELL],
        env={**_without_workers(), "PATH": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def _without_workers() -> dict[str, str]:
    dropped = ("PYTEST_", "TEST_", "TESTS_", "DJANGO_SETTINGS_MODULE")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


def test_a_run_ends_with_the_command_that_installs_what_skipped_tests_need(tmp_path: Path) -> None:
    done = _run(tmp_path)
    assert "skipped tests need programs that are missing: bash, curl." in done.stdout
    assert "sudo apt-get install -y bash curl\n" in done.stdout
    assert done.returncode == 0


def test_a_run_that_must_have_all_programs_fails_without_one(tmp_path: Path) -> None:
    done = _run(tmp_path, TESTS_MUST_HAVE_PROGRAMS="1")
    assert "Failed: not installed: bash, curl" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


def test_everything_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable() -> str:
        raise services.ServiceUnavailableError

    monkeypatch.setattr(services, "redis_binary", unavailable)
    monkeypatch.setattr(chromium, "ensure", unavailable)
    monkeypatch.setattr(chromium, "prefer_the_shell", lambda: None)
    with pytest.raises(services.ServiceUnavailableError) as caught:
        programs.find_required()
    assert "Missing: Redis, Chromium." in str(caught.value)
    assert "apt-get install -y chromium-headless-shell" in str(caught.value)
    assert "libatomic1 redis-server\n" in str(caught.value)
