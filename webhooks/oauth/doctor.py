"""Looks at the settings of a webhook before a person is sent to the provider.

It asks both endpoints a question that changes nothing there, and says what the answers mean.
"""

import copy
import secrets as random
from dataclasses import dataclass

import requests
import urllib3
from django.utils.translation import gettext as _

from webhooks import network
from webhooks.models import ClientAuthentication, ExchangeKind, GrantType, Webhook
from webhooks.oauth import client, endpoints, exchanges
from webhooks.oauth.answers import Answer, Expected
from webhooks.oauth.errors import Misconfigured
from webhooks.oauth.verdicts import Result

_SECONDS = 5.0
# What only something that is no token endpoint answers.
_NO_ENDPOINT = frozenset({"html", "empty", "not_json", "not_an_object", "unsafe_url", "too_large"})
_NO_PAGE = frozenset({404, 405, 410})
_REFUSED = frozenset({"invalid_client", "incorrect_client_credentials", "http_401"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    # The name of our field.
    field: str
    is_ok: bool
    message: str


def examine(webhook: Webhook) -> list[Finding]:
    """Return what was found about callback, authorization and token endpoint."""
    checks = [("token_url", _check_token_url)]
    if endpoints.uses_authorization_code(webhook):
        checks = [("callback_url", _check_callback), ("auth_url", _check_auth_url), *checks]
    findings = []
    for name, check in checks:
        try:
            findings.append(Finding(field=name, is_ok=True, message=check(webhook)))
        except ValueError as problem:
            findings.append(Finding(field=name, is_ok=False, message=str(problem)))
    return findings


def try_authentication(webhook: Webhook) -> str:
    """Try both ways to send the client's credentials; return in a sentence which one works."""
    if not webhook.client_secret:
        return _("There is no client secret, so there is only one way to send the client ID.")
    labels = dict(ClientAuthentication.choices)
    try:
        works = {way: _is_known(webhook, way) for way in ClientAuthentication.values}
    except Misconfigured as problem:
        return str(problem)
    if None in works.values():
        return _("The provider did not answer clearly, so it cannot be told which way works.")
    good = [way for way, is_known in works.items() if is_known]
    if not good:
        return _(
            "The provider accepts these credentials in neither way. Copy Client ID and Client "
            "secret again; a secret may have ended."
        )
    if webhook.client_authentication in good:
        return _("The provider accepts the credentials as they are sent now.")
    return _("The provider accepts the credentials as “%(way)s”: choose that.") % {
        "way": labels[good[0]]
    }


def _is_known(webhook: Webhook, way: str) -> bool | None:
    """Say whether the provider knows the client when it says so in this way."""
    changed = copy.copy(webhook)
    changed.client_authentication = way
    if webhook.grant_type == GrantType.CLIENT_CREDENTIALS:
        request = client.client_credentials_request(changed)
    else:
        # No refresh token is like it, so nothing is used up: a known client hears invalid_grant.
        request = client.refresh_request(changed, random.token_urlsafe(32))
    answer = _tell(webhook, request)
    if answer.result is Result.TRANSIENT or answer.reason in _NO_ENDPOINT:
        return None
    return answer.reason.lower() not in _REFUSED


def _check_callback(webhook: Webhook) -> str:
    url = endpoints.callback_url(webhook)
    endpoints.check_callback_url(url)
    return _("Register exactly this callback URL with the provider: %s") % url


def _check_auth_url(webhook: Webhook) -> str:
    target = endpoints.checked_endpoint(webhook.auth_url, _("Auth URL"))
    session = network.guarded_session(total_seconds=_SECONDS, max_bytes=1_000_000)
    try:
        status = session.get(target.url, allow_redirects=False).status_code
    except network.ResponseTooLarge as error:
        status = error.status_code
    except network.UnsafeURL as error:
        raise Misconfigured(error.reason) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise Misconfigured(_("Auth URL cannot be reached from this server.")) from error
    finally:
        session.close()
    # Without its parameters a page may well refuse with 400 or ask to log in.
    if status in _NO_PAGE or status >= 500:
        raise Misconfigured(_("Auth URL answered %d instead of a page.") % status)
    return _("Auth URL answers.")


def _check_token_url(webhook: Webhook) -> str:
    target = endpoints.checked_endpoint(webhook.token_url, _("Access token URL"))
    request = client.TokenRequest(
        url=target.url,
        kind=ExchangeKind.TOKEN,
        headers={
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
        },
        # No credentials: an honest endpoint refuses this, and nobody else learns anything.
        pairs=[("grant_type", "authorization_code")],
        body=b"grant_type=authorization_code",
        expected=Expected(),
    )
    answer = _tell(webhook, request)
    is_page = answer.reason in _NO_ENDPOINT or answer.reason in {f"http_{one}" for one in _NO_PAGE}
    if is_page or answer.reason.startswith("http_3") or answer.result is Result.TRANSIENT:
        raise Misconfigured(answer.message)
    return _("Access token URL answers like a token endpoint.")


def _tell(webhook: Webhook, request: client.TokenRequest) -> Answer:
    answer, transcript = client.tell(request, seconds=_SECONDS)
    message = _("A check, not a request for a token.")
    exchanges.record(webhook, transcript, result=answer.result, message=message)
    return answer
