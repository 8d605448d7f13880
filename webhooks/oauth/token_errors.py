"""Maps a token endpoint's refusal to a code in the table of errors.

Pure. Source: RFC 6749 section 5.2, RFC 8707, OpenID Connect, and the error codes and texts of
individual providers. An unknown error counts as a mistake in the settings.
"""

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from webhooks.oauth.errors import ERRORS, PROVIDER_CODES, TokenResult
from webhooks.oauth.granted_token import snake_case


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRefusal:
    """The error codes and texts of a response."""

    # The most specific of its codes.
    code: str = ""
    codes: tuple[str, ...] = ()
    # The text to show, and all texts that are searched.
    description: str = ""
    texts: tuple[str, ...] = ()


# Timeout, too early (RFC 8470), too many requests; nginx's closed connections (444, 499) and that
# of AWS's load balancer (460).
TRANSIENT_STATUSES = frozenset({408, 425, 429, 444, 460, 499})
# Unless the response has a known error code: conflict with a concurrent request, such as one with
# the same refresh token; slow down (Twitter's 420), misdirected (RFC 9110), locked (RFC 4918),
# retry (Microsoft's 449).
CONFLICT_STATUSES = frozenset({409, 420, 421, 423, 449})
# A proxy or backend failed, or stopped waiting, after the request had arrived; 503 is sent before
# it is processed.
LOST_STATUSES = frozenset({460, 499, 500, 502, 504})
# There is no token endpoint at this URL, whatever the body says.
WRONG_ADDRESS_STATUSES = frozenset({404, 405, 410, 411, 415})

# Microsoft puts a number with the cause into the description, often next to a general error code.
# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
_AADSTS = re.compile(r"AADSTS(\d{5,8})")
# Entra ID returns the code invalid_client for these too; the number shows the cause: callback URL,
# scope, resource or PKCE.
_AADSTS_ERROR_CODES = {
    **dict.fromkeys(("50011", "500112", "500113"), "redirect_uri_mismatch"),
    **dict.fromkeys(("650053", "70011", "28002", "28003", "1002012"), "invalid_scope"),
    **dict.fromkeys(("50001", "500011", "650057"), "invalid_target"),
    # Permissions of the application at another one; only the description says which.
    **dict.fromkeys(("65005", "650051", "650052", "650056"), "provider_error"),
    "9002325": "pkce_required",
    **dict.fromkeys(("9002326", "9002327"), "single_page_callback"),
    "700025": "public_client",
}
_AADSTS_NUMBERS = {
    TokenResult.NEEDS_REAUTHORIZATION: """
        70000 70008 70043 700081 700082 700084 50089 50132 50133 50173 54005 501481 65001 65004
        50053 50055 50057 50058 50072 50074 50076 50078 50079 50097 50105 50125 50126 50129 50131
        50140 50144 50158 50187 53000 53001 53002 53003 53004 90094 90095 160021 500121 530034
    """,
    TokenResult.MISCONFIGURED: """
        50011 50012 50020 50059 50128 500011 500021 700016 700025 700027 7000112 7000215 7000216
        7000218 7000222 700030 70001 70002 70003 70005 70007 70011 90002 90014 90019 90023 90102
        900023 9002313 9002325 9002326 9002327 90008 28002 28003 650052 650053 650054 650056 650057
    """,
    TokenResult.TRANSIENT: "90006 90024 90033 90055 50033 50196",
}
_AADSTS_RESULTS = {
    number: result for result, numbers in _AADSTS_NUMBERS.items() for number in numbers.split()
}
# Facebook has one code, with numbers. https://developers.facebook.com/docs/graph-api/guides/error-handling
_FACEBOOK = "oauth_exception"
_FACEBOOK_RESULTS = {
    **dict.fromkeys(("102", "190", "463", "467"), TokenResult.NEEDS_REAUTHORIZATION),
    **dict.fromkeys(("2", "4", "17", "32", "341", "368", "613"), TokenResult.TRANSIENT),
    # Unknown application, which Facebook calls a system error.
    "101": TokenResult.MISCONFIGURED,
}
# HTTP statuses that some providers put into the body of a response with another status.
_TRANSIENT_NUMBERS = frozenset({"408", "425", "429", "500", "502", "503", "504"})
# A generic error; the number after it tells which credential is wrong.
_AADSTS_GENERAL = "70002"
# Errors about the client ID or the client's credentials.
_AADSTS_CLIENT = frozenset(
    "700016 7000112 7000215 7000216 7000218 7000222 70002 90023 50012".split()  # noqa: SIM905
)
# Atlassian also returns this for an expired refresh token.
_NOT_ALLOWED = "unauthorized_client"
# Codes so general that the status or the description may show that the client is wrong.
_MAY_BE_CLIENT = frozenset({_NOT_ALLOWED, "invalid_request", "access_denied", "provider_error"})
_VAGUE_MISTAKES = frozenset({_NOT_ALLOWED, "invalid_request"})
# Codes whose description is more specific; Zoho answers too many requests with "Access Denied".
_GENERAL_ERRORS = frozenset({"invalid_request", "access_denied"})
# Codes that do not count in words: firewalls say "Permission denied", any site "Login required".
_SAID_BY_OTHERS = ("access_denied", "interaction_required", "invalid_request")
# Patterns for variants of known codes that are in no table: bad_authorization_code, wrong_client.
_WRONG = (
    r"(?:bad|invalid|illegal|incorrect|wrong|unknown|unrecogni[sz]ed|unregistered|deleted|disabled"
    r"|inactive)"
)
_OVER = (
    r"(?:expired|revoked|invalid(?:ated)?|unknown|malformed|mismatch|inactive|evicted|rotated"
    r"|redeemed|blacklisted|disabled|reused?|reuse_detected|(?:already_)?(?:used|consumed)"
    r"|not_(?:found|valid|active))"
)
_GRANTED = (
    r"(?:refresh_?token|(?:oauth|user)_?token"
    r"|(?:auth|authorization|device|verification|(?:user_)?temp)_?code)"
)
_INSTALLED = r"(?:app|application|integration|plugin|extension|add_?on)"
_CODE_PATTERNS = (
    (
        "invalid_client",
        rf"{_WRONG}_(?:client|application|app|(?:client|application|app|consumer)_?"
        r"(?:id|key|secret|credentials?|identifier|authentication)(?:_or_(?:client_)?secret)?)"
        rf"|(?:client|(?:client|app|application)_(?:id|key|secret))_{_OVER}"
        r"|(?:app|application)_(?:not_found|cannot_be_found|unknown|invalid|disabled|inactive)"
        r"|client_(?:id|secret)_(?:missing|required)|missing_client_(?:id|secret)"
        r"|client_auth(?:entication|orization)_failed|bad_client_credentials",
    ),
    (
        "invalid_grant",
        rf"(?:{_WRONG}|expired|revoked|invalidated|rotated|used|reused|stale)"
        rf"_(?:{_GRANTED}|token|code|grant)(?:_grant)?"
        rf"|(?:{_GRANTED}|token|code|grant)_(?:is_|has_|was_)?(?:been_)?{_OVER}"
        r"|(?:authorization|grant|consent|permission|connection|user|login|auth(?:entication)?"
        r"|access(?:_token)?|(?:\w+_)?session|token_\w+)_(?:expired|revoked|withdrawn)"
        r"|(?:authorization|consent|connection|session)_not_found"
        r"|(?:user|app|application)_deauthorized"
        # Bitrix24 and HubSpot: the person or their administrator removed the application.
        rf"|{_INSTALLED}_(?:(?:has|is|was)_)?(?:been_)?(?:not_(?:been_)?|no_longer_|un_?)installed"
        # LinkedIn also calls the refresh token an access token.
        r"|(?:expired|revoked)_(?:authorization|consent|session|access_token)"
        # How often a token may be used, or how many there may be; not how often in a time.
        rf"|(?:max_)?(?:(?:{_GRANTED}|token|code)_(?:usage|use|reuse)|refresh_?token)_(?:limit|quota)"
        r"(?:_(?:exceeded|reached))?",
    ),
    (
        "access_denied",
        r"(?:user|consent|access|authori[sz]ation|approval|permission|login)"
        r"_(?:request_)?(?:denied|declined|refused|rejected|cancell?ed)",
    ),
    (
        "interaction_required",
        r"re_?(?:login|connect|consent|auth(?:enticat(?:e|ion)|ori[sz](?:e|ation))?)"
        r"(?:_(?:required|needed))?"
        # VK and Slack.
        r"|need_(?:captcha|validation)|(?:captcha|otp|2fa|two_factor(?:_\w+)?|step_up)_required",
    ),
    ("application_suspended", r"(?:client|app|application)_(?:suspended|blocked|banned)"),
    (
        "invalid_scope",
        rf"{_WRONG}_scopes?|scopes?_(?:invalid|unknown|not_(?:allowed|permitted|supported|valid))"
        r"|unsupported_scopes?|missing_scopes?|scopes?_(?:missing|required)",
    ),
    (
        "redirect_uri_mismatch",
        rf"{_WRONG}_(?:redirect|callback)(?:_ur[il])?"
        r"|(?:redirect|callback)(?:_ur[il])?_(?:mismatch|invalid|not_(?:allowed|registered|valid))",
    ),
    (
        "unauthorized_client",
        rf"{_WRONG}_grant_type|unsupported_grant"
        r"|grant(?:_type)?_not_(?:supported|allowed|enabled|permitted)",
    ),
    ("invalid_target", rf"{_WRONG}_(?:audience|resource)|audience_(?:invalid|not_allowed)"),
    (
        "temporarily_unavailable",
        r"(?:\w+_)?maintenance(?:_mode)?|(?:\w+_)?(?:busy|overloaded)|overload_limit|over_quota"
        r"|limit_exceeded|(?:try|retry)(?:_again)?_later|too_early|lock_timeout|aborted|internal"
        r"|temporarily_(?:disabled|blocked)|concurrent_(?:request|refresh)s?|refresh_in_progress"
        r"|internal_server|(?:service|server|backend)_down"
        r"|(?:backend|upstream|database|gateway|network|internal|service)"
        r"(?:_server|_service)?_(?:error|unavailable|failure)"
        r"|(?:generic_server|technical|unexpected)_error",
    ),
)
_COMPILED_PATTERNS = [
    (code, re.compile(rf"(?:{pattern})(?:_error)?")) for code, pattern in _CODE_PATTERNS
]
# Names of HTTP statuses and error categories; any other code is more specific.
_GENERAL_WORDS = frozenset(
    """
    bad_request unauthorized unauthenticated forbidden not_found conflict unprocessable_entity
    api_error authentication_error authorization_error invalid_request_error oauth_error
    oauth2_error validation_error request_error client_error invalid invalid_argument
    """.split()  # noqa: SIM905
)
# Words that only say that there is an error, or that there is none.
FAILURES = frozenset({"error", "errors", "fail", "failed", "failure"})
NO_ERRORS = frozenset({"", "0", "none", "null", "false", "no_error", "ok", "success", "succeeded"})
# The value of `_vagueness` for a code that adds nothing to the HTTP status.
_MOST_VAGUE = 4
_LONGEST_CODE = 80
# Longer texts are pages and logs; only their beginning is searched.
_MAX_JUDGED = 4_000
_LIMIT_CODE = re.compile(
    r"(^|_)(rate|request|requests|query|api|call|calls|usage|daily|hourly|secondly|concurrency)_?"
    r"limit(s|ed|ing)?(_?(exceeded|reached))?$"
    r"|(^|_)(ratelimit|throttl|quota_exceeded|too_many_(requests|calls|attempts))",
)
_HEADING = re.compile(r"<(?:title|h1|h2)[^<>]{0,200}>([^<>]{1,500})", re.IGNORECASE)
# A code within a text, recognized by an underscore or a capital letter inside the word.
_CODE_WORD = re.compile(r"\b(?=[A-Za-z]*[a-z_][A-Z_])[A-Za-z][A-Za-z_]{4,60}\b")
# Text between "refresh token" and "expired": within one sentence and without another subject, so
# that "Missing parameter: refresh token. Unknown client" does not match.
_GAP = r"(?:(?!\b(?:secret|client[ _]secret|grant[ _]?type)\b)[^.;\n]){0,40}?"
_NARROW_GAP = r"(?:(?!\b(?:secret|client|grant[ _]?type))[^.;\n]){0,40}?"
_GRANT_ENDED = re.compile(
    rf"refresh[ _-]?token\b{_GAP}\b(expired|revoked|(?<!\bbe )used|redeemed|rotated|superseded"
    r"|blacklisted)"
    rf"|refresh[ _-]?token\b{_NARROW_GAP}\b(invalid|unknown|not found|not valid|no longer valid"
    r"|(not|no longer) active|not recogni[sz]ed|(does not|doesn't) exist|mismatch|reused?"
    r"|malformed|not be found)\b(?! (client|grant|parameter))"
    r"|\b(expired|revoked|invalid|unknown|used|no such) refresh[ _-]?token\b(?! grant)"
    r"|\b(find (the |this )?|reuse of (the |this |a )?)refresh[ _-]?token\b"
    # The grant as a whole.
    r"|\b(grant|authorization|consent|permission|access|session)s?"
    r" ((has|have|was|were|is|are|been|already) ){0,3}(revoked|expired|withdrawn)\b"
    r"|\b(please|must|has to|have to|needs? to)"
    r" (re-?(authori[sz]e|authenticate|connect|login)|(log|sign) ?in again)\b|^jwt expired\b"
    # WeChat and Pinduoduo.
    r"|\brefresh_token ?(timeout\b|已?过期|已?失效|无效)"
    # LinkedIn, about the refresh token.
    r"|\b(expired|revoked) access[ _]token\b"
    r"|\b(access_)?token (has been|has|was|is) (already |now )?(expired|revoked|inactive"
    r"|not active|stale|blacklisted)|\btoken not valid for any token type\b"
    rf"|\btoken\b{_GAP}\b(has been|was) (revoked|expired)\b"
    r"|\btoken (used|sent|provided|presented)( in the request)? (has|is) expired\b"
    r"|\bstale (refresh )?token\b|\btoken (was|has) already (been )?used\b"
    # Instagram says "Matching code".
    r"|\b(authorization|auth|matching)[ _-]code( grant)? (has|was|is|does) (already |been |not )*"
    r"(expired|used|redeemed|claimed|consumed|revoked|invalid|found|exist)\b"
    r"|\b(expired|revoked|invalid|unknown|used) (authorization|auth|verification)[ _-]code\b"
    # Discord and Asana.
    r"|\binvalid [\"'`]code[\"'`]"
    r"|[\"'`]code[\"'`] (provided |given )?((is|was|has) )?(invalid|expired|used)"
    # Hints of league/oauth2-server: Kommo, Laravel Passport.
    r"|\bcannot (decrypt|validate) the (provided )?(refresh token|authorization code)\b"
    r"|\b(token is not linked|authorization code was not issued) to (this )?client\b"
    r"|\b(auth(orization)? code|(?<!csrf )token) not found(?! in)"
    r"|\b(user|customer|owner|account)\b[^.;\n]{0,40}"
    r"\b(revoked|disconnected|deactivated|removed access|no longer exists)\b"
    # Bitrix24 and HubSpot.
    r"|\b(app|application|integration|plugin|extension|add[ -]?on)\b[^.;\n]{0,40}?"
    r" (not (been |currently )?|no longer |un-?)installed\b"
    # Auth0 and Kommo.
    r"|\b(user|account) (has been|is|was) (blocked|banned|deleted|disabled|locked|suspended)\b"
    # QQ and Naver.
    r"|\bcode is reused\b|\bno valid data in session\b"
    # X and Zoom.
    r"|\bvalue passed for the token was invalid"
    # One of a list of causes, such as LinkedIn's.
    r"|\b(authorization|auth) code (already )?expired\b"
    # Notion and Deezer.
    r"|(^|[.;:] ?)(invalid|wrong) code\s*([!.,:;]|$)"
    # Strava, as field and problem: "code invalid".
    r"|(^|[.;:] ?)(invalid token|(the |this |your )?(token|code|grant)"
    r" ((is|was|has|been|already) ){0,3}(invalid|expired|used|revoked|not valid|not found)"
    r"( or ((is|was|has|been|already) ){0,3}(invalid|expired|used|revoked))?)\s*([!.,;]|$)",
    re.IGNORECASE | re.MULTILINE,
)
_REFRESH_TOKEN_ENDED = re.compile(
    r"refresh[ _]?token (is|has|was) (been )?(already )?(invalid|expired|revoked|used|unknown)"
    r"|\b(expired|revoked|invalid|unknown|old|used) refresh[ _]?token\b(?! grant)"
    # Gitea.
    r"|\btoken was already used\b|\bunable to parse refresh[ _]?token\b",
    re.IGNORECASE,
)
_RATE = (
    r"too many (\w+ ){0,3}(requests|calls|attempts|tries|retries|queries|logins|times|connections)"
    r"|\b(rate|requests?|query|api|call|usage|frequency|daily|hourly|secondly|rolling)[ _-]?limit"
    # Netatmo.
    r"|\busage (has been |was )?(reached|exceeded)"
    r"|rate exceeded|\bquota\b|throttl|\btoo frequent"
)
_RATE_EXCEEDED = re.compile(_RATE, re.IGNORECASE)
# A limit that waiting does not lift: how often a token may be used, or how many there may be.
_TOKEN_LIMIT = re.compile(
    r"\b(?:token|code|grant)s? (?:usages?|uses?|reuse) (?:limit|quota|count)\b"
    r"|\brefresh[ _-]?tokens? (?:limit|quota)\b"
    r"|\b(?:usages?|uses?|reuse) (?:limit|quota|count) (?:of|for|on) "
    r"(?:(?:this|the|a|your|each) )?(?:refresh[ _-]?token|(?:authorization |auth )?code)\b"
    r"|\b(?:quota|limit|maximum|number) of (?:\d+ )?(?:(?:active|valid|live|refresh|access) )*"
    r"tokens\b(?! (?:per|an?|each|every) (?:second|minute|hour|day))",
    re.IGNORECASE,
)
# hh.ru and Exact Online refresh a token only after it has expired; until then it is still valid.
_NOT_EXPIRED = re.compile(
    r"(?:\b|_)token (?:(?:is |has |was )?(?:still )?not (?:yet )?(?:been )?|hasn't (?:yet )?)"
    r"expired\b",
    re.IGNORECASE,
)
# Words for a token that has ended, unless they are denied: "not revoked", "not expired or revoked".
_ENDED = (
    r"(?<!\bnot )(?<!\bnor )(?<!\bnot been )(?<!\bbe )(?<!expired or )(?<!expired nor )"
    r"\b(?:revoked|withdrawn|redeemed|superseded|rotated|evicted|blacklisted|invalidated"
    r"|no longer (?:valid|active)"
)
_SAYS_ENDED = re.compile(rf"{_ENDED})\b", re.IGNORECASE)
# The same beside "not expired". "Invalid request" is only the category of the error.
_ENDED_UNEXPIRED = re.compile(
    rf"{_ENDED}|(?:already |re)?used|consumed|unknown|malformed|mismatch|inactive|disabled|deleted"
    r"|not (?:found|valid|active|recogni[sz]ed)|(?:does not|doesn't) exist"
    r"|invalid(?! (?:request|grant|operation)\b))\b",
    re.IGNORECASE,
)
# hh.ru issues another token for the client itself only after five minutes.
_TOO_EARLY = re.compile(r"\btoken (?:refresh(?:ed)? )?too early\b", re.IGNORECASE)
_LIMITED = re.compile(
    rf"{_RATE}|\b(system|server|service) (is )?(too )?busy|(under|down for|scheduled) maintenance"
    r"|(already|is) in progress|technical difficult|\bat this time\b|concurrent (refresh|request)"
    r"|\bdatabase is locked"
    r"|try again (later|shortly|soon|after|in \w+)|retry (later|after|(your|the|this) request)"
    r"|temporarily|temporary (error|failure|problem|issue|outage)|\boverload(ed)?\b"
    r"|(internal|internal server|unexpected|system) error"
    r"|service (is )?(currently )?unavailable"
    r"|(request|gateway|upstream|server|service) timed? ?out",
    re.IGNORECASE,
)
_ABOUT_REDIRECT = re.compile(r"redirect[_ ]ur[il]|callback url", re.IGNORECASE)
# The text lists several causes.
_OR = re.compile(r"\bor\b", re.IGNORECASE)
# The audience or resource is missing or unknown; not "resource server" or "resource owner".
_ABOUT_TARGET = re.compile(
    r"\b(missing|required|invalid|unknown|unsupported)\b[^.;\n]{0,40}\b(audience|resource)\b"
    r"(?! (owner|server))"
    r"|\b(audience|resource)\b(?! (owner|server))[^.;\n]{0,40}?\b(missing|required|invalid|unknown"
    r"|not (been )?(white-?listed|allowed|found|registered|valid))\b"
    # Auth0.
    r"|\bno audience\b|\bservice not (?:found: |enabled within domain)",
    re.IGNORECASE,
)
# The scope is missing or wrong.
_ABOUT_SCOPE = re.compile(
    r"\b(?:missing|required|invalid|unknown|unsupported) (?:parameters?:? )?[\"'`]?scopes?\b"
    r"|\bscopes?\b[^.;\n]{0,60}?\b(?:missing|required|invalid|unknown|unsupported"
    r"|not (?:been )?(?:supported|allowed|valid|found|recogni[sz]ed|permitted))\b",
    re.IGNORECASE,
)
# The provider expected JSON and got form data, or the reverse.
_ABOUT_FORMAT = re.compile(
    r"\bcontent[ -]type\b|\bunsupported media type\b|\bapplication/(json|x-www-form-urlencoded)\b"
    r"|\b(must|should) be (in |valid )?json\b|\b(invalid|malformed)[ _]?json\b(?! web)"
    # The parsers of JavaScript, Django REST framework, FastAPI, Spring and GitHub.
    r"|\bin json at position\b|\bunexpected token\b.{1,80} is not valid json\b(?! web)"
    r"|\bjson (parse|decode) error\b|\bproblems parsing json\b(?! web)|\bbody is not valid json\b",
    re.IGNORECASE,
)
_UNSUPPORTED_FORMAT_STATUS = 415
# Features that a provider may require and that this client lacks: RFC 9449 and RFC 9126.
_UNSUPPORTED = {
    "dpop_needed": re.compile(r"(?<![a-z])dpop(?![a-z])", re.IGNORECASE),
    "par_needed": re.compile(r"(?i:pushed[ _-]?authorization[ _-]?request)|\bPAR\b"),
}
# Classes that a mention of DPoP or PAR in the text does not turn into a mistake in the settings.
_NOT_OF_SETTINGS = (TokenResult.NEEDS_REAUTHORIZATION, TokenResult.TRANSIENT)
# AWS, for a path that does not exist.
_NO_ROUTE = re.compile(r"\bmissing authentication token\b", re.IGNORECASE)
# Apigee, for a request to an API; a token endpoint would not expect an access token.
_ACCESS_TOKEN_WANTED = re.compile(r"\binvalid access token\b", re.IGNORECASE)
_ABOUT_PKCE = re.compile(
    r"\bpkce\b|\bcode[\s_-]*(?:verifier|challenge)|\bverifier\b", re.IGNORECASE
)
# PKCE itself is rejected. Other errors about PKCE concern this attempt's verifier or method.
_PKCE_UNWANTED = re.compile(
    r"not (?:be )?(?:supported|allowed|enabled|permitted|implemented)|unsupported|unexpected"
    r"|(?:unknown|unrecogni[sz]ed) (?:parameter|code|pkce)|disabled|does(?:n't| not) support"
    r"|must not",
    re.IGNORECASE,
)
# Client authentication failed: Keycloak, Auth0, Google, Hydra, Okta.
_WRONG_CLIENT = re.compile(
    r"\b(?:client )?credentials?\b(?! (?:grant|flow))|\bbasic auth\b|validating application"
    r"|\b(?:(?:app|client)[ _]?)?secret\b|(?<!re)authenticat"
    r"|(?:unknown|unregistered|unrecognized|invalid|disabled) (?:oauth )?(?:client|application)\b"
    # OpenIddict; WeChat, Instagram, Facebook.
    r"|\bclient[ _]id[\"'`]? (?:parameter )?(?:is|was) (?:missing|required|invalid|unknown|not)\b"
    r"|\b(?:missing|unknown|invalid|incorrect|wrong)"
    r" (?:client[ _]id|app[ _]?(?:id|key)|platform app)\b"
    r"|\b(?:client|application)\b[^.;\n]{0,80}?"
    r"(?:not found|not registered|unknown|does(?:n't| not) exist|disabled)",
    re.IGNORECASE,
)
# The same with the code of another error: Salesforce returns invalid_grant.
_WRONG_SECRET = re.compile(
    r"\b(?:invalid|wrong|bad|incorrect|unknown) client\b|\bclient[_ ]secret\b"
    r"|\bclient authentication\b",
    re.IGNORECASE,
)
# Status 401 for something else: Bitrix24's unpaid account, LinkedIn's permission of a client.
_NOT_OF_CREDENTIALS = re.compile(
    r"payment|subscription|billing|licen[cs]e|not allowed to create", re.IGNORECASE
)
_DENIED = re.compile(r"access[ _]denied|unauthori[sz]ed|credential", re.IGNORECASE)
_ABOUT_GRANT = re.compile(
    r"\bgrants?(?:[ _-]?types?)?\b|\bflow\b|service[ _]accounts?\b|response[ _]type"
    r"|client_credentials|_grant_type\b|\bunsupported_grant\b"
    # Google, for a service account without domain-wide delegation.
    r"|\bretrieve access tokens using this method\b",
    re.IGNORECASE,
)
# DocuSign, Salesforce, Zoom.
_CONSENT_MISSING = re.compile(
    r"consent[_ ](?:is )?required|(?:has ?n.t|has not|have not|not) (?:yet )?"
    r"(?:been )?(?:approved|authori[sz]ed|consented|granted consent)",
    re.IGNORECASE,
)
# Links to documentation, such as ".../errors#redirect_uri".
_LINK = re.compile(r"https?://\S+")
# Dotted message keys, such as Zitadel's and DingTalk's.
_DOTTED = re.compile(r"[A-Za-z_]{1,40}(\.[A-Za-z_]{1,40}){1,6}")
# Client authentication methods other than a plain secret: a signed JWT or a certificate.
_NEEDS_KEY = re.compile(
    r"\b(private_key_jwt|client_secret_jwt|self_signed_tls_client_auth|tls_client_auth)\b"
    r"|\b(client[ _-]assertion)(?:[ _]type)?\b|\b(signed jwt)\b"
    r"|\b(client (?:ssl |tls )?certificate|mutual tls|mtls)\b",
    re.IGNORECASE,
)
# The client is registered without a secret: Ory Hydra and others.
_SECRET_UNWANTED = re.compile(
    r"\bauthentication method [\"'`]?none[\"'`]?, but\b"
    r"|\bpublic clients?\b[^.;\n]{0,60}?\b(?:must|should|may|can) ?not\b"
    r"[^.;\n]{0,40}?\b(?:secrets?|credentials?|authenticat)",
    re.IGNORECASE,
)
# The error codes for a client that has no secret to check.
_CLIENT_CODES = {"private_key_jwt": "assertion_refused", "tls_client_auth": "certificate_refused"}
# The error page of nginx, and texts of other reverse proxies.
_CERTIFICATE_WANTED = re.compile(
    r"no required ssl certificate|ssl certificate (error|required)|no client certificate"
    r"|client certificate (is )?(required|missing)",
    re.IGNORECASE,
)
# Microsoft's text names both an assertion and a secret.
_OR_SECRET = re.compile(r"or '?client_secret|client_secret'? or", re.IGNORECASE)


def refusal_of(
    codes: Iterable[str], texts: Iterable[str], *, description: str = "", status: int = 0
) -> TokenRefusal:
    """Return the refusal of codes and texts; `code` is the first of the most specific, or ""."""
    found = tuple(one for one in codes if normalized(one) not in NO_ERRORS)
    # A sentence in place of a code is searched as a text; a known code in a text counts as a code.
    words = (*texts, *(one for one in found if " " in one.strip()))
    words = (*words, *(_spelled_out(one) for one in (*found, *texts) if _DOTTED.fullmatch(one)))
    named = tuple(word for text in (*found, *words) for word in _codes_in(text))
    if status not in WRONG_ADDRESS_STATUSES:
        # With these a router or a proxy may say "Application not found".
        named += tuple(filter(_is_code_in_words, texts))
    best = min((*found, *named), key=_vagueness, default="")
    return TokenRefusal(code=best, codes=found, description=description, texts=words)


def refusal_on_page(page: str) -> TokenRefusal:
    """Return the refusal in a web page's headings; empty unless one contains an OAuth error code.

    Shopify sends a page with the title "Oauth error invalid_request". Of the codes that require a
    new authorization only invalid_grant counts: a firewall's page may contain the others.
    """
    found = (html.unescape(match[1]) for match in _HEADING.finditer(page[:_MAX_JUDGED]))
    headings = [" ".join(one.split()) for one in found]
    words = (match[0] for heading in headings for match in _CODE_WORD.finditer(heading))
    code = next((word for word in words if _error_code_of(normalized(word))), "")
    name = normalized(code)
    is_over = result_of(name) is TokenResult.NEEDS_REAUTHORIZATION and name != "invalid_grant"
    if not code or is_over:
        return TokenRefusal()
    return refusal_of([code], headings, description=max(headings, key=len))


def _spelled_out(name: str) -> str:
    """Return "Errors.User.RefreshToken.Invalid" as "errors user refresh token invalid"."""
    return normalized(name.replace(".", " ")).replace("_", " ")


def _codes_in(text: str) -> Iterator[str]:
    words = (match[0] for match in _CODE_WORD.finditer(text[:_MAX_JUDGED]))
    return (word for word in words if is_known(word))


def _is_code_in_words(text: str) -> bool:
    """Return whether a text is a specific code in words, such as "Expired code"."""
    if " " not in text.strip() or len(text) > _LONGEST_CODE:
        return False
    return _error_code_of(normalized(text)) not in ("", *_SAID_BY_OTHERS)


def is_known(code: str) -> bool:
    """Return whether a code alone determines the error."""
    return _vagueness(code) == 0


def says_failure(code: str) -> bool:
    """Return whether a code says more than that there was an error."""
    return bool(code) and _vagueness(code) < _MOST_VAGUE


def _vagueness(code: str) -> int:
    name = normalized(code)
    if name in _GENERAL_ERRORS:
        return 1
    if _error_code_of(name) or _LIMIT_CODE.search(name):
        return 0
    if name.isdecimal() or name in FAILURES or name == "true" or ":" in name:
        return _MOST_VAGUE
    return 3 if name in _GENERAL_WORDS else 2


@lru_cache(maxsize=1024)
def _error_code_of(name: str) -> str:
    """Return the code in the table of errors for a known code or a variant of one, else ""."""
    # Servers in Java and .NET return a class name: TokenExpiredException.
    name = name.removeprefix("oauth_").removesuffix("_exception")
    if name in PROVIDER_CODES or len(name) > _LONGEST_CODE:
        return PROVIDER_CODES.get(name, "")
    return next((code for code, pattern in _COMPILED_PATTERNS if pattern.fullmatch(name)), "")


def judge(
    refusal: TokenRefusal,
    *,
    status: int = 0,
    text: str = "",
    reauthorization_words: Iterable[str] = (),
    has_person: bool = True,
) -> TokenResult:
    """Return the class of an error response; without `has_person` none needs re-authorization.

    `text` is the whole response, in which the admin's `reauthorization_words` are searched.
    """
    result = _judge(refusal, status)
    if is_named(text or "\n".join((*refusal.codes, *refusal.texts)), reauthorization_words):
        result = TokenResult.NEEDS_REAUTHORIZATION
    if result is TokenResult.NEEDS_REAUTHORIZATION and not has_person:
        return TokenResult.MISCONFIGURED
    return result


def is_named(text: str, words: Iterable[str]) -> bool:
    """Return whether the text contains one of the words, ignoring case."""
    text = text.casefold()
    return any(word.strip() and word.strip().casefold() in text for word in words)


def _is_not_expired(refusal: TokenRefusal) -> bool:
    """Return whether the provider waits until the access token has expired.

    Not if the token ended in another way: "Token is not expired but has been revoked".
    """
    words = "\n".join((refusal.description, *refusal.texts))[:_MAX_JUDGED]
    return bool(_NOT_EXPIRED.search(words)) and not _ENDED_UNEXPIRED.search(words)


def _judge(refusal: TokenRefusal, status: int) -> TokenResult:
    code, words = normalized(refusal.code), "\n".join(refusal.texts)[:_MAX_JUDGED]
    if _unsupported(refusal):
        return TokenResult.MISCONFIGURED
    if numbered := _by_number(refusal, words):
        return numbered
    if _is_not_expired(refusal) or _TOO_EARLY.search(words):
        return TokenResult.TRANSIENT
    known = result_of(code)
    if _denies_client(code, words, status):
        return TokenResult.MISCONFIGURED
    is_over = known is TokenResult.NEEDS_REAUTHORIZATION
    if known is TokenResult.TRANSIENT or (not is_over and _LIMIT_CODE.search(code)):
        return TokenResult.TRANSIENT
    # Salesforce returns invalid_grant for a rate limit.
    limited = _RATE_EXCEEDED if is_known(code) else _LIMITED
    may_be_limited = known is not TokenResult.MISCONFIGURED or code in _VAGUE_MISTAKES
    if may_be_limited and limited.search(words):
        is_used_up = _is_used_up(words, is_over=is_over)
        return TokenResult.NEEDS_REAUTHORIZATION if is_used_up else TokenResult.TRANSIENT
    # A specific code for a mistake in the settings overrides the description.
    is_named_mistake = known is TokenResult.MISCONFIGURED and code not in _VAGUE_MISTAKES
    ended = _REFRESH_TOKEN_ENDED if code == _NOT_ALLOWED else _GRANT_ENDED
    if is_over or (not is_named_mistake and ended.search(words)):
        return TokenResult.NEEDS_REAUTHORIZATION
    if not is_known(code) and _TRANSIENT_NUMBERS.intersection(refusal.codes):
        return TokenResult.TRANSIENT
    return TokenResult.MISCONFIGURED


def _is_used_up(words: str, *, is_over: bool) -> bool:
    """Return whether a text about a limit says that the grant has ended.

    `is_over` says that the code does, so that a word such as "revoked" is about the grant.
    """
    says_ended = _SAYS_ENDED.search(words) or _REFRESH_TOKEN_ENDED.search(words)
    is_ended = bool(says_ended) and (is_over or bool(_GRANT_ENDED.search(words)))
    return is_ended or bool(_TOKEN_LIMIT.search(words))


def _by_number(refusal: TokenRefusal, words: str) -> TokenResult | None:
    numbers = [match[1] for match in _AADSTS.finditer(words) if match[1] in _AADSTS_RESULTS]
    if numbers:
        return _AADSTS_RESULTS[min(numbers, key=lambda one: one == _AADSTS_GENERAL)]
    if normalized(refusal.code) != _FACEBOOK:
        return None
    # Code 1 is that of a wrong secret, too.
    if "1" in refusal.codes and "unknown error" in words.lower():
        return TokenResult.TRANSIENT
    return next((_FACEBOOK_RESULTS[n] for n in refusal.codes if n in _FACEBOOK_RESULTS), None)


def _error_code_by_number(words: str) -> str:
    numbers = (match[1] for match in _AADSTS.finditer(words))
    return next((_AADSTS_ERROR_CODES[one] for one in numbers if one in _AADSTS_ERROR_CODES), "")


def normalized(error: str) -> str:
    """Return an error code in the spelling of the tables.

    "Access Denied", accessDenied and "ACCESS-DENIED." all become access_denied.
    """
    return re.sub(r"[\s_]+", "_", snake_case(error.strip(" \t\r\n.!\"'")))


def result_of(code: str) -> TokenResult | None:
    """Return the class of a code in any spelling, or None if it is not in the table."""
    known = _error_code_of(normalized(code))
    return ERRORS[known].result if known else None


def error_code(
    refusal: TokenRefusal,
    result: TokenResult,
    *,
    status: int = 0,
    scope: str = "",
    uses_pkce: bool = False,
) -> str:
    """Return the code in the table of errors that says what to change after this refusal."""
    name = normalized(refusal.code)
    words = _cause_of(refusal)[:_MAX_JUDGED]
    known = _error_code_of(name) or "provider_error"
    if result is TokenResult.TRANSIENT:
        return "not_expired" if _is_not_expired(refusal) else "temporarily_unavailable"
    is_mistake = result is TokenResult.MISCONFIGURED
    if is_mistake and (wanted := _unsupported(refusal)):
        return wanted
    may_be_client = known in ("invalid_client", *_MAY_BE_CLIENT)
    if is_mistake and may_be_client and _SECRET_UNWANTED.search(words):
        return "public_client"
    if is_mistake and missing_method(refusal):
        return "client_key_needed"
    is_unnamed = is_mistake and known == "provider_error"
    if is_unnamed and status == 401 and _ACCESS_TOKEN_WANTED.search("\n".join(refusal.texts)):
        return "no_endpoint"
    if numbered := _error_code_by_number(words):
        return "missing_scope" if numbered == "invalid_scope" and not scope else numbered
    is_denied = is_mistake and _denies_client(name, "\n".join(refusal.texts), status)
    if known == "invalid_client" or is_denied:
        return "invalid_client"
    if known == "interaction_required" and not is_mistake:
        # VK's text asks to open its redirect_uri.
        return known
    is_ended = result is TokenResult.NEEDS_REAUTHORIZATION and _GRANT_ENDED.search(words)
    if is_ended and _ABOUT_REDIRECT.search(words) and _OR.search(words):
        # LinkedIn lists several causes; a new authorization fixes most of them.
        return "invalid_grant"
    if "redirect" in name or _ABOUT_REDIRECT.search(words):
        return "redirect_uri_mismatch"
    # A code alone, such as pkce_not_supported, is read as words.
    spelled = words.replace("_", " ")
    if known in ("invalid_grant", *_MAY_BE_CLIENT) and _ABOUT_PKCE.search(spelled):
        if not uses_pkce:
            return "pkce_required"
        is_unwanted = known != "invalid_grant" and _PKCE_UNWANTED.search(spelled)
        return "pkce_refused" if is_unwanted else "pkce_mismatch"
    if known in ("invalid_request", "access_denied") and _ABOUT_TARGET.search(words):
        return "invalid_target"
    if is_mistake and known in ("invalid_request", "provider_error"):
        if is_about_format(refusal, status):
            return "other_format"
        if _ABOUT_SCOPE.search(words):
            return "invalid_scope" if scope else "missing_scope"
    if is_mistake and known in _MAY_BE_CLIENT:
        if _is_about_client(refusal, known, status):
            return "invalid_client"
        if known == _NOT_ALLOWED and status == 403 and not _ABOUT_GRANT.search(words):
            return "client_or_grant"
    # Not for a grant that no person approves.
    if not is_mistake and known == "access_denied":
        return known
    if result is TokenResult.NEEDS_REAUTHORIZATION:
        return "invalid_grant"
    if known == "invalid_scope" and not scope:
        return "missing_scope"
    return known if result_of(known) is TokenResult.MISCONFIGURED else "provider_error"


def _cause_of(refusal: TokenRefusal) -> str:
    """Return the texts that may say the cause: with a general code all, else the first."""
    is_first = bool(refusal.description) and is_known(refusal.code)
    texts = () if is_first else (_LINK.sub("", one) for one in refusal.texts)
    # The code itself may be a sentence.
    return "\n".join(filter(None, (refusal.description, *texts))) or refusal.code


def assertion_code(refusal: TokenRefusal, code: str) -> str:
    """Return the error code for a rejected JWT (RFC 7523 section 3.1), else `code`."""
    known = _error_code_of(normalized(refusal.code))
    words = "\n".join((refusal.code, *refusal.texts))[:_MAX_JUDGED]
    if known in ("invalid_grant", "access_denied", "interaction_required") and (
        _CONSENT_MISSING.search(words)
    ):
        return "consent_missing"
    return "assertion_refused" if known == "invalid_grant" and code != "invalid_client" else code


def client_code(code: str, wanted: str, authentication: str) -> str:
    """Return the error code for a client that is not accepted, by how it authenticates.

    `wanted` is the method that the provider names, which may be the one that was used.
    """
    if code == "client_key_needed" and _is_method(wanted, authentication):
        code = "invalid_client"
    return _CLIENT_CODES.get(authentication, code) if code == "invalid_client" else code


def _is_method(wanted: str, authentication: str) -> bool:
    if wanted in ("client_assertion", "signed_jwt"):
        return authentication.endswith("_jwt")
    # The other names are those of a certificate.
    is_certificate = not wanted.endswith("_jwt") and authentication == "tls_client_auth"
    return is_certificate or wanted == authentication


def _denies_client(code: str, words: str, status: int) -> bool:
    """Return whether a code that normally concerns the grant concerns the client here."""
    if code == "access_denied":
        # Auth0's response to a wrong secret.
        return status == 401 and not _NOT_OF_CREDENTIALS.search(words[:_MAX_JUDGED])
    if code == "server_error":
        # ServiceNow's response to a wrong secret.
        return status == 401 and bool(_DENIED.search(words[:_MAX_JUDGED]))
    return code == "invalid_grant" and bool(_WRONG_SECRET.search(words[:_MAX_JUDGED]))


def _is_about_client(refusal: TokenRefusal, known: str, status: int) -> bool:
    """Return whether client authentication failed, rather than a permission of the client.

    Source: RFC 6749 section 5.2, where 401 means only that; RFC 9110 section 15.5.2.
    """
    words = "\n".join((refusal.code, *refusal.texts))[:_MAX_JUDGED]
    numbers = [match[1] for match in _AADSTS.finditer(words)]
    if numbers:
        return numbers[0] in _AADSTS_CLIENT
    if known == _NOT_ALLOWED and _ABOUT_GRANT.search(words) and not _WRONG_SECRET.search(words):
        return False
    is_unauthorized = status == 401 and not _NOT_OF_CREDENTIALS.search(words)
    return is_unauthorized or bool(_WRONG_CLIENT.search(words))


def names_client(refusal: TokenRefusal, status: int) -> bool:
    """Return whether a response without a code is about the client's credentials."""
    if status in (401, 403):
        return _is_about_client(refusal, "provider_error", status)
    words = "\n".join((refusal.code, *refusal.texts))[:_MAX_JUDGED]
    return status == 400 and bool(_WRONG_SECRET.search(words))


def is_about_format(refusal: TokenRefusal, status: int) -> bool:
    """Return whether a request was rejected because it was form data, or because it was JSON."""
    words = "\n".join((refusal.code, *refusal.texts))[:_MAX_JUDGED]
    is_said = status in (400, 422) and _ABOUT_FORMAT.search(words) is not None
    return is_said or status == _UNSUPPORTED_FORMAT_STATUS


def is_expired(refusal: TokenRefusal) -> bool:
    """Return whether the response says that the code or token has expired."""
    return "expired" in "\n".join((refusal.code, *refusal.texts))[:_MAX_JUDGED].lower()


def lacks_endpoint(text: str, status: int) -> bool:
    """Return whether the response shows that there is no token endpoint at this URL."""
    is_no_route = status == 403 and _NO_ROUTE.search(text[:_MAX_JUDGED]) is not None
    return is_no_route or status in WRONG_ADDRESS_STATUSES


def wants_certificate(text: str) -> bool:
    """Return whether the response says that the client presented no TLS certificate."""
    return _CERTIFICATE_WANTED.search(text[:_MAX_JUDGED]) is not None


def _unsupported(refusal: TokenRefusal) -> str:
    """Return the error code for a required feature that this client lacks, or ""."""
    code = normalized(refusal.code)
    # RFC 9449 section 7.1: a missing DPoP proof is also answered with invalid_token.
    is_clear = result_of(code) in _NOT_OF_SETTINGS and code != "invalid_token"
    if is_clear or _LIMIT_CODE.search(code):
        return ""
    words = "\n".join((refusal.code, refusal.description, *refusal.texts))[:_MAX_JUDGED]
    return next((name for name, words_of in _UNSUPPORTED.items() if words_of.search(words)), "")


def missing_method(refusal: TokenRefusal) -> str:
    """Return the authentication method that a provider requires instead of a secret, or ""."""
    words = "\n".join((refusal.code, *refusal.texts))[:_MAX_JUDGED]
    found = _NEEDS_KEY.search(words)
    if found is None or _OR_SECRET.search(words):
        return ""
    name: str = next(filter(None, found.groups()))
    return re.sub(r"[ -]", "_", name.lower())
