"""What a refusal of a token endpoint means: wait, ask a person to authorize again, or correct.

Pure tables: RFC 6749 section 5.2, RFC 8707, OpenID Connect, and the words of the providers that
have their own. Whatever is not in them is a mistake in the settings.
"""

import re
from collections.abc import Iterable
from enum import StrEnum


class Result(StrEnum):
    """The one class every answer ends in."""

    OK = "ok"
    OK_WITH_WARNING = "ok_with_warning"
    TRANSIENT = "transient"
    NEEDS_REAUTHORIZATION = "needs_reauthorization"
    MISCONFIGURED = "misconfigured"


# Timeout, too early (RFC 8470), too many requests.
TRANSIENT_STATUSES = frozenset({408, 425, 429})
# There is no token endpoint at this address, whatever the page says.
WRONG_ADDRESS_STATUSES = frozenset({404, 405, 410, 411, 415})

TRANSIENT_ERRORS = frozenset(
    """
    temporarily_unavailable server_error slow_down too_many_requests rate_limit_exceeded
    rate_limited ratelimited throttled internal_error internal_server_error service_unavailable
    fatal_error request_timeout timeout unavailable try_again
    """.split()  # noqa: SIM905 - read as prose, by kind.
)
REAUTHORIZATION_ERRORS = frozenset(
    """
    invalid_grant interaction_required login_required consent_required access_denied
    account_selection_required mfa_required
    invalid_token expired_token token_expired token_revoked revoked_token
    invalid_refresh_token bad_refresh_token refresh_token_expired expired_refresh_token
    refresh_token_revoked
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
# These say themselves what is wrong, whatever the description adds.
_PLAIN_ERRORS = frozenset(
    {"invalid_client", "unauthorized_client", "invalid_scope", "invalid_target",
     "unsupported_grant_type"}
)  # fmt: skip
_ENDED = re.compile(
    r"refresh[ _]?token\b.{0,40}\b(expired|revoked|invalid|unknown|used|not found)"
    r"|\b(expired|revoked|invalid|unknown|used) refresh[ _]?token"
    r"|\btoken (has been|has|was|is) (expired|revoked)",
    re.IGNORECASE,
)
_LIMITED = re.compile(r"too many|rate limit|throttl|try again later|temporarily", re.IGNORECASE)


def judge(
    error: str,
    description: str,
    *,
    text: str = "",
    reauthorization_words: Iterable[str] = (),
    has_person: bool = True,
) -> Result:
    """Return what an error answer means; a client credentials grant has no person to ask.

    `text` is the whole answer: the admin's words are looked for in all of it.
    """
    result = _judge(error, description)
    if is_named(text or f"{error} {description}", reauthorization_words):
        result = Result.NEEDS_REAUTHORIZATION
    if result is Result.NEEDS_REAUTHORIZATION and not has_person:
        return Result.MISCONFIGURED
    return result


def is_named(text: str, words: Iterable[str]) -> bool:
    """Say whether one of the words is in the text, in any case."""
    text = text.casefold()
    return any(word.strip() and word.strip().casefold() in text for word in words)


def _judge(error: str, description: str) -> Result:
    code = normalized(error)
    for match in _AADSTS.finditer(description):
        if match[1] in _AADSTS_RESULTS:
            return _AADSTS_RESULTS[match[1]]
    if code in TRANSIENT_ERRORS:
        return Result.TRANSIENT
    # Zoho refuses too many requests as "Access Denied".
    if code in ("access_denied", "forbidden", "") and _LIMITED.search(description):
        return Result.TRANSIENT
    is_ended = code not in _PLAIN_ERRORS and _ENDED.search(description)
    if code in REAUTHORIZATION_ERRORS or is_ended:
        return Result.NEEDS_REAUTHORIZATION
    return Result.MISCONFIGURED


def normalized(error: str) -> str:
    """Return an error code in the spelling of the tables: "Access Denied" is access_denied."""
    return re.sub(r"[\s-]+", "_", error.strip()).lower()
