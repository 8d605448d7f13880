"""Audit entries for what the engine does to grants, and people to accounts."""

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from tests.audit.test_changes import entries, only
from tests.oauth_fakes import FakeProvider, Reply
from tests.oauth_rows import make_credential, make_token, token_after_refusal
from tests.people import logged_in
from webhooks import audit, oauth
from webhooks.models import Action, Credential, Webhook

pytestmark = pytest.mark.django_db


@pytest.fixture
def browser() -> Client:
    return logged_in(name="olena", is_staff=True, is_superuser=True)


def credential_at(fake: FakeProvider) -> Credential:
    return make_credential(token_url=fake.token_url)


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        (Reply(status=400, body={"error": "invalid_grant"}), "Needs re-authorization"),
        (Reply(status=401, body={"error": "invalid_client"}), "Misconfigured"),
    ],
)
def test_a_grant_that_is_lost_is_written_down_once(
    fake: FakeProvider, answer: Reply, note: str
) -> None:
    credential = credential_at(fake)
    make_token(credential)
    fake.reply(answer)
    for _ in range(2):
        with pytest.raises(oauth.TokenUnavailableError):
            token_after_refusal(credential, 1)
    entry = only(Action.AUTHORIZATION_LOST)
    assert (entry.username, entry.webhook_id) == ("", Webhook.objects.get().pk)
    assert audit.sentence(entry.note) == note


def test_a_refresh_that_time_can_heal_loses_nothing(fake: FakeProvider) -> None:
    credential = credential_at(fake)
    make_token(credential)
    fake.reply(Reply(status=503))
    with pytest.raises(oauth.TokenUnavailableError):
        oauth.refresh(credential)
    assert not entries()


def test_accounts_and_groups_are_written_down_without_passwords(browser: Client) -> None:
    password = "another-long-1-2-3"
    data = {"username": "taras", "password1": password, "password2": password,
            "usable_password": "true"}  # fmt: skip
    browser.post("/admin/auth/user/add/", data)
    taras = get_user_model().objects.get(username="taras")
    page = f"/admin/auth/user/{taras.pk}/"
    browser.post(f"{page}change/", {"username": "taras", "is_active": "on", "is_staff": "on"})
    browser.post(f"{page}password/", data)
    browser.post("/admin/auth/group/add/", {"name": "Support"})
    browser.post(f"{page}delete/", {"post": "yes"})
    found = [(one.action, one.object_type, one.object_name, one.fields) for one in entries()]
    assert found == [
        ("created", "user", "taras", []),
        ("changed", "user", "taras", ["is_staff"]),
        ("changed", "user", "taras", ["password"]),
        ("created", "group", "Support", []),
        ("deleted", "user", "taras", []),
    ]
    assert password not in str([one.__dict__ for one in entries()])
