"""Security headers on every answer of the site: each address, each error, the admin, the API."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import include, path
from pytest_django import Settings

from tests.security.permission_table import LINES, Line
from tests.security.test_permissions import Role, Site, taken_back

pytestmark = [pytest.mark.django_db, pytest.mark.once]

YEAR = 365 * 24 * 3600
EXACT = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": (
        "accelerometer=(), autoplay=(), camera=(), clipboard-write=(self), display-capture=(), "
        "encrypted-media=(), fullscreen=(), geolocation=(), gyroscope=(), magnetometer=(), "
        "microphone=(), midi=(), payment=(), picture-in-picture=(), publickey-credentials-get=(), "
        "screen-wake-lock=(), usb=(), xr-spatial-tracking=()"
    ),
    "Strict-Transport-Security": f"max-age={YEAR}; includeSubDomains; preload",
}
# The callback's address holds a code: no other page learns it, not even one of ours.
REFERRERS = {"same-origin", "no-referrer"}


def fail(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("a mistake in a view")


# The site, with one more address.
urlpatterns = [path("fails/", fail), path("", include("config.urls"))]


@pytest.fixture(autouse=True)
def _as_in_production(settings: Settings) -> None:
    settings.SECURE_HSTS_SECONDS = YEAR
    settings.SECURE_HSTS_INCLUDE_SUBDOMAINS = settings.SECURE_HSTS_PRELOAD = True


@pytest.fixture
def site() -> Site:
    return Site()


def missing(answer: Any) -> dict[str, str | None]:
    """Return the headers of an answer that are not as they have to be."""
    wrong = {name: answer.get(name) for name, text in EXACT.items() if answer.get(name) != text}
    if not answer.get("Cache-Control"):
        wrong["Cache-Control"] = None
    if answer.get("Referrer-Policy") not in REFERRERS:
        wrong["Referrer-Policy"] = answer.get("Referrer-Policy")
    if not is_strict(answer.get("Content-Security-Policy", "")):
        wrong["Content-Security-Policy"] = answer.get("Content-Security-Policy")
    return wrong


def is_strict(policy: str) -> bool:
    """Say whether a policy lets a page run and show nothing but this site's own files."""
    rules = {words[0]: set(words[1:]) for one in policy.split(";") if (words := one.split())}
    nothing, own = {"'none'"}, {"'self'"}
    return (
        all(rules.get(one) == nothing for one in ("default-src", "base-uri", "frame-ancestors"))
        and all(rules.get(one) == own for one in ("script-src", "style-src", "connect-src"))
        and "unsafe" not in policy
        and "*" not in policy.replace("127.0.0.1:*", "").replace("localhost:*", "")
    )


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


@pytest.mark.parametrize("line", LINES, ids=str)
def test_every_address_sends_them_whoever_asks(line: Line, site: Site) -> None:
    roles = (
        Role(name="not logged in", permissions=None),
        Role(name="staff with nothing", permissions=frozenset()),
        Role(name="olena", permissions=frozenset(), is_superuser=True),
    )
    wrong = {}
    for role in roles:
        browser = site.browser(role)
        for method in ("get", "post"):
            with taken_back():
                answer = site.ask(browser, line, method, secure=True)
            if found := missing(answer):
                wrong[f"{role.name} {method} {answer.status_code}"] = found
    assert wrong == {}


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


def test_without_tls_no_browser_is_told_to_insist_on_it() -> None:
    answer = Client().get("/login/")
    assert "Strict-Transport-Security" not in answer
    assert missing(answer).keys() == {"Strict-Transport-Security"}
