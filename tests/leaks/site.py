"""A complete deployment: two web servers, a worker with its clock, Redis and a database.

All processes log at DEBUG. One of the two web servers has DEBUG on.
"""

import base64
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis
import requests

from tests.leaks.sinks import Sink
from tests.services import RedisServer, free_port

ROOT = Path(__file__).resolve().parents[2]
ENCRYPTION_KEY = base64.urlsafe_b64encode(b"the encryption key of a site ~~~").decode()
SIGNING_KEY = "the-signing-key-of-a-site-with-fifty-or-more-characters-0123456789"
PASSWORD = "log-in/with+th1s=pass&word"
# Of Redis and of PostgreSQL, which accepts any password here.
SERVER_PASSWORD = "s3rver/password+of=it"
# A busy machine starts six processes slowly; a process that ends is noticed at once.
START_SECONDS = 240.0
_WEB = f"{shlex.quote(sys.executable)} manage.py web"
_WORKER = "celery -A config worker -Q default,deliveries -c 3 -B --scheduler celery.beat:Scheduler"


class LeakSite:
    def __init__(self, directory: Path, *, database_url: str, redis_url: str) -> None:
        self.directory = directory
        self.database_url = database_url
        self.redis_url = redis_url
        self.port, self.debug_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.debug_url = f"http://127.0.0.1:{self.debug_port}"
        self.mails = directory / "mails"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment: Mapping[str, str] = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DJANGO_SETTINGS_MODULE": "tests.leaks.site_settings",
            "ENV_FILE": os.devnull,
            "DATA_DIR": str(directory),
            "PUBLIC_URL": self.url,
            "SECRET_KEY": SIGNING_KEY,
            "FIELD_ENCRYPTION_KEY": ENCRYPTION_KEY,
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "WEBHOOKS_ALLOWED_NETWORKS": "127.0.0.1/32",
            "WEBHOOKS_DRAINS_PER_WORKER": "1",
            "WEBHOOKS_ALERT_AFTER_MINUTES": "0",
            "LOG_LEVEL": "DEBUG",
        }

    def run(self, *command: str, given: str = "", **environment: str) -> str:
        """Run a command of the site to its end and return its output."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**self.environment, **environment},
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        (self.directory / f"{len(list(self.directory.glob('*.log')))}-command.log").write_text(
            done.stderr
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def manage(self, *arguments: str, given: str = "", **environment: str) -> str:
        return self.run(sys.executable, "manage.py", *arguments, given=given, **environment)

    def read(self) -> dict[str, Any]:
        """Return the decrypted stored secrets, and other data that only the site can read."""
        assert self._reader.stdin
        assert self._reader.stdout
        self._reader.stdin.write("\n")
        self._reader.stdin.flush()
        return dict(json.loads(self._reader.stdout.readline()))

    @contextmanager
    def running(self) -> Iterator[None]:
        self.mails.mkdir()
        self.manage("migrate", "--verbosity=0")
        web = f"{_WEB} --bind"
        with ExitStack() as stack:
            self._start(stack, "web", f"{web} 127.0.0.1:{self.port}")
            self._start(stack, "debug", f"{web} 127.0.0.1:{self.debug_port}", DEBUG="1")
            self._start(stack, "worker", f"{_WORKER} -l DEBUG")
            self._reader = stack.enter_context(self._reading())
            for url in (self.url, self.debug_url):
                self._wait_for(url)
            yield

    def _start(self, stack: ExitStack, name: str, command: str, **environment: str) -> None:
        log = stack.enter_context((self.directory / f"{name}.log").open("wb"))
        process = subprocess.Popen(
            shlex.split(command),
            cwd=ROOT,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        stack.callback(_end, process)
        self._processes[name] = process

    def _wait_for(self, url: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(requests.RequestException):
                if requests.get(f"{url}/healthz", timeout=START_SECONDS).ok:
                    return
            for name, process in self._processes.items():
                said = (self.directory / f"{name}.log").read_text(errors="replace")[-3000:]
                assert process.poll() is None, f"{name} ended: {said}"
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.1)

    @contextmanager
    def _reading(self) -> "Iterator[subprocess.Popen[str]]":
        with subprocess.Popen(
            [sys.executable, "-m", "tests.leaks.reader"],
            cwd=ROOT,
            env={**self.environment, "LOG_LEVEL": "WARNING"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            yield process
            assert process.stdin
            process.stdin.close()

    def logs(self) -> Iterator[Sink]:
        for path in sorted(self.directory.glob("*.log")):
            yield Sink("log", path.stem, path.read_text(errors="replace"))


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(45)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Wire:
    """All commands sent to a Redis server, and its content."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, socket_timeout=None)
        self._heard: list[str] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        # Also ends with the Redis server.
        with suppress(redis.RedisError), self._client.monitor() as monitor:
            for command in monitor.listen():
                self._heard.append(str(command["command"]))
                if self._is_over.is_set():
                    return

    def sinks(self) -> Iterator[Sink]:
        self._is_over.set()
        self._client.ping()
        self._thread.join(10)
        heard = "\n".join(self._heard)
        yield Sink("redis", "what was said", f"{heard}\n{_unescaped(heard)}")
        yield Sink("celery", "messages", "\n".join(_bodies(heard)))
        for key in self._client.scan_iter():
            yield Sink("redis", f"key {key.decode()}", f"{key.decode()}\n{self._value(key)}")

    def _value(self, key: bytes) -> str:
        kind = self._client.type(key).decode()
        readers: dict[str, Any] = {
            "string": self._client.get,
            "list": lambda name: self._client.lrange(name, 0, -1),
            "set": self._client.smembers,
            "hash": self._client.hgetall,
            "zset": lambda name: self._client.zrange(name, 0, -1, withscores=True),
            # Deleted since the keys were listed.
            "none": lambda name: "",
        }
        return str(readers[kind](key))


def _unescaped(heard: str) -> str:
    """Return the text with the escapes of MONITOR decoded."""
    data = heard.encode("latin-1", "backslashreplace").replace(b"\\\\", b"\\")
    plain = re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), data)
    return plain.decode(errors="replace")


def _bodies(heard: str) -> Iterator[str]:
    """Yield each Celery message's body, which is Base64 in JSON."""
    for line in heard.splitlines():
        at = line.find('{"body": "')
        if at >= 0:
            message, _ = json.JSONDecoder().raw_decode(line[at:])
            yield base64.b64decode(message["body"]).decode()


@contextmanager
def running_site(directory: Path, database_url: str) -> Iterator[tuple[LeakSite, Wire]]:
    password = quote(SERVER_PASSWORD, safe="")
    with RedisServer(arguments=["--requirepass", SERVER_PASSWORD]) as server:
        redis_url = server.url.replace("redis://", f"redis://:{password}@")
        wire = Wire(redis_url)
        own_url = database_url.replace("postgres@", f"postgres:{password}@")
        site = LeakSite(directory, database_url=own_url, redis_url=redis_url)
        with site.running():
            yield site, wire
