"""Judges what came back in the browser before anything is believed or sent.

Source: RFC 6749 sections 3.1, 4.1.2, 10.12 and 10.15; RFC 9207; RFC 9700 sections 2.1 and 4.4.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import datetime
from typing import NoReturn

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.utils.translation import gettext as _

from webhooks.models import AuthorizationRequest, Credential
from webhooks.oauth import endpoints, exchange_log, token_errors
from webhooks.oauth.errors import AuthorizationFailed
from webhooks.oauth.token_errors import Sent, Step, normalized

User = AbstractBaseUser | AnonymousUser

MAX_VALUE = 4096
# An honest answer has three to six.
_MAX_PARAMETERS = 40
# RFC 6749 appendix A.11.
_CODE = re.compile(r"[\x20-\x7e]+")


def hashed(secret: str) -> str:
    """Return what is stored of a state or a session key: both are random, so a plain digest."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def read_query(query: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the parameters, each there once and of a sane size."""
    if len(query) > _MAX_PARAMETERS or any(
        len(name) > 256 or any(len(one) > MAX_VALUE for one in values)
        for name, values in query.items()
    ):
        _refuse(_("The provider's answer is too long, so nothing in it was used."))
    repeated = [name for name, values in query.items() if len(values) != 1]
    if repeated:
        _refuse(
            _(
                "The provider's answer names “%s” more than once, so nothing in it was used. "
                "Press “Get new access token” again."
            )
            % exchange_log.clean(repeated[0], limit=50)
        )
    return {name: values[0] for name, values in query.items()}


def take_request(
    state: str, *, user: User, session_key: str, now: datetime
) -> AuthorizationRequest:
    """Return the pending request of this state, and delete it: the row that is deleted counts.

    A state of another session or user is refused and stays: who began it can still finish.
    """
    pending = AuthorizationRequest.objects.filter(state_hash=hashed(state))
    found = pending.select_related("credential").first()
    if found is None:
        _refuse(_unknown_state() if state else _no_state())
    if found.user_id != user.pk:
        _refuse(_("This authorization was begun by another user, who has to finish it."))
    if not session_key or not hmac.compare_digest(found.session_hash, hashed(session_key)):
        _refuse(
            _(
                "This authorization was begun in another browser or before you logged in again. "
                "Press “Get new access token” here."
            )
        )
    deleted, _rows = pending.delete()
    if deleted != 1:
        _refuse(_unknown_state())
    if found.expires_at <= now:
        sentence = _("More than 10 minutes passed. Press “Get new access token” again.")
        _refuse(sentence, found.credential)
    return found


def _no_state() -> str:
    return _(
        "The provider's answer has no state, so it cannot be told who asked for it. Press “Get new "
        "access token” again; if it happens again, the provider does not support the authorization "
        "code grant."
    )


def _unknown_state() -> str:
    return _(
        "This answer belongs to no authorization that was begun here, or it was used already. "
        "Press “Get new access token” again and finish within 10 minutes."
    )


def check_request(found: AuthorizationRequest) -> None:
    """Refuse an answer when what it was asked for is no longer there or no longer the same."""
    credential = found.credential
    if credential.deleted_at is not None:
        _refuse(_("The webhook was deleted in the meantime."))
    if endpoints.client_fingerprint(credential) != found.client_fingerprint:
        _refuse(
            _(
                "The OAuth settings were changed while you were at the provider. Press “Get new "
                "access token” again."
            ),
            credential,
        )


def check_issuer(parameters: Mapping[str, str], found: AuthorizationRequest) -> None:
    """Refuse an answer of another authorization server than was asked (RFC 9207 section 2.4)."""
    issuer = parameters.get("iss")
    if issuer is None and found.requires_issuer:
        _refuse(
            _(
                "The provider promises to name itself in its answer, and this one has no name, so "
                "nothing in it was used. If the provider stopped doing that, set “Answers name "
                "the issuer” to No under Advanced."
            ),
            found.credential,
        )
    if issuer is None:
        return
    if found.issuer:
        is_right = hmac.compare_digest(issuer.encode(), found.issuer.encode())
    else:
        # No issuer was entered: at least it must be at home where the browser was sent to.
        expected = endpoints.origin_of_issuer(found.credential.auth_url)
        is_right = endpoints.origin_of_issuer(issuer) == expected
    if not is_right:
        _refuse(
            _(
                "The answer comes from “%(issuer)s”, which is not the provider the browser was "
                "sent to, so nothing in it was used. If it is the right one, enter it as Issuer."
            )
            % {"issuer": _words(issuer, found, limit=200)},
            found.credential,
        )


def check_data_center(parameters: Mapping[str, str], found: AuthorizationRequest) -> None:
    """Refuse a code that another of Zoho's data centers has to exchange.

    The address comes from the browser, so no secret is sent there before the admin entered it.
    """
    server = parameters.get("accounts-server")
    if server is None:
        return
    here = endpoints.origin_of_issuer(found.credential.token_url)
    if endpoints.origin_of_issuer(server) != here:
        _refuse(
            _(
                "The account lives at “%(server)s”. If that is right, choose that data center for "
                "Auth URL and Access token URL, then press “Get new access token” again."
            )
            % {"server": _words(server, found, limit=100)},
            found.credential,
        )


def code_of(parameters: Mapping[str, str], found: AuthorizationRequest) -> str:
    """Return the authorization code, or refuse with what the provider's error means."""
    code, error = parameters.get("code"), parameters.get("error")
    if code is not None and error is not None:
        _refuse(
            _(
                "The provider's answer has a code and an error at once, so neither was used. "
                "Press “Get new access token” again."
            ),
            found.credential,
        )
    if error is not None:
        description = parameters.get("error_description", "")
        words = _words(description or error, found)
        sentence = token_errors.with_quote(_error(error, description, found), words)
        _refuse(sentence, found.credential)
    if not code or not _CODE.fullmatch(code):
        _refuse(
            _(
                "The provider's answer has no authorization code. Check Auth URL, then press “Get "
                "new access token” again."
            ),
            found.credential,
        )
    return code


def _error(error: str, description: str, found: AuthorizationRequest) -> str:
    credential = found.credential
    code = normalized(error)
    texts = {
        "access_denied": _(
            "The access was not approved. Press “Get new access token” again and approve it; if "
            "you did, an administrator at the provider has to allow this client."
        ),
        "login_required": _("You have to log in at the provider. Press the button again."),
        "consent_required": _("An administrator at the provider has to consent to this client."),
        "interaction_required": _("The provider wants to ask you something. Try again."),
        "unsupported_response_type": _(
            "The provider does not allow the authorization code grant for this client. Allow it in "
            "the settings of the client at the provider."
        ),
        "server_error": _("The provider has a problem of its own. Try again later."),
        "temporarily_unavailable": _("The provider is overloaded. Try again later."),
        "application_suspended": _("The provider has suspended the application."),
    }
    if code in texts:
        return texts[code]
    sent = Sent(
        step=Step.CODE,
        scope=credential.scope,
        redirect_uri=found.redirect_uri,
        uses_pkce=credential.uses_pkce,
    )
    clean_error = _words(error, found, limit=100)
    return token_errors.refusal(clean_error, description, sent)


def _words(text: str, found: AuthorizationRequest, *, limit: int = exchange_log.MAX_TEXT) -> str:
    return exchange_log.clean(text, secrets=(found.credential.client_secret,), limit=limit)


def _refuse(sentence: str, credential: Credential | None = None) -> NoReturn:
    raise AuthorizationFailed(sentence, credential)
