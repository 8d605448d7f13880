"""Checks the authorization response before anything is stored or sent.

Source: RFC 6749 sections 3.1, 4.1.2, 10.12 and 10.15; RFC 9207; RFC 9700 sections 2.1 and 4.4.
"""

import hashlib
import hmac
import html
import re
from collections.abc import Mapping
from datetime import datetime
from typing import NoReturn
from urllib.parse import unquote_plus

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

from webhooks.models import AuthorizationRequest, Credential, origin_of
from webhooks.oauth import endpoints
from webhooks.oauth.errors import AuthorizationError, Grant, stored
from webhooks.oauth.exchange_log import MAX_TEXT, clean
from webhooks.oauth.token_errors import judge, refusal_of, result_of
from webhooks.oauth.token_response import Expected, stored_refusal

User = AbstractBaseUser | AnonymousUser

MAX_VALUE = 4096
# A real response has three to six.
_MAX_PARAMETERS = 40
# Names of descriptions (the last two are Facebook's), and other names of the error code: the first
# is Facebook's, the second TikTok's.
_DESCRIPTIONS = ("error_description", "error_message", "error_reason")
_OTHER_ERRORS = ("error_code", "errCode", "oauth_error", "err", "errors")
# Kommo has one token endpoint for each account.
_KOMMO = re.compile(r"https://[a-z0-9-]+\.(kommo\.com|amocrm\.(ru|com))", re.IGNORECASE)
# Other names of the code: "auth_code" at TikTok for Business and Alipay, "spapi_oauth_code" at
# Amazon.
_OTHER_CODES = re.compile(r"(?:[a-z]+_)*(?:o?auth|authorization)_?code", re.IGNORECASE)
# RFC 6749 appendix A.11.
_CODE = re.compile(r"[\x20-\x7e]+")


def hashed(secret: str) -> str:
    """Return the digest of a state or session key; both are random, so no salt is needed."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def read_query(query: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the parameters; refuse repeated, too many or too long ones."""
    if len(query) > _MAX_PARAMETERS or any(
        len(name) > 256 or any(len(one) > MAX_VALUE for one in values)
        for name, values in query.items()
    ):
        _refuse("callback_too_long")
    repeated = [name for name, values in query.items() if len(values) != 1]
    if repeated:
        _refuse("callback_repeats", name=clean(repeated[0], limit=50))
    return {name: values[0] for name, values in query.items()}


def check_state(parameters: Mapping[str, str]) -> None:
    """Refuse a response without a state.

    Anybody can forge such a response, so its error is shown only if it is a known code.
    """
    error = parameters.get("error", "")
    if parameters.get("state"):
        return
    if result_of(error):
        _refuse("no_state", said=clean(error, limit=100))
    _refuse("no_state")


def take_request(
    state: str, *, user: User, session_key: str, now: datetime
) -> AuthorizationRequest:
    """Return the pending request of this state and delete it; only one caller can delete it.

    A state of another session or user is refused but kept, so that its owner can still finish.
    """
    found = find_request(state, user=user, session_key=session_key)
    deleted, _rows = AuthorizationRequest.objects.filter(pk=found.pk).delete()
    if deleted != 1:
        _refuse("unknown_state")
    if found.expires_at <= now:
        _refuse("state_expired", found.credential)
    return found


def find_request(state: str, *, user: User, session_key: str) -> AuthorizationRequest:
    """Return the pending request that this person began in this session."""
    found = _pending(state)
    if found is None:
        _refuse("unknown_state" if state else "no_state")
    if found.user_id != user.pk:
        _refuse("other_user")
    if not session_key or not hmac.compare_digest(found.session_hash, hashed(session_key)):
        _refuse("other_browser")
    return found


def pending_credential(state: str) -> Credential | None:
    """Return the credential that a state belongs to, without consuming the state."""
    found = _pending(state)
    return found.credential if found and found.credential.deleted_at is None else None


def _pending(state: str) -> AuthorizationRequest | None:
    pending = AuthorizationRequest.objects.filter(state_hash=hashed(state))
    return pending.select_related("credential").first()


def check_request(found: AuthorizationRequest, *, now: datetime) -> None:
    """Refuse a response that is late, or whose credential was deleted or changed."""
    credential = found.credential
    if found.expires_at <= now:
        _refuse("device_code_expired" if found.user_code else "state_expired", credential)
    if credential.deleted_at is not None:
        _refuse("deleted")
    if endpoints.client_fingerprint(credential) != found.client_fingerprint:
        _refuse("settings_changed", credential)


def check_issuer(parameters: Mapping[str, str], found: AuthorizationRequest) -> None:
    """Refuse a response from another authorization server (RFC 9207 section 2.4)."""
    issuer = parameters.get("iss")
    if issuer is None and found.requires_issuer:
        _refuse("no_issuer", found.credential)
    if issuer is None:
        return
    if found.issuer:
        is_right = hmac.compare_digest(issuer.encode(), found.issuer.encode())
    else:
        # Without an entered issuer at least its origin must be that of Auth URL.
        expected = origin_of(found.credential.auth_url)
        is_right = origin_of(issuer) == expected
    if not is_right:
        _refuse("other_issuer", found.credential, issuer=_words(issuer, found, limit=200))


def check_data_center(parameters: Mapping[str, str], found: AuthorizationRequest) -> None:
    """Refuse a code that belongs to another data center (Zoho) or another account (Kommo).

    The host comes from the browser, so no secret is sent to it until the admin has entered it.
    """
    server, here = parameters.get("accounts-server"), origin_of(found.credential.token_url)
    if _KOMMO.fullmatch(here) and _KOMMO.fullmatch(f"https://{parameters.get('referer')}"):
        server = f"https://{parameters['referer']}"
    if server is not None and origin_of(server) != here:
        _refuse("other_data_center", found.credential, server=_words(server, found, limit=100))


def code_of(parameters: Mapping[str, str], found: AuthorizationRequest) -> str:
    """Return the authorization code, or raise AuthorizationError for the provider's error."""
    code, error = parameters.get("code", _other_code(parameters)), parameters.get("error")
    if not error and not code:
        # Some providers use other names than the standard's.
        error = next(filter(None, map(parameters.get, _OTHER_ERRORS)), error)
    # A parameter without a value counts as absent (RFC 6749 section 3.1).
    if code and error:
        _refuse("code_and_error", found.credential)
    description = _readable(next(filter(None, map(parameters.get, _DESCRIPTIONS)), ""))
    if error:
        raise AuthorizationError(_refusal(error, description, found), found.credential)
    if not code or not _CODE.fullmatch(code):
        _refuse("no_code", found.credential, said=_words(description, found))
    return code


def _other_code(parameters: Mapping[str, str]) -> str | None:
    """Return the code under another name, or None if there are several."""
    codes = [value for name, value in parameters.items() if _OTHER_CODES.fullmatch(name)]
    return codes[0] if len(codes) == 1 else None


def _readable(description: str) -> str:
    """Decode a description that was encoded twice, as LinkedIn's; templates escape it again."""
    if " " not in description:
        description = unquote_plus(description)
    return html.unescape(description)


def _refusal(error: str, description: str, found: AuthorizationRequest) -> str:
    credential = found.credential
    expected = Expected(
        grant=Grant.CODE,
        scope=credential.scope,
        redirect_uri=found.redirect_uri,
        uses_pkce=credential.uses_pkce,
        secrets=(credential.client_secret,),
    )
    # Microsoft and others give the cause of a general error only in the description.
    refusal = refusal_of([error], [description], description=description)
    return stored_refusal(refusal, judge(refusal), expected)


def _words(text: str, found: AuthorizationRequest, *, limit: int = MAX_TEXT) -> str:
    return clean(text, secrets=(found.credential.client_secret,), limit=limit)


def _refuse(code: str, credential: Credential | None = None, **params: str) -> NoReturn:
    raise AuthorizationError(stored(code, **params), credential)
