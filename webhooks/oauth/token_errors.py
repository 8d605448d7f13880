"""What a token endpoint's refusal means and what to change, in full sentences.

Pure tables: RFC 6749 section 5.2, RFC 8707, OpenID Connect, and the words of the providers that
have their own. Whatever is not in them is a mistake in the settings. The sentences name the button
“Get new access token” and the fields as on the form.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from django.utils.translation import gettext as _


class Result(StrEnum):
    """The one class every answer ends in."""

    OK = "ok"
    OK_WITH_WARNING = "ok_with_warning"
    TRANSIENT = "transient"
    NEEDS_REAUTHORIZATION = "needs_reauthorization"
    MISCONFIGURED = "misconfigured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What an answer says went wrong."""

    # The one of its codes that says most.
    code: str = ""
    codes: tuple[str, ...] = ()
    # The text to show, and all that are judged.
    description: str = ""
    texts: tuple[str, ...] = ()


# Timeout, too early (RFC 8470), too many requests.
TRANSIENT_STATUSES = frozenset({408, 425, 429})
# There is no token endpoint at this address, whatever the page says.
WRONG_ADDRESS_STATUSES = frozenset({404, 405, 410, 411, 415})

TRANSIENT_ERRORS = frozenset(
    """
    temporarily_unavailable server_error slow_down too_many_requests rate_limit_exceeded
    rate_limited ratelimited throttled internal_error internal_server_error service_unavailable
    fatal_error request_timeout timeout unavailable try_again
    backend_error bad_gateway deadline_exceeded gateway_timeout internal_failure overloaded
    resource_exhausted server_busy server_unavailable service_temporarily_unavailable
    system_error throttling
    """.split()  # noqa: SIM905 - read as prose, by kind.
)
REAUTHORIZATION_ERRORS = frozenset(
    """
    invalid_grant interaction_required login_required consent_required access_denied
    account_selection_required mfa_required
    invalid_token expired_token token_expired token_revoked revoked_token
    invalid_refresh_token bad_refresh_token refresh_token_expired expired_refresh_token
    refresh_token_revoked invalid_oauthtoken invalid_oauth_token
    invalid_code bad_code code_expired expired_code code_already_used bad_verification_code
    bad_auth_code authorization_code_expired expired_authentication
    account_inactive inactive_user user_disabled inactive_org app_uninstalled
    """.split()  # noqa: SIM905
)
# Microsoft says what happened by a number in the description, and often a general error beside it.
# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
_AADSTS = re.compile(r"AADSTS(\d{5,8})")
_AADSTS_NUMBERS = {
    Result.NEEDS_REAUTHORIZATION: """
        70000 70008 70043 700081 700082 700084 50089 50132 50133 50173 54005 501481 65001 65004
        50053 50055 50057 50058 50072 50074 50076 50078 50079 50097 50105 50125 50126 50129 50131
        50140 50144 50158 50187 53000 53001 53002 53003 53004 90094 90095 160021 500121 530034
    """,
    Result.MISCONFIGURED: """
        50011 50012 50020 50059 50128 500011 500021 700016 700025 700027 7000112 7000215 7000216
        7000218 7000222 700030 70001 70002 70003 70005 70007 70011 90002 90014 90019 90023 90102
        900023 9002313 9002325 9002326 90008 28002 28003 650052 650053 650054 650056 650057
    """,
    Result.TRANSIENT: "90006 90024 90033 90055 50033 50196",
}
_AADSTS_RESULTS = {
    number: result for result, numbers in _AADSTS_NUMBERS.items() for number in numbers.split()
}
# Facebook's numbers beside its one code. https://developers.facebook.com/docs/graph-api/guides/error-handling
_FACEBOOK = "oauth_exception"
_FACEBOOK_RESULTS = {
    **dict.fromkeys(("102", "190", "463", "467"), Result.NEEDS_REAUTHORIZATION),
    **dict.fromkeys(("2", "4", "17", "32", "341", "368", "613"), Result.TRANSIENT),
}
# HTTP statuses that some write into the body of another one.
_TRANSIENT_NUMBERS = frozenset({"408", "425", "429", "500", "502", "503", "504"})
# These say themselves what is wrong, whatever the description adds.
_PLAIN_ERRORS = frozenset(
    """
    invalid_client invalid_scope invalid_target unsupported_grant_type unsupported_response_type
    bad_client_id bad_client_secret invalid_client_id invalid_client_secret
    incorrect_client_credentials bad_redirect_uri redirect_uri_mismatch invalid_redirect_uri
    """.split()  # noqa: SIM905
)
# Atlassian says this of an ended refresh token too.
_NOT_ALLOWED = "unauthorized_client"
# Of these the description says more; Zoho refuses too many requests as "Access Denied".
_GENERAL_ERRORS = frozenset({"invalid_request", "access_denied"})
# The names of HTTP statuses and kinds: any other code says more.
_GENERAL_WORDS = frozenset(
    """
    bad_request unauthorized unauthenticated forbidden not_found conflict unprocessable_entity
    api_error authentication_error authorization_error invalid_request_error oauth_error
    oauth2_error validation_error request_error client_error invalid invalid_argument
    """.split()  # noqa: SIM905
)
# Words that only repeat that there is an error, or that there is none.
FAILURES = frozenset({"error", "errors", "fail", "failed", "failure"})
NO_ERRORS = frozenset({"", "none", "null", "false", "no_error", "ok", "success", "succeeded"})
# How little a code says: nothing beside an HTTP status, and below that something.
_NOTHING = 4
# Longer answers are pages and logs; what is said is said at the beginning.
_MAX_JUDGED = 4_000
_LIMIT_CODE = re.compile(
    r"(^|_)(rate|request|requests|query|api|call|calls|usage|daily|hourly|secondly|concurrency)_?"
    r"limit(s|ed|ing)?(_?(exceeded|reached))?$"
    r"|(^|_)(ratelimit|throttl|quota_exceeded|too_many_(requests|calls|attempts))",
)
# A code within other text has an underscore or, in camelCase, a capital inside.
_CODE_WORD = re.compile(r"\b(?=[A-Za-z]*[a-z_][A-Z_])[A-Za-z][A-Za-z_]{4,60}\b")
# What is expired or unknown is the token: nothing else is named in the same sentence, as it is in
# "Missing parameter: refresh token. Unknown client".
_GAP = r"(?:(?!\b(?:secret|client[ _]secret|grant[ _]?type)\b)[^.;\n]){0,40}?"
_NARROW_GAP = r"(?:(?!\b(?:secret|client|grant[ _]?type))[^.;\n]){0,40}?"
_ENDED = re.compile(
    rf"refresh[ _]?token\b{_GAP}\b(expired|revoked|(?<!\bbe )used)"
    rf"|refresh[ _]?token\b{_NARROW_GAP}\b(invalid|unknown|not found|not valid|no longer valid)\b"
    r"(?! (client|grant|parameter))"
    r"|\b(expired|revoked|invalid|unknown|used) refresh[ _]?token\b(?! grant)"
    r"|\btoken (has been|has|was|is) (already |now )?(expired|revoked)"
    r"|\bauthorization code (has|was|is) (already |been )*(expired|used|revoked)"
    # X and Zoom.
    r"|\bvalue passed for the token was invalid"
    r"|(^|[.;:] ?)invalid token\s*([!.,;]|$)",
    re.IGNORECASE | re.MULTILINE,
)
_REFRESH_TOKEN_ENDED = re.compile(
    r"refresh[ _]?token (is|has|was) (been )?(already )?(invalid|expired|revoked|used|unknown)"
    r"|\b(expired|revoked|invalid|unknown) refresh[ _]?token\b(?! grant)",
    re.IGNORECASE,
)
_LIMITED = re.compile(
    r"too many (\w+ ){0,3}(requests|calls|attempts|tries|retries|queries|logins|times|connections)"
    r"|(rate|requests?|query|api|call|usage|daily|hourly|secondly|rolling)[ _-]?limit"
    r"|rate exceeded|quota (has been |was )?exceeded|throttl"
    r"|try again (later|shortly|soon|after|in \w+)|retry (later|after|(your|the|this) request)"
    r"|temporarily|temporary (error|failure|problem|issue|outage)|overloaded|server is busy"
    r"|service (is )?(currently )?unavailable|(request|gateway|upstream|server) timed? ?out",
    re.IGNORECASE,
)


def refusal_of(codes: Iterable[str], texts: Iterable[str], *, description: str = "") -> Refusal:
    """Return what codes and texts say, with the first code that says most; "" if none does."""
    found = tuple(one for one in codes if normalized(one) not in NO_ERRORS)
    # A sentence in the place of a code is read as one; a known code in a text counts as a code.
    words = (*texts, *(one for one in found if " " in one.strip()))
    named = tuple(word for text in (*found, *words) for word in _codes_in(text))
    best = min((*found, *named), key=_vagueness, default="")
    return Refusal(code=best, codes=found, description=description, texts=words)


def _codes_in(text: str) -> Iterator[str]:
    words = (match[0] for match in _CODE_WORD.finditer(text[:_MAX_JUDGED]))
    return (word for word in words if is_known(word))


def is_known(code: str) -> bool:
    """Say whether a code alone decides what happened."""
    return _vagueness(code) == 0


def says_failure(code: str) -> bool:
    """Say whether a code says more than that there is an error."""
    return bool(code) and _vagueness(code) < _NOTHING


def _vagueness(code: str) -> int:
    name = normalized(code)
    if name in _GENERAL_ERRORS:
        return 1
    if name == _NOT_ALLOWED or name in TRANSIENT_ERRORS | REAUTHORIZATION_ERRORS | _PLAIN_ERRORS:
        return 0
    if _LIMIT_CODE.search(name):
        return 0
    if name.isdecimal() or name in FAILURES or name == "true" or ":" in name:
        return _NOTHING
    return 3 if name in _GENERAL_WORDS else 2


def judge(
    refusal: Refusal,
    *,
    text: str = "",
    reauthorization_words: Iterable[str] = (),
    has_person: bool = True,
) -> Result:
    """Return what an error answer means; a client credentials grant has no person to ask.

    `text` is the whole answer: the admin's words are looked for in all of it.
    """
    result = _judge(refusal)
    if is_named(text or "\n".join((*refusal.codes, *refusal.texts)), reauthorization_words):
        result = Result.NEEDS_REAUTHORIZATION
    if result is Result.NEEDS_REAUTHORIZATION and not has_person:
        return Result.MISCONFIGURED
    return result


def is_named(text: str, words: Iterable[str]) -> bool:
    """Say whether one of the words is in the text, in any case."""
    text = text.casefold()
    return any(word.strip() and word.strip().casefold() in text for word in words)


def _judge(refusal: Refusal) -> Result:
    code, words = normalized(refusal.code), "\n".join(refusal.texts)[:_MAX_JUDGED]
    if numbered := _by_number(refusal, words):
        return numbered
    if code in TRANSIENT_ERRORS or _LIMIT_CODE.search(code):
        return Result.TRANSIENT
    if not is_known(code) and (
        _LIMITED.search(words) or _TRANSIENT_NUMBERS.intersection(refusal.codes)
    ):
        return Result.TRANSIENT
    ended = _REFRESH_TOKEN_ENDED if code == _NOT_ALLOWED else _ENDED
    is_ended = code not in _PLAIN_ERRORS and ended.search(words)
    if code in REAUTHORIZATION_ERRORS or is_ended:
        return Result.NEEDS_REAUTHORIZATION
    return Result.MISCONFIGURED


def _by_number(refusal: Refusal, words: str) -> Result | None:
    for match in _AADSTS.finditer(words):
        if match[1] in _AADSTS_RESULTS:
            return _AADSTS_RESULTS[match[1]]
    if normalized(refusal.code) == _FACEBOOK:
        return next((_FACEBOOK_RESULTS[n] for n in refusal.codes if n in _FACEBOOK_RESULTS), None)
    return None


def normalized(error: str) -> str:
    """Return an error code in the spelling of the tables.

    "Access Denied" is access_denied, and so are accessDenied and "ACCESS-DENIED.".
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", error.strip(" \t\r\n.!\"'"))
    return re.sub(r"[\s_-]+", "_", words).lower()


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
