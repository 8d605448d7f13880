"""The basis of every test: the environment, set before Django reads it, and real servers.

One run can cover several databases. `TEST_DATABASES=sqlite,postgres pytest -n 4 --dist each`
(`make test`) gives each worker one of them: a test that touches the database runs on all of them,
every other test runs once. A worker takes the next test that no other worker has begun, so that
all finish at about the same time. Plain `pytest` runs on SQLite.
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
from django.test import TransactionTestCase
from django.utils import translation
from pytest_django import DjangoDbBlocker
from pytest_django.live_server_helper import LiveServer

from tests import chromium, programs
from tests.oauth_fakes import FakeProvider, fake_provider
from tests.reach import (
    _fail_on_undeclared_process,  # noqa: F401 - around every test.
    starts_a_process,
    watch_for_processes,
)
from tests.sandbox import Provider, Receiver, running_provider, running_receiver
from tests.security import connect_watch
from tests.security.connect_watch import _connects_are_watched  # noqa: F401 - around every test.
from tests.security.figures import security_figure  # noqa: F401 - a fixture of every test.
from tests.services import (
    FAST_POSTGRES,
    PostgresServer,
    RedisServer,
    ServiceUnavailableError,
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
# Whether workers of several databases share the tests. If so, the folder in TESTS_BEGUN, which
# workers inherit, has an empty file for each test that a worker has begun.
_WORKERS_SHARE_TESTS = bool(_WORKER) and len(_DATABASES) > 1
if not _WORKER:
    (DATA_DIR / "begun").mkdir()
    os.environ["TESTS_BEGUN"] = str(DATA_DIR / "begun")
# `make quick` takes this many evenly spaced rows of a table of parameters; rows that do not use
# the database cost less.
_QUICK_DATABASE_ROWS = 1
_QUICK_ROWS = 12
# xdist sends test names between processes, three times each.
_NAME_CHARACTERS = 1000
_USES_DATABASE = {"db", "transactional_db", "live_server", "database_url"}

# The live server's port, held until the server starts, because other code looks for free ports.
_site_port = socket.socket()
_site_port.bind(("127.0.0.1", free_port()))
atexit.register(_site_port.close)

# One PostgreSQL for all workers, which inherit its URL; each worker has its own database in it.
_postgres: PostgresServer | None = None
if "postgres" in _DATABASES and "TEST_DATABASE_URL" not in os.environ:
    _postgres = PostgresServer(settings=FAST_POSTGRES, in_memory=True)
    os.environ["TEST_DATABASE_URL"] = _postgres.url
    atexit.register(_postgres.close)


def _set_environment() -> None:
    """Set every setting that tests rely on, regardless of the shell's environment or a `.env`."""
    for name in [name for name in os.environ if name.startswith("WEBHOOKS_")]:
        del os.environ[name]
    address = f"127.0.0.1:{_site_port.getsockname()[1]}"
    sqlite_url = f"sqlite:///{DATA_DIR / 'webhooks.sqlite3'}"
    # The shell's proxy is for installing packages; requests to this machine must bypass it.
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
        # The live server of browser tests has this site's public address.
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
settings.DATABASES  # noqa: B018 - loads the settings.
# Workers inherit this environment, and pytest-django would load their settings too early.
del os.environ["DJANGO_SETTINGS_MODULE"]

if DATABASE == "sqlite":
    # A file: with a shared in-memory database, threads get "table is locked" instead of waiting.
    settings.DATABASES["default"]["TEST"] = {"NAME": str(DATA_DIR / "test.sqlite3")}
    # As in tests.services.FAST_POSTGRES: test data need not survive a crash of the machine.
    settings.DATABASES["default"]["OPTIONS"]["init_command"] += " PRAGMA synchronous=OFF;"
# Find static files on request; otherwise each test client would first list them all.
settings.WHITENOISE_AUTOREFRESH = True
# Test passwords protect nothing, and a slow hash takes 0.2 s each.
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


# The duration of an example depends on the machine and its load.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=10)
hypothesis.settings.load_profile("tests")
connect_watch.begin()
watch_for_processes()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.option.quick:
        hypothesis.settings.load_profile("quick")
    if _postgres is not None and not config.option.collectonly:
        with _exit_if_unavailable(config):
            _postgres.start()


@contextmanager
def _exit_if_unavailable(config: pytest.Config) -> Iterator[None]:
    """End the whole run at once if a service cannot start, instead of failing test after test."""
    try:
        yield
    except ServiceUnavailableError as error:
        if _WORKER:
            config.workeroutput["unavailable"] = str(error)  # type: ignore[attr-defined]
        pytest.exit(str(error), returncode=pytest.ExitCode.TESTS_FAILED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """End the other workers, from the main process, when one of them lacks a service."""
    if reason := getattr(node, "workeroutput", {}).get("unavailable"):
        pytest.exit(reason, returncode=pytest.ExitCode.TESTS_FAILED)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Collect without garbage collection: nearly all objects made here are kept."""
    gc.disable()
    try:
        if _WORKER and session.config.args_source is pytest.Config.ArgsSource.TESTPATHS:
            _import_tests(is_quick=session.config.option.quick)
        return (yield)
    finally:
        gc.enable()


def _import_tests(*, is_quick: bool) -> None:
    """Import all test modules, each worker starting at a different one.

    In a new clone each worker compiles its share and finds the rest already compiled.
    """
    files = sorted(Path(__file__).parent.rglob("test_*.py"))
    begin = len(files) * _NUMBER // _WORKERS
    for file in files[begin:] + files[:begin]:
        if is_quick and BROWSER in file.parents:
            continue
        name = ".".join(file.relative_to(BROWSER.parents[1]).with_suffix("").parts)
        # Pytest's own collection reports errors of the file.
        with suppress(Exception):
            importlib.import_module(name)


def pytest_collection_finish() -> None:
    # The tests and their imports live until the end, so garbage collection should skip them.
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    return f"database: {DATABASE}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    if connect_watch.end():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which programs were missing for skipped tests, and the one command that installs them."""
    skipped = terminalreporter.getreports("skipped")
    reasons = [one.longrepr[2] for one in skipped if isinstance(one.longrepr, tuple)]
    for line in programs.summary(reasons):
        terminalreporter.write_line(line)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="what `make quick` runs")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip the browser tests entirely in a quick run, without importing them."""
    return True if config.option.quick and collection_path == BROWSER else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that this worker may run, in the order of `_sort_key`."""
    if long := [item.nodeid[:200] for item in items if len(item.nodeid) > _NAME_CHARACTERS]:
        raise pytest.UsageError(f"These need shorter ids: {long}")
    for item in items:
        if starts_a_process(item):
            item.add_marker(pytest.mark.process)
    items.sort(key=_sort_key)
    if config.option.quick:
        _keep(config, items, _quick_selection(items))
    others = {item for item in items if _wanted_database(item) not in (None, DATABASE)}
    if _WORKERS_SHARE_TESTS:
        _keep(config, items, set(items) - others)
        return
    for item in others:
        wanted = _wanted_database(item)
        item.add_marker(pytest.mark.skip(f"needs {wanted}: see tests/conftest.py"))


def _sort_key(item: pytest.Item) -> tuple[bool, bool]:
    """Return a sort key: modules that run on one worker first, tests with a browser last.

    Browser tests share a browser, whose start takes longer than most of them. The slow ones come
    first, because one that begins at the end would prolong the run.
    """
    if "chromium" in getattr(item, "fixturenames", ()):
        return True, not item.get_closest_marker("slow")
    return False, not item.get_closest_marker("together")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Skip a test that another worker has begun."""
    if not _WORKERS_SHARE_TESTS or _claims_test(item):
        # Reported with a failure, because a test that runs once does so on any database.
        item.add_report_section("setup", "database", DATABASE)
        return None
    # Tear down the skipped test's fixtures before the next test begins.
    end = pytest.CallInfo.from_call(
        lambda: item.session._setupstate.teardown_exact(nextitem), when="teardown"
    )
    if end.excinfo:
        report = item.ihook.pytest_runtest_makereport(item=item, call=end)
        item.ihook.pytest_runtest_logreport(report=report)
    return True


def _claims_test(item: pytest.Item) -> bool:
    """Return whether no other worker began this test, or its module if marked `together`."""
    name = item.path.name if item.get_closest_marker("together") else item.nodeid
    return _claim(name if _runs_once(item) else f"{DATABASE} {name}")


@functools.cache
def _claim(name: str) -> bool:
    begun = Path(os.environ["TESTS_BEGUN"], hashlib.blake2s(name.encode()).hexdigest())
    try:
        begun.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _keep(config: pytest.Config, items: list[pytest.Item], kept: set[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def _quick_selection(items: list[pytest.Item]) -> set[pytest.Item]:
    """Return the tests of a quick run: none that is slow or starts a process, fewer table rows."""
    tables: dict[str, list[pytest.Item]] = {}
    for item in sorted(items, key=lambda item: item.nodeid):
        is_other = _wanted_database(item) not in (None, DATABASE)
        is_long = item.get_closest_marker("process") or item.get_closest_marker("slow")
        if not is_other and not is_long:
            tables.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept: set[pytest.Item] = set()
    for rows in tables.values():
        wanted = _QUICK_DATABASE_ROWS if _touches_database(rows[0]) else _QUICK_ROWS
        # At most `wanted` rows: 47 rows with a limit of 24 become every second row.
        kept.update(rows[:: -(-len(rows) // wanted)])
    return kept


def _runs_once(item: pytest.Item) -> bool:
    is_once = item.get_closest_marker("once") is not None or not _touches_database(item)
    return is_once and _wanted_database(item) is None


def _wanted_database(item: pytest.Item) -> str | None:
    """Return the only database that a test may run on, or None.

    A test that runs once and commits runs on SQLite, which is emptied in a third of the time.
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
def _reset_process_state() -> Iterator[None]:
    """Reset this thread's active language and this process's cache after each test."""
    yield
    translation.deactivate()
    caches["default"].clear()


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a Redis server for this run."""
    if url := os.environ.get("TEST_REDIS_URL"):
        yield url
        return
    with _exit_if_unavailable(request.config):
        server = RedisServer().start()
    with closing(server):
        yield server.url


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """A durable PostgreSQL for this test alone, to stop, kill and restart."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A Redis for this test alone, to stop, kill and restart."""
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
    """Let tests that commit empty the database, for which the audit trail's trigger is dropped."""
    # Imported after the settings.
    from tests.cleanup import empty_database

    setattr(TransactionTestCase, "_fixture_teardown", empty_database)  # noqa: B010 - private.
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
    """Wrap a module's tests in a transaction, for rows that are made once and seen by each test."""
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
    """Path of a Chromium; `make test` installs one beforehand if there is none."""
    with _exit_if_unavailable(request.config):
        return chromium.ensure()


@pytest.fixture(scope="session")
def provider_server() -> Iterator[Provider]:
    """The sandbox's OAuth provider, with this site's callback URL registered."""
    callback_url = f"{settings.PUBLIC_URL}/integrations/webhooks/oauth/callback/"
    with running_provider([callback_url]) as running:
        yield running


@pytest.fixture(scope="session")
def receiver_server(provider_server: Provider) -> Iterator[Receiver]:
    """The sandbox's receiver, which checks bearer tokens with that provider."""
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
    """An authorization server that sends the replies a test sets, and 404 before that."""
    with fake_provider() as running:
        yield running
