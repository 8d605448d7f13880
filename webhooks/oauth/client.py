"""Sends requests to an authorization server and returns classified responses.

requests-oauthlib's session sends through the guarded transport. Its known gaps are closed here: no
redirect is followed, the whole exchange has one deadline, nothing is logged below WARNING, and no
exception of any library leaves `send_once`.
"""

import logging
import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urljoin

import requests
from django.conf import settings
from django.utils import timezone
from oauthlib.oauth2 import Client, WebApplicationClient
from requests_oauthlib import OAuth2Session

from webhooks import network
from webhooks.models import messages
from webhooks.oauth import exchange_log
from webhooks.oauth.errors import Grant, TokenResult, reason_of, render_reason, stored
from webhooks.oauth.exchange_log import Transcript
from webhooks.oauth.token_requests import TokenRequest
from webhooks.oauth.token_response import RawResponse, TokenResponse, classify

TOTAL_SECONDS = 10.0
MAX_BYTES = 65_536
# Some providers reject requests without a user agent.
_USER_AGENT = "Webhooks/2.0"


def _is_quiet(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


# At DEBUG these loggers write codes, tokens and Authorization headers; LOG_LEVEL must not allow it.
for _name in ("requests_oauthlib.oauth2_session", "oauthlib", "oauthlib.common"):
    logging.getLogger(_name).addFilter(_is_quiet)


class ProviderSession(network.GuardedSessionMixin, OAuth2Session):  # type: ignore[misc]
    """The library's session on the guarded transport: no redirects, one deadline, 64 KiB."""

    def __init__(
        self, client: Client, *, total_seconds: float = TOTAL_SECONDS, **more: Any
    ) -> None:
        OAuth2Session.__init__(self, client=client, **more)
        self.guard(total_seconds=total_seconds, max_bytes=MAX_BYTES)
        self.headers = requests.structures.CaseInsensitiveDict({"User-Agent": _USER_AGENT})

    def request(self, method: str, url: str, **options: Any) -> requests.Response:  # type: ignore[override]
        """Send as a plain `requests.Session` does.

        OAuth2Session's version rejects http on loopback, adds a bearer token and logs secrets.
        `checked_endpoint` has checked the URL already.
        """
        options["allow_redirects"] = False
        return requests.Session.request(self, method, url, **options)


def send(request: TokenRequest) -> tuple[TokenResponse, list[Transcript]]:
    """Send a request and return its classified response, with the redacted transcripts.

    If the response is truncated, the request is sent once more within the same time limit, unless
    its code or refresh token is known to be single use. No network or provider error is raised.
    """
    seconds = timeout_seconds(request)
    ends_at = time.monotonic() + seconds
    answer, transcript, _raw = send_once(request, seconds=seconds, is_last=False)
    left = ends_at - time.monotonic()
    if not answer.is_truncated or request.is_single_use or left < 1:
        return answer, [transcript]
    second, again, _raw = send_once(request, seconds=left)
    return second, [transcript, again]


def timeout_seconds(request: TokenRequest) -> float:
    """Return the time limit of a request in seconds.

    A refresh token that may be single use must not be sent again while its response may still
    arrive, so that request gets the longest limit.
    """
    is_hasty = request.is_single_use is False or request.expected.grant is not Grant.REFRESH
    return TOTAL_SECONDS if is_hasty else float(settings.WEBHOOKS_REFRESH_SECONDS)


def send_once(
    request: TokenRequest, *, seconds: float, is_last: bool = True
) -> tuple[TokenResponse, Transcript, RawResponse]:
    """Send a request; return its classified response, the transcript and the raw response."""
    started_at, started = timezone.now(), time.perf_counter()
    raw, failure, response = _post(request, seconds)
    answer = failure or classify(raw, request.expected, is_last=is_last)
    # Mask the secrets that were sent and the tokens that were granted.
    granted = (answer.token.access_token, answer.token.refresh_token) if answer.token else ()
    secrets = exchange_log.known((*request.expected.secrets, *granted))
    transcript = Transcript(
        kind=request.kind,
        url=request.url,
        started_at=started_at,
        duration_ms=(time.perf_counter() - started) * 1000,
        status_code=raw.status or None,
        request=exchange_log.describe_request(
            "POST", request.url, headers=request.headers, pairs=request.pairs, secrets=secrets
        ),
        response=response
        if isinstance(response, str)
        else exchange_log.describe_response(
            raw.status,
            response.headers,
            network.decode(raw.body, raw.content_type),
            secrets=secrets,
            may_grant=200 <= raw.status < 300,
        ),
    )
    return answer, transcript, raw


def _post(
    request: TokenRequest, seconds: float
) -> tuple[RawResponse, TokenResponse | None, requests.Response | str]:
    """Return the raw response, a failure if any, and the response or text for the transcript."""
    session = ProviderSession(WebApplicationClient(""), total_seconds=seconds)
    session.cert = request.certificate
    try:
        response = session.post(request.url, data=request.body, headers=request.headers)
    except network.ResponseTooLargeError as error:
        return _raw(error.head), None, f"HTTP {error.status_code}"
    except network.UnsafeURLError as error:
        answer = _failed("unsafe_url", TokenResult.MISCONFIGURED, reason_of(error))
        return RawResponse(status=0), answer, error.reason
    except (requests.RequestException, ValueError) as error:
        reason = _reason(error)
        is_asked = isinstance(error, network.TransferError) and error.wants_certificate
        if is_asked and not request.certificate:
            message = stored("client_key_needed", method="tls_client_auth")
            answer = TokenResponse(
                result=TokenResult.MISCONFIGURED, reason="client_key_needed", message=message
            )
            return RawResponse(status=0), answer, render_reason(reason)
        answer = _failed("no_answer", TokenResult.TRANSIENT, reason)
        answer = replace(answer, is_lost=getattr(error, "is_sent", True))
        return RawResponse(status=0), answer, render_reason(reason)
    return _raw(response), None, response


def _raw(response: requests.Response) -> RawResponse:
    headers = response.headers
    body = network.unpack(
        response.content, headers.get("Content-Encoding", ""), max_bytes=MAX_BYTES
    )
    return RawResponse(
        status=response.status_code,
        content_type=headers.get("Content-Type", ""),
        body=body,
        is_too_large=max(len(body), len(response.content)) > MAX_BYTES,
        retry_after=headers.get("Retry-After", ""),
        location=_absolute(response.url, headers.get("Location", "")),
        date=headers.get("Date", ""),
        www_authenticate=headers.get("WWW-Authenticate", ""),
    )


def _absolute(url: str, location: str) -> str:
    """Return a redirect's target as an absolute URL (RFC 9110 section 10.2.2)."""
    try:
        return urljoin(url, location) if location else ""
    except ValueError:
        return location


def _failed(code: str, result: TokenResult, reason: str) -> TokenResponse:
    return TokenResponse(result=result, reason=code, message=stored(code, reason=reason))


def _reason(error: Exception) -> str:
    """Return why there is no response, as a stored message without libcurl's own text."""
    if isinstance(error, network.TLSError):
        return messages.dump("tls_failed")
    if isinstance(error, network.TransferError) and error.is_refused:
        return messages.dump("connection_refused")
    if isinstance(error, network.TransferError) and error.is_closed:
        return messages.dump("connection_closed")
    if isinstance(error, network.NetworkError) and not isinstance(error, network.TransferError):
        return reason_of(error)
    return messages.dump("connection_failed")


def answered_at(transcripts: list[Transcript]) -> datetime:
    """Return when the last response arrived; a token's lifetime counts from then."""
    last = transcripts[-1]
    return last.started_at + timedelta(milliseconds=last.duration_ms or 0.0)
