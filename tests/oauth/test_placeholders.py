"""Extra parameters with placeholders for what the provider sent back in the browser."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.oauth_fakes import FakeProvider, Reply, token
from tests.oauth_rows import SESSION, begin, make_credential, make_machine_webhook, make_user
from tests.sandbox import Provider
from webhooks import oauth
from webhooks.models import Credential, OAuthExchange, OAuthToken
from webhooks.oauth import tokens

pytestmark = [pytest.mark.django_db, pytest.mark.once]

DEVICE = "Zq3dW-device-of-vk-Lm8x2"
TAKES_DEVICE = {"device_id": "{callback.device_id}"}


def credential_at(fake: FakeProvider, **fields: Any) -> Credential:
    return make_credential(token_url=fake.token_url, scope="", **fields)


def authorize(fake: FakeProvider, credential: Credential, **answer: str) -> dict[str, str]:
    user = make_user()
    _, sent = begin(credential, user)
    fake.reply(token(refresh_token="fresh-refresh", expires_in=60))
    query = {"code": ["the-code"], "state": [sent["state"]]}
    query |= {name: [value] for name, value in answer.items()}
    oauth.finish_authorization(query, user=user, session_key=SESSION)
    return sent


def test_vk_id_gets_its_device_back_with_the_code_and_each_refresh(fake: FakeProvider) -> None:
    credential = credential_at(fake, token_parameters=TAKES_DEVICE, refresh_parameters=TAKES_DEVICE)

    authorize(fake, credential, device_id=DEVICE, type="code_v2")
    later = timezone.now() + timedelta(hours=1)
    for hours in (1, 2):
        oauth.usable_token(credential.pk, now=later + timedelta(hours=hours))

    grants = [(one.fields["grant_type"], one.fields["device_id"]) for one in fake.requests]
    assert grants == [("authorization_code", DEVICE), *[("refresh_token", DEVICE)] * 2]
    assert all(DEVICE not in f"{one.request}{one.response}" for one in OAuthExchange.objects.all())


def test_state_that_a_token_request_repeats_is_at_hand(fake: FakeProvider) -> None:
    """Naver and Dropbox Sign require it, the latter in JSON."""
    credential = credential_at(
        fake, token_parameters={"state": "{callback.state}"}, uses_json_token_request=True
    )

    sent = authorize(fake, credential)

    assert fake.requests[-1].json["state"] == sent["state"]


def test_value_that_did_not_come_back_is_named_and_nothing_is_sent(fake: FakeProvider) -> None:
    for parameters in ({"token_parameters": TAKES_DEVICE}, {"refresh_parameters": TAKES_DEVICE}):
        with pytest.raises(oauth.AuthorizationError, match=r"“device_id”.*\{callback\.device_id\}"):
            authorize(fake, credential_at(fake, **parameters))

    assert fake.requests == []
    assert not OAuthToken.objects.exists()


def test_refresh_whose_value_is_not_there_waits_for_the_settings(fake: FakeProvider) -> None:
    credential = credential_at(fake)
    authorize(fake, credential)
    Credential.objects.update(refresh_parameters=TAKES_DEVICE)

    with pytest.raises(oauth.TokenUnavailableError, match="device_id") as failure:
        oauth.usable_token(credential.pk, now=timezone.now() + timedelta(hours=1))

    assert failure.value.hold_reason == "misconfigured"
    assert len(fake.requests) == 1


def test_refresh_may_name_the_callback_url(fake: FakeProvider) -> None:
    credential = credential_at(fake, refresh_parameters={"redirect_uri": "{callback_url}"})
    authorize(fake, credential)

    oauth.usable_token(credential.pk, now=timezone.now() + timedelta(hours=1))

    assert fake.requests[-1].fields["redirect_uri"] == fake.requests[0].fields["redirect_uri"]


def test_secret_goes_by_another_name_and_is_seen_nowhere(fake: FakeProvider) -> None:
    """TikTok for Business and others call it “secret”."""
    extra = {"secret": "{client_secret}"}
    credential = credential_at(
        fake,
        token_parameters=extra,
        refresh_parameters=extra,
        client_authentication="request_body",
        client_secret="the-secret-of-the-client",
    )
    authorize(fake, credential)
    oauth.usable_token(credential.pk, now=timezone.now() + timedelta(hours=1))

    assert [one.fields["secret"] for one in fake.requests] == ["the-secret-of-the-client"] * 2
    kept = "".join(f"{one.request}{one.response}" for one in OAuthExchange.objects.all())
    assert "secret=…" in kept
    assert "the-secret-of" not in kept


def test_secret_is_not_sent_in_two_ways_nor_elsewhere(fake: FakeProvider) -> None:
    extra = {"secret": "{client_secret}"}
    with pytest.raises(oauth.AuthorizationError, match="Client credentials in body"):
        authorize(fake, credential_at(fake, token_parameters=extra))

    body = {"client_authentication": "request_body", "token_parameters": extra}
    credential = credential_at(fake, **body)
    Credential.objects.update(secret_origins={"client_secret": ["https://other.example"]})
    credential.refresh_from_db()
    with pytest.raises(oauth.AuthorizationError, match="Enter it again"):
        authorize(fake, credential)

    assert fake.requests == []


@pytest.mark.parametrize(
    "value", ["{callback.}", "{callback}", "x{callback.device_id}", "{device_id}", "{}", '{"a":1}']
)
def test_any_other_value_is_sent_as_it_is(fake: FakeProvider, value: str) -> None:
    authorize(fake, credential_at(fake, token_parameters={"hint": value}), device_id=DEVICE)

    assert fake.requests[-1].fields["hint"] == value


def test_nothing_comes_back_where_no_browser_is_sent(provider: Provider) -> None:
    credential = make_machine_webhook(provider, token_parameters=TAKES_DEVICE).credential

    with pytest.raises(oauth.TokenUnavailableError, match="device_id"):
        oauth.usable_token(credential.pk)

    assert provider.token_requests() == []


def test_values_go_with_the_token(fake: FakeProvider) -> None:
    credential = credential_at(fake, refresh_parameters=TAKES_DEVICE)
    authorize(fake, credential, device_id=DEVICE)
    assert tokens.stored_placeholder_values(OAuthToken.objects.get()) == {"device_id": DEVICE}

    fake.reply(Reply(status=400, body={"error": "invalid_grant"}))
    oauth.clear_token(credential)

    assert tokens.stored_placeholder_values(OAuthToken.objects.get()) == {}
