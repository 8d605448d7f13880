"""`/healthz` needs no service; `/readyz` gives the name of each failing check and no detail."""

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import redis
from django.core.cache import cache, caches
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from pytest_django import Settings

from tests.polling import eventually
from tests.relay import Relay
from tests.services import RedisServer
from webhooks.api import health
from webhooks.delivery import queue
from webhooks.delivery.backlog import (
    LAST_SWEEP,
    MACHINE_LACKS,
    SWEEP_LATE_SECONDS,
    SWEPT_RECENTLY,
    note_sweep,
)
from webhooks.models import ApiKey, EncryptionCanary
from webhooks.security import key_check


@pytest.fixture(autouse=True)
def _swept() -> Iterator[None]:
    note_sweep()
    yield
    cache.clear()


def _let_the_last_sweep_be_old() -> None:
    cache.set(LAST_SWEEP, time.time() - SWEEP_LATE_SECONDS - 1, None)
    cache.delete(SWEPT_RECENTLY)


@pytest.mark.django_db
@pytest.mark.parametrize("seconds", [-600, 600])
def test_a_worker_whose_clock_differs_sweeps_as_any_other(
    admin_client: Client, seconds: int
) -> None:
    cache.set(LAST_SWEEP, time.time() + seconds, None)
    found = admin_client.get("/readyz")
    assert (found.status_code, found.json()["last_sweep"]) == (200, "ok")
    assert found.json()["sweep_seconds_ago"] >= 0
    cache.delete(SWEPT_RECENTLY)
    assert admin_client.get("/readyz").json()["last_sweep"].startswith("late")


def test_healthz_answers_without_a_database(client: Client) -> None:
    response = client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert "no-store" in response["Cache-Control"]


def test_a_load_balancer_asks_healthz_by_any_host(client: Client) -> None:
    response = client.get("/healthz", headers={"Host": "10.1.2.3:8000"})
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert "Content-Security-Policy" in response
    assert client.get("/readyz", headers={"Host": "10.1.2.3:8000"}).status_code == 400


@pytest.mark.django_db
def test_readyz_is_ok_when_everything_works(admin_client: Client, settings: Settings) -> None:
    response = admin_client.get("/readyz")
    assert response.status_code == 200
    found = response.json()
    assert 0 <= found.pop("sweep_seconds_ago") < 60
    assert found.pop("opened") == settings.WEBHOOKS_ALLOWED_NETWORKS
    assert found.pop("queue") == {
        "due": 0,
        "sending": 0,
        "held": 0,
        "parked": 0,
        "oldest_due_seconds": 0.0,
        "sent_per_second": 0.0,
    }
    assert found.pop("networks_opened") == len(settings.WEBHOOKS_ALLOWED_NETWORKS)
    assert found.pop("oldest_transaction") is None
    assert set(found.values()) == {"ok"}


@pytest.mark.django_db
@pytest.mark.parametrize(("scope", "is_shown"), [("health:read", True), ("events:write", False)])
def test_readyz_has_figures_for_a_key_with_that_scope(
    client: Client, scope: str, is_shown: bool
) -> None:
    _key, plain = ApiKey.objects.issue("Monitor", scopes=[scope])
    found = client.get("/readyz", headers={"Authorization": f"Bearer {plain}"}).json()
    assert ("queue" in found) is is_shown


@pytest.mark.django_db
@pytest.mark.parametrize("is_known", [True, False])
def test_readyz_has_no_figures_for_who_is_not_staff(
    client: Client, django_user_model: Any, is_known: bool
) -> None:
    if is_known:
        client.force_login(django_user_model.objects.create(username="somebody"))
    _let_the_last_sweep_be_old()
    found = client.get("/readyz").json()
    words = {"status", "database", "secrets", "networks", "broker", "last_sweep", "machine"}
    assert set(found) == words | {"transactions"}
    assert not any(character.isdigit() for character in "".join(found.values()))


@pytest.mark.django_db
@pytest.mark.parametrize("value", ["text", ["list"], None, {"a": 1}])
def test_a_sweep_that_was_not_written_here_is_none(client: Client, value: object) -> None:
    cache.set(LAST_SWEEP, value, None)
    cache.set(SWEPT_RECENTLY, value, None)
    assert client.get("/readyz").json()["last_sweep"].startswith("none yet")


def test_both_take_only_reading_requests() -> None:
    # Like clients that send no CSRF token.
    client = Client(enforce_csrf_checks=True)
    assert [client.post(path).status_code for path in ("/healthz", "/readyz")] == [405, 405]


def test_both_are_reached_without_https(client: Client, settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    assert client.get("/healthz").status_code == 200


@pytest.mark.django_db
def test_old_or_missing_sweep_is_not_ready(admin_client: Client) -> None:
    _let_the_last_sweep_be_old()
    late = admin_client.get("/readyz")
    cache.delete(LAST_SWEEP)
    missing = admin_client.get("/readyz")

    assert (late.status_code, missing.status_code) == (503, 503)
    assert late.json()["last_sweep"].startswith("late")
    assert late.json()["sweep_seconds_ago"] > SWEEP_LATE_SECONDS
    assert missing.json()["last_sweep"].startswith("none yet")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("redis_url", "commands"),
    [
        ("", ["“manage.py run”"]),
        ("redis://127.0.0.1:1/0", ["“manage.py worker”", "beat”", "the queue “default”"]),
    ],
)
def test_what_to_start_for_a_sweep_is_said(
    client: Client, settings: Settings, redis_url: str, commands: list[str]
) -> None:
    settings.REDIS_URL = redis_url
    for is_there in (True, False):
        _let_the_last_sweep_be_old()
        if not is_there:
            cache.delete(LAST_SWEEP)
        said = client.get("/readyz").json()["last_sweep"]
        assert [one for one in commands if one not in said] == []


@pytest.mark.django_db
def test_what_a_worker_lacks_is_shown_and_leaves_the_web_in_service(client: Client) -> None:
    cache.set(MACHINE_LACKS, "Too many open files", 60)
    found = client.get("/readyz")
    cache.delete(MACHINE_LACKS)
    assert (found.status_code, found.json()["status"]) == (200, "degraded")
    assert found.json()["machine"] == "a worker cannot send: Too many open files"


@pytest.mark.django_db(transaction=True)
@pytest.mark.database("postgres")
def test_a_transaction_that_somebody_forgot_is_shown(
    admin_client: Client, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "LONG_TRANSACTION_SECONDS", 0.5)
    parameters = connection.get_connection_params() | {"application_name": "pg_dump"}
    with psycopg.connect(**parameters) as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.execute("SELECT FROM webhooks_webhook")

        def shown() -> dict[str, Any]:
            found = admin_client.get("/readyz")
            assert found.status_code == 200
            return found.json()  # type: ignore[no-any-return]

        assert shown()["oldest_transaction"]["application"] == "pg_dump"
        found = eventually(lambda: shown()["status"] == "degraded" and shown())
        assert found["transactions"].startswith("one has been open for over ten minutes")
        assert "oldest_transaction" not in client.get("/readyz").json()
        other.rollback()
        assert shown()["transactions"] == "ok"


@pytest.mark.django_db
@pytest.mark.database("postgres")
@pytest.mark.parametrize(
    "change",
    [
        "SET TRANSACTION READ ONLY",
        "CREATE ROLE reader; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader; "
        "SET LOCAL ROLE reader",
    ],
)
def test_a_database_that_takes_no_events_is_not_ready(client: Client, change: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(change)
    found = client.get("/readyz")
    assert found.status_code == 503
    assert found.json()["database"].startswith("takes no events")


@pytest.mark.django_db
@pytest.mark.database("postgres")
def test_a_role_with_the_right_to_each_column_is_ready(client: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE writer; GRANT SELECT ON ALL TABLES IN SCHEMA public TO writer")
        for table in ("webhooks_event", "webhooks_delivery"):
            columns = [
                one.name for one in connection.introspection.get_table_description(cursor, table)
            ]
            cursor.execute(f"GRANT INSERT ({', '.join(columns)}) ON {table} TO writer")
        cursor.execute("SET LOCAL ROLE writer")
    assert client.get("/readyz").json()["database"] == "ok"


@pytest.mark.django_db(transaction=True)
@pytest.mark.database("sqlite")
def test_a_file_that_is_named_by_an_uri_is_ready(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = connection.settings_dict["NAME"]
    connection.close()
    monkeypatch.setitem(connection.settings_dict, "NAME", f"file:{name}")
    assert client.get("/readyz").json()["database"] == "ok"
    connection.close()


@pytest.mark.django_db
def test_why_there_is_no_database_is_in_the_log_alone(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> bool:
        raise OperationalError("too many connections for role")

    monkeypatch.setattr(queue.backend(), "takes_events", refuse)
    response = client.get("/readyz")
    assert response.status_code == 503
    assert "see database_not_ready in the log" in response.json()["database"]
    assert "too many" not in response.content.decode()
    assert "database_not_ready error=too many connections for role" in caplog.text


@pytest.mark.django_db
def test_a_database_that_was_not_upgraded_is_not_ready(client: Client) -> None:
    MigrationRecorder.Migration.objects.filter(app="webhooks").last().delete()

    response = client.get("/readyz")

    assert response.status_code == 503
    assert response.json()["database"].endswith("run “manage.py migrate”")


@pytest.mark.django_db
def test_unreadable_secrets_are_not_ready(client: Client) -> None:
    key_check.plant()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {EncryptionCanary._meta.db_table} SET canary = 'garbage'")

    response = client.get("/readyz")

    assert response.status_code == 503
    assert response.json()["secrets"] == "cannot be read with FIELD_ENCRYPTION_KEY"


@pytest.mark.django_db
def test_unreadable_networks_are_not_ready(client: Client, settings: Settings) -> None:
    settings.WEBHOOKS_ALLOWED_NETWORKS = ["10.0.0.0/33"]
    assert client.get("/readyz").json()["networks"] == "WEBHOOKS_ALLOWED_NETWORKS cannot be read"


@pytest.mark.django_db
def test_what_is_opened_is_listed_for_staff_only(
    client: Client, admin_client: Client, settings: Settings
) -> None:
    settings.WEBHOOKS_ALLOWED_NETWORKS = ["10.20.0.0/16:8080", "[fd00::7]:9000"]
    public = client.get("/readyz")
    assert "networks_opened" not in public.json()
    assert b"10.20" not in public.content
    assert admin_client.get("/readyz").json()["networks_opened"] == 2
    assert admin_client.get("/readyz").json()["opened"] == ["10.20.0.0/16:8080", "[fd00::7]:9000"]


@pytest.mark.django_db
def test_somebody_logged_in_without_being_staff_does_not_learn_what_is_opened(
    client: Client, django_user_model: Any
) -> None:
    client.force_login(django_user_model.objects.create(username="somebody"))
    assert "opened" not in client.get("/readyz").json()


@pytest.mark.django_db
def test_broker_is_asked_and_its_loss_is_reported_quickly(
    client: Client, settings: Settings, redis_server: RedisServer
) -> None:
    settings.REDIS_URL = redis_server.url
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": redis_server.url,
            "OPTIONS": {"socket_connect_timeout": 1, "socket_timeout": 1},
        }
    }
    note_sweep()
    works = client.get("/readyz")
    redis_server.freeze()
    started = time.monotonic()
    frozen = client.get("/readyz")
    seconds = time.monotonic() - started
    redis_server.thaw()
    redis_server.kill()
    gone = client.get("/readyz")
    caches["default"].close()
    settings.CACHES = {}

    assert works.status_code == 200
    assert (frozen.status_code, gone.status_code) == (503, 503)
    assert frozen.json()["broker"] == gone.json()["broker"] == "does not answer"
    assert gone.json()["last_sweep"] == "unknown: the broker does not answer"
    assert gone.json()["database"] == "ok"
    assert seconds < 5
    assert redis_server.url not in gone.content.decode()


@pytest.mark.django_db
def test_a_broker_that_answers_byte_by_byte_is_reported_quickly(
    client: Client, settings: Settings, redis_server: RedisServer
) -> None:
    with Relay(redis_server.port, byte_seconds=0.4) as relay:
        settings.REDIS_URL = f"redis://127.0.0.1:{relay.port}/0"
        settings.CACHES = {
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": settings.REDIS_URL,
                "OPTIONS": {"socket_connect_timeout": 1, "socket_timeout": 2},
            }
        }
        started = time.monotonic()
        # A worker that cannot note its sweep has swept nevertheless.
        note_sweep()
        found = client.get("/readyz").json()
        assert time.monotonic() - started < 20
    caches["default"].close()
    settings.CACHES = {}
    assert found["broker"] == "does not answer"
    assert found["last_sweep"] == found["machine"] == "unknown: the broker does not answer"


@pytest.mark.django_db
def test_why_a_broker_cannot_be_used_is_explained_in_words(
    client: Client, settings: Settings, redis_server: RedisServer
) -> None:
    settings.REDIS_URL = redis_server.url
    with redis.Redis.from_url(redis_server.url) as own:
        works = client.get("/readyz").json()["broker"]
        own.replicaof("127.0.0.1", "1")
        reads = client.get("/readyz").json()["broker"]
        own.replicaof("NO", "ONE")
        own.config_set("maxmemory", 1)
        full = client.get("/readyz").json()["broker"]
        own.config_set("requirepass", "another")
        locked = client.get("/readyz").json()["broker"]
    assert works == "ok"
    assert reads == full == "takes no writes: it is read-only or full, or our user may not write"
    assert locked == "does not let us in: the user or password of REDIS_URL is wrong"
