"""Logging in: guesses are counted, what is locked and for how long, and what a session survives."""

import datetime as dt
import re
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.test import Client, RequestFactory
from django.utils import timezone
from pytest_django import Settings

from webhooks.ui.account.login import client_address

pytestmark = pytest.mark.django_db

PASSWORD = "the right password of the tests"
LOGIN, ADMIN_LOGIN = "/login/", "/admin/login/"
HOME = "127.0.0.1"


@pytest.fixture(autouse=True)
def _accounts() -> None:
    for name in ("olena", "taras"):
        get_user_model().objects.create_superuser(name, password=PASSWORD)


def log_in(password: str, *, name: str = "olena", page: str = LOGIN, address: str = HOME) -> Any:
    data = {"username": name, "password": password}
    return Client().post(page, data, REMOTE_ADDR=address)


def guess(times: int = 5, **given: Any) -> Any:
    for number in range(times):
        answer = log_in(f"guess {number}", **given)
    return answer


def is_logged_in(client: Client) -> bool:
    return client.get("/integrations/webhooks/connections/").status_code == 200


def test_the_fifth_wrong_password_locks_and_says_how_long() -> None:
    assert guess(4).status_code == 200
    answer = log_in("another guess")
    assert answer.status_code == 429
    assert answer["Retry-After"] == "900"
    assert "Wait 15 minutes, then try again." in answer.text
    assert answer.text.count('role="alert"') == 1


def test_while_locked_the_right_password_is_refused_too() -> None:
    guess()
    assert log_in(PASSWORD).status_code == 429


@pytest.mark.parametrize(("first", "then"), [(LOGIN, ADMIN_LOGIN), (ADMIN_LOGIN, LOGIN)])
def test_both_logins_count_together(first: str, then: str) -> None:
    guess(3, page=first)
    answer = guess(2, page=then)
    assert answer.status_code == 429
    assert "Wait 15 minutes" in answer.text


def test_the_admin_s_next_page_survives_the_lock() -> None:
    guess()
    data = {"username": "olena", "password": "x", "next": "/admin/webhooks/"}
    answer = Client().post(ADMIN_LOGIN, data, REMOTE_ADDR=HOME)
    assert 'name="next" value="/admin/webhooks/"' in answer.text


def test_the_lock_ends_when_it_said_even_if_somebody_goes_on_trying() -> None:
    guess()
    AccessAttempt.objects.update(attempt_time=timezone.now() - dt.timedelta(minutes=10))
    answer = guess(3)
    assert "Wait 5 minutes" in answer.text
    AccessAttempt.objects.update(attempt_time=timezone.now() - dt.timedelta(minutes=16))
    assert log_in(PASSWORD).status_code == 302


def test_no_one_else_at_the_same_address_is_locked_out() -> None:
    guess()
    assert log_in(PASSWORD, name="taras").status_code == 302


def test_the_person_is_not_locked_out_elsewhere() -> None:
    guess(address="203.0.113.9")
    assert log_in(PASSWORD, address="198.51.100.7").status_code == 302


def test_an_unknown_account_answers_as_a_known_one() -> None:
    known = [guess(4), guess(1)]
    unknown = [guess(4, name="nobody"), guess(1, name="nobody")]
    for one, other in zip(known, unknown, strict=True):
        texts = [re.sub(r'value="[^"]*"|csrftoken.*', "", page.text) for page in (one, other)]
        assert one.status_code == other.status_code
        assert texts[0] == texts[1]


def test_a_success_forgets_the_failures_before_it() -> None:
    guess(4)
    log_in(PASSWORD)
    assert guess(4).status_code == 200


def test_another_browser_at_the_address_is_the_same_guesser() -> None:
    for number in range(5):
        answer = Client(HTTP_USER_AGENT=f"browser {number}").post(
            LOGIN, {"username": "olena", "password": "x"}
        )
    assert answer.status_code == 429


def test_the_login_page_itself_stays_open() -> None:
    guess()
    assert Client().get(LOGIN).status_code == 200


def test_no_typed_password_and_no_name_is_stored_or_logged_beside_the_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    log_in("canary-password", name="canary-name")
    stored = str(AccessAttempt.objects.values().get())
    assert "canary-password" not in stored + caplog.text
    # People type passwords into the username field, so only a digest of it is counted.
    assert "canary-name" not in stored + caplog.text


# ---- Client addresses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "forwarded", "counted"),
    [
        (1, "198.51.100.7", "198.51.100.7"),
        (1, "10.9.9.9, 198.51.100.7", "198.51.100.7"),
        (2, "10.9.9.9, 198.51.100.7, 192.0.2.1", "198.51.100.7"),
        (1, "198.51.100.7:4711", "198.51.100.7"),
        (1, "[2001:db8:1:2:3::4]:4711", "2001:db8:1:2::"),
        (1, "::ffff:198.51.100.7", "198.51.100.7"),
        (1, "fe80::1%eth0", "fe80::"),
        # No proxy wrote this: the address of the connection is counted.
        (1, "nonsense", "192.0.2.99"),
        (1, "", "192.0.2.99"),
        (3, "198.51.100.7", "192.0.2.99"),
        (0, "198.51.100.7", "192.0.2.99"),
    ],
)
@pytest.mark.once
def test_behind_proxies_the_address_is_the_one_they_wrote(
    settings: Settings, count: int, forwarded: str, counted: str
) -> None:
    settings.BEHIND_TLS_PROXY, settings.TRUSTED_PROXY_COUNT = True, count
    headers = {"HTTP_X_FORWARDED_FOR": forwarded} if forwarded else {}
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.99", **headers)
    assert client_address(request) == counted


@pytest.mark.once
def test_without_a_proxy_the_header_is_anybody_s_and_counts_for_nothing() -> None:
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.99", HTTP_X_FORWARDED_FOR="10.9.9.9")
    assert client_address(request) == "192.0.2.99"


def test_a_guesser_with_a_whole_ipv6_network_is_one_guesser() -> None:
    for number in range(5):
        answer = log_in("x", address=f"2001:db8::{number + 1:x}")
    assert answer.status_code == 429
    assert log_in(PASSWORD, address="2001:db8:0:1::1").status_code == 302


# ---- Sessions ---------------------------------------------------------------------------------


def test_a_login_gives_the_session_a_new_key() -> None:
    client = Client()
    client.get(LOGIN)
    session = client.session
    session["before"] = "kept"
    session.save()
    client.cookies["sessionid"] = str(session.session_key)
    client.post(LOGIN, {"username": "olena", "password": PASSWORD})
    assert client.session.session_key != session.session_key
    assert is_logged_in(client)
    thief = Client()
    thief.cookies["sessionid"] = str(session.session_key)
    assert not is_logged_in(thief)


def test_the_session_cookie_is_for_this_site_s_pages_alone(settings: Settings) -> None:
    settings.SESSION_COOKIE_SECURE = True
    client = Client()
    client.post(LOGIN, {"username": "olena", "password": PASSWORD}, secure=True)
    cookie = client.cookies["sessionid"]
    assert cookie["httponly"]
    assert cookie["secure"]
    assert (cookie["samesite"], cookie["max-age"]) == ("Lax", 12 * 3600)


def test_a_session_ends_on_the_server_too() -> None:
    client = Client()
    client.post(LOGIN, {"username": "olena", "password": PASSWORD})
    Session.objects.update(expire_date=timezone.now() - dt.timedelta(seconds=1))
    assert not is_logged_in(client)


def test_logging_out_ends_the_session_and_not_only_the_cookie() -> None:
    client = Client()
    client.post(LOGIN, {"username": "olena", "password": PASSWORD})
    key = client.cookies["sessionid"].value
    client.post("/logout/")
    thief = Client()
    thief.cookies["sessionid"] = key
    assert not is_logged_in(thief)


def test_a_changed_password_logs_out_every_other_browser() -> None:
    mine, other = Client(), Client()
    for client in (mine, other):
        client.post(LOGIN, {"username": "olena", "password": PASSWORD})
    new = "another long password 42"
    data = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    assert mine.post("/admin/password_change/", data).status_code == 302
    assert is_logged_in(mine)
    assert not is_logged_in(other)


def test_a_deactivated_account_is_out_at_once() -> None:
    client = Client()
    client.post(LOGIN, {"username": "olena", "password": PASSWORD})
    get_user_model().objects.filter(username="olena").update(is_active=False)
    assert not is_logged_in(client)
