"""Builds and sends requests to an authorization server, and returns classified answers.

requests-oauthlib builds the requests; what it gets wrong is closed here: it sends through the
guarded transport without redirects, the Basic credentials are form-urlencoded, nothing is logged
below WARNING, and no exception of any library leaves `ask`.
"""

import base64
import http.client
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode

import requests
import urllib3
from django.utils import timezone
from django.utils.translation import gettext as _
from oauthlib.oauth2 import BackendApplicationClient, Client, WebApplicationClient
from requests_oauthlib import OAuth2Session

from webhooks import network
from webhooks.models import ClientAuthentication, ExchangeKind, Webhook
from webhooks.oauth import exchanges, parameters, presets, sentences
from webhooks.oauth.answers import Answer, Expected, Raw, classify
from webhooks.oauth.bodies import decode
from webhooks.oauth.endpoints import checked_endpoint
from webhooks.oauth.exchanges import Transcript
from webhooks.oauth.sentences import Sent, Step
from webhooks.oauth.verdicts import Result

TOTAL_SECONDS = 10.0
MAX_BYTES = 65_536
_FORM = "application/x-www-form-urlencoded"
# Some providers refuse requests without one.
_USER_AGENT = "Webhooks/2.0"


def _is_quiet(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


# At DEBUG these write codes, tokens and Authorization headers, whatever LOG_LEVEL a person sets.
for _name in ("requests_oauthlib.oauth2_session", "oauthlib", "oauthlib.common"):
    logging.getLogger(_name).addFilter(_is_quiet)


class ProviderSession(network.GuardedSessionMixin, OAuth2Session):  # type: ignore[misc]
    """The library's session on our transport: no redirect, one deadline, 64 KiB."""

    def __init__(
        self, client: Client, *, total_seconds: float = TOTAL_SECONDS, **more: Any
    ) -> None:
        OAuth2Session.__init__(self, client=client, **more)
        self.guard(total_seconds=total_seconds, max_bytes=MAX_BYTES)
        self.headers = requests.structures.CaseInsensitiveDict({"User-Agent": _USER_AGENT})

    def request(self, method: str, url: str, **options: Any) -> requests.Response:  # type: ignore[override]
        """Send as plain requests does.

        The library's own version refuses http on loopback, adds a bearer token and logs secrets;
        `checked_endpoint` has checked the URL.
        """
        options["allow_redirects"] = False
        return requests.Session.request(self, method, url, **options)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A request to a token endpoint, ready to be sent."""

    url: str
    kind: ExchangeKind
    headers: dict[str, str] = field(repr=False)
    pairs: parameters.Pairs = field(repr=False)
    body: bytes = field(repr=False)
    expected: Expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """How the client says who it is: in exactly one way (RFC 6749 section 2.3.1)."""

    # "header", "body", or "none" for a public client.
    place: str
    headers: dict[str, str] = field(repr=False)
    # For oauthlib's prepare_ functions.
    fields: dict[str, Any] = field(repr=False)


def credentials(webhook: Webhook) -> Credentials:
    """Return the client's credentials as the webhook says to send them."""
    secret = webhook.client_secret
    if not secret:
        return Credentials(place="none", headers={}, fields={"include_client_id": True})
    if webhook.client_authentication == ClientAuthentication.REQUEST_BODY:
        fields = {"include_client_id": True, "client_secret": secret}
        return Credentials(place="body", headers={}, fields=fields)
    headers = {"Authorization": basic_authorization(webhook.client_id, secret)}
    return Credentials(place="header", headers=headers, fields={"include_client_id": False})


def basic_authorization(client_id: str, client_secret: str) -> str:
    """Return the header's value; both halves are form-urlencoded (RFC 6749 section 2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def code_request(
    webhook: Webhook, *, code: str, code_verifier: str, redirect_uri: str
) -> TokenRequest:
    """Return the request that exchanges a code. Errors: Misconfigured."""
    proof = credentials(webhook)
    body = WebApplicationClient(webhook.client_id).prepare_request_body(
        code=code,
        redirect_uri=redirect_uri,
        body=urlencode(parameters.extra_for_token(webhook)),
        code_verifier=code_verifier or None,
        **proof.fields,
    )
    sent = Sent(
        step=Step.CODE,
        credentials=proof.place,
        scope=webhook.scope,
        redirect_uri=redirect_uri,
        uses_pkce=bool(code_verifier),
    )
    return _request(webhook, webhook.token_url, body, proof, sent, (code, code_verifier))


def refresh_request(webhook: Webhook, refresh_token: str) -> TokenRequest:
    """Return the request that refreshes a token (RFC 6749 section 6). Errors: Misconfigured."""
    proof = credentials(webhook)
    body = WebApplicationClient(webhook.client_id).prepare_refresh_body(
        refresh_token=refresh_token,
        client_id=webhook.client_id,
        body=urlencode(parameters.extra_for_refresh(webhook)),
        **proof.fields,
    )
    sent = Sent(step=Step.REFRESH, credentials=proof.place, scope=webhook.scope)
    url = webhook.refresh_url or webhook.token_url
    return _request(webhook, url, body, proof, sent, (refresh_token,))


def client_credentials_request(webhook: Webhook) -> TokenRequest:
    """Return the request of RFC 6749 section 4.4. Errors: Misconfigured."""
    proof = credentials(webhook)
    body = BackendApplicationClient(webhook.client_id).prepare_request_body(
        scope=parameters.scope(webhook) or None,
        body=urlencode(parameters.extra_for_token(webhook)),
        **proof.fields,
    )
    sent = Sent(step=Step.CLIENT_CREDENTIALS, credentials=proof.place, scope=webhook.scope)
    return _request(webhook, webhook.token_url, body, proof, sent, ())


def _request(
    webhook: Webhook,
    url: str,
    body: str,
    proof: Credentials,
    sent: Sent,
    secrets: tuple[str, ...],
) -> TokenRequest:
    target = checked_endpoint(url, _("Access token URL"))
    pairs = parse_qsl(body, keep_blank_values=True)
    is_json = webhook.uses_json_token_request
    return TokenRequest(
        url=target.url,
        kind=ExchangeKind.REFRESH if sent.step is Step.REFRESH else ExchangeKind.TOKEN,
        headers={
            "Accept": "application/json",
            "Content-Type": "application/json" if is_json else _FORM,
            **proof.headers,
        },
        pairs=pairs,
        body=_json(pairs) if is_json else body.encode(),
        expected=Expected(
            sent=sent,
            token_path=webhook.token_path,
            reauthorization_words=tuple(map(str, webhook.reauthorization_words)),
            token_types=(webhook.header_prefix, *presets.token_types(webhook.provider)),
            secrets=tuple(filter(None, (webhook.client_secret, *proof.headers.values(), *secrets))),
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


def ask(request: TokenRequest) -> tuple[Answer, list[Transcript]]:
    """Send a request and return the class of its answer, with the redacted transcripts.

    An answer that is cut off is asked for once more, within the same 10 seconds, except for a
    code: it works once. Raises nothing that a network or a provider can cause.
    """
    ends_at = time.monotonic() + TOTAL_SECONDS
    answer, transcript = _ask_once(request, seconds=TOTAL_SECONDS, is_last=False)
    left = ends_at - time.monotonic()
    if not answer.is_truncated or request.expected.sent.step is Step.CODE or left < 1:
        return answer, [transcript]
    second, again = _ask_once(request, seconds=left, is_last=True)
    return second, [transcript, again]


def tell(request: TokenRequest, *, seconds: float) -> tuple[Answer, Transcript]:
    """Send a request whose answer holds no token, once."""
    return _ask_once(request, seconds=seconds, is_last=True)


def _ask_once(request: TokenRequest, *, seconds: float, is_last: bool) -> tuple[Answer, Transcript]:
    started_at, started = timezone.now(), time.perf_counter()
    raw, failure, response = _send(request, seconds)
    answer = failure or classify(raw, request.expected, is_last=is_last)
    transcript = Transcript(
        kind=request.kind,
        url=request.url,
        started_at=started_at,
        duration_ms=(time.perf_counter() - started) * 1000,
        status_code=raw.status or None,
        request=exchanges.describe_request(
            "POST",
            request.url,
            headers=request.headers,
            pairs=request.pairs,
            secrets=request.expected.secrets,
        ),
        response=response,
    )
    return answer, transcript


def _send(request: TokenRequest, seconds: float) -> tuple[Raw, Answer | None, str]:
    """Return the answer as it came, or a failure in its place, and its description."""
    session = ProviderSession(WebApplicationClient(""), total_seconds=seconds)
    try:
        response = session.post(request.url, data=request.body, headers=request.headers)
    except network.ResponseTooLarge as error:
        return Raw(status=error.status_code, is_too_large=True), None, f"HTTP {error.status_code}"
    except network.UnsafeURL as error:
        return Raw(status=0), _blocked(error.reason), error.reason
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        return Raw(status=0), _unreachable(error, request), _reason(error)
    except (http.client.HTTPException, ValueError) as error:
        return Raw(status=0), _unreachable(error, request), type(error).__name__
    finally:
        session.close()
    headers = response.headers
    raw = Raw(
        status=response.status_code,
        content_type=headers.get("Content-Type", ""),
        body=response.content,
        retry_after=headers.get("Retry-After", ""),
        location=headers.get("Location", ""),
    )
    text = decode(raw.body, raw.content_type)
    secrets = request.expected.secrets
    return raw, None, exchanges.describe_response(raw.status, headers, text, secrets=secrets)


def _blocked(reason: str) -> Answer:
    message = _("Access token URL cannot be used: %s") % reason
    return Answer(result=Result.MISCONFIGURED, reason="unsafe_url", message=message)


def _unreachable(error: Exception, request: TokenRequest) -> Answer:
    message = sentences.failed(_reason(error), request.expected.sent)
    return Answer(result=Result.TRANSIENT, reason="no_answer", message=message)


def _reason(error: Exception) -> str:
    """Return why there is no answer, without what libraries put into their texts."""
    if isinstance(error, network.SendError):
        return error.reason
    if isinstance(error, requests.exceptions.SSLError):
        return _("its TLS certificate is not valid for this address, or TLS failed")
    for cause in _causes(error):
        if isinstance(cause, ConnectionRefusedError):
            return _("the connection was refused")
        if isinstance(cause, ConnectionResetError | http.client.RemoteDisconnected):
            return _("the connection was closed")
    return _("the connection failed")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Return what is behind an error; the libraries wrap theirs, at times into a circle."""
    found: list[BaseException] = [error]
    for one in found:
        yield one
        behind = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
        found += [each for each in behind if isinstance(each, BaseException) and each not in found]


def answered_at(transcripts: list[Transcript]) -> datetime:
    """Return when the last answer came; a token's life counts from there."""
    last = transcripts[-1]
    return last.started_at + timedelta(milliseconds=last.duration_ms or 0.0)
