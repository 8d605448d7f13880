"""`manage.py run`, the whole product in one process, started for real as `make run` starts it."""

import base64
import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests

from tests.commands import ROOT, manage
from tests.polling import eventually
from tests.sandbox import Receiver
from tests.services import free_port, free_ports

START_SECONDS = 180


class Product:
    """One `manage.py run` with its own data directory, and its output."""

    def __init__(self, data_dir: Path, *arguments: str, port: int, **environment: str) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            "PATH": os.environ["PATH"],
            "ENV_FILE": os.devnull,
            "DATA_DIR": str(data_dir),
            **environment,
        }
        self._lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "run", "--port", str(port), *arguments],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self._lines.extend(iter(self.process.stdout.readline, ""))

    @property
    def output(self) -> str:
        return "".join(self._lines)

    @property
    def password(self) -> str:
        found = re.search(r"^  Password  (\S+)$", self.output, re.MULTILINE)
        return found[1] if found else ""

    def ready(self) -> "Product":
        deadline = time.monotonic() + START_SECONDS
        # The last line of the block, so the whole block was read.
        while not re.search(r"Ctrl-C stops it.*\n\n$", self.output, re.DOTALL):
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal to this process only and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait until the process ends, and return its exit code."""
        code = self.process.wait(timeout=180)
        self._reader.join(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def manage(self, *arguments: str, given: str = "") -> str:
        environment = {**self.environment, "PUBLIC_URL": self.url}
        done = manage(*arguments, environment=environment, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def log_in(self, session: requests.Session, password: str) -> requests.Response:
        """Log in through the form, as a person does; return the page that follows."""
        page = session.get(f"{self.url}/", timeout=60)
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token, page.text
        form = {"username": "admin", "password": password, "csrfmiddlewaretoken": token[1]}
        return session.post(page.url, form, headers={"Origin": self.url}, timeout=60)

    def readiness(self) -> dict[str, str]:
        """Return the states in `/readyz` once the first sweep has run, or after 90 seconds."""
        deadline = time.monotonic() + 90
        while True:
            answer = requests.get(f"{self.url}/readyz", timeout=60)
            if answer.status_code == 200 or time.monotonic() > deadline:
                found = answer.json()
                return {key: found[key] for key in found if key not in _NO_STATES}
            time.sleep(0.2)


# Keys of `/readyz` other than the states of its parts.
_NO_STATES = {"queue", "networks_opened"}
Start = Callable[..., Product]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def start(data_dir: Path, database_url: str) -> Iterator[Start]:
    """Return a function that starts the product on free ports, on a new database."""
    running: list[Product] = []

    def begin(*arguments: str, port: int | None = None, **environment: str) -> Product:
        environment = {"DATABASE_URL": database_url, **environment}
        product = Product(data_dir, *arguments, port=port or free_ports(3), **environment)
        running.append(product)
        return product

    yield begin
    for product in running:
        product.stop()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def assert_answer_to_head_ends_with_its_head(port: int, path: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        ask = "{} {} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: {}\r\n\r\n"
        connection.sendall(ask.format("HEAD", path, "keep-alive").encode())
        connection.sendall(ask.format("GET", path, "close").encode())
        with connection.makefile("rb") as file:
            head, _empty, second = file.read().partition(b"\r\n\r\n")
    assert b"\r\nContent-Length: " in head
    assert second.startswith(head.splitlines()[0])


def published(product: Product) -> None:
    given = '{"call_id": "c-1", "caller_number": "380441234567"}'
    printed = product.manage("publish", "call.incoming.before", "--payload", "-", given=given)
    assert "deliveries: 2" in printed


def test_first_start_shows_the_way_to_a_delivery_and_the_second_keeps_the_data(
    start: Start, data_dir: Path, session: requests.Session, redis_url: str
) -> None:
    product = start("--sandbox").ready()
    receiver = Receiver(f"http://127.0.0.1:{product.port + 1}")

    assert f"Open      {product.url}/" in product.output
    assert receiver.url in product.output
    page = product.log_in(session, product.password)
    assert page.url == f"{product.url}/integrations/webhooks/"
    assert "Sandbox: Basic authentication" in page.text
    assert "Sandbox: OAuth 2.0" in page.text
    files = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
    assert files
    for path in files:
        # These are served although `collectstatic` was not run.
        assert session.get(product.url + path, timeout=60).status_code == 200, path
    published(product)
    (received,) = receiver.wait_for(1, timeout=60)
    credentials = base64.b64encode(b"demo-login:demo-password").decode()
    assert (received.path, received.status) == ("/basic/", 200)
    assert received.header("Authorization") == f"Basic {credentials}"
    assert received.signature == "valid"
    assert received.json()["caller_number"] == "380441234567"
    assert set(product.readiness().values()) == {"ok"}
    assert stat.S_IMODE((data_dir / "keys.env").stat().st_mode) == 0o600
    assert product.stop(signal.SIGINT) == 0
    assert "ERROR" not in product.output
    assert "Traceback" not in product.output

    # On other ports, where the prepared webhooks follow the sandbox, and with its own Redis.
    second = start("--sandbox", REDIS_URL=redis_url.removesuffix("/0") + "/7").ready()

    assert second.password == ""
    assert "The data of the last start is kept" in second.output
    session.cookies.clear()
    page = second.log_in(session, product.password)
    assert page.url == f"{second.url}/integrations/webhooks/"
    assert f"127.0.0.1:{second.port + 1}/basic/" in page.text
    published(second)
    assert Receiver(f"http://127.0.0.1:{second.port + 1}").wait_for(1, timeout=60)
    assert set(second.readiness().values()) == {"ok"}
    assert second.stop() == 0
    assert "Traceback" not in second.output


@pytest.mark.once
def test_without_sandbox_nothing_of_it_runs_and_two_signals_in_one_moment_are_one(
    start: Start,
) -> None:
    product = start("--no-sandbox", WEBHOOKS_ALLOWED_NETWORKS="").ready()

    # The login page has no Content-Length.
    for path in ("/healthz", "/login/", "/api/v1/events"):
        assert_answer_to_head_ends_with_its_head(product.port, path)
    assert psutil.Process(product.process.pid).children() == []
    assert "Sandbox" not in product.output
    count = "from webhooks.models import Webhook as W; print(len(W.objects.all()))"
    assert product.manage("shell", "--verbosity=0", "-c", count).strip() == "0"
    # Signals may arrive until the last moments of the process.
    ends = time.monotonic() + 0.5
    while time.monotonic() < ends:
        product.process.send_signal(signal.SIGTERM)
        time.sleep(0.005)
    assert product.wait() == 0, product.output
    assert "Stopped. What waits is sent after the next start." in product.output


@pytest.mark.once
def test_event_api_refuses_as_in_production(start: Start) -> None:
    product = start("--no-sandbox").ready()
    issue = "from webhooks.models import ApiKey as K; print(K.objects.issue('CRM')[1])"
    key = product.manage("shell", "--verbosity=0", "-c", issue).strip()

    def refusal(path: str, *more: str, body: bytes = b"") -> tuple[int, str]:
        lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *more]
        lines += [f"Authorization: Bearer {key}", "Content-Type: application/json", "", ""]
        with socket.create_connection(("127.0.0.1", product.port), timeout=60) as connection:
            connection.sendall("\r\n".join(lines).encode() + body)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status, json.load(answer)["error"]["code"]

    for path in ("//api/v1/events", "/%2Fapi/v1/events", "/api", "/api//v1/events"):
        assert refusal(path, "Content-Length: 2", body=b"{}") == (404, "not_found"), path
    limit = 16 * 1024 * 1024
    for path in ("/api/v2/events", "//api/v1/events"):
        for more in ([], ["Expect: 100-continue"]):
            assert refusal(path, f"Content-Length: {limit}", *more) == (404, "not_found")
        chunk = b"2000000\r\n".ljust(limit, b"a")
        assert refusal(path, "Transfer-Encoding: chunked", body=chunk) == (404, "not_found")
    for path in ("/api/v1/events", "/api/v1/events/batch"):
        # Before a byte of the body.
        for more in ([], ["Expect: 100-continue"]):
            assert refusal(path, f"Content-Length: {limit}", *more) == (413, "too_large")
        # As soon as the limit is reached.
        chunk = b"2000000\r\n".ljust(limit, b"a")
        assert refusal(path, "Transfer-Encoding: chunked", body=chunk) == (413, "too_large")
        assert refusal(path, "Content-Length: 1", body=b"{") == (400, "not_json")


@pytest.mark.once
def test_behind_a_proxy_a_guesser_locks_an_account_for_no_one_else(start: Start) -> None:
    product = start("--no-sandbox", BEHIND_TLS_PROXY="True", PUBLIC_URL="https://hooks.example.org")
    url = f"{product.ready().url}/login/"

    def log_in(password: str, *, address: str) -> int:
        with requests.Session() as proxy:
            proxy.trust_env = False
            said = {
                "Host": "hooks.example.org",
                "X-Forwarded-For": address,
                "X-Forwarded-Proto": "https",
                "Referer": "https://hooks.example.org/login/",
            }
            proxy.headers.update(said)
            page = proxy.get(url, timeout=60)
            # The cookie is for https only, so requests does not send it.
            proxy.headers["Cookie"] = f"csrftoken={page.cookies['csrftoken']}"
            token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
            assert token, page.text
            form = {"username": "admin", "password": password, "csrfmiddlewaretoken": token[1]}
            return proxy.post(url, form, timeout=60, allow_redirects=False).status_code

    guesses = [log_in("a guess", address="198.51.100.7") for _ in range(6)]
    assert guesses[-1] == 429
    assert log_in(product.password, address="203.0.113.9") == 302


@pytest.mark.once
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_sandbox_ends_with_the_product_however_it_ends(
    start: Start, number: signal.Signals
) -> None:
    product = start("--sandbox").ready()
    children = psutil.Process(product.process.pid).children()
    assert len(children) == 2

    product.stop(number)

    gone, alive = psutil.wait_procs(children, timeout=60)
    assert (len(gone), alive) == (2, [])


@pytest.mark.once
@pytest.mark.parametrize("offset", [0, 2])
def test_taken_port_is_said_in_one_sentence(data_dir: Path, offset: int) -> None:
    port = free_ports(3)
    with socket.create_server(("127.0.0.1", port + offset)):
        product = Product(data_dir, "--sandbox", port=port)
        code = product.wait()

    assert code == 1
    assert f"Cannot listen on 127.0.0.1 port {port + offset}" in product.output
    assert "PORT=" in product.output
    assert "Traceback" not in product.output


@pytest.mark.database("sqlite")
def test_second_instance_on_the_same_data_is_refused(start: Start) -> None:
    start().ready()

    second = start()

    assert second.wait() == 1
    assert "Another instance is running" in second.output
    assert "Traceback" not in second.output


@pytest.mark.once
def test_a_broker_that_is_away_is_not_waited_for(start: Start) -> None:
    product = start("--no-sandbox", REDIS_URL="redis://127.0.0.1:1/0")
    # Log lines may follow at once.
    eventually(lambda: "Ctrl-C stops it" in product.output, seconds=START_SECONDS)
    assert requests.get(f"{product.url}/healthz", timeout=60).status_code == 200
    assert product.stop() == 0
    assert "Traceback" not in product.output


@pytest.mark.once
def test_wrong_encryption_key_stops_the_start(start: Start, data_dir: Path) -> None:
    assert start().ready().stop() == 0
    keys = (data_dir / "keys.env").read_text()
    other = base64.urlsafe_b64encode(b"another-key-another-key-another-").decode()

    product = start(FIELD_ENCRYPTION_KEY=other)

    assert product.wait() == 1
    assert "FIELD_ENCRYPTION_KEY" in product.output
    assert "Traceback" not in product.output
    assert (data_dir / "keys.env").read_text() == keys


@pytest.mark.once
def test_lost_database_is_said_in_one_sentence(start: Start) -> None:
    url = f"postgres://nobody@127.0.0.1:{free_port()}/none"
    product = start(DATABASE_URL=url)

    assert product.wait() == 1
    assert "The database cannot be used" in product.output
    assert "Traceback" not in product.output


_STOPPED_EARLY = """
import threading, time
from celery.worker.consumer.tasks import Tasks
from django.core.management import call_command
from webhooks.management.commands import run

call_command("migrate", verbosity=0)
begun, start = threading.Event(), Tasks.start

def slow(self, consumer):
    begun.set()
    time.sleep(1)
    start(self, consumer)

Tasks.start = slow
with run._Background():
    begun.wait()
"""


@pytest.mark.once
def test_a_worker_that_is_still_starting_is_stopped_without_an_error(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'db.sqlite3'}"
    environment = {**os.environ, "DATABASE_URL": database, "REDIS_URL": ""}
    done = manage("shell", "--no-imports", "-c", _STOPPED_EARLY, environment=environment)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


@pytest.mark.once
@pytest.mark.parametrize("redirection", ["", ">&-", ">/dev/full"])
def test_a_start_goes_on_although_its_output_is_not_read(data_dir: Path, redirection: str) -> None:
    """As beside a log program that ended."""
    port = free_port()
    reader, writer = os.pipe()
    os.close(reader)
    environment = {"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, "DATA_DIR": str(data_dir)}
    command = f"{sys.executable} manage.py run --port {port} --no-sandbox"
    with subprocess.Popen(
        ["sh", "-c", f"exec {command} {redirection}"],
        cwd=ROOT,
        env=environment,
        stdout=writer,
    ) as product:
        os.close(writer)

        def is_up() -> bool:
            assert product.poll() is None
            with suppress(requests.ConnectionError):
                return requests.get(f"http://127.0.0.1:{port}/healthz", timeout=60).ok
            return False

        try:
            eventually(is_up, seconds=START_SECONDS)
        finally:
            product.terminate()
        assert product.wait(60) == 0
