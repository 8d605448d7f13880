"""Filters for the contents of logs: untrusted text, audit entries, OAuth exchanges, filters.

Owns how headers and bodies of the log are displayed. Whatever a receiver sends, the page shows
it as text: no markup, no terminal colours, no invisible or direction-changing characters.
"""

import re
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from django import template
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks import filters
from webhooks.delivery_log import decoded_body
from webhooks.delivery_log.decoded_body import (
    header_lines,
    response_header_lines,
    status_line,
)
from webhooks.delivery_log.figures import milliseconds, rough_duration
from webhooks.filters import FilterError, Judgement, Kind
from webhooks.models import (
    AuditEntry,
    ExchangeKind,
    OAuthExchange,
)
from webhooks.ui.trail import field_label

register = template.Library()
register.filter(header_lines)
register.filter(response_header_lines)
register.filter(status_line)

# Letters and marks in Unicode that are invisible: fillers, joiners, and variation selectors, which
# can carry hidden text. The selector that follows emoji is not included.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\uffa0\ufe00-\ufe0e"
    "\U000e0100-\U000e01ef]"
)
# Undecodable bytes as `surrogateescape` keeps them.
_FIRST_LOST_BYTE, _LAST_LOST_BYTE = 0xDC80, 0xDCFF


@register.filter
def visible(value: object) -> SafeString:
    """Escape text, and show invisible characters as `\\x1b` or `\\u202e`."""
    text = str(value)
    if _is_plain(text):
        return conditional_escape(text)
    parts = [
        conditional_escape("".join(run))
        if is_plain
        else format_html('<span class="escape">{}</span>', "".join(map(_escape, run)))
        for is_plain, run in groupby(text, _is_plain)
    ]
    return mark_safe("".join(parts))  # noqa: S308 - every part was escaped above


def _is_plain(text: str) -> bool:
    """Return whether every character is visible: no controls, format or bidi marks, odd spaces."""
    if not text.replace("\n", "").replace("\t", "").isprintable():
        return False
    return text.isascii() or not _INVISIBLE.search(text)


def _escape(character: str) -> str:
    code = ord(character)
    if _FIRST_LOST_BYTE <= code <= _LAST_LOST_BYTE:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


@register.filter
def body(value: bytes | memoryview | None) -> SafeString:
    """Show a body as text; JSON is indented and otherwise unchanged."""
    return visible(decoded_body.read(bytes(value or b"")).text)


@register.inclusion_tag("webhooks/deliveries/_attempt_body.html")
def body_view(
    value: bytes | memoryview | None,
    label: str,
    key: str,
    headers: str = "",
    *,
    size: int | None = None,
    download: str = "",
    limit: int = 20_000,
) -> dict[str, Any]:
    """Draw a body: JSON to fold, text, or bytes, with its size and a link to the raw body.

    `key` is part of the ids. `size` is the full size of a body that was cut when it was stored;
    for a request it is taken from Content-Length.
    """
    data = bytes(value or b"")
    declared = {name.lower(): text for name, text in header_lines(headers)}
    if size is None:
        length = declared.get("content-length", "")
        size = int(length) if length.isdecimal() and len(length) < 12 else 0
    total = max(size, len(data))
    return {
        "decoded": decoded_body.read(
            data[:limit],
            content_type=declared.get("content-type", ""),
            content_encoding=declared.get("content-encoding", ""),
        ),
        "label": label,
        "key": key,
        "is_empty": not data,
        "size": total,
        "shown_bytes": min(len(data), limit),
        "dumped_bytes": decoded_body.DUMPED_BYTES,
        "is_cut": total > min(len(data), limit),
        "download": download,
    }


@register.filter
def request_line(line: str, may_see_payload: bool) -> str:
    """Return a request line, without its query string for users who may not see payloads."""
    if may_see_payload:
        return line
    method, _space, rest = line.partition(" ")
    address, space, version = rest.rpartition(" ")
    address = address or rest
    return f"{method} {address.partition('?')[0]}{space}{version if space else ''}"


# ---- Entries of the audit trail ---------------------------------------------------------------

KINDS = {
    "webhook": gettext_lazy("Webhook"),
    "connection": gettext_lazy("Connection"),
    "apikey": gettext_lazy("API key"),
    "delivery": gettext_lazy("Delivery"),
    "resend": gettext_lazy("Resend"),
    "alertchannel": gettext_lazy("Alert channel"),
    "user": gettext_lazy("Account"),
    "group": gettext_lazy("Group"),
}


@register.filter
def field_labels(entry: AuditEntry) -> str:
    """Return the labels of the changed fields, as on the form."""
    return ", ".join(field_label(str(name)) for name in entry.fields)


@register.filter
def person(entry: AuditEntry) -> str:
    return entry.username or _("The system")


@register.filter
def kind(entry: AuditEntry) -> str:
    """Return the label of the kind of object of an entry."""
    return str(KINDS.get(entry.object_type, entry.object_type))


# ---- Exchanges with an authorization server ---------------------------------------------------

# Result of an exchange -> label and CSS class of its badge.
_RESULTS = {
    "ok": (gettext_lazy("Good"), "is-success"),
    "ok_with_warning": (gettext_lazy("Good, with a warning"), "is-success"),
    "transient": (gettext_lazy("Tried again later"), "is-warning"),
    "needs_reauthorization": (gettext_lazy("Needs re-authorization"), "is-danger"),
    "misconfigured": (gettext_lazy("Misconfigured"), "is-danger"),
}


@register.filter
def result_badge(exchange: OAuthExchange) -> SafeString | str:
    """Show the result of an exchange; nothing for a check, whose result is not the token's."""
    if exchange.kind == ExchangeKind.CHECK:
        return ""
    label, css_class = _RESULTS.get(exchange.result, (exchange.result, "is-neutral"))
    return format_html('<span class="badge {}">{}</span>', css_class, label)


@register.filter
def took(exchange: OAuthExchange) -> str:
    """Return the duration of an exchange; with a person at the provider it takes minutes."""
    seconds = (exchange.duration_ms or 0.0) / 1000
    if seconds < 60:
        return milliseconds(exchange.duration_ms)
    return rough_duration(seconds)


# ---- Filters, and what a condition found in an event ------------------------------------------


@register.filter
def filter_sentence(tree: Mapping[str, Any]) -> str:
    """Return in words what a stored filter matches."""
    try:
        filters.compile_filter(tree)
    except FilterError as error:
        return str(error)
    return filters.sentence(tree)


@register.filter
def asked(judgement: Judgement) -> str:
    """Return in words what a condition requires."""
    words = filters.condition_words(judgement.variable, judgement.operator, judgement.value)
    return words[:1].upper() + words[1:]


@register.filter
def found(judgement: Judgement) -> str:
    """Return the event's value for a condition; a long text is cut, a duration has its unit."""
    if judgement.actual is None:
        return filters.found_words(judgement.variable, None)
    kind = filters.kind_of(judgement.variable)
    is_number = kind is Kind.DURATION and isinstance(judgement.actual, int | float)
    text = filters.found_words(judgement.variable, judgement.actual)
    return text if is_number else text.strip("“”")
