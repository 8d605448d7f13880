"""Says in full sentences what went wrong and what to change, for each step.

Pure: only texts. The button is called “Get new access token”, the fields as on the form.
"""

from dataclasses import dataclass
from enum import StrEnum

from django.utils.translation import gettext as _

from webhooks.oauth.verdicts import normalized


class Step(StrEnum):
    """Which request a token endpoint answers."""

    CODE = "authorization_code"
    REFRESH = "refresh_token"
    CLIENT_CREDENTIALS = "client_credentials"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What was sent, as far as a sentence needs it."""

    step: Step = Step.REFRESH
    # "header", "body", or "none" for a public client.
    credentials: str = "header"
    scope: str = ""
    redirect_uri: str = ""
    uses_pkce: bool = False


def with_quote(sentence: str, words: str) -> str:
    """Append what the provider said, if it said anything."""
    if not words:
        return sentence
    return f"{sentence} {_('The provider says:')} “{words}”"


def refusal(error: str, description: str, sent: Sent) -> str:
    """Return what to change after an error code of a token endpoint."""
    code, words = normalized(error), description.lower()
    if code in ("invalid_client", "incorrect_client_credentials") or code.startswith("bad_client"):
        return _wrong_credentials(sent)
    if "redirect" in code or (code != "invalid_client" and "redirect_uri" in words):
        return redirect_mismatch(sent.redirect_uri)
    if code in ("invalid_request", "invalid_grant") and _is_about_pkce(words):
        return _pkce(sent)
    if known := _known(code, sent):
        return known
    if code in ("access_denied", "consent_required"):
        return _("The provider no longer allows the access. Press “Get new access token”.")
    return _(
        "The provider refused the request with “%(error)s”. Check the settings of the client at "
        "the provider and the OAuth fields here."
    ) % {"error": error[:100] or _("no error code")}


def _known(code: str, sent: Sent) -> str:
    texts = {
        "unauthorized_client": _not_allowed(sent),
        "unsupported_grant_type": _not_allowed(sent),
        "invalid_scope": scope_refused(sent.scope),
        "invalid_target": _(
            "The provider does not know the resource. Correct Resource or Audience."
        ),
        "invalid_request": _(
            "The provider could not read the request. Check the addresses, “Send credentials as” "
            "and the extra parameters against its documentation."
        ),
    }
    return texts.get(code, "")


def redirect_mismatch(redirect_uri: str) -> str:
    if not redirect_uri:
        return _("The callback URL registered with the provider is not the one of this webhook.")
    return _(
        "The callback URL is not the one registered with the provider. Register exactly this one "
        "there: %(url)s"
    ) % {"url": redirect_uri}


def scope_refused(scope: str) -> str:
    if not scope:
        return _("The provider wants a scope. Its documentation lists them: fill in Scope.")
    return _(
        "The provider does not know or allow the scope “%(scope)s”. Correct Scope, or allow it for "
        "this client at the provider."
    ) % {"scope": scope[:200]}


def grant_ended(sent: Sent) -> str:
    """Return what to do when the code or the refresh token is no longer taken."""
    if sent.step is Step.CODE:
        return _(
            "The provider did not accept the authorization code, which is good for one use and a "
            "short time. Press “Get new access token” again. If that does not help, the callback "
            "URL registered there must be exactly %(url)s"
        ) % {"url": sent.redirect_uri}
    return _(
        "The provider no longer accepts the stored grant: it has expired or was revoked. Press "
        "“Get new access token”."
    )


def transient(status: int, sent: Sent) -> str:
    if status == 429:
        return f"{_('The provider asks to slow down (429).')} {_again(sent)}"
    sentence = _("The provider is not working (%(status)d).") % {"status": status}
    return f"{sentence} {_again(sent)}"


def failed(reason: str, sent: Sent) -> str:
    """Return that there is no answer, why, and what happens next."""
    return f"{_('The request to the provider failed:')} {reason.rstrip('.')}. {_again(sent)}"


def _again(sent: Sent) -> str:
    # A code works once, so its exchange is not repeated.
    if sent.step is Step.CODE:
        return _("Press “Get new access token” again in a while.")
    return _("It is tried again by itself.")


def http_refusal(status: int, sent: Sent) -> str:
    """Return what to change after a refusal without an error code."""
    if status == 401:
        return _wrong_credentials(sent)
    if status in (404, 405, 410, 411, 415):
        return _(
            "There is no token endpoint at Access token URL: it answered %(status)d. Copy the "
            "address from the provider's documentation."
        ) % {"status": status}
    return _(
        "The token endpoint refused the request with %(status)d and without a reason. Check "
        "Access token URL, Client ID, Client secret and “Send credentials as”."
    ) % {"status": status}


def redirected(location: str) -> str:
    if not location:
        return _("Access token URL answers with a redirect, which is not followed. Correct it.")
    return _(
        "Access token URL answers with a redirect to %(location)s, which is not followed: secrets "
        "go only where you say. If that is right, enter it as Access token URL."
    ) % {"location": location}


def no_token(*, found_at: str, path: str) -> str:
    """Return what to change when a good answer has no token where it was looked for."""
    if found_at:
        return _(
            "The answer has no access token where it was looked for, but one at “%(path)s”: enter "
            "that as “Path of the token in the answer”."
        ) % {"path": found_at}
    if path:
        return _(
            "The answer has no access token at “%(path)s”. Correct “Path of the token in the "
            "answer”."
        ) % {"path": path}
    return malformed("")


def malformed(reason: str) -> str:
    """Return what to change when an answer cannot be read."""
    texts = {
        "html": _(
            "Access token URL answered with a web page instead of a token: it may be the address "
            "of a login page. Copy the token endpoint from the provider's documentation."
        ),
        "empty": _(
            "Access token URL answered without any content. Check the address against the "
            "provider's documentation."
        ),
        "too_large": _("Access token URL answered with more than 64 KiB: that is no token."),
        "duplicate_keys": _(
            "The provider's answer names a field twice, so it is not clear which one counts. "
            "Nothing was stored. Report it to the provider."
        ),
        "unsafe_token": _(
            "The provider's access token has characters that cannot be sent in a header. Nothing "
            "was stored. Report it to the provider."
        ),
        "truncated": _("The provider's answer ends in the middle, twice in a row."),
    }
    return texts.get(reason) or _(
        "The answer of Access token URL is no token answer. Check the address against the "
        "provider's documentation."
    )


def unsupported_type(token_type: str) -> str:
    return _(
        "The provider gave a token of the type “%(type)s”, which cannot be sent as a bearer token. "
        "Turn sender-constrained tokens off for this client at the provider."
    ) % {"type": token_type[:50]}


def _wrong_credentials(sent: Sent) -> str:
    if sent.credentials == "none":
        return _(
            "The provider does not know this client ID, or wants a client secret: none was sent. "
            "Check Client ID and fill in Client secret."
        )
    if sent.credentials == "body":
        return _(
            "The provider does not accept the client ID or client secret, which were sent in the "
            "request body. Check both, or choose “Basic Auth header” at “Send credentials as”."
        )
    return _(
        "The provider does not accept the client ID or client secret, which were sent as a Basic "
        "Auth header. Check both, or choose “Client credentials in body” at “Send credentials as”."
    )


def _not_allowed(sent: Sent) -> str:
    return _(
        "The provider does not allow this client the grant “%(grant)s”. Allow it in the settings "
        "of the client at the provider."
    ) % {"grant": sent.step.value}


def _is_about_pkce(words: str) -> bool:
    return any(word in words for word in ("pkce", "code_verifier", "code_challenge", "verifier"))


def _pkce(sent: Sent) -> str:
    if sent.uses_pkce:
        return _(
            "The provider refused PKCE. Press “Get new access token” again; if that does not "
            "help, turn “Use PKCE” off."
        )
    return _("The provider requires PKCE. Turn “Use PKCE” on.")
