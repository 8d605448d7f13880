"""Reads every answer of a token endpoint and puts it into exactly one class.

Pure: bytes in, a frozen value out, no exception leaves `classify`. The status is judged before the
body. Source: RFC 6749 sections 5.1 and 5.2, RFC 6750 section 2.1, and what providers do instead.
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
from webhooks.oauth.errors import (
    ERRORS,
    Grant,
    TokenResult,
    UnusableAnswerError,
    joined,
    stored,
)
from webhooks.oauth.exchange_log import clean, mask_known
from webhooks.oauth.granted_token import (
    GrantedToken,
    has_token,
    http_date,
    number,
    read_grant,
    rotated_token,
    scope_change,
)
from webhooks.oauth.token_errors import (
    CONFLICT_STATUS,
    FAILURES,
    LOST_STATUSES,
    NO_ERRORS,
    TRANSIENT_STATUSES,
    WRONG_ADDRESS_STATUSES,
    TokenRefusal,
    assertion_code,
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

# Real answers have three levels; more only costs the parser's recursion.
_MAX_DEPTH = 20
_MAX_FIELDS = 200
_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_FORM = re.compile(r"[A-Za-z_][\w.-]*=[^\s<>{}]*")
# A sentence, which holds no token: some call it HTML.
_PLAIN_WORDS = re.compile(r"[A-Za-z']{1,20}(?:,? [A-Za-z']{1,20}){1,15}[.!]?")
# What says that it is a form may be written carelessly: spaces as they are, a leading "&".
_DECLARED_FORM = re.compile(r"&*[A-Za-z_][\w.-]*=")
_HTML = re.compile(r"\s*(<!doctype|<html|<head|<body|<!--|<title|<script)", re.IGNORECASE)


def read_body(body: bytes, content_type: str) -> dict[str, Any]:
    """Return the fields of a JSON object or of form data, each there once.

    Errors: UnusableAnswerError with the reason "empty", "html", "too_deep", "truncated",
    "duplicate_keys", "not_json" or "not_an_object".
    """
    text = network.decode(body, content_type).strip()
    if not text:
        raise UnusableAnswerError("empty")
    if is_html(text, content_type):
        raise UnusableAnswerError("html")
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
    # Some providers call their forms text/plain or text/html.
    return _FORM.fullmatch(text) is not None and media_type(content_type) != "application/json"


def _read_form(text: str) -> dict[str, Any]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise UnusableAnswerError("not_json") from error
    return _unique(pairs)


def _read_json(text: str) -> dict[str, Any]:
    depth, deepest = _measure(text)
    if deepest > _MAX_DEPTH:
        raise UnusableAnswerError("too_deep")
    try:
        document = json.loads(
            text, object_pairs_hook=_unique, parse_int=_integer, parse_constant=_constant
        )
    except UnusableAnswerError:
        raise
    except (ValueError, RecursionError) as error:
        is_cut = text.startswith("{") and depth > 0
        raise UnusableAnswerError("truncated" if is_cut else "not_json") from error
    if not isinstance(document, dict):
        raise UnusableAnswerError("not_an_object")
    return document


def _measure(text: str) -> tuple[int, int]:
    """Return how many brackets are open at the end, a string among them, and at most."""
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
        raise UnusableAnswerError("duplicate_keys")
    return fields


def _integer(text: str) -> int | float:
    # int() refuses very long numbers with a ValueError.
    return int(text) if len(text) < 20 else float(text)


def _constant(text: str) -> float:
    # NaN and Infinity are no JSON, and as an expiry they are ignored.
    return math.nan


_CALL = re.compile(r"(?:/\*\*/)?\s*[\w.$]{1,60}\s*\(\s*(\{.*\})\s*\)\s*;?", re.DOTALL)
# RFC 6750 section 3: what a challenge says beside its realm.
_CHALLENGE = re.compile(r'(?<![\w-])([\w-]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s",]++))')
_MAX_CHALLENGE = 4_000
# Longer waits are a provider's mistake; the token may be needed sooner.
MAX_RETRY_AFTER_SECONDS = 3600.0
_MAX_CLOCK_SECONDS = 86_400.0
# Where providers write codes and texts, the first that is there counts; "errorCode", "ErrorCode"
# and "error_code" are one name.
_ERRORS = ("error", "errors", "err", "errorcode", "errcode", "errorresponse", "suberror", "fault")
_CODES = (
    *_ERRORS, "code", "reason", "status", "type", "errortype", "category", "title", "faultstring",
)  # fmt: skip
_TEXTS = (
    "errordescription", "errormessage", "message", "detail", "hint", "title", "errorreason",
    "errormsg", "errmsg", "msg", "faultstring", "errorsummary", "description",
    "developermessage", "moreinformation", "errordetail",
)  # fmt: skip
# Objects within which only what is called an error is one.
_HOLDERS = ("data", "response", "result", "detail", "details", "meta")
_HELD = frozenset({*_ERRORS, "code", "reason", *_TEXTS})
# What the answers of Intuit, Apigee, eBay and Azure DevOps call a bearer token; Slack's, which have
# "ok", too.
_BEARER_TYPES = (
    *("BearerToken", "Bearer Token", "User Access Token", "Application Access Token"),
    "jwt-bearer",
)
_SLACK_TYPES = ("bot", "user")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """An answer as it came; `is_too_large` when the rest of it was not read."""

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
    """What was sent to get an answer, and what the credential says about answers."""

    grant: Grant = Grant.REFRESH
    scope: str = ""
    redirect_uri: str = ""
    uses_pkce: bool = False
    token_path: str = ""
    reauthorization_words: tuple[str, ...] = ()
    # Besides bearer; a provider's own header prefix is a type of its own.
    token_types: tuple[str, ...] = ()
    # Masked wherever the provider repeats them.
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAnswer:
    """The class of an answer, and the token of a good one."""

    result: TokenResult
    # A word for programs: "invalid_grant", "html", "unsafe_token", "http_503", ...
    reason: str = ""
    # What is stored of an error and of warnings; empty when all is well.
    message: str = ""
    warning: str = ""
    token: GrantedToken | None = None
    # Of a refresh that gave no usable access token: the refresh token that counts from now on.
    refresh_token: str = field(default="", repr=False)
    is_truncated: bool = False
    # The request arrived, and what the provider made of it is not known.
    is_lost: bool = False
    retry_after_seconds: float | None = None

    @property
    def code(self) -> str:
        """Return the row in the table of errors; "" for a good answer."""
        message = messages.load(self.message)
        return message.code if message else ""

    @property
    def is_ok(self) -> bool:
        return self.token is not None


def classify(
    raw: RawAnswer,
    expected: Expected | None = None,
    *,
    now: datetime | None = None,
    is_last: bool = False,
) -> TokenAnswer:
    """Return the class of an answer.

    A cut off JSON document is transient the first time; `is_last` says that it was asked again.
    """
    expected, now = expected or Expected(), _answered_at(raw, now or datetime.now(UTC))
    if raw.status >= 500 or raw.status in TRANSIENT_STATUSES:
        return _transient(raw, expected, now)
    if not 200 <= raw.status < 300 and raw.status < 400:
        location = _words(raw.location.partition("?")[0], expected)
        moved = stored("redirected", location=location)
        nowhere = stored("no_endpoint", status=raw.status)
        return _misconfigured(f"http_{raw.status}", moved if location else nowhere)
    if raw.is_too_large and raw.status >= 400:
        # A page, or what else is no answer of a token endpoint.
        return _refused_in_words(raw, expected, now)
    if raw.is_too_large:
        return _misconfigured("too_large", stored("too_large"))
    try:
        fields = read_body(raw.body, raw.content_type)
    except UnusableAnswerError as problem:
        if problem.reason == "truncated" and not is_last:
            return TokenAnswer(
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
            return _refused_in_words(raw, expected, now)
        refusal = refusal_of((), (text,))
        if problem.reason == "not_json" and result_of(refusal.code):
            # XML, or a form that is called JSON. It may hold a token, so only the code is shown.
            return _refused(replace(refusal, description=refusal.code), raw, expected, now)
        is_sentence = any(map(_PLAIN_WORDS.fullmatch, refusal.texts))
        if is_sentence and _judged(refusal, raw, expected) is not TokenResult.MISCONFIGURED:
            return _refused(refusal, raw, expected, now)
        return _misconfigured(problem.reason, problem.message)
    return _read(fields, raw, expected, now)


def _answered_at(raw: RawAnswer, now: datetime) -> datetime:
    """Return when an answer was sent by the clock of its server, which its moments are of.

    A clock that is off by more than a day is no clock.
    """
    sent_at = http_date(raw.date)
    is_clock = sent_at is not None and abs(sent_at - now.timestamp()) < _MAX_CLOCK_SECONDS
    return datetime.fromtimestamp(sent_at, UTC) if sent_at is not None and is_clock else now


def _read(fields: dict[str, Any], raw: RawAnswer, expected: Expected, now: datetime) -> TokenAnswer:
    refusal = _refusal_in(fields)
    if _says_error(fields):
        refusal = replace(refusal, code=refusal.code or "error")
    elif raw.status < 300:
        return _granted(fields, refusal, raw, expected, now)
    elif not says_failure(refusal.code):
        return _refused_in_words(raw, expected, now, refusal)
    return _refused(refusal, raw, expected, now)


def _refusal_in_call(text: str) -> TokenRefusal | None:
    """Return what a call of JSONP says went wrong: QQ answers `callback( {"error": ...} );`."""
    found = _CALL.fullmatch(text)
    try:
        fields = _read_json(found[1]) if found else {}
    except UnusableAnswerError:
        return None
    return _refusal_in(fields) if _says_error(fields) else None


def _transient(raw: RawAnswer, expected: Expected, now: datetime) -> TokenAnswer:
    words = _words(_said(raw), expected)
    code = "rate_limited" if raw.status == 429 else "unavailable"
    return TokenAnswer(
        result=TokenResult.TRANSIENT,
        reason=f"http_{raw.status}",
        message=stored(code, status=raw.status, said=words),
        is_lost=raw.status in LOST_STATUSES or raw.status >= 520,
        retry_after_seconds=retry_after(raw.retry_after, now),
    )


def _said(raw: RawAnswer) -> str:
    """Return what a body says in words; of a web page nothing."""
    try:
        refusal = _refusal_in(read_body(raw.body, raw.content_type))
    except UnusableAnswerError as problem:
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
    refusal: TokenRefusal, raw: RawAnswer, expected: Expected, now: datetime
) -> TokenAnswer:
    """Return the class of an answer with an error in it, whatever its status."""
    result = _judged(refusal, raw, expected)
    return TokenAnswer(
        result=result,
        reason=clean(refusal.code, secrets=expected.secrets, limit=100) or "provider_error",
        message=stored_refusal(refusal, result, expected, status=raw.status),
        retry_after_seconds=retry_after(raw.retry_after, now),
    )


def stored_refusal(
    refusal: TokenRefusal, result: TokenResult, expected: Expected, *, status: int = 0
) -> str:
    """Return what is stored of a provider's refusal, its own words among it."""
    code = error_code(
        refusal, result, status=status, scope=expected.scope, uses_pkce=expected.uses_pkce
    )
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


def _judged(refusal: TokenRefusal, raw: RawAnswer, expected: Expected) -> TokenResult:
    result = judge(
        refusal,
        status=raw.status,
        text=network.decode(raw.body, raw.content_type),
        reauthorization_words=expected.reauthorization_words,
        has_person=expected.grant not in (Grant.CLIENT_CREDENTIALS, Grant.JWT_BEARER),
    )
    # Who says when to come back, such as HubSpot while it moves an account, refuses for now only.
    is_for_now = (raw.retry_after and raw.status >= 400) or raw.status == CONFLICT_STATUS
    if result is TokenResult.MISCONFIGURED and is_for_now and not is_known(refusal.code):
        return TokenResult.TRANSIENT
    return result


def _refused_in_words(
    raw: RawAnswer, expected: Expected, now: datetime, refusal: TokenRefusal | None = None
) -> TokenAnswer:
    """Return the class of a 4xx without an error code, or whose body cannot be read."""
    text = network.decode(raw.body, raw.content_type).strip()
    is_page = is_html(text, raw.content_type)
    if refusal:
        # Text by text: words of two fields are no sentence.
        refusal = refusal_of(
            refusal.codes, (*refusal.texts, *text.split('"')), description=refusal.description
        )
    else:
        is_sentence = _PLAIN_WORDS.fullmatch(text) is not None
        is_readable = is_sentence or not is_page
        refusal = refusal_of((), (text,)) if is_readable else refusal_on_page(text)
    if is_known(refusal.code) or (is_page and refusal.code):
        return _refused(refusal, raw, expected, now)
    challenge = _challenged(raw)
    if says_failure(challenge.code):
        return _refused(challenge, raw, expected, now)
    result = _judged(refusal, raw, expected)
    if result is not TokenResult.MISCONFIGURED:
        message = stored_refusal(refusal, result, expected, status=raw.status)
    elif wants_certificate(text):
        message = stored("client_key_needed", method="tls_client_auth")
    elif is_page and raw.status not in WRONG_ADDRESS_STATUSES:
        # A page in between (a firewall, a login, an outage) and not the token endpoint itself.
        result, message = TokenResult.TRANSIENT, stored("web_page", status=raw.status)
    else:
        words = "" if is_page else _words(refusal.description or text, expected)
        code = "invalid_client" if names_client(refusal, raw.status) else "refused_without_code"
        code = "no_endpoint" if lacks_endpoint(text, raw.status) else code
        code = "other_format" if is_about_format(refusal, raw.status) else code
        message = stored(code, status=raw.status, said=words)
    return TokenAnswer(
        result=result,
        reason=f"http_{raw.status}",
        message=message,
        retry_after_seconds=retry_after(raw.retry_after, now),
    )


def _challenged(raw: RawAnswer) -> TokenRefusal:
    """Return what an answer says in WWW-Authenticate alone."""
    said = {
        match[1].lower(): re.sub(r"\\(.)", r"\1", match[2] or "") or match[3] or ""
        for match in _CHALLENGE.finditer(raw.www_authenticate[:_MAX_CHALLENGE])
    }
    description = said.get("error_description", "")
    return refusal_of([said.get("error", "")], [description], description=description)


def _words(text: str, expected: Expected) -> str:
    return clean(text, secrets=expected.secrets, limit=200)


def _refusal_in(fields: dict[str, Any]) -> TokenRefusal:
    """Return every code and text of an answer; they may be nested."""
    codes: list[str] = []
    texts: list[str] = []
    _collect(fields, codes, texts)
    description, hint = next(iter(texts), ""), fields.get("hint")
    if isinstance(hint, str) and hint not in description:
        # Where league/oauth2-server (Laravel, Kommo) says what is wrong; the rest is general.
        description = f"{description} ({hint})"
    return refusal_of(codes, (*texts, *_implied_words(fields)), description=description)


def _collect(value: Any, codes: list[str], texts: list[str]) -> None:
    if isinstance(value, list):
        for one in value:
            _collect(one, codes, texts)
    elif isinstance(value, dict):
        named = _by_name(value)
        for name in _CODES:
            _collect(named.get(name), codes, texts)
        for name in _HOLDERS:
            for one in _listed(named.get(name)):
                if isinstance(one, dict):
                    inner = _by_name(one)
                    _collect({key: inner[key] for key in _HELD & inner.keys()}, codes, texts)
        texts += [text for name in _TEXTS if isinstance(text := named.get(name), str) and text]
    elif value and isinstance(value, str | int | float):
        codes.append(str(value))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _by_name(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields by their names without case and underscores, the first of each."""
    return {
        name.lower().replace("_", "").replace("-", ""): value
        for name, value in reversed(fields.items())
    }


def _implied_words(fields: dict[str, Any]) -> Iterator[str]:
    """Yield the words for numbers and flags that mean an error."""
    for holder in (fields, fields.get("error")):
        if not isinstance(holder, dict):
            continue
        # Microsoft's numbers come in a list too, for those who do not read the description.
        numbers = holder.get("error_codes")
        for one in numbers if isinstance(numbers, list) else ():
            yield f"AADSTS{one}"
        # Yahoo; what no table knows is a number of the incident.
        if isinstance(named := holder.get("errorId"), str):
            yield named
        if holder.get("is_transient") is True:
            yield "temporarily unavailable"
    errors = fields.get("errors")
    if isinstance(errors, dict):
        # Laravel: {"refresh_token": ["The refresh token is invalid."]}.
        for named in errors.values():
            yield from (one for one in _listed(named) if isinstance(one, str))
    for one in errors if isinstance(errors, list) else ():
        # Strava: {"field": "refresh_token", "code": "invalid"}.
        if isinstance(one, dict) and isinstance(one.get("field"), str):
            yield f"{one['field']} {one.get('code')}"


def _says_error(fields: dict[str, Any]) -> bool:
    """Return whether an answer is an error by its own words, whatever else is in it."""
    named = _by_name(fields)
    return (
        _is_error(named.get("error"))
        or _is_error(named.get("errors"))
        or any(_is_no(named.get(name)) for name in ("ok", "success", "succeeded", "issuccess"))
        # A status of 0 is one of success to some.
        or named.get("status") is False
        or str(named.get("status")).lower() in FAILURES
    )


def _is_error(value: Any) -> bool:
    if isinstance(value, list):
        return any(_is_error(one) for one in value)
    if isinstance(value, dict):
        # TikTok says {"code": "ok", "message": "", "log_id": "..."} beside a token.
        named = _by_name(value)
        codes = [named[name] for name in _CODES if name in named]
        return any(_is_error(one) for one in codes or value.values())
    return bool(value) and normalized(str(value)) not in NO_ERRORS


def _is_no(value: Any) -> bool:
    return value is not None and str(value).strip().lower() in ("false", "0", "no")


def _granted(
    fields: dict[str, Any], refusal: TokenRefusal, raw: RawAnswer, expected: Expected, now: datetime
) -> TokenAnswer:
    path = expected.token_path.strip()
    if expected.grant is Grant.REFRESH and not has_token(fields, path):
        # Slack nests the token of a grant, but not the one of a refresh.
        path = ""
    types = (*expected.token_types, *_BEARER_TYPES)
    if fields.get("ok") is True:
        types += _SLACK_TYPES
    try:
        token, warning = read_grant(fields, path=path, token_types=types, now=now)
    except UnusableAnswerError as problem:
        is_named_error = is_known(refusal.code) or (
            _judged(refusal, raw, expected) is not TokenResult.MISCONFIGURED
        )
        is_no_answer = messages.load(problem.message) == ("no_token_answer", {})
        is_numbered = is_no_answer and _has_number(refusal)
        if problem.reason == "no_token" and (is_named_error or is_numbered):
            # An error with a name of its own, such as {"status": "BAD_REFRESH_TOKEN"}, or a number.
            return _refused(refusal, raw, expected, now)
        rotated = rotated_token(fields, path) if expected.grant is Grant.REFRESH else ""
        message = mask_known(problem.message, expected.secrets)
        if is_no_answer and problem.reason == "no_token":
            code = "only_refresh_token" if rotated else "no_token_answer"
            if fields.get("id_token"):
                # Entra External ID (B2C), when no scope is one of an API.
                code = "only_identity_token"
            message = stored(code, said=_words(refusal.description, expected))
        return replace(_misconfigured(problem.reason, message), refresh_token=rotated)
    change = scope_change(token.scope, expected.scope)
    warning = mask_known(joined(warning, change), expected.secrets)
    result = TokenResult.OK_WITH_WARNING if warning else TokenResult.OK
    return TokenAnswer(result=result, token=token, warning=warning)


def _has_number(refusal: TokenRefusal) -> bool:
    """Return whether an answer has a number that is no success, and says something to it."""
    numbers = [one.removeprefix("-") for one in refusal.codes]
    is_said = normalized(refusal.description) not in NO_ERRORS
    return is_said and any(one.isdecimal() and one.strip("0") and one != "200" for one in numbers)


def _misconfigured(reason: str, message: str) -> TokenAnswer:
    return TokenAnswer(result=TokenResult.MISCONFIGURED, reason=reason, message=message)
