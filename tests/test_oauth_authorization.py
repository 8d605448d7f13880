"""The authorization code grant: the redirect, the callback, its attacks, the exchange."""

import pytest

from tests.oauth_rows import SESSION, begin, make_user, make_webhook, query_of
from tests.sandbox import Provider, answer_consent
from webhooks import oauth
from webhooks.models import AuthorizationRequest, OAuthToken

pytestmark = pytest.mark.django_db


def test_code_becomes_a_stored_token(provider: Provider) -> None:
    webhook, user = make_webhook(provider), make_user()
    url, _ = begin(webhook, user)
    callback = answer_consent(url)

    returned = oauth.finish_authorization(query_of(callback), user=user, session_key=SESSION)

    token = OAuthToken.objects.get(webhook=returned)
    assert returned == webhook
    assert token.state == "valid"
    assert token.granted_by == user
    assert token.granted_scope == "events:write"
    assert token.has_refresh_token()
    assert oauth.usable_token(webhook.pk).access_token == token.access_token
    assert not AuthorizationRequest.objects.exists()
    (request,) = provider.token_requests()
    assert (request.client_authentication, request.status) == ("basic", 200)
    assert ("redirect_uri", oauth.default_callback_url()) in request.parameters
