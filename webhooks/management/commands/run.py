"""`manage.py run`: the whole product in one process. See `config.environment` for its start."""

import atexit
import fcntl
import logging
import os
import secrets
import signal
import socket
import threading
import time
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

from celery import signals
from celery.platforms import EX_OK
from celery.worker import state
from celery.worker.consumer import Consumer
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError
from django.core.servers.basehttp import get_internal_wsgi_application
from django.db import DatabaseError, connection
from waitress.server import BaseWSGIServer, MultiSocketServer, create_server

from config.celery import app
from config.environment import add_arguments
from webhooks.api.wsgi import Application, Environ, StartResponse
from webhooks.management import sandbox
from webhooks.management.commands.worker import worker_options
from webhooks.management.printable import PrintableCommand
from webhooks.models.tables import older_tables
from webhooks.security import key_check
from webhooks.tasks import sweep

_ADMIN = "admin"
_WEB_THREADS = 8
_WORKER_NAME = "webhooks@run"
_SAME_SIGNAL_SECONDS = 1.0
# As `manage.py web`; the longest address of a page has a few thousand characters.
_MAX_HEADER_BYTES = 32_768


class Command(PrintableCommand):
    help = "Run web, worker and clock in one process."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_arguments(parser)

    def handle(self, *, host: str, port: int, **options: Any) -> None:
        stop = _Stop()
        atexit.register(_ignore_signals)
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        # A terminal that is closed; under nohup it is ignored.
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            signal.signal(signal.SIGHUP, stop)
        with ExitStack() as stack:
            web, lines = self._start(stack, host=host, port=port, has_sandbox=options["sandbox"])
            self.stdout.write("\n".join(["", *lines, "", ""]))
            self.stdout.flush()
            # Returns on SIGTERM and Ctrl-C, after the requests in hand were answered.
            web.run()
            self.stdout.write("Stopping: finishing what is in flight ...")
        self.stdout.write("Stopped. What waits is sent after the next start.")

    def _start(
        self, stack: ExitStack, *, host: str, port: int, has_sandbox: bool
    ) -> tuple[BaseWSGIServer | MultiSocketServer, list[str]]:
        """Start everything but the web server; return it and what people should read."""
        settings.DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
        if connection.vendor == "sqlite":
            stack.enter_context(_only_instance())
        web = _bind(host, port)
        stack.callback(web.close)
        for other in (port + 1, port + 2) if has_sandbox else ():
            _check_free(other)
        self._say("Preparing the database ...")
        password = _prepare_database()
        lines = _head_lines(password)
        if has_sandbox:
            self._say("Starting the sandbox ...")
            addresses = stack.enter_context(sandbox.running(port + 1))
            if sandbox.prepare_webhooks(addresses):
                lines += _sandbox_lines(addresses)
        stack.enter_context(_Background())
        return web, lines

    def _say(self, text: str) -> None:
        """Print what takes its time, so that a start is not silent."""
        self.stdout.write(text)
        self.stdout.flush()


class _Stop:
    """Ends the command at the first signal, and at once at another that comes later.

    A signal to a whole group and to its leader arrives twice in the same moment: it counts once.
    """

    def __init__(self) -> None:
        self._at: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._at is None:
            self._at = time.monotonic()
            raise SystemExit(0)
        if time.monotonic() - self._at > _SAME_SIGNAL_SECONDS:
            # Rows in flight stay leased and are sent again after the lease ends.
            os._exit(1)


def _ignore_signals() -> None:
    """Let the same signal say nothing more: Python's last steps would leave it to the system."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _only_instance() -> Iterator[None]:
    """Hold the lock of the data directory, which ends with this process however it ends."""
    path = settings.DATA_DIR / "run.lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(
                f"Another instance is running on the data in {settings.DATA_DIR}. Stop it, choose "
                "another directory with DATA_DIR, or set DATABASE_URL to PostgreSQL for several."
            ) from None
        yield


def _bind(host: str, port: int) -> BaseWSGIServer | MultiSocketServer:
    try:
        return create_server(
            _answers_to_head(get_internal_wsgi_application()),
            host=host,
            port=port,
            threads=_WEB_THREADS,
            ident=None,
            max_request_body_size=settings.MAX_REQUEST_BYTES,
            max_request_header_size=_MAX_HEADER_BYTES,
            # select() cannot watch the descriptors that a busy drain pushes past 1,024.
            asyncore_use_poll=True,
            # What a proxy says is judged by the site: BEHIND_TLS_PROXY.
            clear_untrusted_proxy_headers=False,
        )
    except OSError as error:
        raise CommandError(_port_problem(host, port, error)) from error
    except ValueError as error:
        raise CommandError(f"Cannot listen on {host!a}: it is not an address.") from error


def _answers_to_head(site: Application) -> Application:
    """Return a site whose answers to HEAD end with their head: waitress would send the body too."""

    def respond(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "HEAD":
            return site(environ, start_response)
        started: list[Any] = []
        answer: Any = site(environ, lambda *head: started.extend(head))
        try:
            length = sum(map(len, answer))
        finally:
            if hasattr(answer, "close"):
                answer.close()
        status, headers = started
        # Without it waitress would end the answer as one in chunks.
        if "content-length" not in {name.lower() for name, _value in headers}:
            headers = [*headers, ("Content-Length", str(length))]
        start_response(status, headers)
        return ()

    return respond


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            sentence = _port_problem("127.0.0.1", port, error)
            raise CommandError(f"{sentence} The sandbox needs it; SANDBOX=0 does not.") from error


def _port_problem(host: str, port: int, error: OSError) -> str:
    return (
        f"Cannot listen on {host} port {port}: {error.strerror}. "
        "Stop what uses it, or choose another port: PORT=9000 make run."
    )


def _prepare_database() -> str:
    """Bring the tables up to date; return the password of the first admin if one was made."""
    try:
        if problem := older_tables():
            raise CommandError(problem)
        call_command("migrate", verbosity=0, interactive=False)
    except DatabaseError as error:
        raise CommandError(f"The database cannot be used: {error}".strip()) from error
    if problem := key_check.problem():
        raise CommandError(problem)
    users = get_user_model()._default_manager
    if users.filter(is_superuser=True).exists():
        return ""
    password = secrets.token_urlsafe(12)
    users.create_superuser(_ADMIN, password=password)
    return password


def _head_lines(password: str) -> list[str]:
    lines = ["Webhooks 2.0 is running. Ctrl-C stops it.", "", f"  Open      {settings.PUBLIC_URL}/"]
    if password:
        lines += [f"  Login     {_ADMIN}", f"  Password  {password}"]
        return [*lines, "", "The password is shown this once: keep it."]
    return [
        *lines,
        "",
        f"The data of the last start is kept ({_where()}), and so is the password shown then.",
        f"Forgotten? .venv/bin/python manage.py changepassword {_ADMIN}",
    ]


def _where() -> str:
    if connection.vendor == "sqlite":
        return str(connection.settings_dict["NAME"])
    return "the database of DATABASE_URL"


def _sandbox_lines(addresses: sandbox.Addresses) -> list[str]:
    return [
        "",
        "Two webhooks are ready to try:",
        "  1. Sandbox: Basic authentication. Open it and press Send test.",
        "  2. Sandbox: OAuth 2.0. Open it and press Get new access token. Log in at the provider",
        "     as demo with the password demo, approve, then press Send test.",
        f"  What they send arrives at {addresses.receiver}/",
    ]


def _ready(consumer: Consumer) -> None:
    """Begin once the broker is there; the web does not wait for it."""
    # What `celery worker` sends too; the bare controller leaves it out.
    signals.worker_ready.send(sender=consumer)
    # Not only after the first period: what waited for this start goes out now.
    sweep.delay()


class _Background:
    """A context manager: the Celery worker and the clock run as threads inside its block.

    Nothing here touches signal handlers: they belong to the main thread. The queue is rows, so what
    these threads had in hand when they ended is found again by the next start.
    """

    def __init__(self) -> None:
        # One line a task would bury what people should read here.
        level = logging.DEBUG if settings.LOG_LEVEL == "DEBUG" else logging.WARNING
        logging.getLogger("celery").setLevel(level)
        self._worker = app.WorkController(
            app=app,
            hostname=_WORKER_NAME,
            ready_callback=_ready,
            **worker_options(),
        )
        self._worker_thread = threading.Thread(target=self._worker.start, name="worker")

    def __enter__(self) -> "_Background":
        self._worker_thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop as `celery worker` does on SIGTERM: tasks in hand finish or hand back their rows."""
        signals.worker_shutting_down.send(
            sender=_WORKER_NAME, sig="SIGTERM", how="Warm", exitcode=0
        )
        self._worker.stop()
        # While it waits for a broker that is away it looks at nothing else.
        state.should_stop = EX_OK  # type: ignore[assignment]
        self._worker_thread.join()
