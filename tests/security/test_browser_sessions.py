"""Sessions whose keys are not stored in the database."""

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.utils import timezone

from webhooks.security.browser_sessions import SessionStore, stored_key

pytestmark = pytest.mark.django_db


@pytest.fixture
def session() -> SessionStore:
    made = SessionStore()
    made["seen"] = 1
    made.save()
    return made


def test_the_key_of_the_cookie_is_in_no_column(session: SessionStore) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM django_session")
        (row,) = cursor.fetchall()
    assert session.session_key
    assert session.session_key not in str(row)
    assert row[0] == stored_key(session.session_key)


def test_a_stored_key_opens_no_session(session: SessionStore) -> None:
    stolen = SessionStore(Session.objects.get().session_key)
    assert "seen" not in stolen
    # Nor does it become the key of the new session.
    assert stolen.session_key is None


def test_a_session_is_read_saved_and_ended_by_its_key(session: SessionStore) -> None:
    again = SessionStore(session.session_key)
    assert again["seen"] == 1
    again["seen"] = 2
    again.save()
    assert SessionStore(session.session_key)["seen"] == 2
    assert session.exists(session.session_key or "")
    again.delete()
    assert not session.exists(session.session_key or "")
    assert not Session.objects.exists()


def test_async_views_reach_the_same_session(session: SessionStore) -> None:
    again = SessionStore(session.session_key)
    assert async_to_sync(again.aget)("seen") == 1
    async_to_sync(again.aset)("seen", 3)
    async_to_sync(again.asave)()
    assert async_to_sync(again.aexists)(session.session_key or "")
    assert SessionStore(session.session_key)["seen"] == 3
    async_to_sync(again.adelete)()
    assert not Session.objects.exists()


def test_an_expired_session_is_empty(session: SessionStore) -> None:
    Session.objects.update(expire_date=timezone.now())
    assert "seen" not in SessionStore(session.session_key)
    SessionStore.clear_expired()
    assert not Session.objects.exists()


def test_logging_in_changes_the_key_and_logging_out_ends_the_session(client: Client) -> None:
    visitor = client.session
    visitor["seen"] = 1
    visitor.save()
    client.cookies["sessionid"] = visitor.session_key or ""
    client.force_login(get_user_model().objects.create(username="kim"))
    logged_in = client.session
    assert logged_in["seen"] == 1
    assert logged_in.session_key != visitor.session_key
    assert not logged_in.exists(visitor.session_key or "")
    client.logout()
    assert not Session.objects.exists()
