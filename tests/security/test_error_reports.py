"""What DEBUG error pages and error mails show: where the error occurred, and no values."""

import json
import logging.config
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import User
from django.core import mail
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.urls import include, path
from django.views.debug import technical_500_response
from pytest_django import Settings

SECRET = "pa/ss-Wörd&of<it>"
COOKIE = "a-session-key-of-32-characters-xx"


def break_down(request: HttpRequest) -> HttpResponse:
    password = request.POST.get("password") or request.GET.get("code")
    raise ValueError(f"{password} is not right")


urlpatterns = [path("broken/", login_not_required(break_down)), path("", include("config.urls"))]


@pytest.fixture
def browser() -> Client:
    made = Client(raise_request_exception=False, headers={"authorization": f"Bearer {COOKIE}2"})
    made.cookies["other"] = COOKIE
    return made


@pytest.mark.urls(__name__)
@pytest.mark.parametrize("accept", ["text/html", "text/plain"])
@pytest.mark.parametrize("is_post", [False, True])
def test_a_page_of_debug_shows_the_place_and_no_value(
    settings: Settings, browser: Client, accept: str, is_post: bool
) -> None:
    settings.DEBUG = True
    headers = {"accept": accept}
    if is_post:
        answer = browser.post("/broken/", {"password": SECRET}, headers=headers)
    else:
        answer = browser.get("/broken/", {"code": SECRET}, headers=headers)
    text = answer.content.decode()
    assert answer.status_code == 500
    assert "break_down" in text
    assert "ValueError" in text
    for secret in (SECRET, quote(SECRET, safe=""), json.dumps(SECRET)[1:-1], COOKIE):
        assert secret not in text
    assert settings.SECRET_KEY not in text
    assert settings.FIELD_ENCRYPTION_KEY[0] not in text


@pytest.mark.urls(__name__)
def test_a_mail_about_an_error_shows_no_value(settings: Settings, browser: Client) -> None:
    settings.ADMINS = [("Admin", "admin@example.com")]
    browser.post("/broken/?code=" + quote(SECRET), {"password": SECRET})
    (message,) = mail.outbox
    text = f"{message.subject} {message.body}"
    assert "break_down" in text
    for secret in (SECRET, quote(SECRET), COOKIE, settings.SECRET_KEY):
        assert secret not in text


@pytest.mark.urls(__name__)
def test_the_log_of_an_error_quotes_no_value(
    settings: Settings, browser: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    logging.config.dictConfig(settings.LOGGING)
    browser.post("/broken/?code=" + quote(SECRET), {"password": SECRET})
    written = capfd.readouterr().err
    assert "is not right" in written
    for secret in (SECRET, quote(SECRET), COOKIE):
        assert secret not in written


@pytest.mark.urls(__name__)
def test_a_body_that_cannot_be_read_is_reported_like_any_error(
    settings: Settings, browser: Client
) -> None:
    settings.DEBUG, settings.DATA_UPLOAD_MAX_MEMORY_SIZE = True, 10
    answer = browser.post("/broken/", f"password={SECRET}", "application/x-www-form-urlencoded")
    assert answer.status_code == 400
    assert "RequestDataTooBig" in answer.content.decode()
    assert SECRET not in answer.content.decode()


@pytest.mark.parametrize(
    "name", ["REDIS_URL", "CELERY_BROKER_URL", "EMAIL_CONFIG", "CACHES", "RESULT_BACKEND", "OTHER"]
)
def test_addresses_with_passwords_are_hidden_among_the_settings(
    settings: Settings, name: str
) -> None:
    value = f"redis://user:{COOKIE}@cache.example/0"
    held: Any = {"default": {"LOCATION": value}} if name == "CACHES" else value
    setattr(settings, name, held)
    request = RequestFactory().get("/")
    page = technical_500_response(request, ValueError, ValueError("x"), None).content.decode()
    assert COOKIE not in page
    assert "SESSION_COOKIE_AGE" in page


def test_the_environment_of_the_process_is_not_shown(settings: Settings) -> None:
    request = RequestFactory().get("/", MY_OWN_VARIABLE=COOKIE, HTTP_X_ANY=COOKIE)
    page = technical_500_response(request, ValueError, ValueError("x"), None).content.decode()
    assert COOKIE not in page
    assert "REQUEST_METHOD" in page


@pytest.mark.parametrize("page", ["/nothing/", "/integrations/webhooks/oauth/calback/"])
def test_a_callback_to_a_wrong_address_shows_no_code(settings: Settings, page: str) -> None:
    settings.DEBUG = True
    settings.MIDDLEWARE = ["webhooks.security.error_reports.masked_not_found", *settings.MIDDLEWARE]
    answer = Client().get(page, {"code": COOKIE, "state": SECRET})
    assert answer.status_code == 404
    assert page in answer.text
    assert COOKIE not in answer.text
    assert quote(SECRET) not in answer.text
    assert int(answer["Content-Length"]) == len(answer.content)


@pytest.mark.parametrize("page", ["/nothing/", "/integrations/webhooks/99/"])
@pytest.mark.django_db
def test_the_links_of_an_error_page_leave_the_query_out(page: str) -> None:
    browser = Client()
    browser.force_login(User.objects.create_superuser("admin"))
    answer = browser.get(page, {"code": COOKIE})
    assert answer.status_code == 404
    assert page in answer.text
    assert COOKIE not in answer.text
