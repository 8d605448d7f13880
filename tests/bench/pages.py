"""How long the first response of every page takes behind a month of deliveries.

`python -m tests.bench.pages --rows 1000000 --database postgres` starts its own PostgreSQL (or
writes a new file with `sqlite`), fills it, requests every page of `tests/pages.py` through Django's
whole stack in one process, and prints a table: the first response of each page, the best and the
median of nine more, the CPU time of this process, queries, and bytes. On a machine that does other
work too, the best time is the cost of the page.
"""

import argparse
import os
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from tests.bench import history
from tests.bench.stage import POSTGRES
from tests.services import PostgresServer

if TYPE_CHECKING:
    from django.test import Client

    from tests.pages import Scene, SitePage

BUDGET_MS = 150.0
_AGAIN = 9
_POSTGRES = POSTGRES | {
    "maintenance_work_mem": "512MB",
    # Filled once and then only read: the data need not survive a power failure.
    "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PageTime:
    page: str
    first_ms: float
    best_ms: float
    median_ms: float
    cpu_ms: float
    queries: int
    size: int


def measure(page: "SitePage", scene: "Scene", browser: "Client") -> PageTime:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    address = page.address(scene)
    times_ms: list[float] = []
    cpu_ms: list[float] = []
    for _ in range(1 + _AGAIN):
        began, computed = time.perf_counter(), time.process_time()
        answer = browser.get(address, headers=page.headers)
        times_ms.append((time.perf_counter() - began) * 1000)
        cpu_ms.append((time.process_time() - computed) * 1000)
    if answer.status_code != 200:
        raise RuntimeError(f"{address} answered {answer.status_code}.")
    with CaptureQueriesContext(connection) as queries:
        browser.get(address, headers=page.headers)
    return PageTime(
        page=str(page),
        first_ms=times_ms[0],
        best_ms=min(times_ms[1:]),
        median_ms=statistics.median(times_ms[1:]),
        cpu_ms=min(cpu_ms[1:]),
        queries=len(queries),
        size=len(answer.content),
    )


@contextmanager
def filled_site(rows: int, database: str) -> Iterator[tuple["Client", "Scene"]]:
    """Fill a new database; yield a logged-in client and the rows that the pages show."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        url = f"sqlite:///{directory}/webhooks.sqlite3"
        if database == "postgres":
            url = stack.enter_context(PostgresServer(settings=_POSTGRES)).url
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "ENV_FILE": os.devnull,
            "DATA_DIR": directory,
            "SECRET_KEY": "a-key-of-the-bench-with-fifty-or-more-characters-in-it-0123456789",
            "FIELD_ENCRYPTION_KEY": "b25seS1mb3ItdGVzdHMtb25seS1mb3ItdGVzdHMtMzI=",
            "DATABASE_URL": url,
            "WEBHOOKS_ALLOWED_NETWORKS": "127.0.0.0/8",
            "LOG_LEVEL": "ERROR",
        }
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        yield _fill(url, rows)


def _fill(url: str, rows: int) -> tuple["Client", "Scene"]:
    from django.contrib.auth.models import User
    from django.db import connection
    from django.test import Client

    from tests.factories import make_webhook
    from tests.scenes import scene

    history.make_partitions()
    webhooks = [make_webhook(name=f"Webhook {number}").pk for number in range(history.WEBHOOKS)]
    # The scene uses the busiest webhook, and its rows are the newest.
    if connection.vendor == "sqlite":
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
            for made in history.fill_file(file, webhooks, rows):
                file.commit()
                print(f"\r{made:,} deliveries", end="", file=sys.stderr, flush=True)
            file.commit()
        found = scene(webhook=webhooks[0])
    else:
        with psycopg.connect(url, autocommit=True) as database:
            for made in history.fill(database, webhooks, rows):
                print(f"\r{made:,} deliveries", end="", file=sys.stderr, flush=True)
            found = scene(webhook=webhooks[0])
            history.settle(database)
    print(file=sys.stderr)
    browser = Client(SERVER_NAME="127.0.0.1")
    browser.force_login(User.objects.create_superuser("admin", password="p"))
    return browser, found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pages", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--database", choices=("postgres", "sqlite"), default="postgres")
    options = parser.parse_args()
    # Exit normally on SIGTERM, so that the server is stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with filled_site(options.rows, options.database) as (browser, scene):
        from tests.pages import PAGES, url_names

        # Load templates and modules, which a process does only once.
        browser.get("/integrations/webhooks/connections/")
        names = set(url_names())
        pages = [page for page in PAGES if page.name in names and page.name != "login"]
        answers = [measure(page, scene, browser) for page in pages]
    _print(answers)


def _print(answers: list[PageTime]) -> None:
    columns = ("first ms", "best ms", "median ms", "CPU ms", "queries", "bytes")
    print(f"{'page':62}" + "".join(f"{name:>11}" for name in columns))
    for one in sorted(answers, key=lambda one: -one.best_ms):
        times = (one.first_ms, one.best_ms, one.median_ms, one.cpu_ms)
        numbers = "".join(f"{number:11.1f}" for number in times)
        print(f"{one.page:62}{numbers}{one.queries:11}{one.size:11,}")
    over = [one.page for one in answers if one.cpu_ms > BUDGET_MS]
    named = ", ".join(over) or "none"
    print(f"{len(answers)} pages, {len(over)} over {BUDGET_MS:.0f} ms of CPU: {named}")


if __name__ == "__main__":
    main()
