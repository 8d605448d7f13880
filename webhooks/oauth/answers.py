"""Puts every answer of a token endpoint into exactly one class.

Pure: bytes in, a frozen value out, no exception. The status is judged before the body. Source:
RFC 6749 sections 5.1 and 5.2, RFC 6750 section 2.1, and what providers do instead.
"""

import email.utils
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.utils.translation import gettext as _

from webhooks.oauth import bodies, lifetimes, redaction, sentences
from webhooks.oauth.grants import GrantedToken, NoToken, has_token, read_grant, scope_change
from webhooks.oauth.sentences import Sent, Step
from webhooks.oauth.verdicts import TRANSIENT_STATUSES, WRONG_ADDRESS_STATUSES, Result, judge

# Longer waits are a provider's mistake; the token may be needed sooner.
_MAX_RETRY_AFTER_SECONDS = 3600.0
_DESCRIPTIONS = (
    "error_description", "error_message", "message", "detail", "hint", "title", "error_reason",
)  # fmt: skip
# Words that only repeat that there is an error.
_NO_CODES = frozenset({"", "error", "fail", "failed", "failure"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """An answer as it came; `is_too_large` when it was cut off unread."""

    status: int
    content_type: str = ""
    body: bytes = field(default=b"", repr=False)
    retry_after: str = ""
    location: str = ""
    is_too_large: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the webhook says about answers, and what was sent to get this one."""

    sent: Sent = field(default_factory=Sent)
    token_path: str = ""
    reauthorization_words: tuple[str, ...] = ()
    # Besides bearer; a provider's own header prefix is a type of its own.
    token_types: tuple[str, ...] = ()
    # Masked wherever the provider repeats them.
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The class of an answer, and the token of a good one."""

    result: Result
    # A word for programs: "invalid_grant", "html", "unsafe_token", "http_503", ...
    reason: str = ""
    # A sentence that says what to change; empty when all is well.
    message: str = ""
    warning: str = ""
    token: GrantedToken | None = None
    is_truncated: bool = False
    retry_after_seconds: float | None = None

    @property
    def is_ok(self) -> bool:
        return self.token is not None


def classify(
    raw: Raw,
    expected: Expected | None = None,
    *,
    now: datetime | None = None,
    is_last: bool = False,
) -> Answer:
    """Return the class of an answer.

    A cut off JSON document is transient the first time; `is_last` says that it was asked again.
    """
    expected, now = expected or Expected(), now or datetime.now(UTC)
    if raw.status >= 500 or raw.status in TRANSIENT_STATUSES:
        return _transient(raw, expected, now)
    if not 200 <= raw.status < 300 and raw.status < 400:
        location = _words(raw.location.partition("?")[0], expected)
        return _misconfigured(f"http_{raw.status}", sentences.redirected(location))
    if raw.is_too_large:
        return _malformed("too_large")
    try:
        fields = bodies.read(raw.body, raw.content_type)
    except bodies.Malformed as problem:
        if problem.reason == "truncated" and not is_last:
            return _truncated(expected)
        is_refusal = raw.status >= 400
        return _refused_in_words(raw, expected) if is_refusal else _malformed(problem.reason)
    return _read(fields, raw, expected, now)


def _read(fields: dict[str, Any], raw: Raw, expected: Expected, now: datetime) -> Answer:
    is_success = raw.status < 300
    error, description = _error_of(fields, is_success=is_success)
    if error:
        return _refused(error, description, raw, expected, now)
    if not is_success:
        return _refused_in_words(raw, expected, description)
    return _granted(fields, expected, now)


def _truncated(expected: Expected) -> Answer:
    return Answer(
        result=Result.TRANSIENT,
        reason="truncated",
        message=sentences.failed(_("its answer ends in the middle"), expected.sent),
        is_truncated=True,
    )


def _transient(raw: Raw, expected: Expected, now: datetime) -> Answer:
    text = bodies.decode(raw.body, raw.content_type)
    words = "" if bodies.is_html(text.strip(), raw.content_type) else _words(text, expected)
    return Answer(
        result=Result.TRANSIENT,
        reason=f"http_{raw.status}",
        message=sentences.with_quote(sentences.transient(raw.status, expected.sent), words),
        retry_after_seconds=retry_after(raw.retry_after, now),
    )


def retry_after(value: str, now: datetime) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110 section 10.2.3), bounded."""
    seconds = lifetimes.number(value)
    if seconds is None:
        parsed = email.utils.parsedate_tz(value) if value else None
        try:
            seconds = email.utils.mktime_tz(parsed) - now.timestamp() if parsed else None
        except (ValueError, OverflowError):
            seconds = None
    if seconds is None or seconds <= 0:
        return None
    return min(seconds, _MAX_RETRY_AFTER_SECONDS)


def _refused(error: str, description: str, raw: Raw, expected: Expected, now: datetime) -> Answer:
    """Return the class of an answer with an error in it, whatever its status."""
    result = judge(
        error,
        description,
        text=bodies.decode(raw.body, raw.content_type),
        reauthorization_words=expected.reauthorization_words,
        has_person=expected.sent.step is not Step.CLIENT_CREDENTIALS,
    )
    words = redaction.clean(description or error, secrets=expected.secrets)
    name = redaction.clean(error, secrets=expected.secrets, limit=100)
    if result is Result.TRANSIENT:
        message = sentences.failed(_("it asks to try again later"), expected.sent)
    elif result is Result.NEEDS_REAUTHORIZATION and not _is_correctable(error, description):
        message = sentences.grant_ended(expected.sent)
    else:
        message = sentences.refusal(name, description, expected.sent)
    return Answer(
        result=result,
        reason=name or "provider_error",
        message=sentences.with_quote(message, words),
        retry_after_seconds=retry_after(raw.retry_after, now),
    )


def _is_correctable(error: str, description: str) -> bool:
    words = description.lower()
    return error in ("access_denied", "consent_required") or any(
        hint in words for hint in ("redirect_uri", "code_verifier", "code_challenge", "pkce")
    )


def _refused_in_words(raw: Raw, expected: Expected, description: str = "") -> Answer:
    """Return the class of a 4xx without an error code."""
    text = bodies.decode(raw.body, raw.content_type).strip()
    words = _words(description or text, expected)
    is_page = bodies.is_html(text, raw.content_type)
    result = judge(
        "",
        "" if is_page else text[:2000],
        text=text,
        reauthorization_words=expected.reauthorization_words,
        has_person=expected.sent.step is not Step.CLIENT_CREDENTIALS,
    )
    if result is Result.NEEDS_REAUTHORIZATION:
        message = sentences.grant_ended(expected.sent)
    elif result is Result.TRANSIENT:
        message = sentences.failed(_("it asks to try again later"), expected.sent)
    elif is_page and raw.status not in WRONG_ADDRESS_STATUSES | {401}:
        # A page in between (a firewall, an outage) and not the token endpoint itself.
        result = Result.TRANSIENT
        reason = _("a web page with status %d came instead of an answer") % raw.status
        message = sentences.failed(reason, expected.sent)
    else:
        message = sentences.http_refusal(raw.status, expected.sent)
    return Answer(
        result=result,
        reason=f"http_{raw.status}",
        message=sentences.with_quote(message, "" if is_page else words),
    )


def _words(text: str, expected: Expected) -> str:
    return redaction.clean(text, secrets=expected.secrets, limit=200)


def _error_of(fields: dict[str, Any], *, is_success: bool) -> tuple[str, str]:
    """Return code and description of an error, both "" without one; they may be nested."""
    error = fields.get("error") or ""
    texts = (fields.get(name) for name in _DESCRIPTIONS)
    description = next((text for text in texts if isinstance(text, str) and text), "")
    if isinstance(error, dict):
        inner = error
        names = ("error", "status", "type", "code")
        error = next((str(inner[name]) for name in names if inner.get(name)), "error")
        description = str(inner.get("message") or inner.get("error_description") or description)
    elif isinstance(error, list):
        error = " ".join(map(str, error))
    if error:
        return str(error), description
    if fields.get("ok") is False or fields.get("success") is False:
        return str(fields.get("code") or "error"), description
    return ("", "") if is_success else (_other_code(fields), description)


def _other_code(fields: dict[str, Any]) -> str:
    """Return the error code of answers such as HubSpot's `{status, message, category}`."""
    for name in ("error_code", "errorCode", "code", "status", "category", "title"):
        value = fields.get(name)
        if isinstance(value, str) and value.lower() not in _NO_CODES and not value.isdecimal():
            return value
    return ""


def _granted(fields: dict[str, Any], expected: Expected, now: datetime) -> Answer:
    path = expected.token_path.strip()
    if expected.sent.step is Step.REFRESH and not has_token(fields, path):
        # Slack nests the token of a grant, but not the one of a refresh.
        path = ""
    try:
        token, warning = read_grant(fields, path=path, token_types=expected.token_types, now=now)
    except NoToken as refusal:
        message = redaction.mask_known(refusal.message, expected.secrets)
        return _misconfigured(refusal.reason, message)
    change = scope_change(token.scope, expected.sent.scope)
    warning = redaction.mask_known(f"{warning} {change}".strip(), expected.secrets)
    result = Result.OK_WITH_WARNING if warning else Result.OK
    return Answer(result=result, token=token, warning=warning)


def _malformed(reason: str) -> Answer:
    return _misconfigured(reason, sentences.malformed(reason))


def _misconfigured(reason: str, message: str) -> Answer:
    return Answer(result=Result.MISCONFIGURED, reason=reason, message=message)
