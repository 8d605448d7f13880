"""The event API ahead of Django's handler: same responses, and all other paths go to Django."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from django.contrib.auth import get_user_model
from django.core.handlers.wsgi import WSGIHandler
from django.db import close_old_connections, connection, connections
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.urls import reverse

from tests.api.clients import CLIENTS, WsgiClient, call
from tests.cpu_time import LINEAR, Work, growth
from tests.factories import make_webhook
from webhooks import events as public
from webhooks.api import wsgi
from webhooks.delivery.queue import postgres
from webhooks.models import ApiKey, Event

pytestmark = pytest.mark.django_db

URL = "/api/v1/events"
BODY = {"type": "form.submitted", "payload": {"n": 1}}


@pytest.fixture
def key() -> dict[str, str]:
    return {"Authorization": f"Bearer {ApiKey.objects.issue('CRM')[1]}"}


class _Refusing:
    """Stands in for Django, which these requests must not reach."""

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        raise AssertionError(f"Django was asked for {environ['PATH_INFO']}.")


def test_django_is_not_asked_for_an_event(key: dict[str, str]) -> None:
    client = WsgiClient(wsgi.events_first(_Refusing()))
    answer = client.post(URL, BODY, "application/json", headers=key)
    assert answer.status_code == 202
    assert Event.objects.get().id == answer.json()["event_id"]
    assert client.get(URL).status_code == 405
    assert client.post(f"{URL}/batch", [BODY], "application/json", headers=key).status_code == 202


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("language", ["en", "uk", "xx"])
def test_both_ways_give_the_same_answers(
    key: dict[str, str],
    scheme: str,
    language: str,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.SECURE_HSTS_SECONDS = 60
    requests: list[tuple[str, str, dict[str, str]]] = [
        ("POST", json.dumps(BODY | {"idempotency_key": "a"}), key),
        ("POST", "{", key),
        ("POST", json.dumps(BODY), {}),
        ("PUT", "", key),
    ]
    for method, body, headers in requests:
        # The first request creates an event, the second repeats it.
        for _ in range(2):
            answers = [
                client().generic(
                    method,
                    URL,
                    body,
                    "application/json",
                    secure=scheme == "https",
                    headers=headers | {"Accept-Language": language},
                )
                for client in CLIENTS
            ]
        by_django, ahead = answers
        assert ahead.content == by_django.content
        assert ahead.status_code == by_django.status_code
        assert dict(ahead.headers) == dict(by_django.headers)
        assert ("Strict-Transport-Security" in ahead.headers) == (scheme == "https")
    said = [record.getMessage() for record in caplog.records if record.name == "django.request"]
    assert len(said) == 12
    assert said[::2] == said[1::2]


def test_another_address_is_left_to_django() -> None:
    client = WsgiClient()
    assert client.get("/healthz").status_code == 200
    assert client.post(f"{URL}/", b"", "application/json").status_code in {302, 404}
    assert client.post("/api/v1", b"", "application/json").status_code in {302, 404}


@pytest.mark.parametrize("charset", ["none''utf-8", "none''utf%2D8"])
def test_a_content_type_that_django_cannot_read_is_refused(
    key: dict[str, str], charset: str
) -> None:
    body, media_type = json.dumps(BODY), f"application/json; charset*={charset}"
    answer = WsgiClient().generic("POST", URL, body, media_type, headers=key)
    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "unsupported_media_type"
    page = WsgiClient().generic("POST", reverse("login"), "username=a", media_type)
    # Django rejects it because the CSRF token is missing.
    assert page.status_code == 403


@pytest.mark.parametrize(
    "accepted", ["a/b; c*=none''d", "a/b; c* =none''d, */*", "*/*; c*0*=no%27%27"]
)
def test_an_accepted_type_that_django_cannot_read_counts_as_none(accepted: str) -> None:
    answer = WsgiClient().get(reverse("set_language"), headers={"Accept": accepted})
    assert answer.status_code == 204


@pytest.mark.parametrize("charset", ["zlib", "rot13", "undefined", "idna", "punycode", "none"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_charset_that_is_none_of_the_web_breaks_no_page(method: str, charset: str) -> None:
    media_type, login = f"multipart/form-data; boundary=x; charset={charset}", reverse("login")
    form = '--x\r\nContent-Disposition: form-data; name="username"\r\n\r\n\xe9\r\n--x--\r\n'
    answer = WsgiClient().generic(method, f"{login}?next=/%C3%A9%80", form, media_type)
    assert answer.status_code == (200 if method == "GET" else 403)


@pytest.mark.parametrize("name", ["Content-Type", "Accept"])
def test_a_long_media_type_keeps_nothing_busy(name: str) -> None:
    """32 KB once took 9 seconds, at any URL."""
    client = WsgiClient()

    def prepare(parts: int) -> Work:
        hostile = 'text/plain; a="' + ";" * 4_000 * parts

        def request() -> None:
            for path in (URL, "/healthz", reverse("set_language")):
                assert client.get(path, headers={name: hostile}).status_code < 500

        return request

    assert growth(prepare, limit=LINEAR) < LINEAR


def test_a_cookie_of_another_site_that_is_left_out_keeps_no_one_logged_out() -> None:
    client = WsgiClient()
    client.force_login(get_user_model().objects.create_user("ann"))
    client.cookies["other"] = json.dumps({str(number): number for number in range(100)})
    assert client.cookies["other"].OutputString().count("\\") > 100
    assert client.get(reverse("webhooks:help_events")).status_code == 200


def test_a_form_in_an_odd_charset_keeps_nothing_busy() -> None:
    """400 KB once took 10 seconds: Python decodes Punycode in quadratic time."""
    media_type = "multipart/form-data; boundary=x; charset=punycode"
    form = '--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n-{}\r\n--x--\r\n'
    client = WsgiClient()
    # Without it the form is refused before it is read.
    client.cookies["csrftoken"] = "a" * 32

    def prepare(parts: int) -> Work:
        text = form.format("zyx9" * 12_500 * parts)

        def request() -> None:
            assert client.generic("POST", reverse("login"), text, media_type).status_code == 403

        return request

    assert growth(prepare, limit=LINEAR) < LINEAR


@pytest.mark.parametrize("client_class", CLIENTS)
def test_a_host_that_is_not_ours_is_refused(client_class: type[Client], key: Any) -> None:
    answer = client_class().post(URL, BODY, "application/json", headers=key | {"Host": "evil.test"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "wrong_host"
    assert answer["X-Content-Type-Options"] == "nosniff"
    page = client_class().get("/login/", headers={"Host": "evil.test"})
    assert (page.status_code, page["Content-Type"]) == (400, "text/html; charset=utf-8")
    assert not Event.objects.exists()


@pytest.mark.parametrize("client_class", CLIENTS)
def test_what_was_not_sent_by_https_is_redirected(
    client_class: type[Client], key: Any, settings: Any
) -> None:
    settings.SECURE_SSL_REDIRECT = True
    client = client_class()
    for _ in range(2):
        answer = client.post(URL, BODY, "application/json", headers=key)
        assert (answer.status_code, answer["Location"]) == (301, f"https://testserver{URL}")
    assert not Event.objects.exists()
    assert client.post(URL, BODY, "application/json", headers=key, secure=True).status_code == 202


@pytest.mark.parametrize("client_class", CLIENTS)
def test_an_error_of_ours_is_logged_and_shown_without_its_values(
    client_class: type[Client],
    key: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(item: public.NewEvent) -> public.Published:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(public, "publish_together", fail)
    client = client_class(raise_request_exception=False)
    answer = client.post(URL, BODY, "application/json", headers=key)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert "of ours" not in answer.content.decode()
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"Internal Server Error: {URL}"]
    assert key["Authorization"].split()[1] not in caplog.text


def test_a_middleware_that_stands_before_it_is_asked(settings: Any) -> None:
    settings.MIDDLEWARE = ["tests.api.test_wsgi.forbid", *settings.MIDDLEWARE]
    assert WsgiClient().post(URL, BODY, "application/json").status_code == 418


def forbid(get_response: Any) -> Any:
    from django.http import HttpResponse

    return lambda request: HttpResponse(status=418)


@pytest.fixture
def aged(settings: Any) -> Iterator[None]:
    """Close connections after each request."""
    connection.close()
    before = connection.settings_dict["CONN_MAX_AGE"]
    connection.settings_dict["CONN_MAX_AGE"] = 0
    yield
    connection.settings_dict["CONN_MAX_AGE"] = before


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_is_too_old_is_closed_once_the_client_has_its_answer(
    key: dict[str, str], aged: None
) -> None:
    request = RequestFactory().post(URL, BODY, "application/json", headers=key)
    application = wsgi.events_first(WSGIHandler())
    body: Any = application(request.environ, lambda status, headers: None)
    assert connection.connection is not None
    assert json.loads(b"".join(body))["deliveries"] == 0
    body.close()
    assert connection.connection is None
    assert call(application, RequestFactory().get(URL).environ)[0] == "405 Method Not Allowed"


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_became_too_old_since_is_not_used(key: dict[str, str]) -> None:
    connection.ensure_connection()
    before = connection.connection
    connection.close_at = time.monotonic()
    request = RequestFactory().post(URL, BODY, "application/json", headers=key)
    body: Any = wsgi.events_first(WSGIHandler())(request.environ, lambda status, headers: None)
    assert json.loads(b"".join(body))["deliveries"] == 0
    assert connection.connection is not before
    body.close()


@pytest.fixture
def in_a_thread_of_the_site() -> Iterator[Callable[..., Any]]:
    """Return a function that calls others in one thread, and closes its connection at the end."""
    with ThreadPoolExecutor(1) as thread:
        yield lambda call, *arguments: thread.submit(call, *arguments).result()
        thread.submit(connections.close_all).result()


@pytest.mark.django_db(transaction=True)
@pytest.mark.database("postgres")
@pytest.mark.parametrize("is_event", [True, False])
def test_a_request_does_not_wait_for_a_silent_database_for_long(
    key: dict[str, str],
    in_a_thread_of_the_site: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    is_event: bool,
) -> None:
    webhook = make_webhook()
    site = wsgi.with_limited_waits(wsgi.events_first(WSGIHandler()))
    client = WsgiClient(site, raise_request_exception=False)
    client.force_login(get_user_model().objects.create_superuser("root", password="p"))

    def send() -> HttpResponse:
        if is_event:
            return client.post(URL, BODY, "application/json", headers=key)
        return client.get(reverse("webhooks:detail", args=[webhook.pk]))

    monkeypatch.setattr(postgres, "ANSWER_SECONDS", 0.5)
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.execute("LOCK TABLE webhooks_webhook, webhooks_event IN ACCESS EXCLUSIVE MODE")
        began_at = time.monotonic()
        answer = in_a_thread_of_the_site(send)
        assert time.monotonic() - began_at < 5
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    monkeypatch.undo()
    # As at the end of a request.
    in_a_thread_of_the_site(close_old_connections)
    assert in_a_thread_of_the_site(send).status_code == (202 if is_event else 200)
    assert Event.objects.count() == int(is_event)


@pytest.mark.django_db(transaction=True)
@pytest.mark.database("postgres")
def test_a_task_waits_for_its_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    connection.close()
    monkeypatch.setattr(postgres, "ANSWER_SECONDS", 0.2)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(1)")
