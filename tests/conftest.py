"""What every test stands on: the environment, set before Django reads it, and real servers.

One run can cover several databases. `TEST_DATABASES=sqlite,postgres pytest -n 4 --dist each`
(`make test`) gives each worker one of them: a test that touches the database runs on all of them,
every other test runs once. A worker takes the next test that no other has begun, so that all end
at about the same time. Plain `pytest` runs on SQLite.
"""

import atexit
import functools
import gc
import hashlib
import importlib
import os
import shutil
import socket
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from django.conf import settings
from django.core.cache import caches
from django.db import connection, transaction
from django.utils import translation
from pytest_django import DjangoDbBlocker
from pytest_django.live_server_helper import LiveServer

from tests import chromium
from tests.oauth_fakes import FakeProvider, fake_provider
from tests.reach import (
    _starts_what_it_is_known_to_start,  # noqa: F401 - around every test.
    starts_a_process,
    watch_for_processes,
)
from tests.sandbox import Provider, Receiver, running_provider, running_receiver
from tests.security import watching
from tests.security.figures import security_figure  # noqa: F401 - a fixture of every test.
from tests.security.watching import _connects_are_watched  # noqa: F401 - around every test.
from tests.services import (
    FAST_POSTGRES,
    PostgresServer,
    RedisServer,
    ServiceUnavailable,
    free_port,
)

_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
_DATABASES = os.environ.get("TEST_DATABASES", "sqlite").split(",")
# Workers are called gw0, gw1, ...
_NUMBER = int(_WORKER[2:] or 0) if _WORKER else 0
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
DATABASE = _DATABASES[_NUMBER % len(_DATABASES)]
BROWSER = Path(__file__).parent / "browser"
DATA_DIR = Path(tempfile.mkdtemp(prefix="webhooks-tests-"))
atexit.register(shutil.rmtree, DATA_DIR, ignore_errors=True)
# Whether workers of several databases share the tests. Then this folder, of which they inherit the
# name, has an empty file for each test that one of them began.
_IS_SHARED = bool(_WORKER) and len(_DATABASES) > 1
if not _WORKER:
    (DATA_DIR / "begun").mkdir()
    os.environ["TESTS_BEGUN"] = str(DATA_DIR / "begun")
# Of a table `make quick` takes these few rows, from its whole length; rows that do not ask the
# database cost less.
_QUICK_DATABASE_ROWS = 3
_QUICK_ROWS = 24
# Names of tests go from process to process, three times each.
_NAME_CHARACTERS = 1000
_USES_DATABASE = {"db", "transactional_db", "live_server", "database_url"}

# The port of the live server, held until that starts: everybody else looks for free ports too.
_site_port = socket.socket()
_site_port.bind(("127.0.0.1", free_port()))
atexit.register(_site_port.close)

# One PostgreSQL for all workers, which inherit its address: each has a database of its own there.
_postgres: PostgresServer | None = None
if "postgres" in _DATABASES and "TEST_DATABASE_URL" not in os.environ:
    _postgres = PostgresServer(settings=FAST_POSTGRES, in_memory=True)
    os.environ["TEST_DATABASE_URL"] = _postgres.url
    atexit.register(_postgres.close)


def _set_environment() -> None:
    """Give each setting that tests rely on a value, whatever the shell or a `.env` says."""
    for name in [name for name in os.environ if name.startswith("WEBHOOKS_")]:
        del os.environ[name]
    address = f"127.0.0.1:{_site_port.getsockname()[1]}"
    sqlite_url = f"sqlite:///{DATA_DIR / 'webhooks.sqlite3'}"
    # A proxy of the shell brings packages; this machine's own addresses are asked directly.
    bypassed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    os.environ |= {
        "no_proxy": f"{bypassed},127.0.0.1,localhost,::1".lstrip(","),
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "ENV_FILE": os.devnull,
        "DATA_DIR": str(DATA_DIR),
        "DEBUG": "0",
        "SECRET_KEY": "a-key-of-the-tests-with-fifty-or-more-characters-in-it-0123456789",
        "FIELD_ENCRYPTION_KEY": "b25seS1mb3ItdGVzdHMtb25seS1mb3ItdGVzdHMtMzI=",
        "DATABASE_URL": sqlite_url if DATABASE == "sqlite" else os.environ["TEST_DATABASE_URL"],
        "REDIS_URL": "",
        # The live server of browser tests is this site's public address.
        "DJANGO_LIVE_TEST_SERVER_ADDRESS": address,
        "PUBLIC_URL": f"http://{address}",
        "WEBHOOKS_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
        "LANGUAGE_CODE": "en",
        "TIME_ZONE": "UTC",
        "EMAIL_URL": "memorymail://",
        "LOG_LEVEL": "INFO",
    }


if settings.configured:
    raise pytest.UsageError("Unset DJANGO_SETTINGS_MODULE: the tests set their environment first.")
_set_environment()
settings.DATABASES  # noqa: B018 - asks it.
# Workers inherit this environment, and pytest-django would ask before they have their own.
del os.environ["DJANGO_SETTINGS_MODULE"]

if DATABASE == "sqlite":
    # A file: in a shared memory database two threads meet "table is locked" instead of waiting.
    settings.DATABASES["default"]["TEST"] = {"NAME": str(DATA_DIR / "test.sqlite3")}
    # As tests.services.FAST_POSTGRES: what a test commits need not outlive the machine.
    settings.DATABASES["default"]["OPTIONS"]["init_command"] += " PRAGMA synchronous=OFF;"
# A static file is looked for when it is asked for: each client of a test would list them all first.
settings.WHITENOISE_AUTOREFRESH = True
# Passwords of tests protect nothing and a slow hash costs 0.2 s each.
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


# How long one case takes is up to the machine and what else it does.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=10)
hypothesis.settings.load_profile("tests")
watching.begin()
watch_for_processes()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.option.quick:
        hypothesis.settings.load_profile("quick")
    if _postgres is not None and not config.option.collectonly:
        with _or_end_the_run(config):
            _postgres.start()


@contextmanager
def _or_end_the_run(config: pytest.Config) -> Iterator[None]:
    """End the whole run at once, not one test after another, where a service cannot start."""
    try:
        yield
    except ServiceUnavailable as error:
        if _WORKER:
            config.workeroutput["unavailable"] = str(error)  # type: ignore[attr-defined]
        pytest.exit(str(error), returncode=pytest.ExitCode.TESTS_FAILED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """End the other workers, in the process that started them, when one misses a service."""
    if reason := getattr(node, "workeroutput", {}).get("unavailable"):
        pytest.exit(reason, returncode=pytest.ExitCode.TESTS_FAILED)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Collect no garbage meanwhile: nearly all that is made stays."""
    gc.disable()
    try:
        if _WORKER and session.config.args_source is pytest.Config.ArgsSource.TESTPATHS:
            _import_tests(is_quick=session.config.option.quick)
        return (yield)
    finally:
        gc.enable()


def _import_tests(*, is_quick: bool) -> None:
    """Import all tests, each worker from another one on.

    In a new clone each then compiles its share of them, and finds those of the others compiled.
    """
    files = sorted(Path(__file__).parent.rglob("test_*.py"))
    begin = len(files) * _NUMBER // _WORKERS
    for file in files[begin:] + files[:begin]:
        if is_quick and BROWSER in file.parents:
            continue
        name = ".".join(file.relative_to(BROWSER.parents[1]).with_suffix("").parts)
        # The collection says what is wrong with a file.
        with suppress(Exception):
            importlib.import_module(name)


def pytest_collection_finish() -> None:
    # Ten thousand tests, and all that they import, stay: no garbage collection looks at them again.
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    return f"database: {DATABASE}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    if watching.end():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="what `make quick` runs")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even read the tests in a browser where none is started."""
    return True if config.option.quick and collection_path == BROWSER else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what this worker may run, in the order of `_turn`."""
    if long := [item.nodeid[:200] for item in items if len(item.nodeid) > _NAME_CHARACTERS]:
        raise pytest.UsageError(f"These need shorter ids: {long}")
    for item in items:
        if starts_a_process(item):
            item.add_marker(pytest.mark.process)
    items.sort(key=_turn)
    if config.option.quick:
        _keep(config, items, _quick_ones(items))
    others = {item for item in items if _wanted_database(item) not in (None, DATABASE)}
    if _IS_SHARED:
        _keep(config, items, set(items) - others)
        return
    for item in others:
        wanted = _wanted_database(item)
        item.add_marker(pytest.mark.skip(f"needs {wanted}: see tests/conftest.py"))


def _turn(item: pytest.Item) -> tuple[bool, bool]:
    """Return what sorts first the modules that one worker runs, and last what needs a browser.

    To start one takes longer than most of those tests, and they share it. The longest of them come
    first: one begun at the end would keep the run from ending.
    """
    if "chromium" in getattr(item, "fixturenames", ()):
        return True, not item.get_closest_marker("slow")
    return False, not item.get_closest_marker("together")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Leave out a test that another worker has begun."""
    if not _IS_SHARED or _is_first_at(item):
        # Shown with a failure: what runs once does so on any database.
        item.add_report_section("setup", "database", DATABASE)
        return None
    # What was kept for this test has to end before what comes next begins.
    end = pytest.CallInfo.from_call(
        lambda: item.session._setupstate.teardown_exact(nextitem), when="teardown"
    )
    if end.excinfo:
        report = item.ihook.pytest_runtest_makereport(item=item, call=end)
        item.ihook.pytest_runtest_logreport(report=report)
    return True


def _is_first_at(item: pytest.Item) -> bool:
    """Return whether no other worker began a test, or the module of one that stays together."""
    name = item.path.name if item.get_closest_marker("together") else item.nodeid
    return _begins(name if _runs_once(item) else f"{DATABASE} {name}")


@functools.cache
def _begins(name: str) -> bool:
    begun = Path(os.environ["TESTS_BEGUN"], hashlib.blake2s(name.encode()).hexdigest())
    try:
        begun.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _keep(config: pytest.Config, items: list[pytest.Item], kept: set[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def _quick_ones(items: list[pytest.Item]) -> set[pytest.Item]:
    """Leave out what is slow or starts a process, and most rows of long tables."""
    tables: dict[str, list[pytest.Item]] = {}
    for item in sorted(items, key=lambda item: item.nodeid):
        is_other = _wanted_database(item) not in (None, DATABASE)
        is_long = item.get_closest_marker("process") or item.get_closest_marker("slow")
        if not is_other and not is_long:
            tables.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept: set[pytest.Item] = set()
    for rows in tables.values():
        wanted = _QUICK_DATABASE_ROWS if _touches_database(rows[0]) else _QUICK_ROWS
        # At the most as many: 47 rows of 24 are every second one.
        kept.update(rows[:: -(-len(rows) // wanted)])
    return kept


def _runs_once(item: pytest.Item) -> bool:
    is_once = item.get_closest_marker("once") is not None or not _touches_database(item)
    return is_once and _wanted_database(item) is None


def _wanted_database(item: pytest.Item) -> str | None:
    """Return the only database that a test may run on.

    What runs once and commits runs on SQLite, which is emptied in a tenth of the time.
    """
    if marker := item.get_closest_marker("database"):
        return str(marker.args[0])
    is_sqlites = "sqlite" in _DATABASES and item.get_closest_marker("once") and _commits(item)
    return "sqlite" if is_sqlites else None


def _touches_database(item: pytest.Item) -> bool:
    return bool(
        item.get_closest_marker("django_db")
        or _USES_DATABASE.intersection(getattr(item, "fixturenames", ()))
    )


def _commits(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("django_db")
    return marker is not None and marker.kwargs.get("transaction") is True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave no language of a page active in this thread, and nothing in this process's cache."""
    yield
    translation.deactivate()
    caches["default"].clear()


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a Redis server for this run."""
    if url := os.environ.get("TEST_REDIS_URL"):
        yield url
        return
    with _or_end_the_run(request.config):
        server = RedisServer().start()
    with closing(server):
        yield server.url


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test alone, to stop, kill and restart; durable."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A Redis of this test alone, to stop, kill and restart."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def database_url(tmp_path: Path) -> Iterator[str]:
    """URL of a new, empty database of this worker's kind, for processes that a test starts."""
    if DATABASE == "sqlite":
        yield f"sqlite:///{tmp_path / 'webhooks.sqlite3'}"
        return
    import psycopg

    url = os.environ["TEST_DATABASE_URL"]
    server, _, _ = url.rpartition("/")
    name = f"own_{os.getpid()}_{zlib.crc32(str(tmp_path).encode())}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield f"{server}/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """Let tests with a live server empty their database, which the audit trail would refuse."""
    drop = {
        "sqlite": "DROP TRIGGER IF EXISTS audit_is_not_deleted",
        "postgresql": "DROP TRIGGER IF EXISTS audit_is_not_emptied ON webhooks_auditentry",
    }
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(drop[connection.vendor])


@pytest.fixture(scope="module")
def module_transaction(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[DjangoDbBlocker]:
    """Around the tests of a module, for rows that are made once: each test starts with them."""
    whole = transaction.atomic()
    with django_db_blocker.unblock():
        whole.__enter__()
    yield django_db_blocker
    with django_db_blocker.unblock():
        transaction.set_rollback(True)
        whole.__exit__(None, None, None)


@pytest.fixture(scope="session")
def _free_site_port() -> None:
    _site_port.close()


@pytest.fixture(scope="session")
def live_server(_free_site_port: None, live_server: LiveServer) -> LiveServer:
    """The site, under its public address."""
    return live_server


@pytest.fixture(scope="session")
def chromium_path(request: pytest.FixtureRequest) -> str:
    """Path of a Chromium; `make test` installs one beforehand where there is none."""
    with _or_end_the_run(request.config):
        return chromium.ensure()


@pytest.fixture(scope="session")
def provider_server() -> Iterator[Provider]:
    """The sandbox's OAuth provider, which knows this site's callback URL."""
    callback_url = f"{settings.PUBLIC_URL}/integrations/webhooks/oauth/callback/"
    with running_provider([callback_url]) as running:
        yield running


@pytest.fixture(scope="session")
def receiver_server(provider_server: Provider) -> Iterator[Receiver]:
    """The sandbox's receiver, which asks that provider about bearer tokens."""
    with running_receiver(provider=provider_server) as running:
        yield running


@pytest.fixture
def provider(provider_server: Provider) -> Provider:
    """The provider without faults or records of earlier tests."""
    provider_server.clear_fault()
    provider_server.clear_requests()
    provider_server.set_token_seconds(3600)
    return provider_server


@pytest.fixture
def receiver(receiver_server: Receiver) -> Receiver:
    """The receiver without requests or failures of earlier tests."""
    receiver_server.clear()
    return receiver_server


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    """An authorization server that answers what the test says, 404 before."""
    with fake_provider() as running:
        yield running
