"""Grants that ended together: authorized one after another, or made into one connection."""

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from tests.factories import deliver_all, make_delivery
from tests.oauth_rows import make_token, make_webhook
from tests.sandbox import Provider, Receiver, answer_consent
from tests.ui.webhook_form.test_token_views import come_back
from webhooks.models import AuditEntry, OAuthToken, TokenState, Webhook

pytestmark = pytest.mark.django_db
PAGE = reverse("webhooks:grants")


def webhooks_with_ended_grants(
    provider: Provider, person: Any, count: int, **fields: Any
) -> list[Webhook]:
    """Return webhooks whose grants by this person have ended."""
    found = [make_webhook(provider, name=f"CRM {number}", **fields) for number in range(count)]
    for webhook in found:
        make_token(webhook.credential, state="needs_reauthorization", granted_by=person)
    return found


def me(browser: Client) -> Any:
    return get_user_model().objects.get(pk=browser.session["_auth_user_id"])


def test_each_is_authorized_and_leads_back_until_nothing_waits(
    browser: Client, provider: Provider
) -> None:
    webhooks = webhooks_with_ended_grants(provider, me(browser), 2)
    assert f'href="{PAGE}"' in browser.get(reverse("webhooks:connections")).content.decode()
    # A valid grant is not listed, nor one that no one can approve or that nothing uses.
    valid = make_webhook(provider, name="Valid")
    make_token(valid.credential)

    for webhook in webhooks:
        page = browser.get(PAGE).content.decode()
        address = reverse("webhooks:authorize", args=[webhook.credential_id])
        assert address in page
        assert "Valid" not in page
        begun = browser.post(address, {"series": "1"})
        back = come_back(browser, answer_consent(begun["Location"]))
        assert back["Location"] == PAGE
    page = browser.get(PAGE).content.decode()

    assert "“CRM 1” is authorized." in page
    assert "Nothing to authorize" in page
    assert f'href="{PAGE}"' not in browser.get(reverse("webhooks:connections")).content.decode()
    # From another page, the button leads back to the panel.
    OAuthToken.objects.update(state=TokenState.NEEDS_REAUTHORIZATION)
    begun = browser.post(reverse("webhooks:authorize", args=[webhooks[0].credential_id]))
    assert come_back(browser, answer_consent(begun["Location"]))["Location"].endswith("#token")


@pytest.mark.django_db(transaction=True)
def test_one_connection_of_them_takes_one_approval(
    browser: Client, provider: Provider, receiver: Receiver
) -> None:
    urls = [receiver.url, "https://other.example/hook", receiver.url]
    webhooks = webhooks_with_ended_grants(
        provider, me(browser), 3, scope="events:write offline_access"
    )
    for webhook, url in zip(webhooks, urls, strict=True):
        webhook.url = url
        webhook.accepts_plain_http = True
        webhook.event_types = ["call.*"] if url == receiver.url else []
        webhook.save()
    delivery = make_delivery(webhooks[0])
    deliver_all()
    delivery.refresh_from_db()
    assert delivery.hold_reason == "reauthorization"
    assert reverse("webhooks:combine_grants") in browser.get(PAGE).content.decode()

    asked = {"credential": [str(one.credential_id) for one in webhooks]}
    begun = browser.post(reverse("webhooks:combine_grants"), asked)
    come_back(browser, answer_consent(begun["Location"]))

    used = {one.credential for one in Webhook.objects.all()}
    (connection,) = used
    assert connection.is_shared
    assert (
        set(connection.receiver_origins)
        == {
            receiver.url.rpartition("/")[0].rstrip("/"),
            "https://other.example",
        }
        or len(connection.receiver_origins) == 2
    )
    assert OAuthToken.objects.get(credential=connection).state == "valid"
    assert "Nothing to authorize" in browser.get(PAGE).content.decode()
    deliver_all()
    delivery.refresh_from_db()
    assert delivery.status == "succeeded"
    # Each webhook's change, and the connection, are in the audit trail.
    assert AuditEntry.objects.filter(action="created", object_type="connection").count() == 1
    assert AuditEntry.objects.filter(action="changed").count() == 3


def test_what_is_not_the_same_client_is_not_made_one(browser: Client, provider: Provider) -> None:
    person = me(browser)
    first, second = webhooks_with_ended_grants(provider, person, 1) + webhooks_with_ended_grants(
        provider, person, 1, client_id="other"
    )
    assert reverse("webhooks:combine_grants") not in browser.get(PAGE).content.decode()

    for asked in ([first, second], [first], []):
        data = {"credential": [str(one.credential_id) for one in asked] + ["x", "999", "9" * 5000]}
        assert browser.post(reverse("webhooks:combine_grants"), data)["Location"] == PAGE

    assert not any(one.credential.is_shared for one in Webhook.objects.all())
