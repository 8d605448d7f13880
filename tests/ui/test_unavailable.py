"""Pages while the database does not answer, or takes no changes: 503, one line, nothing more."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import InterfaceError, InternalError, OperationalError, ProgrammingError, connection
from django.test import Client
from django.urls import reverse

from tests.factories import make_webhook
from webhooks.models import Webhook

PAGES = ["/", "/integrations/webhooks/", "/integrations/webhooks/new/", "/admin/", "/login/"]


@pytest.fixture
def person(admin_client: Client) -> Client:
    admin_client.raise_request_exception = False
    return admin_client


@contextmanager
def failing(error: Exception) -> Iterator[None]:
    def refuse(*_: Any) -> None:
        raise error

    with connection.execute_wrapper(refuse):
        yield


@pytest.mark.django_db
@pytest.mark.parametrize("url", PAGES)
@pytest.mark.parametrize("error", [OperationalError("no\nanswer"), InterfaceError("closed")])
def test_a_page_without_a_database_says_so_and_logs_one_line(
    person: Client, url: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with failing(error):
        page = person.get(url)
    assert (page.status_code, page["Retry-After"]) == (503, "5")
    assert "The database is not available" in page.text
    assert "No event or delivery is lost." in page.text
    [line] = caplog.records
    assert line.exc_info is None
    text = " ".join(str(error).split())
    assert line.getMessage() == f"page_unavailable path={url} error={text}"


@pytest.mark.django_db
@pytest.mark.parametrize("url", ["/integrations/webhooks/new/", "/login/"])
def test_a_form_that_could_not_be_saved_can_be_sent_again(person: Client, url: str) -> None:
    with failing(InternalError("cannot execute INSERT in a read-only transaction")):
        page = person.post(url, {"name": "CRM", "username": "x", "password": "y"})
    assert page.status_code == 503
    assert "your browser then sends again what you entered" in page.text


@pytest.mark.django_db
def test_another_error_is_still_an_internal_one(
    person: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with failing(ProgrammingError("no such function")):
        page = person.get("/integrations/webhooks/")
    assert page.status_code == 500
    assert "Something went wrong" in page.text
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.django_db
def test_readyz_names_the_database_to_who_is_logged_in(person: Client) -> None:
    with failing(OperationalError("no answer")):
        found = person.get("/readyz")
    assert (found.status_code, found["Content-Type"]) == (503, "application/json")
    assert found.json()["database"].startswith("does not answer")


@pytest.mark.django_db(transaction=True)
@pytest.mark.database("postgres")
def test_a_page_is_back_once_the_server_is(person: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    connection.close()
    with monkeypatch.context() as away:
        away.setitem(connection.settings_dict, "PORT", "1")
        assert [person.get(url).status_code for url in PAGES] == [503] * len(PAGES)
        assert person.get("/readyz").json()["database"].startswith("does not answer")
    assert person.get("/integrations/webhooks/").status_code == 200


@pytest.mark.django_db(transaction=True)
@pytest.mark.database("postgres")
def test_a_connection_to_a_server_that_stays_read_only_is_not_used_again(person: Client) -> None:
    webhook = make_webhook()
    url = reverse("webhooks:pause", args=[webhook.pk])
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
    assert person.post(url).status_code == 503
    assert Webhook.objects.get().is_active
    assert person.post(url).status_code == 302
    assert not Webhook.objects.get().is_active
