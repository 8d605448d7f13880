"""Parses every response of a token endpoint and puts it into exactly one class.

Pure: bytes in, a frozen value out, no exception leaves `classify`. The status is checked before the
body. Source: RFC 6749 sections 5.1 and 5.2, RFC 6750 section 2.1, and how providers deviate.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from webhooks import network
from webhooks.models import messages
from webhooks.oauth.endpoints import checked_endpoint
from webhooks.oauth.errors import (
    ERRORS,
    Grant,
    MisconfiguredError,
    TokenResult,
    UnusableResponseError,
    joined,
    stored,
)
from webhooks.oauth.exchange_log import bare_url, clean, mask_known
from webhooks.oauth.granted_token import (
    GrantedToken,
    has_token,
    http_date,
    number,
    read_grant,
    rotated_token,
    scope_change,
    snake_case,
)
from webhooks.oauth.token_errors import (
    CONFLICT_STATUSES,
    FAILURES,
    LOST_STATUSES,
    NO_ERRORS,
    TRANSIENT_STATUSES,
    WRONG_ADDRESS_STATUSES,
    TokenRefusal,
    assertion_code,
    client_code,
    error_code,
    is_about_format,
    is_expired,
    is_known,
    judge,
    lacks_endpoint,
    missing_method,
    names_client,
    normalized,
    refusal_of,
    refusal_on_page,
    result_of,
    says_failure,
    wants_certificate,
)

# Real responses have three levels; more would only cost recursion in the parser.
_MAX_DEPTH = 20
_MAX_FIELDS = 200
_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_FORM = re.compile(r"[A-Za-z_][\w.-]*=[^\s<>{}]*")
# A plain sentence, which cannot contain a token; some providers send it as text/html.
_PLAIN_WORDS = re.compile(r"[A-Za-z']{1,20}(?:,? [A-Za-z']{1,20}){1,15}[.!]?")
# With the content type of a form, unencoded spaces and a leading "&" are tolerated.
_DECLARED_FORM = re.compile(r"&*[A-Za-z_][\w.-]*=")
_HTML = re.compile(r"\s*(<!doctype|<html|<head|<body|<!--|<title|<script)", re.IGNORECASE)


def read_body(body: bytes, content_type: str) -> dict[str, Any]:
    """Return the fields of a JSON object or of form data.

    Errors: UnusableResponseError with the reason "empty", "html", "too_deep", "truncated",
    "duplicate_keys", "not_json" or "not_an_object".
    """
    text = network.decode(body, content_type).strip()
    if not text:
        raise UnusableResponseError("empty")
    if is_html(text, content_type):
        raise UnusableResponseError("html")
    if _is_form(text, content_type):
        return _read_form(text)
    return _read_json(text)


def is_html(text: str, content_type: str) -> bool:
    if text.startswith(("{", "[")):
        return False
    is_called_html = media_type(content_type) in ("text/html", "application/xhtml+xml")
    return _HTML.match(text) is not None or (is_called_html and not _FORM.fullmatch(text))


def media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_form(text: str, content_type: str) -> bool:
    if media_type(content_type) == "application/x-www-form-urlencoded":
        return _DECLARED_FORM.match(text) is not None
    # Some providers send form data as text/plain or text/html.
    return _FORM.fullmatch(text) is not None and media_type(content_type) != "application/json"


def _read_form(text: str) -> dict[str, Any]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise UnusableResponseError("not_json") from error
    return _unique(pairs)


def _read_json(text: str) -> dict[str, Any]:
    depth, deepest = _measure(text)
    if deepest > _MAX_DEPTH:
        raise UnusableResponseError("too_deep")
    try:
        document = json.loads(
            text, object_pairs_hook=_unique, parse_int=_integer, parse_constant=_constant
        )
    except UnusableResponseError:
        raise
    except (ValueError, RecursionError) as error:
        is_cut = text.startswith("{") and depth > 0
        raise UnusableResponseError("truncated" if is_cut else "not_json") from error
    if not isinstance(document, dict):
        raise UnusableResponseError("not_an_object")
    return document


def _measure(text: str) -> tuple[int, int]:
    """Return how many brackets are open at the end, and the deepest nesting."""
    depth = deepest = 0
    for match in _TOKENS.finditer(text):
        bracket = match[0]
        if bracket in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif bracket in "]}":
            depth -= 1
    return depth, deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise UnusableResponseError("duplicate_keys")
    return fields


def _integer(text: str) -> int | float:
    # int() refuses very long numbers with a ValueError.
    return int(text) if len(text) < 20 else float(text)


def _constant(text: str) -> float:
    # NaN and Infinity are not JSON; as an expiry they are ignored.
    return math.nan


_CALL = re.compile(r"(?:/\*\*/)?\s*[\w.$]{1,60}\s*\(\s*(\{.*\})\s*\)\s*;?", re.DOTALL)
# RFC 6750 section 3: the parameters of a challenge.
_CHALLENGE = re.compile(r'(?<![\w-])([\w-]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s",]++))')
_MAX_CHALLENGE = 4_000
# A longer Retry-After is a provider's mistake; the token may be needed sooner.
MAX_RETRY_AFTER_SECONDS = 3600.0
_MAX_CLOCK_SECONDS = 86_400.0
# Names of fields with error codes and descriptions, in order of preference, compared without case
# and underscores: "errorCode", "ErrorCode" and "error_code" are one name.
_ERRORS = ("error", "errors", "err", "errorcode", "errcode", "errorresponse", "suberror", "fault")
_CODES = (
    *_ERRORS, "code", "reason", "status", "type", "errortype", "category", "title", "faultstring",
)  # fmt: skip
_TEXTS = (
    "errordescription", "errormessage", "message", "detail", "hint", "title", "errorreason",
    "errormsg", "errmsg", "msg", "faultstring", "errorsummary", "description",
    "developermessage", "moreinformation", "errordetail",
)  # fmt: skip
# Objects that may contain an error; inside them only the names in _NESTED_NAMES count.
_ERROR_CONTAINERS = ("data", "response", "result", "detail", "details", "meta")
_NESTED_NAMES = frozenset({*_ERRORS, "code", "reason", *_TEXTS})
# The codes that a refusal's text alone may name.
_CAUSES = frozenset(
    {
        *("redirect_uri_mismatch", "invalid_scope", "missing_scope", "unauthorized_client"),
        *("invalid_target", "pkce_required", "pkce_mismatch", "pkce_refused"),
        *("single_page_callback", "public_client"),
    }
)
# Token types that Intuit, Apigee, eBay and Azure DevOps use for bearer tokens, and Slack's, which
# count only in a response with "ok".
_BEARER_TYPES = (
    *("BearerToken", "Bearer Token", "User Access Token", "Application Access Token"),
    "jwt-bearer",
)
_SLACK_TYPES = ("bot", "user")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawResponse:
    """A response as received; `is_too_large` if the rest of its body was not read."""

    status: int
    content_type: str = ""
    body: bytes = field(default=b"", repr=False)
    retry_after: str = ""
    location: str = ""
    date: str = ""
    www_authenticate: str = ""
    is_too_large: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What was sent in the request, and the credential's settings for reading the response."""

    grant: Grant = Grant.REFRESH
    scope: str = ""
    redirect_uri: str = ""
    # How the client authenticates.
    authentication: str = ""
    uses_pkce: bool = False
    token_path: str = ""
    reauthorization_words: tuple[str, ...] = ()
    # Accepted types other than bearer, among them the credential's header prefix.
    token_types: tuple[str, ...] = ()
    # Masked wherever the response repeats them.
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenResponse:
    """The class of a response, and the token of a successful one."""

    result: TokenResult
    # Machine-readable: "invalid_grant", "html", "unsafe_token", "http_503", ...
    reason: str = ""
    # The error and the warnings as stored; empty if there are none.
    message: str = ""
    warning: str = ""
    token: GrantedToken | None = None
    # A new refresh token from a refresh response without a usable access token.
    refresh_token: str = field(default="", repr=False)
    is_truncated: bool = False
    # The provider may have processed the request, but its response was lost.
    is_lost: bool = False
    retry_after_seconds: float | None = None

    @property
    def code(self) -> str:
        """Return the code in the table of errors, "" for a successful response."""
        message = messages.load(self.message)
        return message.code if message else ""

    @property
    def is_ok(self) -> bool:
        return self.token is not None


def classify(
    raw: RawResponse,
    expected: Expected | None = None,
    *,
    now: datetime | None = None,
    is_last: bool = False,
) -> TokenResponse:
    """Return a classified response.

    A truncated JSON document is transient unless `is_last` says that it was the last attempt.
    """
    expected, now = expected or Expected(), _answered_at(raw, now or datetime.now(UTC))
    if raw.status >= 500 or raw.status in TRANSIENT_STATUSES:
        return _transient(raw, expected, now)
    if not 200 <= raw.status < 300 and raw.status < 400:
        return _misconfigured(f"http_{raw.status}", _redirected(raw, expected))
    if raw.is_too_large and raw.status >= 400:
        # A web page, or something else that is not a token endpoint's response.
        return _refused_without_code(raw, expected, now)
    if raw.is_too_large:
        return _misconfigured("too_large", stored("too_large"))
    try:
        fields = read_body(raw.body, raw.content_type)
    except UnusableResponseError as problem:
        if problem.reason == "truncated" and not is_last:
            return TokenResponse(
                result=TokenResult.TRANSIENT,
                reason="truncated",
                message=stored("cut_off"),
                is_truncated=True,
                is_lost=True,
            )
        text = network.decode(raw.body, raw.content_type).strip()
        if refusal := _refusal_in_call(text):
            return _refused(refusal, raw, expected, now)
        if raw.status >= 400:
            return _refused_without_code(raw, expected, now)
        refusal = refusal_of((), (text,))
        if problem.reason == "not_json" and result_of(refusal.code):
            # XML, or form data sent as JSON. It may contain a token, so only the code is shown.
            return _refused(replace(refusal, description=refusal.code), raw, expected, now)
        is_sentence = any(map(_PLAIN_WORDS.fullmatch, refusal.texts))
        if is_sentence and _judged(refusal, raw, expected) is not TokenResult.MISCONFIGURED:
            return _refused(refusal, raw, expected, now)
        return _misconfigured(problem.reason, problem.message)
    return _read(fields, raw, expected, now)


def _redirected(raw: RawResponse, expected: Expected) -> str:
    """Return the error for a redirect; its target is offered only if it could be entered."""
    if not raw.location:
        return stored("no_endpoint", status=raw.status)
    location = _words(bare_url(raw.location), expected)
    try:
        checked_endpoint(raw.location, "token_url")
    except MisconfiguredError:
        return stored("redirected_unsafely", location=location)
    return stored("redirected", location=location)


def _answered_at(raw: RawResponse, now: datetime) -> datetime:
    """Return when the response was sent by the server's clock, which its expiry times refer to.

    A server clock that is off by more than a day is ignored.
    """
    sent_at = http_date(raw.date)
    is_clock = sent_at is not None and abs(sent_at - now.timestamp()) < _MAX_CLOCK_SECONDS
    return datetime.fromtimestamp(sent_at, UTC) if sent_at is not None and is_clock else now


def _read(
    fields: dict[str, Any], raw: RawResponse, expected: Expected, now: datetime
) -> TokenResponse:
    refusal = _refusal_in(fields, raw.status)
    if _declares_error(fields):
        refusal = replace(refusal, code=refusal.code or "error")
    elif raw.status < 300:
        return _granted(fields, refusal, raw, expected, now)
    elif not says_failure(refusal.code):
        return _refused_without_code(raw, expected, now, refusal)
    return _refused(refusal, raw, expected, now)


def is_refusal(raw: RawResponse) -> bool:
    """Return whether a response declares an error in its body, whatever its status."""
    try:
        return _declares_error(read_body(raw.body, raw.content_type))
    except UnusableResponseError:
        return False


def _refusal_in_call(text: str) -> TokenRefusal | None:
    """Return the refusal in a JSONP call, or None: QQ sends `callback( {"error": ...} );`."""
    found = _CALL.fullmatch(text)
    try:
        fields = _read_json(found[1]) if found else {}
    except UnusableResponseError:
        return None
    return _refusal_in(fields) if _declares_error(fields) else None


def _transient(raw: RawResponse, expected: Expected, now: datetime) -> TokenResponse:
    words = _words(_said(raw), expected)
    code = "rate_limited" if raw.status == 429 else "unavailable"
    return TokenResponse(
        result=TokenResult.TRANSIENT,
        reason=f"http_{raw.status}",
        message=stored(code, status=raw.status, said=words),
        is_lost=raw.status in LOST_STATUSES or raw.status >= 520,
        retry_after_seconds=retry_after(raw.retry_after, now),
    )


def _said(raw: RawResponse) -> str:
    """Return the description, code or text in a body; "" for a web page."""
    try:
        refusal = _refusal_in(read_body(raw.body, raw.content_type))
    except UnusableResponseError as problem:
        is_page = problem.reason == "html"
        return "" if is_page else network.decode(raw.body, raw.content_type)
    return refusal.description or refusal.code


def retry_after(value: str, now: datetime) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110 section 10.2.3), bounded."""
    seconds = number(value)
    if seconds is None and (moment := http_date(value)) is not None:
        seconds = moment - now.timestamp()
    if seconds is None or seconds <= 0:
        return None
    return min(seconds, MAX_RETRY_AFTER_SECONDS)


def _refused(
    refusal: TokenRefusal, raw: RawResponse, expected: Expected, now: datetime
) -> TokenResponse:
    """Return the classified response for a refusal, whatever its status."""
    result = _judged(refusal, raw, expected)
    return TokenResponse(
        result=result,
        reason=clean(refusal.code, secrets=expected.secrets, limit=100) or "provider_error",
        message=stored_refusal(refusal, result, expected, status=raw.status),
        retry_after_seconds=retry_after(raw.retry_after, now),
    )


def stored_refusal(
    refusal: TokenRefusal, result: TokenResult, expected: Expected, *, status: int = 0
) -> str:
    """Return a provider's refusal as it is stored, including the provider's own description."""
    code = error_code(
        refusal, result, status=status, scope=expected.scope, uses_pkce=expected.uses_pkce
    )
    is_machine = expected.grant is Grant.CLIENT_CREDENTIALS
    if is_machine and status == 401 and code == "provider_error" and names_client(refusal, status):
        # RFC 6749 section 5.2: without a grant that could have ended, 401 is about the client.
        code = "invalid_client"
    code = client_code(code, missing_method(refusal), expected.authentication)
    if expected.grant is Grant.JWT_BEARER and result is TokenResult.MISCONFIGURED:
        code = assertion_code(refusal, code)
    if expected.grant is Grant.DEVICE_CODE and code == "invalid_grant" and is_expired(refusal):
        code = "device_code_expired"
    if code == "provider_error" and status in WRONG_ADDRESS_STATUSES:
        code = "no_endpoint"
    words = refusal.description or " ".join(refusal.texts) or refusal.code
    params: dict[str, str | int] = {
        "status": status,
        "error": clean(refusal.code, secrets=expected.secrets, limit=100),
        "grant": expected.grant.value,
        "scope": expected.scope,
        "url": expected.redirect_uri,
        "method": missing_method(refusal),
    }
    named = {name: value for name, value in params.items() if ERRORS[code].names(name)}
    return stored(code, **named, said=clean(words, secrets=expected.secrets))


def _judged(refusal: TokenRefusal, raw: RawResponse, expected: Expected) -> TokenResult:
    result = judge(
        refusal,
        status=raw.status,
        text=network.decode(raw.body, raw.content_type),
        reauthorization_words=expected.reauthorization_words,
        has_person=expected.grant not in (Grant.CLIENT_CREDENTIALS, Grant.JWT_BEARER),
    )
    # An error with Retry-After is temporary, such as HubSpot's while it moves an account.
    is_for_now = (raw.retry_after and raw.status >= 400) or raw.status in CONFLICT_STATUSES
    if result is TokenResult.MISCONFIGURED and is_for_now and not is_known(refusal.code):
        return TokenResult.TRANSIENT
    return result


def _refused_without_code(
    raw: RawResponse, expected: Expected, now: datetime, refusal: TokenRefusal | None = None
) -> TokenResponse:
    """Return the classified response for a 4xx without an error code or readable body."""
    text = network.decode(raw.body, raw.content_type).strip()
    is_page = is_html(text, raw.content_type)
    if refusal:
        named = refusal
        # Each text separately, so that no pattern matches across two fields.
        texts, description = (*named.texts, *text.split('"')), named.description
        refusal = refusal_of(named.codes, texts, description=description, status=raw.status)
    else:
        is_sentence = _PLAIN_WORDS.fullmatch(text) is not None
        is_readable = is_sentence or not is_page
        refusal = (
            refusal_of((), (text,), status=raw.status) if is_readable else refusal_on_page(text)
        )
        named = refusal
    if is_known(refusal.code) or (is_page and refusal.code):
        return _refused(refusal, raw, expected, now)
    challenge = _challenged(raw)
    if says_failure(challenge.code):
        return _refused(challenge, raw, expected, now)
    result = _judged(refusal, raw, expected)
    if result is not TokenResult.MISCONFIGURED:
        # The other texts may repeat the request: "redirect_uri".
        said = named if named.description else refusal
        message = stored_refusal(said, result, expected, status=raw.status)
    elif wants_certificate(text):
        method = "tls_client_auth"
        code = client_code("client_key_needed", method, expected.authentication)
        message = stored(code, **({"method": method} if code == "client_key_needed" else {}))
    elif is_page and raw.status not in WRONG_ADDRESS_STATUSES:
        # A page from something in front of the token endpoint (a firewall, a login, an outage).
        result, message = TokenResult.TRANSIENT, stored("web_page", status=raw.status)
    elif not is_page and _says_cause(named, raw, expected):
        message = stored_refusal(named, result, expected, status=raw.status)
    else:
        words = "" if is_page else _words(refusal.description or text, expected)
        code = "invalid_client" if names_client(refusal, raw.status) else "refused_without_code"
        code = "no_endpoint" if lacks_endpoint(text, raw.status) else code
        code = "other_format" if is_about_format(refusal, raw.status) else code
        code = client_code(code, "", expected.authentication)
        message = stored(code, status=raw.status, said=words)
    return TokenResponse(
        result=result,
        reason=f"http_{raw.status}",
        message=message,
        retry_after_seconds=retry_after(raw.retry_after, now),
    )


def _says_cause(refusal: TokenRefusal, raw: RawResponse, expected: Expected) -> bool:
    """Return whether texts without a code name a mistake in the settings other than the client."""
    if lacks_endpoint("", raw.status):
        return False
    code = error_code(
        refusal,
        TokenResult.MISCONFIGURED,
        status=raw.status,
        scope=expected.scope,
        uses_pkce=expected.uses_pkce,
    )
    return code in _CAUSES


def _challenged(raw: RawResponse) -> TokenRefusal:
    """Return the refusal in the WWW-Authenticate header."""
    said = {
        match[1].lower(): re.sub(r"\\(.)", r"\1", match[2] or "") or match[3] or ""
        for match in _CHALLENGE.finditer(raw.www_authenticate[:_MAX_CHALLENGE])
    }
    description = said.get("error_description", "")
    return refusal_of([said.get("error", "")], [description], description=description)


def _words(text: str, expected: Expected) -> str:
    return clean(text, secrets=expected.secrets, limit=200)


def _refusal_in(fields: dict[str, Any], status: int = 0) -> TokenRefusal:
    """Return the refusal with all error codes and texts of a response, nested ones included."""
    codes: list[str] = []
    texts: list[str] = []
    _collect(fields, codes, texts)
    description, hint = next(iter(texts), ""), fields.get("hint")
    if isinstance(hint, str) and hint not in description:
        # league/oauth2-server (Laravel, Kommo) puts the cause here; its description is general.
        description = f"{description} ({hint})"
    words = (*texts, *_implied_words(fields))
    return refusal_of(codes, words, description=description, status=status)


def _collect(value: Any, codes: list[str], texts: list[str]) -> None:
    if isinstance(value, list):
        for one in value:
            _collect(one, codes, texts)
    elif isinstance(value, dict):
        named = _by_name(value)
        for name in _CODES:
            _collect(named.get(name), codes, texts)
        for name in _ERROR_CONTAINERS:
            for one in _listed(named.get(name)):
                if isinstance(one, dict):
                    inner = _by_name(one)
                    _collect(
                        {key: inner[key] for key in _NESTED_NAMES & inner.keys()}, codes, texts
                    )
        texts += [text for name in _TEXTS if isinstance(text := named.get(name), str) and text]
    elif value and isinstance(value, str | int | float):
        codes.append(str(value))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _by_name(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields by name without case, "_" and "-"; the first of each name counts."""
    return {
        name.lower().replace("_", "").replace("-", ""): value
        for name, value in reversed(fields.items())
    }


def _implied_words(fields: dict[str, Any]) -> Iterator[str]:
    """Yield texts for numbers, flags and field errors, in the form that the patterns match."""
    for holder in (fields, fields.get("error")):
        if not isinstance(holder, dict):
            continue
        # Microsoft repeats the numbers of its description in a list.
        numbers = holder.get("error_codes")
        for one in numbers if isinstance(numbers, list) else ():
            yield f"AADSTS{one}"
        # Yahoo's error code; an unknown value is only an incident number.
        if isinstance(named := holder.get("errorId"), str):
            yield named
        if holder.get("is_transient") is True:
            yield "temporarily unavailable"
    errors = fields.get("errors")
    if isinstance(errors, dict):
        # Laravel: {"refresh_token": ["The refresh token is invalid."]}.
        for name, named in errors.items():
            texts = [one for one in _listed(named) if isinstance(one, str)]
            yield from texts
            yield from (f"{name} {one}" for one in texts if isinstance(named, list))
    for one in errors if isinstance(errors, list) else ():
        # Strava: {"field": "refresh_token", "code": "invalid"}, and
        # {"resource": "AuthorizationCode", "field": "", "code": "expired"}.
        named = (one.get("field") or one.get("resource")) if isinstance(one, dict) else None
        if isinstance(named, str):
            yield f"{snake_case(named)} {one.get('code')}"


def _declares_error(fields: dict[str, Any]) -> bool:
    """Return whether the fields declare an error, whatever else the response contains."""
    named = _by_name(fields)
    return (
        any(_is_error(named.get(name)) for name in ("error", "errors", "errorresponse"))
        or any(_is_no(named.get(name)) for name in ("ok", "success", "succeeded", "issuccess"))
        # Not 0, which some providers use for success.
        or named.get("status") is False
        or str(named.get("status")).lower() in FAILURES
    )


def _is_error(value: Any) -> bool:
    if isinstance(value, list):
        return any(_is_error(one) for one in value)
    if isinstance(value, dict):
        # TikTok sends {"code": "ok", "message": "", "log_id": "..."} with a token.
        named = _by_name(value)
        codes = [named[name] for name in _CODES if name in named]
        return any(_is_error(one) for one in codes or value.values())
    return bool(value) and normalized(str(value)) not in NO_ERRORS


def _is_no(value: Any) -> bool:
    return value is not None and str(value).strip().lower() in ("false", "0", "no")


def _granted(
    fields: dict[str, Any],
    refusal: TokenRefusal,
    raw: RawResponse,
    expected: Expected,
    now: datetime,
) -> TokenResponse:
    path = expected.token_path.strip()
    if expected.grant is Grant.REFRESH and not has_token(fields, path):
        # Slack nests the token in the response to a code, but not to a refresh.
        path = ""
    types = (*expected.token_types, *_BEARER_TYPES)
    if fields.get("ok") is True:
        types += _SLACK_TYPES
    try:
        token, warning = read_grant(fields, path=path, token_types=types, now=now)
    except UnusableResponseError as problem:
        is_named_error = is_known(refusal.code) or (
            _judged(refusal, raw, expected) is not TokenResult.MISCONFIGURED
        )
        is_no_answer = messages.load(problem.message) == ("no_token_answer", {})
        is_numbered = is_no_answer and _has_number(refusal)
        if problem.reason == "no_token" and (is_named_error or is_numbered):
            # An error shown only by a code, such as {"status": "BAD_REFRESH_TOKEN"}, or a number.
            return _refused(refusal, raw, expected, now)
        rotated = rotated_token(fields, path) if expected.grant is Grant.REFRESH else ""
        message = mask_known(problem.message, expected.secrets)
        if is_no_answer and problem.reason == "no_token":
            code = "only_refresh_token" if rotated else "no_token_answer"
            if fields.get("id_token"):
                # Entra External ID (B2C), if no requested scope belongs to an API.
                code = "only_identity_token"
            message = stored(code, said=_words(refusal.description, expected))
        return replace(_misconfigured(problem.reason, message), refresh_token=rotated)
    change = scope_change(token.scope, expected.scope)
    warning = mask_known(joined(warning, change), expected.secrets)
    result = TokenResult.OK_WITH_WARNING if warning else TokenResult.OK
    return TokenResponse(result=result, token=token, warning=warning)


def _has_number(refusal: TokenRefusal) -> bool:
    """Return whether there is a numeric error code (not 0 or 200) together with a description."""
    numbers = [one.removeprefix("-") for one in refusal.codes]
    is_said = normalized(refusal.description) not in NO_ERRORS
    return is_said and any(one.isdecimal() and one.strip("0") and one != "200" for one in numbers)


def _misconfigured(reason: str, message: str) -> TokenResponse:
    return TokenResponse(result=TokenResult.MISCONFIGURED, reason=reason, message=message)
