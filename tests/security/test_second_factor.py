"""The hook for a second factor: every logged-in user is checked, on every page."""

import pytest
from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.test import Client
from pytest_django import Settings

from webhooks.models import ApiKey

pytestmark = [pytest.mark.django_db, pytest.mark.once]

PATH = "/second-factor/"


def ask(request: HttpRequest) -> HttpResponse | None:
    """Let users pass whose session has the second factor proved."""
    return None if request.session.get("is_proved") else redirect(PATH)


@pytest.fixture
def browser(settings: Settings) -> Client:
    settings.SECOND_FACTOR_CHECK = "tests.security.test_second_factor.ask"
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("olena", password="p"))
    return client


def prove(browser: Client) -> None:
    session = browser.session
    session["is_proved"] = True
    session.save()


@pytest.mark.parametrize(
    "url",
    ["/integrations/webhooks/", "/integrations/webhooks/new/", "/admin/", "/admin/webhooks/event/",
     "/nowhere/", "/integrations/webhooks/oauth/callback/?code=x&state=y"],
)  # fmt: skip
def test_a_password_alone_opens_no_page(browser: Client, url: str) -> None:
    for answer in (browser.get(url), browser.post(url)):
        assert (answer.status_code, answer["Location"]) == (302, PATH)
    prove(browser)
    assert browser.get(url).headers.get("Location") != PATH


def test_people_who_cannot_prove_it_can_leave(browser: Client) -> None:
    assert browser.post("/logout/")["Location"] == "/login/"
    assert "_auth_user_id" not in browser.session


def test_no_one_logged_in_is_asked_nothing(settings: Settings) -> None:
    settings.SECOND_FACTOR_CHECK = "tests.security.test_second_factor.ask"
    assert Client().get("/login/").status_code == 200
    assert Client().get("/healthz").status_code == 200


def test_the_api_asks_for_its_key_alone(settings: Settings) -> None:
    settings.SECOND_FACTOR_CHECK = "tests.security.test_second_factor.ask"
    _key, plain = ApiKey.objects.issue("PBX")
    answer = Client().post(
        "/api/v1/events",
        {"type": "form.submitted", "payload": {}},
        content_type="application/json",
        headers={"Authorization": f"Bearer {plain}"},
    )
    assert answer.status_code == 202


def test_the_answer_has_the_security_headers_too(browser: Client) -> None:
    assert "default-src 'none'" in browser.get("/integrations/webhooks/")["Content-Security-Policy"]
