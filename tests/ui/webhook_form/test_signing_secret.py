"""Showing the signing secret again."""

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from tests.factories import make_webhook
from tests.people import logged_in
from webhooks.models import Action, AuditEntry

pytestmark = [pytest.mark.django_db, pytest.mark.once]


@pytest.fixture
def browser() -> Client:
    client = logged_in(is_superuser=True)
    user = get_user_model().objects.get()
    user.set_password("right password")
    user.save()
    client.force_login(user)
    return client


@pytest.mark.slow
def test_the_secret_is_shown_once_for_a_password_and_the_trail_names_who(browser: Client) -> None:
    webhook = make_webhook()
    edit = reverse("webhooks:edit", args=[webhook.pk])
    address = reverse("webhooks:reveal_secret", args=[webhook.pk])
    assert address in browser.get(edit).text
    wrong = browser.post(address, {"password": "wrong"})
    assert wrong.status_code == 422
    assert "The password is wrong." in wrong.text
    assert webhook.signing_secret not in browser.get(edit).text
    answer = browser.post(address, {"password": "right password"}, follow=True)
    assert webhook.signing_secret in answer.text
    assert webhook.signing_secret not in browser.get(edit).text
    entry = AuditEntry.objects.get(action=Action.SECRET_REVEALED)
    assert (entry.webhook, entry.username) == (webhook, "admin")
