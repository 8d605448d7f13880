"""`manage.py run`: the whole product in one process. `config.environment` prepares its start."""

import atexit
import fcntl
import os
import secrets
import shlex
import signal
import socket
import sys
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
from django.db.models import Q
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import BaseWSGIServer, MultiSocketServer, create_server
from waitress.task import WSGITask
from waitress.utilities import RequestEntityTooLarge

from config.celery import app
from config.environment import add_arguments
from webhooks.api.events import is_api_path
from webhooks.api.wsgi import Application, Environ, StartResponse
from webhooks.management import sandbox
from webhooks.management.commands.worker import quiet_celery, worker_options
from webhooks.management.printable import PrintableCommand
from webhooks.models.tables import older_tables
from webhooks.security import key_check
from webhooks.tasks import sweep

_ADMIN = "admin"
_WEB_THREADS = 8
_WORKER_NAME = "webhooks@run"
_SAME_SIGNAL_SECONDS = 1.0
# As in `manage.py web`; the longest URL of a page has a few thousand characters.
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
        # Sent when a terminal is closed; under nohup it stays ignored.
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            signal.signal(signal.SIGHUP, stop)
        with ExitStack() as stack:
            web, lines = self._start(stack, host=host, port=port, has_sandbox=options["sandbox"])
            self._say("\n".join(["", *lines, "", ""]))
            # Returns on SIGTERM and Ctrl-C, after the responses to open requests.
            web.run()
            self._say("Stopping: finishing what is in flight ...")
        self._say("Stopped. What waits is sent after the next start.")

    def _start(
        self, stack: ExitStack, *, host: str, port: int, has_sandbox: bool
    ) -> tuple[BaseWSGIServer | MultiSocketServer, list[str]]:
        """Start everything but the web server; return the server and the lines to print."""
        if connection.vendor == "sqlite":
            stack.enter_context(_only_instance())
        web = _bind(host, port)
        stack.callback(web.close)
        for other in (port + 1, port + 2) if has_sandbox else ():
            _check_free(other)
        self._say("Preparing the database ...")
        _prepare_database()
        lines = []
        if has_sandbox:
            self._say("Starting the sandbox ...")
            addresses = stack.enter_context(sandbox.running(port + 1))
            if sandbox.prepare_webhooks(addresses):
                lines = _sandbox_lines(addresses)
        stack.enter_context(_Background())
        # Last: a start that ends before could not show the password.
        return web, head_lines(first_password()) + lines

    def _say(self, text: str) -> None:
        """Print what happens, at once. If nothing reads it any more, it happens all the same."""
        if sys.stdout is None:
            # It was closed before the start.
            return
        try:
            self.stdout.write(text)
            self.stdout.flush()
        except OSError:
            # Python writes the rest at its exit, which would fail once more.
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())


class _Stop:
    """Ends the command gracefully at the first signal, and at once at a later second one.

    A signal to a process group and to its leader arrives twice within moments and counts once.
    """

    def __init__(self) -> None:
        self._at: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._at is None:
            self._at = time.monotonic()
            raise SystemExit(0)
        if time.monotonic() - self._at > _SAME_SIGNAL_SECONDS:
            # Rows in flight stay leased and are resent after the lease expires.
            os._exit(1)


def _ignore_signals() -> None:
    """Ignore further signals: during Python's exit their default action would apply."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _only_instance() -> Iterator[None]:
    """Hold the lock of the data directory; the system releases it when this process ends."""
    path = settings.DATA_DIR / "run.lock"
    try:
        lock = path.open("w")
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}.") from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(
                f"Another instance is running on the data in {settings.DATA_DIR}. Stop it, choose "
                "another directory with DATA_DIR, or set DATABASE_URL to PostgreSQL for several."
            ) from None
        yield


def _bind(host: str, port: int) -> BaseWSGIServer | MultiSocketServer:
    # create_server() has no argument for it.
    BaseWSGIServer.channel_class = _Channel
    try:
        return create_server(
            _answers_to_head(get_internal_wsgi_application()),
            host=host,
            port=port,
            threads=_WEB_THREADS,
            ident=None,
            max_request_body_size=settings.MAX_REQUEST_BYTES,
            max_request_header_size=_MAX_HEADER_BYTES,
            # select() cannot watch descriptors above 1,024, which a busy drain reaches.
            asyncore_use_poll=True,
            # The site decides whether to trust a proxy's headers: BEHIND_TLS_PROXY.
            clear_untrusted_proxy_headers=False,
        )
    except OSError as error:
        raise CommandError(_port_problem(host, port, error)) from error
    except ValueError as error:
        raise CommandError(f"Cannot listen on {host!a}: it is not an address.") from error


class _Parser(HTTPRequestParser):
    """Leaves a body that is too large to the event API, which responds in JSON, unread."""

    path: str
    headers: dict[str, str]

    def received(self, data: bytes) -> int:
        consumed = super().received(data)
        if isinstance(self.error, RequestEntityTooLarge) and is_api_path(self.path):
            self.error, self.expect_continue = None, False
            size = max(self.content_length, self.body_bytes_received)
            # The rest of the body is not read.
            self.headers |= {"CONTENT_LENGTH": str(size), "CONNECTION": "close"}
        return consumed


class _Task(WSGITask):
    """Keeps the slashes at the beginning of a path: `//api` is another path than `/api`."""

    request: Any

    def get_environment(self) -> Environ:
        return {**super().get_environment(), "PATH_INFO": self.request.path}


class _Channel(HTTPChannel):
    parser_class, task_class = _Parser, _Task


def _answers_to_head(site: Application) -> Application:
    """Wrap a site so that responses to HEAD have no body: waitress would send it."""

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
        # Without it, waitress would end the response with a chunk.
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


def _prepare_database() -> None:
    try:
        if problem := older_tables():
            raise CommandError(problem)
        call_command("migrate", verbosity=0, interactive=False)
    except DatabaseError as error:
        raise CommandError(f"The database cannot be used: {error}".strip()) from error
    if problem := key_check.problem():
        raise CommandError(problem)


def first_password() -> str:
    """Create the first admin if there is none; return the new password, or ""."""
    users = get_user_model()._default_manager
    # An account of this name may have lost its rights.
    if users.filter(Q(is_superuser=True) | Q(username=_ADMIN)).exists():
        return ""
    password = secrets.token_urlsafe(12)
    users.create_superuser(_ADMIN, password=password)
    return password


def head_lines(password: str) -> list[str]:
    lines = ["Webhooks 2.0 is running. Ctrl-C stops it.", "", f"  Open      {settings.PUBLIC_URL}/"]
    if password:
        lines += [f"  Login     {_ADMIN}", f"  Password  {password}"]
        return [*lines, "", "The password is shown this once: keep it."]
    return [
        *lines,
        "",
        f"The data of the last start is kept ({_where()}), and so is the password shown then.",
        f"Forgotten? .venv/bin/python manage.py changepassword {shlex.quote(_admin_name())}",
    ]


def _admin_name() -> str:
    """Return the login of the first start, or another one if that does not exist."""
    users = get_user_model()._default_manager.filter(Q(is_superuser=True) | Q(username=_ADMIN))
    names: list[str] = list(users.order_by("pk").values_list("username", flat=True))
    return _ADMIN if _ADMIN in names or not names else names[0]


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


class _Background:
    """A context manager that runs the Celery worker and the clock as threads.

    Does not touch signal handlers, which belong to the main thread. The queue is in the database,
    so the next start finds the work that was unfinished when the threads ended.
    """

    def __init__(self) -> None:
        quiet_celery()
        self._worker = app.WorkController(
            app=app,
            hostname=_WORKER_NAME,
            ready_callback=self._ready,
            **worker_options(),
        )
        self._is_ready = False
        self._worker_thread = threading.Thread(target=self._worker.start, name="worker")

    def __enter__(self) -> "_Background":
        self._worker_thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop as `celery worker` does on SIGTERM: running tasks finish or release their rows."""
        signals.worker_shutting_down.send(
            sender=_WORKER_NAME, sig="SIGTERM", how="Warm", exitcode=0
        )
        # While the worker starts or waits for an unreachable broker, it checks only this flag.
        state.should_stop = EX_OK  # type: ignore[assignment]
        if self._is_ready:
            self._worker.stop()
        self._worker_thread.join()

    def _ready(self, consumer: Consumer) -> None:
        """Called once the worker has a broker connection; the web server does not wait for it."""
        self._is_ready = True
        # `celery worker` sends this signal; the bare controller does not.
        signals.worker_ready.send(sender=consumer)
        # Send what waited for this start now, not after the first period.
        sweep.delay()
