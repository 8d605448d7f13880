"""Security headers on errors, on static files and without TLS.

`tests/security/test_permissions.py` checks them for every URL and role.
"""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import include, path
from pytest_django import Settings

from tests.cpu_time import CONSTANT, Work, growth
from tests.security.answer_headers import as_in_production, is_strict, missing

pytestmark = [pytest.mark.django_db, pytest.mark.once]


def fail(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("a mistake in a view")


# The site, with one more URL.
urlpatterns = [path("fails/", fail), path("", include("config.urls"))]


@pytest.fixture(autouse=True)
def _as_in_production(settings: Settings) -> None:
    as_in_production(settings)


@pytest.mark.parametrize(
    "policy",
    [
        "",
        "default-src 'none'; script-src 'self' 'unsafe-inline'",
        "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; script-src 'self'; "
        "style-src 'self'; connect-src 'self'",
        "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; script-src 'self'; "
        "style-src 'self'; connect-src 'self'; img-src *",
    ],
)
def test_a_loose_policy_would_be_noticed(policy: str) -> None:
    assert not is_strict(policy)


ERRORS: list[tuple[int, str, str, dict[str, Any]]] = [
    (400, "get", "/", {"HTTP_HOST": "elsewhere.example"}),
    (400, "post", "/integrations/webhooks/bulk/", {}),
    (401, "post", "/api/v1/events", {}),
    (403, "get", "/admin/webhooks/delivery/add/", {}),
    (404, "get", "/nowhere/", {}),
    (404, "get", "/static/nothing.css", {}),
    (404, "get", "/admin/nowhere/", {}),
    (405, "delete", "/integrations/webhooks/", {}),
    (405, "get", "/api/v1/events", {}),
    (500, "get", "/fails/", {}),
]


@pytest.mark.parametrize(("status", "method", "url", "more"), ERRORS, ids=str)
def test_every_error_sends_them(
    settings: Settings, status: int, method: str, url: str, more: dict[str, Any]
) -> None:
    settings.ROOT_URLCONF = __name__
    browser = Client(raise_request_exception=False)
    browser.force_login(User.objects.create_superuser("olena", password="p"))
    answer = getattr(browser, method)(url, secure=True, **more)
    assert answer.status_code == status
    assert missing(answer) == {}


def test_a_refused_form_sends_them() -> None:
    answer = Client(enforce_csrf_checks=True).post("/login/", {"username": "x"}, secure=True)
    assert answer.status_code == 403
    assert missing(answer) == {}


def test_a_locked_login_sends_them() -> None:
    for _ in range(5):
        answer = Client().post("/login/", {"username": "x", "password": "y"}, secure=True)
    assert answer.status_code == 429
    assert missing(answer) == {}


@pytest.mark.parametrize("url", ["/static/ui/app.css", "/static/ui/app.js"])
def test_static_files_send_them(url: str) -> None:
    answer = Client().get(url, secure=True)
    answer.close()
    assert answer.status_code == 200
    assert missing(answer) == {}


def test_without_tls_no_browser_is_made_to_insist_on_it() -> None:
    answer = Client().get("/login/")
    assert "Strict-Transport-Security" not in answer
    assert missing(answer).keys() == {"Strict-Transport-Security"}


def hostile_form(parts: int) -> str:
    """Return a multipart form of which Django reads 100 parts in a second."""
    head = 'Content-Disposition: form-data; name="a";b="'
    return f"--x\r\n{head}{';' * 950}\r\n\r\n1\r\n" * parts + "--x--\r\n"


@pytest.mark.parametrize("length", ["", "0" * 18 + "2000000", "1" + "0" * 18])
def test_a_large_upload_without_a_login_is_not_read(length: str) -> None:
    client = Client(enforce_csrf_checks=True)
    client.cookies["csrftoken"] = "a" * 32
    headers: Any = {"CONTENT_LENGTH": length} if length else {}

    def prepare(parts: int) -> Work:
        form = hostile_form(250 * parts)

        def request() -> None:
            answer = client.generic(
                "POST", "/login/", form, "multipart/form-data; boundary=x", secure=True, **headers
            )
            assert answer.status_code == 302

        return request

    assert growth(prepare, limit=CONSTANT) < CONSTANT


def test_an_upload_without_a_login_leads_to_the_login_and_back() -> None:
    page = "/integrations/webhooks/import/"
    file = SimpleUploadedFile("webhooks.json", b"[" + b" " * 100_000 + b"]")
    answer = Client().post(page, {"file": file}, secure=True)
    assert (answer.status_code, answer["Location"]) == (302, f"/login/?next={page}")


@pytest.mark.parametrize(
    ("start", "piece", "end"),
    [
        ("/admin/r/", "/", "x"),
        ("/integrations/webhooks/oauth/keys/", ".", "/"),
        ("/static/", "a/", ""),
    ],
)
def test_a_long_path_keeps_nothing_busy(start: str, piece: str, end: str) -> None:
    """30 KB once took half a minute, in which the process did nothing else."""

    def prepare(parts: int) -> Work:
        path = start + piece * (8_000 // len(piece)) * parts + end

        def request() -> None:
            answer = Client().get(path, secure=True)
            assert (answer.status_code, answer.text) == (414, "The address is too long.\n")
            assert missing(answer) == {}

        return request

    assert growth(prepare, limit=CONSTANT) < CONSTANT
