"""The authorization code grant: send the browser to the provider, and handle its response.

requests-oauthlib builds the URL. State and code verifier are stored in the database, never in a
session or cookie; they are bound to the browser's session, its user and the credential, and are
single use.
"""

import secrets as random
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from urllib.parse import parse_qsl, urlencode, urlsplit

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.utils import timezone
from oauthlib.oauth2 import WebApplicationClient

from webhooks.models import AuthorizationRequest, Credential, ExchangeKind
from webhooks.oauth import (
    callback,
    client,
    endpoints,
    exchange_log,
    granted_token,
    parameters,
    revocation,
    token_requests,
    tokens,
)
from webhooks.oauth.callback import User, hashed
from webhooks.oauth.errors import (
    AuthorizationError,
    MisconfiguredError,
    TokenResult,
    UnusableResponseError,
    joined,
    stored,
)
from webhooks.oauth.exchange_log import Transcript
from webhooks.oauth.token_response import TokenResponse
from webhooks.security.encryption import SecretUnreadableError

_MINUTES = 10
# RFC 7636 section 4.1 allows 43 to 128 characters; 64 of 66 have 386 random bits.
_VERIFIER_LENGTH = 64


def begin_authorization(
    credential: Credential, *, user: User, session_key: str, now: datetime | None = None
) -> str:
    """Begin an authorization; return the URL to redirect to. Errors: AuthorizationError."""
    if not endpoints.uses_authorization_code(credential):
        raise AuthorizationError(stored("not_interactive"), credential)
    if not session_key or not user.is_authenticated:
        raise AuthorizationError(stored("no_session"), credential)
    state = random.token_urlsafe(32)
    library = WebApplicationClient(credential.client_id)
    verifier = library.create_code_verifier(_VERIFIER_LENGTH) if credential.uses_pkce else ""
    redirect_uri = endpoints.callback_url(credential)
    try:
        url = authorization_url(
            credential, library, state, verifier, redirect_uri, nonce=_nonce(credential, state)
        )
    except MisconfiguredError as error:
        raise AuthorizationError(error.message, credential) from error
    except ValueError as error:
        raise AuthorizationError(str(error), credential) from error
    AuthorizationRequest.objects.create(
        state_hash=hashed(state),
        credential=credential,
        user_id=user.pk,
        session_hash=hashed(session_key),
        code_verifier=verifier,
        redirect_uri=redirect_uri,
        issuer=credential.issuer,
        requires_issuer=credential.requires_issuer,
        client_fingerprint=endpoints.client_fingerprint(credential),
        expires_at=(now or timezone.now()) + timedelta(minutes=_MINUTES),
    )
    return url


def finish_authorization(
    query: Mapping[str, list[str]],
    *,
    user: User,
    session_key: str,
    now: datetime | None = None,
) -> Credential:
    """Check the authorization response, exchange its code and store the token.

    Errors: AuthorizationError, with a credential only if this person began the authorization.
    """
    moment = now or timezone.now()
    answer = callback.read_query(query)
    callback.check_state(answer)
    found = callback.take_request(
        answer.get("state", ""), user=user, session_key=session_key, now=moment
    )
    try:
        _finish(found, answer, user, now)
    except SecretUnreadableError as error:
        raise AuthorizationError(str(error), found.credential) from error
    return found.credential


def authorization_url(
    credential: Credential,
    library: WebApplicationClient,
    state: str,
    verifier: str,
    redirect_uri: str,
    *,
    nonce: str = "",
) -> str:
    """Return the URL of RFC 6749 section 4.1.1. Errors: MisconfiguredError, ValueError."""
    endpoints.check_callback_url(redirect_uri)
    endpoints.checked_endpoint(credential.token_url, "token_url")
    target = endpoints.checked_endpoint(credential.auth_url, "auth_url")
    if not credential.client_id:
        raise MisconfiguredError(stored("missing_field", field="client_id"))
    # The parsed URL has an ASCII host name; a redirect would percent-encode a Unicode one.
    parts = urlsplit(target.url)
    own = parse_qsl(parts.query, keep_blank_values=True)
    parameters.check_query(own, "auth_url")
    extra = parameters.extra_parameters(credential, "authorization")
    # No parameter is sent twice (RFC 6749 section 3.1): the fields override Auth URL's query.
    own = [(name, value) for name, value in own if name not in dict(extra)]
    query = urlencode([*own, *extra])
    # The library accepts https only; http, already checked to be loopback, is restored below.
    address = parts._replace(scheme="https", query=query).geturl()
    proof = {"nonce": nonce} if nonce and "nonce" not in credential.authorization_parameters else {}
    if verifier:
        challenge = library.create_code_challenge(verifier, "S256")
        proof |= {"code_challenge": challenge, "code_challenge_method": "S256"}
    session = client.ProviderSession(
        library, redirect_uri=redirect_uri, scope=parameters.scope(credential) or None
    )
    built: str
    built, _state = session.authorization_url(address, state=state, **proof)
    return urlsplit(built)._replace(scheme=parts.scheme).geturl()


def _nonce(credential: Credential, state: str) -> str:
    """Return the nonce that the ID token has to repeat (OpenID Connect Core 1.0 section 3.1.2.1).

    It is derived from the state, which also comes back, so that it need not be stored.
    """
    if "openid" not in credential.scope.replace(",", " ").split():
        return ""
    return str(credential.authorization_parameters.get("nonce") or hashed(f"nonce of {state}"))


def _finish(
    found: AuthorizationRequest, answer: Mapping[str, str], user: User, now: datetime | None
) -> None:
    """Check the authorization response, exchange its code and store the token."""
    moment = now or timezone.now()
    try:
        callback.check_request(found, now=moment)
        callback.check_issuer(answer, found)
        callback.check_data_center(answer, found)
        code = callback.code_of(answer, found)
    except AuthorizationError as error:
        _record(found, answer, moment, result=error.result, message=error.message)
        raise
    _record(found, answer, moment, result=TokenResult.OK)
    try:
        placeholder_values = parameters.placeholder_values(found.credential, answer)
        request = token_requests.code_request(
            found.credential,
            code=code,
            code_verifier=found.code_verifier,
            redirect_uri=found.redirect_uri,
            placeholder_values=placeholder_values,
        )
    except MisconfiguredError as error:
        raise AuthorizationError(error.message, found.credential) from error
    result, transcripts = client.send(request)
    result = _scoped(result, answer, found.credential)
    nonce = _nonce(found.credential, answer["state"])
    settle(
        found, result, transcripts, user, now, nonce=nonce, placeholder_values=placeholder_values
    )


def _scoped(
    result: TokenResponse, answer: Mapping[str, str], credential: Credential
) -> TokenResponse:
    """Return the token with the scope of the authorization response if it came without one.

    Strava says only there which scopes the person approved; an empty one counts as absent.
    """
    token, scope = result.token, granted_token.read_scope(answer.get("scope"))
    if token is None or token.scope is not None or not scope:
        return result
    warning = joined(result.warning, granted_token.scope_change(scope, credential.scope))
    kind = TokenResult.OK_WITH_WARNING if warning else TokenResult.OK
    return replace(result, token=replace(token, scope=scope), warning=warning, result=kind)


def settle(
    found: AuthorizationRequest,
    answer: TokenResponse,
    transcripts: list[Transcript],
    user: User,
    now: datetime | None,
    *,
    nonce: str = "",
    placeholder_values: Mapping[str, str] | None = None,
) -> None:
    """Store the granted token, or raise AuthorizationError with what went wrong."""
    credential = found.credential
    result, account = _identified(_warned(answer, credential), found, nonce)
    answered_at = now or client.answered_at(transcripts)
    before, is_stored = tokens.store_with_retries(
        credential.pk,
        lambda: (
            revocation.stored_tokens(credential.pk),
            result.token is not None
            and _store(found, result, user, answered_at, account, placeholder_values or {}),
        ),
    )
    for transcript in transcripts:
        exchange_log.record(credential, transcript, result=result.result, message=result.message)
    if result.token is None:
        raise AuthorizationError(result.message, credential)
    if not is_stored:
        revocation.revoke_unstored(credential, result.token, credential.token_origins)
        raise AuthorizationError(stored("settings_changed"), credential)
    revocation.revoke_replaced(credential, before)


def _identified(
    answer: TokenResponse, found: AuthorizationRequest, nonce: str
) -> tuple[TokenResponse, str]:
    """Return the response with the account's name; reject an ID token of another authorization.

    Without a nonce PKCE binds the code to this authorization (RFC 9700 section 2.1.1); without
    either a warning asks the person to check the account.
    """
    if answer.token is None or not nonce:
        return answer, ""
    id_token, client_id = answer.token.id_token, found.credential.client_id
    try:
        account = granted_token.account_of(id_token, nonce=nonce, client_id=client_id)
    except UnusableResponseError as problem:
        result, message = TokenResult.MISCONFIGURED, problem.message
        return TokenResponse(result=result, reason=problem.reason, message=message), ""
    if found.code_verifier or not granted_token.lacks_nonce(id_token):
        return answer, account
    warning = joined(answer.warning, stored("no_nonce"))
    return replace(answer, warning=warning, result=TokenResult.OK_WITH_WARNING), account


def _warned(answer: TokenResponse, credential: Credential) -> TokenResponse:
    """Add a warning if the token expires and there is no refresh token."""
    token = answer.token
    if token is None or token.expires_in is None or token.refresh_token:
        return answer
    warning = joined(answer.warning, stored("no_refresh_token", provider=credential.provider))
    return replace(answer, warning=warning, result=TokenResult.OK_WITH_WARNING)


def _store(
    found: AuthorizationRequest,
    answer: TokenResponse,
    user: User,
    answered_at: datetime,
    account: str,
    placeholder_values: Mapping[str, str],
) -> bool:
    """Store the token unless its settings were changed during the exchange."""
    assert answer.token is not None
    with transaction.atomic():
        # Locked, so that the form cannot change the client and erase the token in between.
        credential = Credential.objects.select_for_update().get(pk=found.credential_id)
        is_same = endpoints.client_fingerprint(credential) == found.client_fingerprint
        if not is_same or credential.deleted_at is not None:
            return False
        tokens.ensure_row(credential.pk)
        tokens.store_granted(
            credential.pk,
            answer.token,
            warning=answer.warning,
            answered_at=answered_at,
            requested_scope=credential.scope,
            user=user if isinstance(user, AbstractBaseUser) else None,
            bound_origins=credential.token_origins,
            account=account,
            placeholder_values=placeholder_values,
        )
    return True


def _record(
    found: AuthorizationRequest,
    answer: Mapping[str, str],
    now: datetime,
    *,
    result: TokenResult,
    message: str = "",
) -> None:
    credential = found.credential
    sent = [
        ("client_id", credential.client_id),
        ("redirect_uri", found.redirect_uri),
        ("scope", parameters.scope(credential)),
    ]
    # TikTok also sends the code as "auth_code", Amazon as "spapi_oauth_code".
    codes = [
        value
        for name, value in answer.items()
        if name.lower().endswith("code") and "err" not in name.lower()
    ]
    transcript = Transcript(
        kind=ExchangeKind.AUTHORIZATION,
        url=credential.auth_url,
        started_at=found.created_at,
        duration_ms=max(0.0, (now - found.created_at).total_seconds() * 1000),
        request=exchange_log.describe_request("GET", credential.auth_url, pairs=sent),
        response=exchange_log.redact_pairs(
            answer.items(), secrets=(credential.client_secret, *codes), may_grant=True
        ),
    )
    exchange_log.record(credential, transcript, result=result, message=message)
