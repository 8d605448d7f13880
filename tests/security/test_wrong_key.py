"""A process with a wrong encryption key sends nothing and changes nothing."""

import datetime as dt
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests import keys
from tests.factories import deliver_all, make_delivery, make_webhook, run_engine
from tests.keys import FIRST_KEY, SECOND_KEY, Keys
from tests.oauth_rows import make_credential, make_machine_webhook, make_token
from tests.sandbox import Provider, Receiver
from tests.ui.webhook_form.test_forms import header_fields, posted
from webhooks import oauth, tasks
from webhooks.alerts import notifications
from webhooks.models import (
    AlertChannel,
    Attempt,
    Credential,
    Delivery,
    Header,
    OAuthExchange,
    OAuthToken,
    Status,
    Webhook,
    headers_as_json,
)

pytestmark = [pytest.mark.security, pytest.mark.usefixtures("counted")]
counted, use_keys = keys.counted, keys.use_keys


def rows_of(*models: Any) -> list[dict[str, Any]]:
    return [row for model in models for row in model.objects.order_by("pk").values()]


def run_engine_for(seconds: float) -> None:
    """Let the engine run for a while."""
    ends = timezone.now() + dt.timedelta(seconds=seconds)
    run_engine(lambda: timezone.now() > ends)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("has_secret", [True, False])
def test_nothing_is_sent_and_nothing_lost_until_the_right_key_is_back(
    use_keys: Keys, receiver: Receiver, has_secret: bool
) -> None:
    webhook = make_webhook(url=f"{receiver.url}/open/")
    if not has_secret:
        # Nothing to decrypt: only the canary can tell.
        Webhook.objects.filter(pk=webhook.pk).update(signing_secret="")
    delivery = make_delivery(webhook)
    use_keys(SECOND_KEY)
    before = rows_of(Webhook, Credential, Delivery)
    run_engine_for(1.0)
    assert receiver.requests() == []
    assert rows_of(Webhook, Credential, Delivery) == before
    assert not Attempt.objects.exists()
    use_keys(FIRST_KEY)
    if has_secret:
        deliver_all()
        delivery.refresh_from_db()
        assert delivery.status == Status.SUCCEEDED


@pytest.mark.django_db(transaction=True)
def test_no_token_is_refreshed(use_keys: Keys, provider: Provider) -> None:
    webhook = make_machine_webhook(provider)
    soon = timezone.now() + dt.timedelta(seconds=5)
    make_token(webhook.credential, expires_at=soon, obtained_at=soon - dt.timedelta(hours=1))
    use_keys(SECOND_KEY)
    before = rows_of(OAuthToken)
    assert tasks.refresh_expiring_tokens() == 0
    with pytest.raises(oauth.TokenUnavailableError):
        oauth.refresh(webhook.credential)
    assert provider.token_requests() == []
    assert not OAuthExchange.objects.exists()
    assert OAuthToken.objects.get().version == before[0]["version"]
    use_keys(FIRST_KEY)
    assert tasks.refresh_expiring_tokens() == 1


@pytest.mark.django_db
@pytest.mark.parametrize("is_new", [True, False])
def test_a_form_is_given_back_with_what_was_typed(use_keys: Keys, is_new: bool) -> None:
    person = get_user_model().objects.create_superuser("admin")
    webhook = make_webhook(authorization_type="basic", basic_login="before", basic_password="p")
    client = Client()
    client.force_login(person)
    edit, create = reverse("webhooks:edit", args=[webhook.pk]), reverse("webhooks:create")
    data = posted(name="Typed name", authorization_type="basic", basic_login="typed-login")
    use_keys(SECOND_KEY)
    before = rows_of(Webhook, Credential)
    answer = client.post(create if is_new else edit, {**data, "basic_password": "typed-password"})
    text = answer.content.decode()
    assert answer.status_code == 200
    assert "the encryption key of this site is not the one" in text
    assert "Typed name" in text
    assert "typed-login" in text
    assert rows_of(Webhook, Credential) == before


@pytest.mark.django_db
def test_headers_of_a_lost_key_are_entered_again(use_keys: Keys) -> None:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("admin"))
    url = "https://crm.test/hook"
    webhook = make_webhook(url=url, headers_json=headers_as_json([Header("X-Key", "k", True)]))
    edit = reverse("webhooks:edit", args=[webhook.pk])
    use_keys(SECOND_KEY)
    keys.replant()
    before = keys.stored(webhook, "headers_json")
    page = client.get(edit)
    assert page.status_code == 200
    assert "The stored headers cannot be decrypted" in page.text
    data = posted(webhook=str(webhook.pk), url=url, name="Renamed")
    assert client.post(reverse("webhooks:preview"), data).status_code == 200
    assert client.post(edit, data | header_fields()).status_code == 302
    assert keys.stored(webhook, "headers_json") == before
    again = header_fields({"name": "X-Key", "value": "new", "is_secret": "on"})
    assert client.post(edit, data | again).status_code == 302
    found = Webhook.objects.get(pk=webhook.pk)
    assert (found.name, found.read_headers()) == ("Renamed", [Header("X-Key", "new", True)])
    assert "stored headers cannot be decrypted" not in client.get(edit).text


@pytest.mark.django_db
def test_a_signing_secret_is_not_rotated_and_a_sentence_says_why(use_keys: Keys) -> None:
    person = get_user_model().objects.create_superuser("admin")
    webhook = make_webhook()
    client = Client()
    client.force_login(person)
    use_keys(SECOND_KEY)
    before = rows_of(Webhook, Credential)
    answer = client.post(reverse("webhooks:rotate_secret", args=[webhook.pk]), follow=True)
    assert "the encryption key of this site is not the one" in answer.content.decode()
    assert rows_of(Webhook, Credential) == before


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("button", "fields"),
    [
        ("authorize", {}),
        ("authorize", {"grant_type": "device_code"}),
        ("paste_token", {}),
        ("restore_secret", {}),
        ("try_authentication", {}),
        ("switch_authentication", {}),
        ("save_as_connection", {}),
    ],
)
def test_buttons_of_the_token_panel_say_why_they_do_nothing(
    use_keys: Keys, provider: Provider, button: str, fields: dict[str, Any]
) -> None:
    person = get_user_model().objects.create_superuser("admin")
    credential = make_credential(provider, **fields)
    make_token(credential, replaced_secret="the one before")
    client = Client()
    client.force_login(person)
    pk = credential.subject.pk if button == "save_as_connection" else credential.pk
    url = reverse(f"webhooks:{button}", args=[pk])
    use_keys(SECOND_KEY)
    before = rows_of(Credential, OAuthToken)
    data = {"refresh_token": "from-elsewhere", "client_authentication": "request_body"}
    answer = client.post(url, data, follow=True)
    assert answer.status_code == 200
    assert "FIELD_ENCRYPTION_KEY" in answer.text
    assert rows_of(Credential, OAuthToken) == before
    assert provider.token_requests() == []


@pytest.mark.django_db
def test_combining_grants_says_why_it_does_nothing(use_keys: Keys, provider: Provider) -> None:
    person = get_user_model().objects.create_superuser("admin")
    credentials = [make_credential(provider) for _ in range(2)]
    for credential in credentials:
        make_token(credential, state="needs_reauthorization")
    client = Client()
    client.force_login(person)
    use_keys(SECOND_KEY)
    before = rows_of(Webhook, Credential, OAuthToken)
    asked = {"credential": [str(one.pk) for one in credentials]}
    answer = client.post(reverse("webhooks:combine_grants"), asked, follow=True)
    assert "FIELD_ENCRYPTION_KEY" in answer.text
    assert rows_of(Webhook, Credential, OAuthToken) == before


@pytest.mark.django_db
@pytest.mark.parametrize("form", ["json", "pem"])
def test_a_provider_is_asked_to_fetch_the_public_key_later(use_keys: Keys, form: str) -> None:
    credential = make_credential(client_key=oauth.make_key())
    address = reverse("webhooks:public_key", args=[credential.uid, form])
    use_keys(SECOND_KEY)
    assert Client().get(address).status_code == 503
    use_keys(FIRST_KEY)
    assert Client().get(address).status_code == 200


@pytest.mark.django_db
def test_an_import_is_given_back_and_a_sentence_says_why(use_keys: Keys) -> None:
    person = get_user_model().objects.create_superuser("admin")
    webhook = make_webhook(name="From a file")
    client = Client()
    client.force_login(person)
    text = client.post(reverse("webhooks:export"), {"webhook": webhook.pk}).content.decode()
    use_keys(SECOND_KEY)
    before = rows_of(Webhook, Credential)
    answer = client.post(reverse("webhooks:import"), {"text": text})
    assert answer.status_code == 422
    assert "the encryption key of this site is not the one" in answer.text
    assert "From a file" in answer.text
    assert rows_of(Webhook, Credential) == before


@pytest.mark.django_db
def test_an_alert_waits_until_the_right_key_is_back(use_keys: Keys, receiver: Receiver) -> None:
    AlertChannel.objects.create(kind="slack", name="Ops", secret=f"{receiver.url}/status/200")
    webhook = make_webhook(is_active=False, pause_reason="gone")
    now = timezone.now()
    use_keys(SECOND_KEY)
    notifications.run(now)
    assert not receiver.requests()
    use_keys(FIRST_KEY)
    notifications.run(now + dt.timedelta(minutes=1))
    [request] = receiver.requests()
    assert f"/{webhook.pk}/" in request.body.decode()
