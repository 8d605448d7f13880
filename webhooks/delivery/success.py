"""The success rule of a webhook: which status codes and which responses count as delivered.

Many APIs answer 200 and report an error in the JSON. The rule looks only at the part of a response
that is read anyway (64 KiB), in a time linear in its length. Most webhooks have no rule.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from webhooks import network
from webhooks.filters import EQUALITY, LISTS, PRESENCE, FilterError, Operator, compile_filter
from webhooks.models import Outcome, ResponseRule, Webhook
from webhooks.models.messages import Message
from webhooks.payloads import MappingError, Violation, as_text, finder

# The name of the whole response: the list or value that it is, or else its text.
WHOLE_RESPONSE = "answer"
# The operators that a condition may use, with the names that they have in filters.
OPERATORS = (
    Operator.EQUALS,
    Operator.NOT_EQUALS,
    Operator.ONE_OF,
    Operator.CONTAINS,
    Operator.STARTS_WITH,
    Operator.EXISTS,
    Operator.NOT_EXISTS,
)
# The most characters of a reason that are shown.
_MAX_REASON = 200
_CONTENT_TYPE = re.compile(rb"^content-type:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_CONTENT_ENCODING = re.compile(rb"^content-encoding:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
# As much as is read of a response.
_MAX_UNPACKED_BYTES = 65_536
# JSON's brackets, commas and strings; a string may be cut, even in an escape.
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*+("?)|[\[\]{},]', re.DOTALL)
_PARTIAL_ESCAPE = re.compile(r"\\u[0-9A-Fa-f]{0,3}\Z")
_CLOSING = {"[": "]", "{": "}"}


def unpacked(body: bytes, headers: bytes, *, max_bytes: int) -> bytes:
    """Return the body decompressed: some servers compress without being asked to.

    At most one byte more than `max_bytes`; a body that is not compressed is returned unchanged.
    """
    return network.unpack(body, _coding(headers), max_bytes=max_bytes)


def is_packed(body: bytes, headers: bytes) -> bool:
    """Return whether `unpacked` decompresses a body."""
    return network.is_packed(body, _coding(headers))


def _coding(headers: bytes) -> str:
    found = _CONTENT_ENCODING.search(headers)
    return found[1].decode("latin-1") if found else ""


class Judged(NamedTuple):
    outcome: Outcome
    # Why a response that looks like a success is none.
    message: Message | None = None
    is_token_expired: bool = False


class _Reading(NamedTuple):
    """What a rule reads in a response."""

    reason: str
    is_as_wanted: bool
    # Whether the part that the rule asks for could be read.
    is_read: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessRule:
    """A compiled rule; safe to share between threads."""

    # Empty: every 2xx.
    codes: frozenset[int]
    # None: every response is a success.
    condition: Callable[[Mapping[str, Any]], bool] | None
    find: Callable[[Mapping[str, Any]], Any]
    # Whether the condition is about the whole response, and whether it tests for presence. Of a
    # JSON object the whole is its text, or for presence whether it is empty.
    is_of_whole: bool
    is_of_presence: bool
    # Whether a success must meet the condition, or must not meet it.
    is_met_by_success: bool
    find_reason: Callable[[Mapping[str, Any]], Any] | None
    # Reasons that mean an expired access token, compared without regard to case.
    expired: frozenset[str]
    is_retried: bool

    def judge(
        self, status_code: int, body: bytes, size: int, by_status: Outcome, *, headers: bytes = b""
    ) -> Judged:
        """Judge a response; `by_status` is the outcome that its status alone gives."""
        is_success = status_code in self.codes if self.codes else by_status is Outcome.SUCCEEDED
        is_whole = len(body) >= size
        body = unpacked(body, headers, max_bytes=_MAX_UNPACKED_BYTES)
        is_whole = is_whole and len(body) <= _MAX_UNPACKED_BYTES
        found = _CONTENT_TYPE.search(headers)
        text = network.decode(body, found[1].decode("latin-1") if found else "")
        reading = self._read(text, is_whole=is_whole)
        if reading.reason.casefold() in self.expired:
            said = Message("response_expired", {"status": status_code, "reason": reading.reason})
            return Judged(Outcome.UNAUTHORIZED, said, True)
        if not is_success:
            if by_status is not Outcome.SUCCEEDED:
                return Judged(by_status)
            return Judged(Outcome.REJECTED, Message("response_status", {"status": status_code}))
        if reading.is_as_wanted:
            return Judged(Outcome.SUCCEEDED)
        if not reading.is_read:
            return Judged(Outcome.REJECTED, Message("response_unread", {"status": status_code}))
        if not reading.reason:
            return Judged(Outcome.REJECTED, Message("response_refused", {"status": status_code}))
        said = Message("response_says", {"status": status_code, "reason": reading.reason})
        return Judged(Outcome.REJECTED, said)

    def _read(self, text: str, *, is_whole: bool) -> _Reading:
        """Look at a response as JSON, or as text if it cannot be parsed or compared as JSON.

        Python's parser accepts more than JSON: NaN, numbers of any length, any depth of nesting.
        """
        for candidate in (text,) if is_whole else (text, *_completions(text)):
            try:
                response = json.loads(candidate)
                if not isinstance(response, dict):
                    response = {WHOLE_RESPONSE: response}
                elif self.is_of_whole:
                    response = {
                        WHOLE_RESPONSE: response if self.is_of_presence else text,
                        **response,
                    }
                return self._look(response, is_whole or candidate is text)
            except (ValueError, RecursionError):
                continue
        return self._look({WHOLE_RESPONSE: text}, is_whole)

    def _look(self, response: Mapping[str, Any], is_read: bool) -> _Reading:
        found = self.find_reason(response) if self.find_reason else None
        # A list or an object is no reason, and may be the whole response.
        reason = "" if isinstance(found, list | dict) else as_text(found)[:_MAX_REASON]
        # Replaces half surrogate pairs, which JSON can hold and no column.
        reason = reason.encode(errors="replace").decode()
        if self.condition is None:
            return _Reading(reason, True, is_read)
        is_met = self.condition(response)
        is_there = self.find(response) is not None
        if is_read or (is_there and (is_met or WHOLE_RESPONSE not in response)):
            return _Reading(reason, is_met is self.is_met_by_success, True)
        # The part that the rule asks for may be in the rest.
        return _Reading(reason, not self.is_met_by_success, False)


def compile_rule(webhook: Webhook) -> SuccessRule:
    """Return a webhook's rule; raise MappingError for one that cannot be read."""
    try:
        condition = _condition(webhook) if webhook.response_rule else None
    except FilterError as error:
        raise MappingError(Violation(sentence=str(error))) from error
    return SuccessRule(
        codes=frozenset(webhook.success_codes),
        condition=condition,
        find=finder(webhook.response_variable),
        is_of_whole=webhook.response_variable == WHOLE_RESPONSE,
        is_of_presence=webhook.response_operator in PRESENCE,
        is_met_by_success=webhook.response_rule == ResponseRule.SUCCEEDS,
        find_reason=finder(webhook.response_error) if webhook.response_error else None,
        expired=frozenset(word.casefold() for word in webhook.expired_token_errors),
        is_retried=webhook.retries_rejected,
    )


def _condition(webhook: Webhook) -> Callable[[Mapping[str, Any]], bool]:
    compiled = compile_filter(condition_of(webhook))
    if webhook.response_operator not in PRESENCE:
        return compiled.matches
    find, is_wanted = (
        finder(webhook.response_variable),
        webhook.response_operator == Operator.EXISTS,
    )
    # Many APIs say with {"error": false}, 0, a blank text or an empty list that there is no error.
    return lambda response: _is_present(find(response)) is is_wanted


def _is_present(found: Any) -> bool:
    return bool(found.strip() if isinstance(found, str) else found)


def _completions(text: str) -> Iterator[str]:
    """Yield what cut JSON may have been: closed where it ends, then after its last whole member.

    A number or a word at the end may be incomplete, so then only the second is yielded.
    """
    found = _scan(text)
    if found.is_in_string:
        yield _PARTIAL_ESCAPE.sub("", text[: found.end]) + '"' + found.closing
    elif found.end == len(text.rstrip()):
        yield text + found.closing
    if found.comma >= 0:
        whole = text[: found.comma]
        yield whole + _scan(whole).closing


class _Scanned(NamedTuple):
    """The state of a JSON text at its end."""

    # The closing brackets that are missing.
    closing: str
    # The position of the last comma; -1 for none.
    comma: int
    # The position after the last bracket, comma or string, which may be an unclosed string.
    end: int
    is_in_string: bool


def _scan(text: str) -> _Scanned:
    closing: list[str] = []
    comma, end, is_in_string = -1, 0, False
    for match in _PIECE.finditer(text):
        piece, end = match[0], match.end()
        is_in_string = match[1] == ""
        if piece in _CLOSING:
            closing.append(_CLOSING[piece])
        elif piece in ("]", "}") and closing:
            closing.pop()
        elif piece == ",":
            comma = match.start()
    return _Scanned("".join(reversed(closing)), comma, end, is_in_string)


def condition_of(webhook: Webhook) -> dict[str, Any]:
    """Return the condition on the response, in the form that filters have."""
    operator, value = webhook.response_operator, webhook.response_value
    condition: dict[str, Any] = {"variable": webhook.response_variable, "operator": operator}
    if operator in LISTS:
        condition["value"] = [part.strip() for part in value.split(",") if part.strip()]
    elif operator not in PRESENCE:
        # As a boolean it also equals 1 and 0.
        flag = {"true": True, "false": False}.get(value.strip().lower(), value)
        condition["value"] = flag if operator in EQUALITY else value
    return condition


@dataclass(frozen=True, slots=True, kw_only=True)
class RulePreset:
    """A ready-made rule for a known API, which fills in the form's fields."""

    key: str
    label: str
    fields: Mapping[str, Any]


def _preset(
    key: str, label: str, rule: ResponseRule, condition: tuple[str, Operator, str], **more: Any
) -> RulePreset:
    variable, operator, value = condition
    fields = {
        "response_rule": rule.value,
        "response_variable": variable,
        "response_operator": operator.value,
        "response_value": value,
        "response_error": "",
        "expired_token_errors": [],
        **more,
    }
    return RulePreset(key=key, label=label, fields=fields)


_SUCCEEDS, _FAILS = ResponseRule.SUCCEEDS, ResponseRule.FAILS
PRESETS: dict[str, RulePreset] = {
    preset.key: preset
    for preset in (
        _preset("error", "error", _FAILS, ("error", Operator.EXISTS, ""), response_error="error"),
        _preset(
            "success",
            "success: true",
            _SUCCEEDS,
            ("success", Operator.EQUALS, "true"),
            response_error="message",
        ),
        # https://apidocs.bitrix24.com/error-codes.html
        _preset(
            "bitrix24",
            "Bitrix24",
            _FAILS,
            ("error", Operator.EXISTS, ""),
            response_error="error",
            expired_token_errors=["expired_token"],
        ),
        # https://docs.slack.dev/apis/web-api/#responses
        _preset(
            "slack",
            "Slack",
            _SUCCEEDS,
            ("ok", Operator.EQUALS, "true"),
            response_error="error",
            expired_token_errors=["token_expired"],
        ),
        # https://core.telegram.org/bots/api#making-requests
        _preset(
            "telegram",
            "Telegram",
            _SUCCEEDS,
            ("ok", Operator.EQUALS, "true"),
            response_error="description",
        ),
        # https://www.zoho.com/crm/developer/docs/api/v8/insert-records.html
        _preset(
            "zoho",
            "Zoho CRM",
            _SUCCEEDS,
            ("data[0].status", Operator.EQUALS, "success"),
            response_error="data[0].code",
        ),
    )
}
