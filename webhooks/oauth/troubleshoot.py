"""Explains what went wrong at a provider, and checks the settings before a person is sent there.

`diagnose` reads the exchange log and the token's row and asks nobody. `examine` and
`try_authentication` ask both endpoints a question that changes nothing there.
"""

import copy
import dataclasses
import re
import secrets as random
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qsl, urljoin, urlsplit

import requests
import urllib3
from django.utils.translation import gettext as _
from oauthlib.oauth2 import WebApplicationClient

from webhooks import network
from webhooks.models import (
    AuthorizationRequest,
    ClientAuthentication,
    Credential,
    ExchangeKind,
    GrantType,
    OAuthExchange,
    OAuthToken,
)
from webhooks.oauth import (
    callback,
    client,
    endpoints,
    exchange_log,
    providers,
    token_errors,
    token_requests,
    token_response,
)
from webhooks.oauth.authorize import authorization_url
from webhooks.oauth.errors import AuthorizationFailed, Misconfigured
from webhooks.oauth.token_errors import Result, normalized
from webhooks.oauth.token_response import Answer, Expected, decode, media_type

_REAL = (ExchangeKind.AUTHORIZATION, ExchangeKind.TOKEN, ExchangeKind.REFRESH)
_GOOD = (Result.OK, Result.OK_WITH_WARNING)
_URL = re.compile(r"https?://[^\s\"'<>“”‘’]+")
_REDIRECT_WORDS = ("redirect_uri", "redirect uri", "redirect url", "callback url", "aadsts50011")
_PKCE_WORDS = ("pkce", "code_verifier", "code_challenge", "code verifier", "code challenge")


class Cause(StrEnum):
    """What a failure is about."""

    REDIRECT = "redirect"
    CLIENT = "client"
    SCOPE = "scope"
    PKCE = "pkce"
    DENIED = "denied"
    GRANT = "grant"
    TRANSIENT = "transient"
    NO_REFRESH_TOKEN = "no_refresh_token"  # noqa: S105 - a name, not a secret.
    OTHER = "other"


# Where to change it: names of our fields; nothing here means at the provider.
_FIELDS = {
    Cause.REDIRECT: ("callback_url",),
    Cause.CLIENT: ("client_id", "client_secret", "client_authentication"),
    Cause.SCOPE: ("scope",),
    Cause.PKCE: ("uses_pkce",),
    Cause.NO_REFRESH_TOKEN: ("scope", "authorization_parameters"),
    Cause.OTHER: ("auth_url", "token_url"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One failure in the words of an admin."""

    cause: Cause
    message: str
    fields: tuple[str, ...] = ()
    # Of a callback URL that does not match: what was sent, and what the provider names.
    sent: str = ""
    named: str = ""
    # When it happened; None for what is no failure of a request.
    exchange: OAuthExchange | None = None

    @property
    def can_try_other_way(self) -> bool:
        return self.cause is Cause.CLIENT


def diagnose(credential: Credential) -> Diagnosis | None:
    """Return what is wrong since the last exchange with the provider, or None."""
    last = OAuthExchange.objects.filter(credential=credential, kind__in=_REAL).first()
    if last is not None and last.result not in _GOOD:
        return _of_exchange(credential, last)
    token = OAuthToken.objects.filter(credential=credential).first()
    return _missing_refresh_token(credential, token) if token else None


def _of_exchange(credential: Credential, exchange: OAuthExchange) -> Diagnosis:
    error, description = _provider_error(exchange)
    cause = _cause(exchange, error, f"{description} {exchange.message}".lower())
    sent = _sent_redirect(exchange.request) if cause is Cause.REDIRECT else ""
    named = [one.rstrip(".,;)") for one in _URL.findall(description)]
    return Diagnosis(
        cause=cause,
        message=exchange.message,
        fields=_FIELDS.get(cause, ()),
        sent=(sent or endpoints.callback_url(credential)) if cause is Cause.REDIRECT else "",
        named=next((one for one in named if one != sent), "") if cause is Cause.REDIRECT else "",
        exchange=exchange,
    )


def _cause(exchange: OAuthExchange, error: str, words: str) -> Cause:
    if exchange.result == Result.TRANSIENT:
        return Cause.TRANSIENT
    if error in ("invalid_client", "incorrect_client_credentials") or error.startswith(
        "bad_client"
    ):
        return Cause.CLIENT
    if "redirect" in error or any(one in words for one in _REDIRECT_WORDS):
        return Cause.REDIRECT
    if any(one in words for one in _PKCE_WORDS):
        return Cause.PKCE
    if error == "invalid_scope":
        return Cause.SCOPE
    if error in ("access_denied", "consent_required"):
        return Cause.DENIED
    if exchange.status_code == 401:
        return Cause.CLIENT
    if exchange.result == Result.NEEDS_REAUTHORIZATION:
        return Cause.GRANT
    return Cause.OTHER


def _provider_error(exchange: OAuthExchange) -> tuple[str, str]:
    """Return code and description out of a kept answer."""
    if exchange.kind == ExchangeKind.AUTHORIZATION:
        # What came in the browser is kept as one parameter a line.
        fields = dict(line.partition("=")[::2] for line in exchange.response.splitlines())
    else:
        _head, _blank, body = exchange.response.partition("\n\n")
        try:
            fields = token_response.read_body(body.encode(), "")
        except token_response.Malformed:
            return "", body
    error = fields.get("error") or ""
    if isinstance(error, dict):
        error = error.get("error") or error.get("status") or error.get("code") or ""
    names = ("error_description", "message", "detail", "hint")
    description = next((fields[name] for name in names if isinstance(fields.get(name), str)), "")
    return normalized(str(error)), description


def _sent_redirect(request: str) -> str:
    for line in request.splitlines():
        name, _equals, value = line.partition("=")
        if name == "redirect_uri":
            return value
    return ""


def _missing_refresh_token(credential: Credential, token: OAuthToken) -> Diagnosis | None:
    """Say how to ask for a refresh token when a token that ends came without one."""
    if (
        credential.grant_type != GrantType.AUTHORIZATION_CODE
        or not token.has_access_token()
        or token.has_refresh_token()
        or token.expires_at is None
    ):
        return None
    # What it leads to is the token's warning already; this is how to change it.
    return Diagnosis(
        cause=Cause.NO_REFRESH_TOKEN,
        message=_("No refresh token came. %s") % providers.refresh_hint(credential.provider),
        fields=_FIELDS[Cause.NO_REFRESH_TOKEN],
    )


_SECONDS = 5.0
# What only something that is no token endpoint answers.
_NO_ENDPOINT = frozenset({"html", "empty", "not_json", "not_an_object", "unsafe_url", "too_large"})
_NO_PAGE = frozenset({404, 405, 410})
_REFUSED = frozenset({"invalid_client", "incorrect_client_credentials", "http_401"})
_ABOUT_REDIRECT = re.compile(r"redirect[_ -]?ur[il]|callback ur[il]", re.IGNORECASE)
_ABOUT_CLIENT = re.compile(r"client[_ -]?id|unknown client|invalid[_ ]client", re.IGNORECASE)


class Kind(StrEnum):
    """How a finding is: only a problem is sure to stop an authorization."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    # The name of our field.
    field: str
    kind: Kind
    message: str

    @property
    def is_ok(self) -> bool:
        return self.kind is Kind.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What came of trying both ways to send the client's credentials."""

    message: str
    # The way to choose instead of the present one, or "".
    better: str = ""
    is_ok: bool = False


class _Doubt(ValueError):
    """Something that may be right although it does not look so."""


def examine(credential: Credential) -> list[Finding]:
    """Return what was found about callback, authorization and token endpoint."""
    checks = [("token_url", _check_token_url)]
    if endpoints.uses_authorization_code(credential):
        checks = [("callback_url", _check_callback), ("auth_url", _check_auth_url), *checks]
    if credential.refresh_url and endpoints.uses_authorization_code(credential):
        checks.append(("refresh_url", _check_refresh_url))
    if credential.revocation_url:
        checks.append(("revocation_url", _check_revocation_url))
    findings = []
    for name, check in checks:
        try:
            findings.append(Finding(field=name, kind=Kind.OK, message=check(credential)))
        except ValueError as problem:
            kind = Kind.WARNING if isinstance(problem, _Doubt) else Kind.PROBLEM
            findings.append(Finding(field=name, kind=kind, message=str(problem)))
    return findings


def try_authentication(credential: Credential) -> Tried:
    """Try both ways to send the client's credentials, and say which one works."""
    if not credential.client_secret:
        return Tried(
            message=_("There is no client secret, so there is only one way to send the client ID.")
        )
    labels = dict(ClientAuthentication.choices)
    try:
        works = {way: _is_known(credential, way) for way in ClientAuthentication.values}
    except Misconfigured as problem:
        return Tried(message=str(problem))
    good = [way for way, is_known in works.items() if is_known]
    if credential.client_authentication in good:
        return Tried(
            message=_("The provider accepts the credentials as they are sent now."), is_ok=True
        )
    if good:
        message = _("The provider accepts the credentials as “%(way)s”: choose that.")
        return Tried(message=message % {"way": labels[good[0]]}, better=good[0], is_ok=True)
    if None in works.values():
        return Tried(
            message=_("The provider did not answer clearly, so it cannot be told which way works.")
        )
    return Tried(
        message=_(
            "The provider accepts these credentials in neither way. Copy Client ID and Client "
            "secret again; a secret may have ended."
        )
    )


def _is_known(credential: Credential, way: str) -> bool | None:
    """Say whether the provider knows the client when it says so in this way."""
    changed = copy.copy(credential)
    changed.client_authentication = way
    if credential.grant_type == GrantType.CLIENT_CREDENTIALS:
        request = token_requests.client_credentials_request(changed)
    else:
        # No refresh token is like it, so nothing is used up: a known client hears invalid_grant.
        request = token_requests.refresh_request(changed, random.token_urlsafe(32))
    answer = _tell(credential, request)
    if answer.result is Result.TRANSIENT or answer.reason in _NO_ENDPOINT:
        return None
    return answer.reason.lower() not in _REFUSED


def _check_callback(credential: Credential) -> str:
    endpoints.check_callback_url(endpoints.callback_url(credential))
    return _("Leads back to this site. Register it with the provider, letter by letter.")


def _check_auth_url(credential: Credential) -> str:
    """Ask for the page a person would be sent to; nobody is logged in, so nothing is granted."""
    target = endpoints.checked_endpoint(credential.auth_url, _("Auth URL"))
    redirect_uri = endpoints.callback_url(credential)
    library = WebApplicationClient(credential.client_id)
    verifier = library.create_code_verifier(64) if credential.uses_pkce else ""
    state = random.token_urlsafe(32)
    try:
        url = authorization_url(credential, library, state, verifier, redirect_uri)
    except ValueError:
        # Another field is wrong and says so itself.
        url = target.url
    page = _get(url)
    location = urljoin(url, page.location) if page.location else ""
    if location.startswith(redirect_uri):
        return _judge_answer(credential, dict(parse_qsl(urlsplit(location).query)), redirect_uri)
    if page.status in _NO_PAGE or page.status >= 500:
        raise Misconfigured(_("Answered %d instead of a page. Copy the address from the "
                              "provider's documentation.") % page.status)  # fmt: skip
    if page.is_data:
        raise Misconfigured(
            _("Answered with data instead of a page: it may be another endpoint of the provider.")
        )
    if page.status >= 400 or "error" in urlsplit(location).path.lower():
        _doubt_page(page, redirect_uri)
    if location:
        host = exchange_log.clean(urlsplit(location).hostname or "", limit=100)
        return _("Leads on to %s, where you log in.") % host
    return _("Shows a page, where you log in and approve.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    status: int
    location: str = ""
    text: str = ""
    is_data: bool = False


def _get(url: str) -> _Page:
    """Return what a browser would get. Errors: Misconfigured."""
    session = network.guarded_session(total_seconds=_SECONDS, max_bytes=1_000_000)
    headers = {"Accept": "text/html,application/xhtml+xml"}
    try:
        answer = session.get(url, headers=headers, allow_redirects=False)
    except network.ResponseTooLarge as error:
        return _Page(status=error.status_code)
    except (network.UnsafeURL, network.SendError) as error:
        raise Misconfigured(error.reason) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise Misconfigured(_("Cannot be reached from this server.")) from error
    finally:
        session.close()
    content_type = answer.headers.get("Content-Type", "")
    return _Page(
        status=answer.status_code,
        location=answer.headers.get("Location", "") if 300 <= answer.status_code < 400 else "",
        text=decode(answer.content[:100_000], content_type),
        is_data=bool(answer.content) and media_type(content_type) == "application/json",
    )


def _judge_answer(credential: Credential, answer: dict[str, str], redirect_uri: str) -> str:
    """Judge what the provider sent back at once, without a person."""
    pending = AuthorizationRequest(credential=credential, redirect_uri=redirect_uri)
    try:
        callback.code_of(answer, pending)
    except AuthorizationFailed as error:
        raise Misconfigured(error.message) from error
    return _("Approves without asking anybody.")


def _doubt_page(page: _Page, redirect_uri: str) -> None:
    """Say what a page that refuses is about; a page can only be guessed at."""
    if page.status >= 400 and _ABOUT_REDIRECT.search(page.text):
        raise Misconfigured(token_errors.redirect_mismatch(redirect_uri))
    if page.status >= 400 and _ABOUT_CLIENT.search(page.text):
        raise Misconfigured(
            _("The provider does not know this client. Copy Client ID from the provider again.")
        )
    raise _Doubt(
        _(
            "The provider refuses to show its login page (%(status)d). Most often Client ID is "
            "not right, or exactly this callback URL is not registered there: %(url)s"
        )
        % {"status": page.status, "url": redirect_uri}
    )


def _check_token_url(credential: Credential) -> str:
    return _check_token_endpoint(credential, credential.token_url, _("Access token URL"))


def _check_refresh_url(credential: Credential) -> str:
    return _check_token_endpoint(credential, credential.refresh_url, _("Refresh URL"))


def _check_token_endpoint(credential: Credential, url: str, label: str) -> str:
    target = endpoints.checked_endpoint(url, label)
    request = token_requests.TokenRequest(
        url=target.url,
        kind=ExchangeKind.CHECK,
        headers={
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
        },
        # No credentials: an honest endpoint refuses this, and nobody else learns anything.
        pairs=[("grant_type", "authorization_code")],
        body=b"grant_type=authorization_code",
        expected=Expected(),
    )
    answer = _tell(credential, request)
    is_page = answer.reason in _NO_ENDPOINT or answer.reason in {f"http_{one}" for one in _NO_PAGE}
    if is_page or answer.reason.startswith("http_3") or answer.result is Result.TRANSIENT:
        raise Misconfigured(answer.message)
    return _("Answers like a token endpoint.")


def _check_revocation_url(credential: Credential) -> str:
    """Only look: an endpoint that revokes is not asked for fun."""
    target = endpoints.checked_endpoint(credential.revocation_url, _("Revocation URL"))
    try:
        network.check_url(target.url)
    except (network.UnsafeURL, network.NameNotResolved) as error:
        raise Misconfigured(error.reason) from error
    return _("May be asked, which happens only when a token is cleared.")


def _tell(credential: Credential, request: token_requests.TokenRequest) -> Answer:
    answer, transcript = client.tell(request, seconds=_SECONDS)
    # Kept apart from real requests: what a check hears is no state of the token.
    transcript = dataclasses.replace(transcript, kind=ExchangeKind.CHECK)
    message = _("A check, not a request for a token.")
    exchange_log.record(credential, transcript, result=answer.result, message=message)
    return answer
