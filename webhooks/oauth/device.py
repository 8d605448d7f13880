"""The device code grant: a person approves on any device while this site polls for the token.

Source: RFC 8628. For providers that cannot redirect a browser back to this site. A pending request
is stored as in the authorization code grant: bound to session, user and credential.
"""

import math
import re
import secrets as random
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urljoin

from django.db.models import F
from django.utils import timezone

from webhooks.models import AuthorizationRequest, Credential, ExchangeKind, GrantType, messages
from webhooks.oauth import (
    authorize,
    callback,
    client,
    endpoints,
    exchange_log,
    parameters,
    token_requests,
)
from webhooks.oauth.callback import User, hashed
from webhooks.oauth.errors import (
    ERRORS,
    AuthorizationError,
    Grant,
    MisconfiguredError,
    TokenResult,
    UnusableResponseError,
    stored,
)
from webhooks.oauth.granted_token import duration, snake_case
from webhooks.oauth.token_errors import normalized
from webhooks.oauth.token_response import RawResponse, TokenResponse, read_body

# RFC 8628 sections 3.2 and 3.5.
_POLL_SECONDS, _SLOWER_SECONDS = 5, 5
_LONG_POLL_SECONDS = 60
# Requests to poll more slowly; a 429 counts as one, whatever its body says.
_SLOWER = frozenset({"slow_down", "http_429"})
_MAX_LIFE_SECONDS = 1800.0
# The last name is Google's, from an older draft.
_PAGES = ("verification_uri_complete", "verification_uri", "verification_url")
_HOST_FIRST = re.compile(r"(?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,20}(?:[/?]|$)", re.IGNORECASE)
# RFC 6749 appendix A.11; a lone surrogate, which JSON can contain, could not be stored.
_CODE = re.compile(r"[\x20-\x7e]+")
_WAITING = frozenset({"authorization_pending", "slow_down"})


def begin_device_authorization(
    credential: Credential, *, user: Any, session_key: str, now: datetime | None = None
) -> str:
    """Request a code that a person enters at the provider; return the state of the request.

    Errors: AuthorizationError.
    """
    if credential.grant_type != GrantType.DEVICE_CODE or not session_key:
        raise AuthorizationError(stored("no_session"), credential)
    scope = parameters.scope(credential)
    try:
        request = token_requests.plain_request(
            credential,
            credential.auth_url,
            "auth_url",
            ExchangeKind.AUTHORIZATION,
            [
                ("client_id", credential.client_id),
                *([("scope", scope)] if scope else []),
                *parameters.resource_parameters(credential),
            ],
        )
    except MisconfiguredError as error:
        raise AuthorizationError(error.message, credential) from error
    expected = replace(request.expected, grant=Grant.DEVICE_CODE, scope=credential.scope)
    request = replace(request, expected=expected)
    answer, transcript, raw = client.send_once(request, seconds=client.TOTAL_SECONDS)
    try:
        fields = _device_fields(answer, raw)
        page = _absolute_url(fields["page"], credential.auth_url)
        # Only the browser opens this page, so a fragment is allowed.
        endpoints.checked_endpoint(page, "auth_url", may_have_fragment=True)
    except (UnusableResponseError, MisconfiguredError) as problem:
        result = answer.result if answer.result is not TokenResult.OK else TokenResult.MISCONFIGURED
        message = _as_auth_url_error(problem.message)
        exchange_log.record(credential, transcript, result=result, message=message)
        raise AuthorizationError(message, credential) from problem
    exchange_log.record(credential, transcript, result=TokenResult.OK)
    state, moment = random.token_urlsafe(32), now or timezone.now()
    life = duration(fields.get("expires_in")) or 0.0
    life = min(life, _MAX_LIFE_SECONDS) if life > 0 else _MAX_LIFE_SECONDS
    seconds = duration(fields.get("interval")) or _POLL_SECONDS
    AuthorizationRequest.objects.create(
        state_hash=hashed(state),
        credential=credential,
        user_id=user.pk,
        session_hash=hashed(session_key),
        code_verifier=fields["device_code"],
        redirect_uri=page,
        user_code=exchange_log.clean(fields["user_code"], limit=64),
        # Capped, so that several polls fit in before the code expires.
        poll_seconds=min(max(math.ceil(seconds), 1), max(_LONG_POLL_SECONDS, int(life) // 4)),
        poll_at=moment,
        client_fingerprint=endpoints.client_fingerprint(credential),
        expires_at=moment + timedelta(seconds=life),
    )
    return state


def _device_fields(answer: TokenResponse, raw: RawResponse) -> dict[str, Any]:
    """Return the response's fields in snake_case; `page` is the URL that the person opens.

    Errors: UnusableResponseError unless there are a device code, a user code and a page.
    """
    if not 200 <= raw.status < 300:
        raise UnusableResponseError(answer.reason, answer.message)
    answered = read_body(raw.body, raw.content_type)
    fields = {snake_case(name): one for name, one in answered.items()} | answered
    if isinstance(fields.get("user_code"), int):
        fields["user_code"] = str(fields["user_code"])
    fields["page"] = next((fields[name] for name in _PAGES if fields.get(name)), "")
    needed = (fields.get(name) for name in ("device_code", "user_code", "page"))
    is_complete = all(isinstance(one, str) and one.strip() for one in needed)
    if not is_complete or not _CODE.fullmatch(fields["device_code"]):
        raise UnusableResponseError(answer.reason, answer.message)
    return fields


def _absolute_url(page: str, auth_url: str) -> str:
    """Return the absolute URL of a page; the scheme or the host may be missing."""
    page = page.strip()
    page = f"https://{page}" if _HOST_FIRST.match(page) else page
    return urljoin(auth_url, page) if page.startswith("/") else page


def _as_auth_url_error(message: str) -> str:
    """Replace an error about Access token URL with the one about Auth URL; keep any other."""
    found = messages.load(message)
    is_other = found is not None and ERRORS[found.code].fields[:1] == ("token_url",)
    if found is None or not is_other:
        return message
    said = found.params.get("said")
    return stored("no_device_code", **({"said": said} if said else {}))


def pending_device(
    state: str, *, user: User, session_key: str, now: datetime | None = None
) -> AuthorizationRequest:
    """Return the pending request that a person is to approve. Errors: AuthorizationError."""
    if not state:
        # No code was shown in this session: it ended, or began in another browser.
        raise AuthorizationError(stored("other_browser"))
    found = callback.find_request(state, user=user, session_key=session_key)
    callback.check_request(found, now=now or timezone.now())
    return found


def poll_device(
    state: str, *, user: User, session_key: str, now: datetime | None = None
) -> Credential | None:
    """Poll the provider once; return the credential after approval, None while it is pending.

    Sends nothing until the provider's polling interval is over. Errors: AuthorizationError.
    """
    found = pending_device(state, user=user, session_key=session_key, now=now)
    moment, rows = now or timezone.now(), AuthorizationRequest.objects.filter(pk=found.pk)
    later = moment + timedelta(seconds=found.poll_seconds)
    is_due = found.poll_at is not None and found.poll_at <= moment
    if not is_due or not rows.filter(poll_at=found.poll_at).update(poll_at=later):
        return None
    try:
        request = token_requests.device_code_request(found.credential, found.code_verifier)
    except MisconfiguredError as error:
        raise AuthorizationError(error.message, found.credential) from error
    answer, transcripts = client.send(request)
    reason = normalized(answer.reason)
    if reason in _WAITING or answer.result is TokenResult.TRANSIENT:
        slower = _SLOWER_SECONDS if reason in _SLOWER else 0
        allowed = moment + timedelta(seconds=answer.retry_after_seconds or 0.0)
        # Even after a long Retry-After, poll once more before the code expires.
        last = found.expires_at - timedelta(seconds=2 * found.poll_seconds)
        poll_at = max(later + timedelta(seconds=slower), min(allowed, last))
        rows.update(poll_seconds=F("poll_seconds") + slower, poll_at=poll_at)
        return None
    rows.delete()
    authorize.settle(found, answer, transcripts, user, now)
    return found.credential
