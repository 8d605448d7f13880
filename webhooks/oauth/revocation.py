"""Revokes tokens at the provider (RFC 7009): best effort, refresh token first."""

import re
from dataclasses import replace
from typing import Literal

from webhooks.models import Credential, ExchangeKind, OAuthToken, origin_of
from webhooks.oauth import client, exchange_log, token_requests, token_response
from webhooks.oauth.errors import MisconfiguredError, TokenResult, stored
from webhooks.oauth.granted_token import GrantedToken
from webhooks.oauth.token_errors import normalized
from webhooks.security.encryption import SecretUnreadableError

# A person waits for the request, and nothing depends on its response.
_SECONDS = 4.0

Hint = Literal["access_token", "refresh_token"]
# An issued token with its type.
IssuedToken = tuple[Hint, str]


# Providers where revoking one token ends every grant of the same person to this client: Google's
# documentation of token revocation; Keycloak's TokenRevocationEndpoint; Auth0 unless the tenant's
# "Refresh Token Revocation Deletes Grant" is off; Xero, which removes all connections of the app;
# Discord, which revokes all tokens of the authorization.
_ENDS_ALL = re.compile(
    r"https://oauth2\.googleapis\.com/|https://accounts\.google\.com/"
    r"|https?://[^?]*/protocol/openid-connect/revoke|https://[^/?]*\.auth0\.com/"
    r"|https://identity\.xero\.com/|https://(?:[a-z]+\.)?discord(?:app)?\.com/"
)


def revoke_replaced(credential: Credential, before: list[IssuedToken]) -> None:
    """Revoke the refresh token that a new grant replaced, unless that would end the new grant."""
    after = {token for _hint, token in stored_tokens(credential.pk)}
    old = [(hint, token) for hint, token in before if hint == "refresh_token"]
    if not _ENDS_ALL.match(credential.revocation_url):
        revoke(credential, [one for one in old if one[1] not in after])


def stored_tokens(credential_id: int) -> list[IssuedToken]:
    """Return the stored tokens; none if unreadable or not bound to the revocation URL's origin."""
    row = OAuthToken.objects.filter(credential_id=credential_id).first()
    if row is None or origin_of(row.credential.revocation_url) not in row.bound_origins:
        return []
    try:
        return [("refresh_token", row.refresh_token), ("access_token", row.access_token)]
    except SecretUnreadableError:
        return []


def revoke_unstored(credential: Credential, token: GrantedToken, origins: list[str]) -> None:
    """Revoke a token that came too late to be stored, unless another one is in use by now.

    Revoking it could end that one too. `origins` are those that the token may be sent to.
    """
    row = OAuthToken.objects.filter(credential_id=credential.pk).first()
    in_use = row is not None and (row.has_access_token() or row.has_refresh_token())
    if not in_use and origin_of(credential.revocation_url) in origins:
        came: list[IssuedToken] = [
            ("refresh_token", token.refresh_token),
            ("access_token", token.access_token),
        ]
        revoke(credential, came)


def revoke(credential: Credential, issued: list[IssuedToken]) -> bool:
    """Ask the provider to revoke tokens; return whether it revoked all of them."""
    if not credential.revocation_url:
        return False
    # RFC 7009 section 2.1: most providers revoke the access tokens with the refresh token, but not
    # all, so each token is revoked.
    done = [_revoke(credential, hint, token) for hint, token in issued if token]
    return bool(done) and all(done)


def _revoke(credential: Credential, hint: Hint, token: str) -> bool:
    try:
        request = _request(credential, hint, token)
    except (MisconfiguredError, SecretUnreadableError):
        return False
    answer, transcript, raw = client.send_once(request, seconds=_SECONDS)
    # Other errors, such as unsupported_token_type: the token is not revoked, and a retry would not
    # help. Slack, TikTok and VK ID send errors with status 200; Google calls a token invalid that
    # ended with the refresh token, which is no error in RFC 7009 section 2.2.
    is_accepted = 200 <= raw.status < 300 and not token_response.is_refusal(raw)
    is_done = is_accepted or normalized(answer.reason) == "invalid_token"
    result = TokenResult.OK if is_done else answer.result
    message = "" if is_done else stored("not_revoked")
    exchange_log.record(credential, transcript, result=result, message=message)
    return is_done


def _request(credential: Credential, hint: Hint, token: str) -> token_requests.TokenRequest:
    request = token_requests.plain_request(
        credential,
        credential.revocation_url,
        "revocation_url",
        ExchangeKind.REVOCATION,
        [("token", token), ("token_type_hint", hint)],
    )
    secrets = (*request.expected.secrets, token)
    return replace(request, expected=replace(request.expected, secrets=secrets))
