"""Pages behind a large log: PostgreSQL reads through indexes, and no query counts to the end.

The log is just large enough that the planner would scan where no index fits. The same pages with a
million rows and more: `python -m tests.bench.pages`, docs/performance.md.
"""

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.bench import history
from tests.factories import make_webhook
from tests.pages import PAGES, Scene, SitePage
from tests.scenes import scene as make_scene
from webhooks.security import key_check

pytestmark = [pytest.mark.database("postgres"), pytest.mark.django_db, pytest.mark.together]

ROWS = 100_000
_READS = ("SELECT", "WITH")
_READING = [page for page in PAGES if page.name != "login"]


@pytest.fixture(scope="module")
def large_log(django_db_setup: None, django_db_blocker: object) -> Iterator[tuple[Client, Scene]]:
    """Make a month of deliveries once for the module, and remove it afterwards."""
    unblocked = django_db_blocker.unblock  # type: ignore[attr-defined]
    try:
        with unblocked(), connection.cursor() as cursor:
            history.make_partitions()
            webhooks = [make_webhook(name=f"Webhook {number}").pk for number in range(50)]
            for _ in history.fill(cursor.connection, webhooks, ROWS):
                pass
            found = make_scene(webhooks[0])
            history.settle(cursor.connection)
            browser = Client()
            browser.force_login(User.objects.create_superuser("admin", password="p"))
        yield browser, found
    finally:
        with unblocked():
            _empty()


def _empty() -> None:
    tables = ", ".join(
        table
        for table in connection.introspection.table_names()
        if table.startswith("webhooks_") or table in ("auth_user", "auth_group", "django_session")
    )
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
    key_check.plant()


@pytest.mark.parametrize("page", _READING, ids=str)
def test_no_page_scans_a_table_that_grows(page: SitePage, large_log: tuple[Client, Scene]) -> None:
    browser, scene = large_log
    with CaptureQueriesContext(connection) as queries:
        answer = browser.get(page.address(scene), headers=page.headers)
    assert answer.status_code == 200
    read = [query["sql"] for query in queries if query["sql"].lstrip().startswith(_READS)]
    assert read
    assert [sql for sql in read if history.has_scan(_plan(sql))] == []


def _plan(sql: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {sql}")
        return "\n".join(row[0] for row in cursor.fetchall())
