"""Builds the requests to a token endpoint with oauthlib's clients, credentials in one way only."""

import base64
import json
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode

from oauthlib.oauth2 import BackendApplicationClient, WebApplicationClient

from webhooks.models import ClientAuthentication, Credential, ExchangeKind
from webhooks.oauth import parameters, providers
from webhooks.oauth.endpoints import callback_url, check_client_secret, checked_endpoint
from webhooks.oauth.errors import Grant
from webhooks.oauth.token_response import Expected

_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A request to a token endpoint, ready to be sent."""

    url: str
    kind: ExchangeKind
    headers: dict[str, str] = field(repr=False)
    pairs: parameters.Pairs = field(repr=False)
    body: bytes = field(repr=False)
    expected: Expected
    # What it presents works once: it is not sent again before the first answer is known. None
    # while that is not known of a refresh token.
    is_single_use: bool | None = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCredentials:
    """How the client says who it is: in exactly one way (RFC 6749 section 2.3.1)."""

    headers: dict[str, str] = field(repr=False)
    # For oauthlib's prepare_ functions.
    fields: dict[str, Any] = field(repr=False)
    # What must not be seen of them, as it is sent.
    secrets: tuple[str, ...] = field(repr=False, default=())


def client_credentials(credential: Credential) -> ClientCredentials:
    """Return the client's credentials as the settings say to send them."""
    secret = credential.client_secret
    if not secret:
        return ClientCredentials(headers={}, fields={"include_client_id": True})
    if credential.client_authentication == ClientAuthentication.REQUEST_BODY:
        fields = {"include_client_id": True, "client_secret": secret}
        return ClientCredentials(headers={}, fields=fields, secrets=(secret,))
    value = basic_authorization(credential.client_id, secret)
    return ClientCredentials(
        headers={"Authorization": value},
        fields={"include_client_id": False},
        secrets=(secret, value.removeprefix("Basic ")),
    )


def basic_authorization(client_id: str, client_secret: str) -> str:
    """Return the header's value; both halves are form-urlencoded (RFC 6749 section 2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def code_request(
    credential: Credential, *, code: str, code_verifier: str, redirect_uri: str
) -> TokenRequest:
    """Return the request that exchanges a code. Errors: MisconfiguredError."""
    proof = client_credentials(credential)
    body = WebApplicationClient(credential.client_id).prepare_request_body(
        code=code,
        redirect_uri=redirect_uri,
        body=urlencode(parameters.extra_of(credential, "token")),
        code_verifier=code_verifier or None,
        **proof.fields,
    )
    expected = Expected(
        grant=Grant.CODE,
        redirect_uri=redirect_uri,
        uses_pkce=bool(code_verifier),
        secrets=(code, code_verifier),
    )
    request = _request(credential, credential.token_url, body, proof, expected)
    return replace(request, is_single_use=True)


def refresh_request(
    credential: Credential, refresh_token: str, *, is_single_use: bool | None = False
) -> TokenRequest:
    """Return the request of RFC 6749 section 6. Errors: MisconfiguredError."""
    proof = client_credentials(credential)
    body = WebApplicationClient(credential.client_id).prepare_refresh_body(
        refresh_token=refresh_token,
        client_id=credential.client_id,
        body=urlencode(parameters.extra_of(credential, "refresh")),
        **proof.fields,
    )
    expected = Expected(grant=Grant.REFRESH, secrets=(refresh_token,))
    url = credential.refresh_url or credential.token_url
    request = _request(credential, url, body, proof, expected)
    return replace(request, is_single_use=is_single_use)


def client_credentials_request(credential: Credential) -> TokenRequest:
    """Return the request of RFC 6749 section 4.4. Errors: MisconfiguredError."""
    proof = client_credentials(credential)
    body = BackendApplicationClient(credential.client_id).prepare_request_body(
        scope=parameters.scope(credential) or None,
        body=urlencode(parameters.extra_of(credential, "token")),
        **proof.fields,
    )
    expected = Expected(grant=Grant.CLIENT_CREDENTIALS)
    return _request(credential, credential.token_url, body, proof, expected)


def _request(
    credential: Credential, url: str, body: str, proof: ClientCredentials, expected: Expected
) -> TokenRequest:
    target = checked_endpoint(url, "token_url")
    check_client_secret(credential, target)
    pairs = parse_qsl(body, keep_blank_values=True)
    is_json = credential.uses_json_token_request
    is_refresh = expected.grant is Grant.REFRESH
    return TokenRequest(
        url=target.url,
        kind=ExchangeKind.REFRESH if is_refresh else ExchangeKind.TOKEN,
        headers={
            "Accept": "application/json",
            "Content-Type": "application/json" if is_json else _FORM,
            **proof.headers,
        },
        pairs=pairs,
        body=_json(pairs) if is_json else body.encode(),
        expected=replace(
            expected,
            scope=credential.scope,
            redirect_uri=expected.redirect_uri or callback_url(credential),
            token_path=credential.token_path,
            reauthorization_words=tuple(map(str, credential.reauthorization_words)),
            token_types=(credential.header_prefix, *providers.token_types(credential.provider)),
            secrets=tuple(filter(None, (*proof.secrets, *expected.secrets))),
        ),
    )


def _json(pairs: parameters.Pairs) -> bytes:
    document: dict[str, Any] = {}
    for name, value in pairs:
        if name not in document:
            document[name] = value
        elif isinstance(document[name], list):
            document[name].append(value)
        else:
            document[name] = [document[name], value]
    return json.dumps(document).encode()
