"""Builds the token requests with oauthlib; client credentials are sent in exactly one way."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode

from oauthlib.oauth2 import BackendApplicationClient, WebApplicationClient
from oauthlib.oauth2.rfc6749.parameters import prepare_token_request

from webhooks.models import ClientAuthentication, Credential, ExchangeKind, GrantType
from webhooks.oauth import assertions, parameters, providers
from webhooks.oauth.endpoints import callback_url, check_secrets, checked_endpoint
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
    certificate: str = field(repr=False, default="")
    # The code or refresh token works once: it is not sent again before the first response is
    # known. None while a refresh has not shown yet whether the refresh token is single use.
    is_single_use: bool | None = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCredentials:
    """How the client authenticates: in exactly one way (RFC 6749 section 2.3.1)."""

    headers: dict[str, str] = field(repr=False)
    # Keyword arguments for oauthlib's prepare_* functions.
    fields: dict[str, Any] = field(repr=False)
    # Secrets to mask in transcripts, in the form in which they are sent.
    secrets: tuple[str, ...] = field(repr=False, default=())
    # Presented to a server that requests it, whatever the method (RFC 8705): PEM with its key.
    certificate: str = field(repr=False, default="")


def client_credentials(credential: Credential, url: str) -> ClientCredentials:
    """Return the client's credentials in the configured form for a request to a URL.

    Errors: MisconfiguredError, also for a secret that was entered for another origin.
    """
    if url:
        check_secrets(credential, url)
    more = dict(parameters.check_headers(credential.token_headers))
    client_auth = _client_auth(credential)
    return replace(
        client_auth,
        headers={**more, **client_auth.headers},
        secrets=tuple(filter(None, (*client_auth.secrets, *more.values()))),
        certificate=credential.client_certificate,
    )


def _client_auth(credential: Credential) -> ClientCredentials:
    method, secret = credential.client_authentication, credential.client_secret
    is_signed = method in (ClientAuthentication.KEY_JWT, ClientAuthentication.SECRET_JWT)
    if is_signed and (secret or method == ClientAuthentication.KEY_JWT):
        assertion = assertions.client_assertion(credential, credential.token_url)
        fields = {
            "include_client_id": True,
            "client_assertion_type": assertions.CLIENT_ASSERTION,
            "client_assertion": assertion,
        }
        return ClientCredentials(headers={}, fields=fields, secrets=(secret, assertion))
    if not secret or method == ClientAuthentication.CERTIFICATE:
        return ClientCredentials(headers={}, fields={"include_client_id": True})
    if method == ClientAuthentication.REQUEST_BODY:
        fields = {"include_client_id": True, "client_secret": secret}
        return ClientCredentials(headers={}, fields=fields, secrets=(secret,))
    is_raw = method == ClientAuthentication.RAW_BASIC
    value = basic_authorization(credential.client_id, secret, is_raw=is_raw)
    return ClientCredentials(
        headers={"Authorization": value},
        fields={"include_client_id": False},
        secrets=(secret, value.removeprefix("Basic ")),
    )


def basic_authorization(client_id: str, client_secret: str, *, is_raw: bool = False) -> str:
    """Return the header's value; both halves are form-urlencoded (RFC 6749 section 2.3.1).

    `is_raw` skips that encoding, for providers that do not decode it.
    """
    halves = (client_id, client_secret)
    pair = ":".join(halves if is_raw else map(quote_plus, halves))
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def code_request(
    credential: Credential,
    *,
    code: str,
    code_verifier: str,
    redirect_uri: str,
    placeholder_values: Mapping[str, str] | None = None,
) -> TokenRequest:
    """Return the request that exchanges a code. Errors: MisconfiguredError.

    `placeholder_values` are those of the authorization response, for extra parameters.
    """
    client_auth = client_credentials(credential, credential.token_url)
    body = WebApplicationClient(credential.client_id).prepare_request_body(
        code=code,
        redirect_uri=redirect_uri,
        body=urlencode(parameters.extra_parameters(credential, "token", placeholder_values)),
        code_verifier=code_verifier or None,
        **client_auth.fields,
    )
    expected = Expected(
        grant=Grant.CODE,
        redirect_uri=redirect_uri,
        uses_pkce=bool(code_verifier),
        secrets=(code, code_verifier, *(placeholder_values or {}).values()),
    )
    request = _request(credential, credential.token_url, body, client_auth, expected)
    return replace(request, is_single_use=True)


def refresh_request(
    credential: Credential,
    refresh_token: str,
    *,
    is_single_use: bool | None = False,
    placeholder_values: Mapping[str, str] | None = None,
) -> TokenRequest:
    """Return the request of RFC 6749 section 6. Errors: MisconfiguredError."""
    url = credential.refresh_url or credential.token_url
    client_auth = client_credentials(credential, url)
    body = WebApplicationClient(credential.client_id).prepare_refresh_body(
        refresh_token=refresh_token,
        client_id=credential.client_id,
        body=urlencode(parameters.extra_parameters(credential, "refresh", placeholder_values)),
        **client_auth.fields,
    )
    secrets = (refresh_token, *(placeholder_values or {}).values())
    expected = Expected(grant=Grant.REFRESH, secrets=secrets)
    request = _request(credential, url, body, client_auth, expected)
    return replace(request, is_single_use=is_single_use)


def client_credentials_request(credential: Credential) -> TokenRequest:
    """Return the request of RFC 6749 section 4.4. Errors: MisconfiguredError."""
    client_auth = client_credentials(credential, credential.token_url)
    extra = parameters.extra_parameters(credential, "token")
    library = BackendApplicationClient(credential.client_id)
    for name, value in extra:
        if name == "grant_type":
            library.grant_type = value
    body = library.prepare_request_body(
        scope=parameters.scope(credential) or None,
        body=urlencode([pair for pair in extra if pair[0] != "grant_type"]),
        **client_auth.fields,
    )
    expected = Expected(grant=Grant.CLIENT_CREDENTIALS)
    return _request(credential, credential.token_url, body, client_auth, expected)


def machine_request(credential: Credential) -> TokenRequest:
    """Return the token request of a grant that no person approves. Errors: MisconfiguredError."""
    if credential.grant_type != GrantType.JWT_BEARER:
        return client_credentials_request(credential)
    # RFC 7523 section 2.1.
    scope = parameters.scope(credential)
    assertion = assertions.grant_assertion(credential, credential.token_url, scope)
    pairs = [("assertion", assertion), *([("scope", scope)] if scope else [])]
    return _extension_request(credential, Grant.JWT_BEARER, pairs, secrets=(assertion,))


def device_code_request(credential: Credential, device_code: str) -> TokenRequest:
    """Return the request of RFC 8628 section 3.4. Errors: MisconfiguredError."""
    pairs = [("device_code", device_code)]
    return _extension_request(credential, Grant.DEVICE_CODE, pairs, secrets=(device_code,))


def _extension_request(
    credential: Credential, grant: Grant, pairs: parameters.Pairs, *, secrets: tuple[str, ...]
) -> TokenRequest:
    """Return the request of an extension grant (RFC 6749 section 4.5)."""
    client_auth = client_credentials(credential, credential.token_url)
    # Without a client secret the JWT alone identifies the client, which is its issuer; but a
    # certificate is compared with that of the client that is named (RFC 8705 section 2).
    named = {**client_auth.fields}
    by_certificate = credential.client_authentication == ClientAuthentication.CERTIFICATE
    is_alone = not client_auth.headers and len(named) == 1 and not by_certificate
    if grant is Grant.JWT_BEARER and is_alone:
        named["include_client_id"] = False
    extra = urlencode([*parameters.extra_parameters(credential, "token"), *pairs])
    body = prepare_token_request(grant.value, body=extra, client_id=credential.client_id, **named)
    expected = Expected(grant=grant, secrets=secrets)
    return _request(credential, credential.token_url, body, client_auth, expected)


def plain_request(
    credential: Credential, url: str, field: str, kind: ExchangeKind, pairs: parameters.Pairs
) -> TokenRequest:
    """Return a request with the client's credentials to an endpoint that issues no token.

    Errors: MisconfiguredError.
    """
    target = checked_endpoint(url, field)
    client_auth = client_credentials(credential, target.url)
    fields = dict(client_auth.fields)
    if fields.pop("include_client_id"):
        fields["client_id"] = credential.client_id
    # No parameter is sent twice (RFC 6749 section 3.2).
    pairs = [*((name, value) for name, value in pairs if name not in fields), *fields.items()]
    return TokenRequest(
        url=target.url,
        kind=kind,
        headers={**client_auth.headers, "Accept": "application/json", "Content-Type": _FORM},
        pairs=pairs,
        body=urlencode(pairs).encode(),
        expected=Expected(
            authentication=credential.client_authentication, secrets=client_auth.secrets
        ),
        certificate=client_auth.certificate,
    )


def _request(
    credential: Credential, url: str, body: str, client_auth: ClientCredentials, expected: Expected
) -> TokenRequest:
    target = checked_endpoint(url, "token_url")
    pairs = parse_qsl(body, keep_blank_values=True)
    is_json = credential.uses_json_token_request
    is_refresh = expected.grant is Grant.REFRESH
    return TokenRequest(
        url=target.url,
        kind=ExchangeKind.REFRESH if is_refresh else ExchangeKind.TOKEN,
        headers={
            **client_auth.headers,
            "Accept": "application/json",
            "Content-Type": "application/json" if is_json else _FORM,
        },
        certificate=client_auth.certificate,
        pairs=pairs,
        body=json.dumps(parameters.as_mapping(pairs)).encode() if is_json else body.encode(),
        expected=replace(
            expected,
            scope=credential.scope,
            authentication=credential.client_authentication,
            redirect_uri=expected.redirect_uri or callback_url(credential),
            token_path=credential.token_path,
            reauthorization_words=tuple(map(str, credential.reauthorization_words)),
            token_types=(credential.header_prefix, *providers.token_types(credential.provider)),
            secrets=tuple(filter(None, (*client_auth.secrets, *expected.secrets))),
        ),
    )
