"""Tests of compose.yaml and the Dockerfile, as far as possible without a container engine.

The commands of compose.yaml are started as processes against a real PostgreSQL and a real Redis,
and deliver an event.
"""

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from django.core.management import call_command, get_commands
from pytest_django import Settings

from tests.bench.stage import POSTGRES
from tests.sandbox import Receiver
from tests.services import free_port
from tests.test_settings import settings_read

ROOT = Path(__file__).resolve().parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
OWN = {name: one for name, one in COMPOSE["services"].items() if "build" in one}
DOCKERFILE = (ROOT / "Dockerfile").read_text()
STOP_SECONDS = 45


def test_every_variable_is_a_setting() -> None:
    text = (ROOT / "compose.yaml").read_text()
    known = set(settings_read()) | {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "PORT"}
    assert set(re.findall(r"\$\{([A-Z_]+)", text)) <= known
    # Read by the C library.
    known |= {"MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}
    for service in OWN.values():
        assert set(service["environment"]) <= known


def test_image_sets_only_settings() -> None:
    python = {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
    assert set(re.findall(r"([A-Z_]{3,})=", DOCKERFILE)) <= set(settings_read()) | python


def test_own_services_run_without_privileges_on_a_read_only_root() -> None:
    for name, service in OWN.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users == ["webhooks"]
    # Set after everything is copied, so that the files belong to root.
    assert DOCKERFILE.rindex("USER webhooks") > DOCKERFILE.rindex("COPY ")


def test_one_process_is_the_whole_worker() -> None:
    """Each additional process of the product takes 100 MiB."""
    assert [name for name, one in OWN.items() if "ports" not in one] == ["migrate", "worker"]
    assert OWN["worker"]["command"] == ["python", "manage.py", "worker"]


def test_workers_get_more_time_to_stop_than_they_take() -> None:
    grace = settings_read()["WEBHOOKS_GRACE_SECONDS"]
    assert isinstance(grace, float)
    for name, service in OWN.items():
        assert int(service["stop_grace_period"].rstrip("s")) > grace + 10, name


def test_images_are_pinned_and_nothing_but_the_web_is_published() -> None:
    for name, service in COMPOSE["services"].items():
        pattern = r"webhooks:[\d.]+" if name in OWN else r"[a-z]+:[\d.]+@sha256:[0-9a-f]{64}"
        assert re.fullmatch(pattern, service["image"]), name
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    for base in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE):
        assert re.fullmatch(r"python:[\d.]+-slim@sha256:[0-9a-f]{64}", base)
    published = {name: one["ports"] for name, one in COMPOSE["services"].items() if "ports" in one}
    assert set(published) == {"web"}
    assert all(port.startswith("127.0.0.1:") for port in published["web"])


def test_each_server_has_a_password_and_a_network_that_leads_nowhere() -> None:
    services, networks = COMPOSE["services"], COMPOSE["networks"]
    assert "requirepass" in str(services["redis"]["command"])
    assert "POSTGRES_PASSWORD" in services["postgres"]["environment"]
    url = COMPOSE["x-app"]["environment"]["REDIS_URL"]
    assert url.startswith("redis://:${REDIS_PASSWORD")
    assert services["redis"]["networks"] == ["broker"]
    assert services["postgres"]["networks"] == ["database"]
    assert networks["broker"] == networks["database"] == {"internal": True}


def test_postgresql_is_set_up_as_it_is_measured() -> None:
    given = [f"--{name}={value}" for name, value in POSTGRES.items()]
    assert COMPOSE["services"]["postgres"]["command"] == ["postgres", *given]


def test_no_service_may_take_the_whole_machine_or_more_rights_than_it_needs() -> None:
    for name, service in COMPOSE["services"].items():
        assert {"mem_limit", "pids_limit", "logging"} <= service.keys(), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_image_is_built_from_locked_wheels_and_existing_files() -> None:
    assert "--require-hashes" in DOCKERFILE
    assert "--only-binary=:all:" in DOCKERFILE
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    copied = [name for line in lines for name in line.split()]
    assert copied
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(copied) == sorted(allowed)
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_every_pin_has_hashes_and_no_registry_is_named() -> None:
    names = {path.name for path in ROOT.glob("requirements*")}
    assert names == {"requirements.txt", "requirements-dev.txt"}
    for name in names:
        text = (ROOT / name).read_text()
        pins = re.findall(r"^\S+==\S+.*\\$", text, re.MULTILINE)
        assert pins, name
        assert len(pins) == len(re.findall(r"^[^\s#]", text, re.MULTILINE)), name
        assert text.count("--hash=sha256:") >= len(pins)
        assert "://" not in text


def test_every_direct_dependency_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.findall(r"^(?:dependencies|sandbox|tests) = \[\n(.*?)^\]", text, re.M | re.S)
    lines = [line for block in listed for line in block.splitlines() if "include-group" not in line]
    assert len(listed) == 3
    assert len(lines) > 30
    for line in lines:
        assert re.search(r"# .+\.$", line), line


def test_every_direct_dependency_is_pinned() -> None:
    """Fails if `make lock` was not run after the last change."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    for wanted, names in (
        (project["project"]["dependencies"], ["requirements.txt"]),
        (groups["sandbox"] + groups["tests"], ["requirements.txt", "requirements-dev.txt"]),
    ):
        text = "".join((ROOT / name).read_text() for name in names).lower()
        pinned = set(re.findall(r"^([a-z0-9._-]+)==", text, re.MULTILINE))
        asked = {re.split(r"[^A-Za-z0-9._-]", one)[0].lower() for one in wanted if type(one) is str}
        assert asked <= pinned


DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_only_what_exists(document: Path) -> None:
    text = document.read_text()
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)`", text)) <= verbs
    assert set(re.findall(r"manage\.py ([a-z_]+)", text)) <= set(get_commands())


def test_readme_gives_exactly_two_commands_to_begin_with() -> None:
    section = (ROOT / "README.md").read_text().split("## Two commands")[1].split("\n## ")[0]
    assert re.findall(r"^    (\S.*)$", section, re.MULTILINE) == ["make run", "make test"]


@pytest.mark.once
@pytest.mark.slow
def test_collected_files_are_complete(tmp_path: Path, settings: Settings) -> None:
    """Hashing names follows every reference in the style sheets and fails on a missing file."""
    settings.STATIC_ROOT = tmp_path
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    }
    call_command("collectstatic", interactive=False, verbosity=0)
    assert (tmp_path / "staticfiles.json").is_file()


class Deployment:
    """The project's own services in compose.yaml, as processes of this machine."""

    def __init__(self, directory: Path, *, database_url: str, redis_url: str, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.directory = directory
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ENV_FILE": os.devnull,
            "DATA_DIR": str(directory),
            "PUBLIC_URL": self.url,
            "SECRET_KEY": "a-key-of-the-tests-with-fifty-or-more-characters-in-it-0123456789",
            "FIELD_ENCRYPTION_KEY": os.environ["FIELD_ENCRYPTION_KEY"],
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "WEBHOOKS_ALLOWED_NETWORKS": "127.0.0.1/32",
        }

    def command(self, name: str) -> list[str]:
        shown: list[str] = OWN[name]["command"]
        return [text.replace("0.0.0.0:8000", f"127.0.0.1:{self.port}") for text in shown]

    def run(self, *command: str, given: str = "") -> str:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, stack: ExitStack, name: str) -> None:
        log = stack.enter_context((self.directory / f"{name}.log").open("wb"))
        # Only fixed values; the others are chosen by the operator.
        shown: dict[str, str] = OWN[name]["environment"]
        fixed = {key: value for key, value in shown.items() if "$" not in value}
        process = subprocess.Popen(
            self.command(name),
            cwd=ROOT,
            env=self.environment | fixed,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        self.processes[name] = process

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def readiness(self) -> dict[str, Any]:
        """Return the response of `/readyz`, waiting up to 30 seconds for the server."""
        deadline = time.monotonic() + 30
        while True:
            try:
                answer = requests.get(f"{self.url}/readyz", timeout=10)
            except requests.ConnectionError:
                assert time.monotonic() < deadline, self.log("web")
            else:
                if answer.status_code == 200 or time.monotonic() > deadline:
                    return dict(answer.json())
            time.sleep(0.3)


@pytest.fixture
def deployment(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[Deployment]:
    own = redis_url.removesuffix("/0") + "/9"
    deployed = Deployment(tmp_path, database_url=database_url, redis_url=own, port=free_port())
    deployed.run(*deployed.command("migrate"))
    with ExitStack() as stack:
        for name in ("web", "worker"):
            deployed.start(stack, name)
        yield deployed


CREATE_WEBHOOK = """
import sys
from webhooks.models import Webhook
Webhook(name="One", url=sys.stdin.read(), event_types=["form.submitted"]).save()
"""


@pytest.mark.database("postgres")
def test_services_of_compose_deliver_together_and_stop_cleanly(
    deployment: Deployment, receiver: Receiver
) -> None:
    manage = (sys.executable, "manage.py")
    url = f"{receiver.url}/open/deployed"
    deployment.run(*manage, "shell", "--verbosity=0", "-c", CREATE_WEBHOOK, given=url)
    ready = deployment.readiness()
    assert ready["status"] == "ok", ready

    deployment.run(*manage, "publish", "form.submitted", "--payload", "-", given='{"name": "A"}')

    assert receiver.wait_for(1, timeout=60)[0].json()["name"] == "A"
    for name, process in deployment.processes.items():
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0, f"{name}: {deployment.log(name)}"
        assert "Traceback" not in deployment.log(name), name
