"""Explains what went wrong at a provider, and checks the settings before a person is sent there.

`diagnose` reads the exchange log and the token's row and sends nothing. `examine` and
`try_authentication` send requests that change nothing at the provider.
"""

import copy
import dataclasses
import re
import secrets as random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from urllib.parse import parse_qsl, urljoin, urlsplit

import requests
from django.utils.translation import gettext as _
from oauthlib.oauth2 import WebApplicationClient

from webhooks import network
from webhooks.models import (
    AuthorizationRequest,
    ClientAuthentication,
    Credential,
    ExchangeKind,
    OAuthExchange,
    OAuthToken,
    messages,
)
from webhooks.oauth import (
    callback,
    client,
    endpoints,
    exchange_log,
    parameters,
    token_requests,
)
from webhooks.oauth.authorize import authorization_url
from webhooks.oauth.errors import (
    ERRORS,
    AuthorizationError,
    MisconfiguredError,
    TokenResult,
    sentence,
    stored,
)
from webhooks.oauth.token_response import Expected, TokenResponse, media_type
from webhooks.security.encryption import SecretUnreadableError

_GRANT_KINDS = (ExchangeKind.AUTHORIZATION, ExchangeKind.TOKEN, ExchangeKind.REFRESH)
_SUCCESSFUL = (TokenResult.OK, TokenResult.OK_WITH_WARNING)
_URL = re.compile(r"https?://[^\s\"'<>“”‘’]+")
_SECONDS = 5.0
# Errors that a token endpoint would not cause.
_NO_ENDPOINT = frozenset(
    {
        *("html", "empty", "no_token_answer", "truncated", "too_large"),
        *("no_endpoint", "redirected", "redirected_unsafely", "unsafe_url"),
    }
)
_NO_PAGE = frozenset({404, 405, 410})
# Errors that the client authentication method can cause.
_MAY_BE_SENT_OTHERWISE = frozenset({"invalid_client", "client_or_grant", "refused_without_code"})
_ABOUT_REDIRECT = re.compile(r"redirect[_ -]?ur[il]|callback ur[il]", re.IGNORECASE)
_ABOUT_CLIENT = re.compile(r"client[_ -]?id|unknown client|invalid[_ ]client", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One failure, explained for an admin."""

    # The code in the table of errors; "" for a text without a code.
    code: str
    message: str
    fields: tuple[str, ...] = ()
    # For a callback URL mismatch: the URL that was sent, and the one that the provider names.
    sent: str = ""
    named: str = ""
    # The failed exchange; None if no request has failed.
    exchange: OAuthExchange | None = None

    @property
    def can_try_other_way(self) -> bool:
        return self.code in _MAY_BE_SENT_OTHERWISE

    @property
    def is_warning(self) -> bool:
        """Return whether the token can still be used or refreshed without a change."""
        return self.exchange is None or self.exchange.result == TokenResult.TRANSIENT


class Severity(StrEnum):
    """How bad a finding is: only a problem is sure to stop an authorization."""

    OK = "ok"
    NOT_CHECKED = "not_checked"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of checking one field."""

    # The name of the form field.
    field: str
    severity: Severity
    message: str

    @property
    def is_ok(self) -> bool:
        return self.severity is Severity.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticationCheck:
    """The result of trying the ways to send the client's credentials."""

    message: str
    # The authentication method to choose instead of the current one, or "".
    better: str = ""
    is_ok: bool = False


class _DoubtError(MisconfiguredError):
    """A setting looks wrong but may be correct; shown as a warning."""


def diagnose(credential: Credential) -> Diagnosis | None:
    """Return the failure of the last exchange, else a missing refresh token, else None."""
    last = OAuthExchange.objects.filter(credential=credential, kind__in=_GRANT_KINDS).first()
    if last is not None and last.result not in _SUCCESSFUL:
        return _of_exchange(last)
    token = OAuthToken.objects.filter(credential=credential).first()
    return _missing_refresh_token(credential, token) if token else None


def _of_exchange(exchange: OAuthExchange) -> Diagnosis:
    # The last line is the response's own error; lines before it say what that means for a refresh.
    code, params = messages.load(exchange.message.rpartition("\n")[2]) or ("", {})
    sent = str(params.get("url", "")) if code == "redirect_uri_mismatch" else ""
    urls = [one.rstrip(".,;)") for one in _URL.findall(str(params.get("said", "")))]
    return Diagnosis(
        code=code,
        message=sentence(exchange.message),
        fields=ERRORS[code].fields if code in ERRORS else ("auth_url", "token_url"),
        sent=sent,
        named=next((url for url in urls if url != sent), "") if sent else "",
        exchange=exchange,
    )


def _missing_refresh_token(credential: Credential, token: OAuthToken) -> Diagnosis | None:
    """Return how to get a refresh token if the stored token expires and has none."""
    if (
        credential.is_machine
        or not token.has_access_token()
        or token.has_refresh_token()
        or token.expires_at is None
    ):
        return None
    code = "no_refresh_token"
    return Diagnosis(
        code=code,
        message=sentence(stored(code, provider=credential.provider)),
        fields=ERRORS[code].fields,
    )


def examine(credential: Credential) -> list[Finding]:
    """Check the callback URL and the endpoints; return one finding for each."""
    checks: list[tuple[str, Callable[[Credential], str]]] = [("token_url", _check_token_endpoint)]
    if endpoints.uses_authorization_code(credential):
        checks = [("callback_url", _check_callback), ("auth_url", _check_auth_url), *checks]
    if credential.refresh_url and not credential.is_machine:
        checks.append(("refresh_url", partial(_check_token_endpoint, field="refresh_url")))
    if credential.revocation_url:
        checks.append(("revocation_url", _check_revocation_url))
    findings = []
    for name, check in checks:
        severity = Severity.NOT_CHECKED if name == "revocation_url" else Severity.OK
        try:
            findings.append(Finding(field=name, severity=severity, message=check(credential)))
        except ValueError as problem:
            is_doubt = isinstance(problem, _DoubtError)
            severity = Severity.WARNING if is_doubt else Severity.PROBLEM
            findings.append(Finding(field=name, severity=severity, message=str(problem)))
    return findings


def try_authentication(credential: Credential) -> AuthenticationCheck:
    """Try the ways to send the client's credentials and return which one works."""
    if not credential.has_secret("client_secret"):
        return AuthenticationCheck(
            message=_("There is no client secret, so there is only one way to send the client ID.")
        )
    try:
        answers = {method: _try_method(credential, method) for method in _methods(credential)}
    except (MisconfiguredError, SecretUnreadableError) as problem:
        return AuthenticationCheck(message=str(problem))
    now = answers[credential.client_authentication]
    # Only a token, or an error about the refresh token alone, shows that authentication worked.
    good = [method for method, one in answers.items() if one.is_ok or one.code == "invalid_grant"]
    if credential.client_authentication in good:
        return AuthenticationCheck(
            message=_("The provider accepts the credentials as they are sent now."), is_ok=True
        )
    if good:
        message = _("The provider accepts the credentials as “%(way)s”: choose that.")
        label = ClientAuthentication(good[0]).label
        return AuthenticationCheck(message=message % {"way": label}, better=good[0], is_ok=True)
    codes = {one.code for one in answers.values()}
    if not codes <= {"invalid_client", "client_or_grant"}:
        message = _(
            "The provider did not answer clearly, so it is unclear which way works. Its last "
            "response: %s"
        )
        return AuthenticationCheck(message=message % sentence(now.message))
    message = _(
        "The provider accepts these credentials in neither way. Copy Client ID and Client secret "
        "again; a secret may have expired."
    )
    if "client_or_grant" in codes:
        message += " " + _("If both are right, allow this client the grant at the provider.")
    return AuthenticationCheck(message=message)


def _methods(credential: Credential) -> list[str]:
    """Return the current authentication method, and the two that most providers accept."""
    usual = (ClientAuthentication.BASIC_HEADER.value, ClientAuthentication.REQUEST_BODY.value)
    return list(dict.fromkeys((credential.client_authentication, *usual)))


def _try_method(credential: Credential, method: str) -> TokenResponse:
    """Return the response to a token request with this authentication method."""
    changed = copy.copy(credential)
    changed.client_authentication = method
    # The admin's words may occur in any error and would hide its code.
    changed.reauthorization_words = []
    # Without an authorization response, leave out the parameters that take a value from it.
    changed.token_parameters = parameters.without_callback_values(changed, "token")
    changed.refresh_parameters = parameters.without_callback_values(changed, "refresh")
    if credential.is_machine:
        return _send_check(credential, token_requests.machine_request(changed))
    # A random refresh token uses nothing up: an authenticated client gets invalid_grant.
    return _send_check(
        credential, token_requests.refresh_request(changed, random.token_urlsafe(32))
    )


def _check_callback(credential: Credential) -> str:
    endpoints.check_callback_url(endpoints.callback_url(credential))
    return _("Leads back to this site. Register it with the provider exactly as shown.")


def _check_auth_url(credential: Credential) -> str:
    """Request the page that a person would be sent to, without a login, so nothing is granted."""
    target = endpoints.checked_endpoint(credential.auth_url, "auth_url")
    redirect_uri = endpoints.callback_url(credential)
    library = WebApplicationClient(credential.client_id)
    verifier = library.create_code_verifier(64) if credential.uses_pkce else ""
    state = random.token_urlsafe(32)
    try:
        url = authorization_url(credential, library, state, verifier, redirect_uri)
    except ValueError:
        # Another field is wrong; its own check reports that.
        url = target.url
    page = _get(url)
    status, headers = page.status_code, page.headers
    leads_to = headers.get("Location", "") if 300 <= status < 400 else ""
    try:
        location = urljoin(url, leads_to) if leads_to else ""
        login_host = urlsplit(location).hostname or ""
    except ValueError:
        location = login_host = ""
    if location.startswith(redirect_uri):
        return _judge_answer(credential, dict(parse_qsl(urlsplit(location).query)), redirect_uri)
    leads_nowhere = bool(leads_to) and not login_host
    if status in _NO_PAGE or status >= 500 or leads_nowhere:
        raise MisconfiguredError(_("Answered %d instead of a page. Copy the address from the "
                              "provider's documentation.") % status)  # fmt: skip
    content_type = headers.get("Content-Type", "")
    if page.content and media_type(content_type) == "application/json":
        raise MisconfiguredError(
            _("Answered with data instead of a page: it may be another endpoint of the provider.")
        )
    if status >= 400 or "error" in urlsplit(location).path.lower():
        _doubt_page(status, network.decode(page.content[:100_000], content_type), redirect_uri)
    if location:
        return _("Leads on to %s, where you log in.") % exchange_log.clean(login_host, limit=100)
    return _("Shows a page, where you log in and approve.")


def _get(url: str) -> requests.Response:
    """Return the response that a browser would get. Errors: MisconfiguredError."""
    session = network.GuardedSession(total_seconds=_SECONDS, max_bytes=1_000_000)
    headers = {"Accept": "text/html,application/xhtml+xml"}
    try:
        return session.get(url, headers=headers, allow_redirects=False)
    except network.ResponseTooLargeError as error:
        return error.head
    except network.TransferError as error:
        raise MisconfiguredError(_("Cannot be reached from this server.")) from error
    except network.NetworkError as error:
        raise MisconfiguredError(error.reason) from error


def _judge_answer(credential: Credential, answer: dict[str, str], redirect_uri: str) -> str:
    """Check an authorization response that the provider sent without asking a person."""
    pending = AuthorizationRequest(credential=credential, redirect_uri=redirect_uri)
    try:
        callback.code_of(answer, pending)
    except AuthorizationError as error:
        raise MisconfiguredError(error.message) from error
    return _("Approves without asking for consent.")


def _doubt_page(status: int, text: str, redirect_uri: str) -> None:
    """Raise MisconfiguredError for an error page; its cause is guessed from the text."""
    if status >= 400 and _ABOUT_REDIRECT.search(text):
        raise MisconfiguredError(stored("redirect_uri_mismatch", url=redirect_uri))
    if status >= 400 and _ABOUT_CLIENT.search(text):
        raise MisconfiguredError(
            _("The provider does not know this client. Copy Client ID from the provider again.")
        )
    raise _DoubtError(
        _(
            "The provider refuses to show its login page (%(status)d). Most often Client ID is "
            "not right, or exactly this callback URL is not registered there: %(url)s"
        )
        % {"status": status, "url": redirect_uri}
    )


def _check_token_endpoint(credential: Credential, field: str = "token_url") -> str:
    target = endpoints.checked_endpoint(getattr(credential, field), field)
    request = token_requests.TokenRequest(
        url=target.url,
        kind=ExchangeKind.CHECK,
        headers={
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
        },
        # No credentials: a token endpoint rejects this, and any other server learns no secret.
        pairs=[("grant_type", "authorization_code")],
        body=b"grant_type=authorization_code",
        expected=Expected(),
    )
    answer = _send_check(credential, request)
    if answer.reason == "no_token":
        # Neither a token nor an error of a known form: some providers have a form of their own.
        raise _DoubtError(answer.message)
    if answer.code in _NO_ENDPOINT or answer.result is TokenResult.TRANSIENT:
        raise MisconfiguredError(answer.message)
    return _("Answers like a token endpoint.")


def _check_revocation_url(credential: Credential) -> str:
    """Check only the URL: a request would revoke a token."""
    target = endpoints.checked_endpoint(credential.revocation_url, "revocation_url")
    try:
        network.check_url(target.url)
    except network.NetworkError as error:
        raise MisconfiguredError(error.reason) from error
    return _("Not tested: it is only called when a token is cleared.")


def _send_check(credential: Credential, request: token_requests.TokenRequest) -> TokenResponse:
    answer, transcript, _raw = client.send_once(request, seconds=_SECONDS)
    # Recorded as a check: its response says nothing about the state of the token.
    transcript = dataclasses.replace(transcript, kind=ExchangeKind.CHECK)
    exchange_log.record(
        credential, transcript, result=answer.result, message=stored("only_checked")
    )
    return answer
