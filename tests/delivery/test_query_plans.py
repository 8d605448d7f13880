"""Query plans of the queue on PostgreSQL, made with statistics of another hour.

Statistics are gathered between backlogs, so they are usually wrong about waiting rows, and no plan
may depend on them.
"""

import json
import math
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

from tests.bench import history
from tests.factories import make_webhook
from webhooks import events
from webhooks.delivery.queue import postgres
from webhooks.delivery.queue import postgres_sql as sql
from webhooks.delivery.queue.rows import ClaimQuota
from webhooks.models import Delivery

pytestmark = [pytest.mark.database("postgres"), pytest.mark.django_db, pytest.mark.together]

WEBHOOKS, ROWS = 40, 12_000
_LEASE = {"lease": "plans", "lease_seconds": 60}
_TERMS = ("ids", "quotas", "since", "lease", "lease_seconds")
_SHARDS = {"shards": 1, "numbers": [0]}
_OPEN = {
    "succeeded": "next_attempt_at = NULL, finished_at = now()",
    "pending": "next_attempt_at = now() - interval '1 minute', finished_at = NULL",
    "held": "next_attempt_at = NULL, finished_at = NULL",
}


@pytest.fixture
def webhooks() -> Iterator[list[int]]:
    made = [
        make_webhook(name=f"Webhook {number}", is_ordered=True).pk for number in range(WEBHOOKS)
    ]
    with connection.cursor() as cursor:
        for _ in history.fill(cursor.connection, made, ROWS):
            pass
    postgres.prepare_session()
    yield made
    postgres.reset_session()


@pytest.mark.parametrize("now", ["pending", "held"])
@pytest.mark.parametrize("before", ["succeeded", "pending", "held"])
def test_a_look_at_a_webhook_reads_its_own_first_rows(
    before: str, now: str, webhooks: list[int]
) -> None:
    with connection.cursor() as cursor:
        _become(cursor, before)
        cursor.execute("ANALYZE webhooks_delivery")
        _become(cursor, now)
        statements: dict[str, tuple[str, dict[str, Any]]] = {
            "page": (sql.PAGE, {"after": 0, "limit": 1000, "since": 0.0, **_SHARDS}),
            "walk": (sql.WALK, {"after": 0, "limit": 1000, **_SHARDS}),
            "candidates": (sql.CANDIDATES, {"ids": webhooks, **_SHARDS}),
            "became due": (sql.BECAME_DUE, {"since": time.time(), "limit": 100, **_SHARDS}),
            "late": (sql.LATE, {"before": time.time(), "held": [], "limit": 100}),
            "expired": (sql.EXPIRE, {"before": time.time(), "ids": ["dlv_0"], "limit": 1}),
            "heads": (
                sql.CLAIM_HEADS,
                {"ids": webhooks, "is_quarantine": False, "limit": WEBHOOKS, **_LEASE},
            ),
            "claim": (
                sql.CLAIM,
                {"ids": webhooks, "quotas": [5] * WEBHOOKS, "since": 0.0, **_LEASE},
            ),
            "oldest": (
                sql.CLAIM_OLDEST,
                {"ids": webhooks, "limit": 200, "since": 0.0, **_LEASE},
            ),
            "few": (sql.CLAIM_FEW, {"ids": webhooks, "limit": 200, "since": 0.0, **_LEASE}),
        }
        read = {name: _rows_read(cursor, *statement) for name, statement in statements.items()}
    # A few rows of each webhook from each partition, and not the 300 that it has; the head of an
    # ordered webhook costs no more with more rows behind it. A partition of a single page, such as
    # the one in which the month begins, may be read whole.
    assert {name: rows for name, rows in read.items() if rows > 100 * WEBHOOKS} == {}
    assert (read["claim"] >= 5 * WEBHOOKS) is (now == "pending")
    # Found by time, looked up by key to be locked and to be changed.
    for name in ("oldest", "few"):
        assert (200 <= read[name] <= 1000) is (now == "pending")


def test_a_claim_changes_rows_by_the_statement_itself(webhooks: list[int]) -> None:
    """PostgreSQL 18.6 crashes where a CTE does it after another part met a changed row."""
    terms = {"ids": webhooks, "quotas": [5] * WEBHOOKS, "limit": 5, "since": 0.0, **_LEASE}
    terms["is_quarantine"] = False
    claims = (
        sql.CLAIM,
        sql.CLAIM_OLDEST,
        sql.CLAIM_FEW,
        sql.CLAIM_TESTS,
        sql.CLAIM_QUARANTINED,
        sql.CLAIM_HEADS,
    )
    with connection.cursor() as cursor:
        for statement in claims:
            cursor.execute(f"EXPLAIN {statement}", terms)
            plan = [row[0] for row in cursor.fetchall()]
            assert plan[0].startswith("Update on webhooks_delivery d")
            assert sum("Update on webhooks_delivery " in line for line in plan) == 1
            # Nor may another part choose its partition by an id that it reads: see `_LOCKED`.
            by_id = [line for line in plan if "(id)::text" in line and "ANY" not in line]
            assert all("(wanted.id)::text" in line for line in by_id), by_id


@pytest.mark.parametrize("before", [0, 1, 25])
def test_a_session_plans_again_as_the_log_fills(before: int) -> None:
    made = [make_webhook(name=f"Webhook {number}").pk for number in range(WEBHOOKS)]
    quotas = [ClaimQuota(pk, 5) for pk in made]
    of_claim = sql.CLAIM % dict(zip(_TERMS, ("$1", "$2", "$3", "$4", "$5"), strict=True))
    oldest = ("ids", "limit", "since", "lease", "lease_seconds")
    names = dict(zip(oldest, ("$1", "$2", "$3", "$4", "$5"), strict=True))
    statements: dict[str, tuple[str, list[Any]]] = {
        "oldest": (sql.CLAIM_OLDEST % names, [[0], 200, 0.0, "plans", 60]),
        "few": (sql.CLAIM_FEW % names, [[0], 200, 0.0, "plans", 60]),
        "claim": (of_claim, [made, [5] * WEBHOOKS, 0.0, "plans", 60]),
        "record": (sql.SUCCEEDED, [["dlv_0"], [1], [204], "plans"]),
        "failed": (
            sql.OTHERS,
            [["dlv_0"], [1], [503], ["failed"], [""], [""], [0], [None], "plans"],
        ),
        "back": (sql.HAND_BACK, [["dlv_0"], [1], "plans"]),
    }
    # As after a drain on the same connection that had claimed many rows.
    postgres.prepare_session()
    for _ in range(3):
        postgres.claim([ClaimQuota(made[0], 10_000)], **_LEASE)
    postgres.prepare_session()
    with connection.cursor() as cursor:
        # With pages left by rows of other tests, the planner would not see an empty table.
        cursor.execute("TRUNCATE webhooks_event, webhooks_delivery")
        _publish(before)
        cursor.execute("ANALYZE webhooks_delivery")
        for name, (statement, values) in statements.items():
            places = tuple(f"${place}" for place in range(1, len(values) + 1))
            text = statement % places if "%s" in statement else statement
            cursor.connection.execute(f"PREPARE {name} AS {text}".encode())
            # The first execution makes the plan.
            _rows_read_by(cursor, name, values)
        _publish(100)
        first = {name: statements.pop(name)[1] for name in ("oldest", "few")}
        read = {name: _rows_read_by(cursor, name, values) for name, values in first.items()}
        found = postgres.claim(quotas, **_LEASE) + postgres.claim(quotas, **_LEASE)
        keys = [[one.id for one in found], [one.number for one in found]]
        for name in ("record", "failed", "back"):
            _, values = statements[name]
            more = [column * len(found) for column in values[2:-1]]
            statements[name] = "", [*keys, *more, "plans"]
        read |= {
            name: _rows_read_by(cursor, name, values) for name, (_, values) in statements.items()
        }
    postgres.reset_session()
    # The claim finds 200 rows and updates them; the others look up 400.
    assert {name: rows for name, rows in read.items() if not 200 <= rows <= 600} == {}


def test_an_idle_session_plans_before_rows_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    webhook = make_webhook()
    statements: list[object] = []
    since: list[float] = []
    execute = psycopg.Cursor.execute

    def executed(cursor: Any, statement: Any, *values: Any, **terms: Any) -> Any:
        statements.append(statement)
        since.extend(value["since"] for value in values if statement == sql.CLAIM_FEW)
        return execute(cursor, statement, *values, **terms)

    monkeypatch.setattr(psycopg.Cursor, "execute", executed)
    postgres.prepare_session()
    statements.clear()
    postgres.plan_ahead()
    assert statements == []
    with monkeypatch.context() as patched:
        # As if the plans were nearly ten seconds old.
        patched.setattr(postgres, "_AHEAD_SECONDS", 10.0)
        postgres.plan_ahead()
    assert statements == ["DISCARD PLANS", sql.CLAIM_FEW]
    # A claim that reads no entry: see the test of what a transaction keeps.
    assert since == [math.inf]
    _publish(1)
    statements.clear()
    assert len(postgres.claim_few([webhook.pk], limit=32, **_LEASE)[0]) == 1
    postgres.reset_session()
    assert "DISCARD PLANS" not in statements


def _publish(count: int) -> None:
    one = events.NewEvent("call.incoming.after", {"call_id": "call-1"})
    events.publish_many([one] * count)


def _rows_read_by(cursor: Any, name: str, values: list[Any]) -> int:
    """Return how many deliveries a prepared statement reads, including those it filters out."""
    listed = ", ".join(["%s"] * len(values))
    with psycopg.ClientCursor(cursor.connection) as own:
        own.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE {name} ({listed})".encode(), values)
        found = own.fetchone()[0]
    plan = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    return _touched(plan)


def _become(cursor: Any, status: str) -> None:
    cursor.execute(
        f"UPDATE webhooks_delivery SET status = %s, lease = '', unknown_count = 0,"
        f" hold_reason = %s, {_OPEN[status]}",
        [status, "paused" if status == "held" else ""],
    )
    assert Delivery.objects.filter(status=status).count() >= ROWS


def _rows_read(cursor: Any, statement: str, parameters: dict[str, Any]) -> int:
    """Return how many deliveries a statement reads, including those it filters out."""
    cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
    found = cursor.fetchone()[0]
    return _touched((json.loads(found) if isinstance(found, str) else found)[0]["Plan"])


def _touched(node: dict[str, Any]) -> int:
    own = 0
    if (
        str(node.get("Relation Name")).startswith("webhooks_delivery")
        and "Scan" in node["Node Type"]
    ):
        kept = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        own = round(kept * node["Actual Loops"])
    return own + sum(_touched(child) for child in node.get("Plans", []))


@pytest.mark.django_db(transaction=True)
def test_entries_of_finished_rows_that_a_transaction_keeps_are_passed_over() -> None:
    """As while a dump of the log runs for hours."""
    made = [make_webhook(name=f"Webhook {number}").pk for number in range(4)]
    quotas = [ClaimQuota(pk, 500) for pk in made]
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.execute("SELECT FROM webhooks_webhook")
        _publish(1000)
        over: dict[str, Any] = {"lease": "over", "lease_seconds": 0}
        claimed = postgres.claim(quotas, **over) + postgres.claim(quotas, **over)
        assert len(claimed) == 4000
        Delivery.objects.update(status="succeeded", next_attempt_at=None)
        time.sleep(0.1)
        since = time.time()
        time.sleep(0.1)
        _publish(1)
        postgres.prepare_session()
        terms = {"after": 0, "limit": 1000, **_SHARDS}
        quota = {"ids": made, "quotas": [5] * len(made), **_LEASE}
        oldest = {"ids": [], "limit": 200, **_LEASE}
        late = {"before": since, "held": [], "limit": 5}
        with connection.cursor() as cursor:
            for statement, parameters in (
                (sql.PAGE, terms),
                (sql.CLAIM, quota),
                (sql.CLAIM_OLDEST, oldest),
                (sql.CLAIM_FEW, oldest),
                (sql.IS_LATE, late),
            ):
                all_blocks, few_blocks = (
                    _blocks_read(cursor, statement, {**parameters, "since": start})
                    for start in (0.0, since)
                )
                assert all_blocks > 3 * few_blocks
            all_blocks, ahead = (
                _blocks_read(cursor, sql.CLAIM_FEW, {**oldest, "since": start})
                for start in (0.0, math.inf)
            )
            assert all_blocks > 3 * ahead
        postgres.reset_session()
        other.rollback()


def _blocks_read(cursor: Any, statement: str, parameters: dict[str, Any]) -> int:
    """Return how many blocks a statement reads; it changes nothing."""
    with transaction.atomic():
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters)
        plan = cursor.fetchone()[0]
        transaction.set_rollback(True)
    found = json.loads(plan) if isinstance(plan, str) else plan
    return int(found[0]["Plan"]["Shared Hit Blocks"])
