"""Refreshing where each refresh token works once and its second use ends the whole grant.

A proxy stands in front of the real provider. Its delays are short, as is the wait in the settings.
"""

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.utils import timezone

from tests.oauth_proxy import ProviderProxy, proxy_to
from tests.oauth_rows import connect, make_credential
from tests.polling import eventually
from tests.sandbox import Provider
from webhooks import oauth
from webhooks.models import Credential, HoldReason, OAuthToken
from webhooks.oauth import client, token_requests, tokens

pytestmark = pytest.mark.django_db(transaction=True)
HOUR = timedelta(hours=1)


@pytest.fixture
def proxy(provider: Provider) -> Iterator[ProviderProxy]:
    with proxy_to(provider) as running:
        yield running


@pytest.fixture
def credential(provider: Provider, proxy: ProviderProxy) -> Credential:
    """Return a credential with a grant whose refreshes go through the proxy."""
    credential = make_credential(provider, token_url=proxy.token_url)
    connect(credential)
    proxy.bodies.clear()
    return credential


def stored() -> OAuthToken:
    return OAuthToken.objects.get()


def refreshes(proxy: ProviderProxy) -> list[bytes]:
    return [body for body in proxy.bodies if b"grant_type=refresh_token" in body]


def wait_until_idle(proxy: ProviderProxy) -> None:
    ends = time.monotonic() + 30
    while proxy.busy and time.monotonic() < ends:
        time.sleep(0.05)
    assert not proxy.busy


@pytest.mark.parametrize("where", ["hold_seconds", "freeze_seconds"])
def test_slow_answer_is_waited_for_and_costs_no_grant(
    credential: Credential,
    proxy: ProviderProxy,
    settings: LazySettings,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    """It may take longer than any other exchange."""
    monkeypatch.setattr(client, "TOTAL_SECONDS", 0.5)
    settings.WEBHOOKS_REFRESH_SECONDS = 30
    setattr(proxy, where, 1.5)

    usable = oauth.usable_token(credential.pk, now=timezone.now() + HOUR)

    assert usable.version == 2
    assert len(refreshes(proxy)) == 1
    assert oauth.usable_token(credential.pk, now=timezone.now() + 2 * HOUR).version == 3


def test_dropped_answer_is_named_and_what_to_set_at_the_provider(
    credential: Credential, proxy: ProviderProxy, provider: Provider
) -> None:
    later = timezone.now() + HOUR
    proxy.drops_answer = True

    with pytest.raises(oauth.TokenUnavailableError, match="was lost") as lost:
        oauth.usable_token(credential.pk, now=later)
    lost_at = stored().response_lost_at
    with pytest.raises(oauth.TokenUnavailableError) as ended:
        oauth.usable_token(credential.pk, now=later + timedelta(seconds=10))

    assert lost_at is not None
    assert lost.value.hold_reason is None
    assert ended.value.hold_reason == HoldReason.REAUTHORIZATION
    sentence = str(ended.value)
    assert f"The response of {lost_at:%Y-%m-%d %H:%M:%S} UTC was lost" in sentence
    assert "counts the refresh token as used" in sentence
    assert "Refresh Token Max Reuse" in sentence
    # In between, a refresh token that does not exist showed that the provider responds.
    first, question, second = refreshes(proxy)
    assert first == second != question


def test_refresh_token_is_not_sent_again_while_the_provider_does_not_answer(
    credential: Credential,
    proxy: ProviderProxy,
    settings: LazySettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A repeat would race the first request, which the provider may still be processing."""
    monkeypatch.setattr(client, "TOTAL_SECONDS", 1.0)
    settings.WEBHOOKS_REFRESH_SECONDS = 1.0
    later = timezone.now() + HOUR
    proxy.freeze_seconds = 4.0

    with pytest.raises(oauth.TokenUnavailableError, match="was lost"):
        oauth.usable_token(credential.pk, now=later)
    proxy.freeze_seconds = 3.0
    with pytest.raises(oauth.TokenUnavailableError, match="was lost"):
        oauth.usable_token(credential.pk, now=later + timedelta(seconds=10))

    # The proxy may note a request after its client gave up.
    eventually(lambda: len(refreshes(proxy)) == 2)
    first, question = refreshes(proxy)
    assert first != question
    assert stored().refresh_failures == 2
    wait_until_idle(proxy)


def test_answer_that_a_dead_process_waited_for_is_lost_too(
    credential: Credential, proxy: ProviderProxy
) -> None:
    row = stored()
    died_at = timezone.now() - timedelta(seconds=5)
    OAuthToken.objects.update(refresh_lease="of-a-process-that-died", refresh_lease_until=died_at)
    # The provider has used the refresh token that the dead process sent.
    used = token_requests.refresh_request(credential, row.refresh_token)
    assert client.send(used)[0].is_ok

    with pytest.raises(oauth.TokenUnavailableError, match="counts the refresh token as used") as it:
        oauth.usable_token(credential.pk, now=timezone.now() + HOUR)

    assert f"{died_at:%H:%M:%S}" in str(it.value)
    assert it.value.hold_reason == HoldReason.REAUTHORIZATION


def test_answer_that_was_cut_off_is_not_asked_for_again_where_tokens_work_once(
    credential: Credential, proxy: ProviderProxy
) -> None:
    OAuthToken.objects.update(is_single_use=True)
    proxy.cuts_answer = True

    with pytest.raises(oauth.TokenUnavailableError, match="was lost"):
        oauth.usable_token(credential.pk, now=timezone.now() + HOUR)

    assert len(refreshes(proxy)) == 1


def test_request_that_never_left_is_no_lost_answer(credential: Credential) -> None:
    secret = credential.client_secret
    credential.token_url = "http://127.0.0.1:9/token"
    credential.set_secret("client_secret", secret)
    credential.save()
    OAuthToken.objects.update(bound_origins=credential.token_origins)

    with pytest.raises(oauth.TokenUnavailableError, match="refused"):
        oauth.usable_token(credential.pk, now=timezone.now() + HOUR)

    assert stored().response_lost_at is None


def test_provider_whose_refresh_tokens_work_often_is_just_asked_again(
    credential: Credential, proxy: ProviderProxy
) -> None:
    OAuthToken.objects.update(is_single_use=False)
    later = timezone.now() + HOUR
    proxy.drops_answer = True

    with pytest.raises(oauth.TokenUnavailableError) as failure:
        oauth.usable_token(credential.pk, now=later)

    assert "lost" not in str(failure.value)
    assert stored().response_lost_at is None


def test_refresh_shows_whether_refresh_tokens_work_once(
    credential: Credential, proxy: ProviderProxy
) -> None:
    assert stored().is_single_use is None

    oauth.usable_token(credential.pk, now=timezone.now() + HOUR)

    assert stored().is_single_use is True


def test_lease_outlasts_the_wait(settings: LazySettings) -> None:
    for seconds in (1, 60, 600):
        settings.WEBHOOKS_REFRESH_SECONDS = seconds
        # The probe before, the wait, and the write.
        assert tokens.lease_seconds() >= client.TOTAL_SECONDS + seconds + 5


def test_refresh_token_is_kept_when_the_access_token_beside_it_is_missing(
    credential: Credential, proxy: ProviderProxy
) -> None:
    later = timezone.now() + HOUR
    old = stored().refresh_token
    proxy.omits_access_token = True

    with pytest.raises(oauth.TokenUnavailableError, match="no access token") as failed:
        oauth.usable_token(credential.pk, now=later)

    row = stored()
    assert failed.value.hold_reason == HoldReason.MISCONFIGURED
    assert "The refresh token was stored" in str(failed.value)
    assert row.refresh_token not in ("", old)
    assert row.is_single_use
    # Sending the used one would end the grant at this provider.
    assert oauth.refresh(credential).version == 2
