"""Tags and filters for small parts of pages: icons, times, numbers, badges, select options."""

import html
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from django import template
from django.template.defaultfilters import date
from django.templatetags.static import static
from django.urls import ResolverMatch
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from webhooks import audit
from webhooks.alerts import problems
from webhooks.api import events
from webhooks.delivery import outcomes
from webhooks.delivery.backlog import MAX_COUNT, Report
from webhooks.delivery_log.figures import milliseconds, number, rough_duration
from webhooks.models import Attempt, Delivery, OAuthToken, Status, TokenState, messages

register = template.Library()
register.filter("group_digits", number)
register.filter(milliseconds)
register.filter(rough_duration)

# Every message code that a row may hold; `outcomes` includes those of the network and of OAuth.
SENTENCES: Mapping[str, messages.Sentence] = {
    **outcomes.SENTENCES,
    **problems.SENTENCES,
    **audit.SENTENCES,
    **events.SENTENCES,
}

# Status or state -> CSS class of its badge.
_BADGES = {
    Status.PENDING: "is-info",
    Status.SENDING: "is-info",
    Status.SUCCEEDED: "is-success",
    Status.FAILED: "is-danger",
    Status.HELD: "is-held",
    Status.PARKED: "is-warning",
    Status.CANCELLED: "is-neutral",
    TokenState.NONE: "is-warning",
    TokenState.VALID: "is-success",
    TokenState.EXPIRING: "is-warning",
    TokenState.REFRESHING: "is-info",
    TokenState.NEEDS_REAUTHORIZATION: "is-danger",
    TokenState.MISCONFIGURED: "is-danger",
}

# Characters shown of the beginning and of the end of a long URL.
_HEAD, _TAIL = 60, 30
# Characters of the end of a URL that stay visible in a narrow cell of the list.
_SHORT_TAIL = 12
_ADDRESS_PART = re.compile(r"[^/?&]+[/?&]*|[/?&]+")


@register.simple_tag
@cache
def icon(name: str, css_class: str = "") -> SafeString:
    """Draw a symbol of `static/icons/icons.svg`; decorative, so it needs text beside it."""
    return format_html(
        '<svg class="icon {}" aria-hidden="true" focusable="false"><use href="{}#{}"/></svg>',
        css_class,
        static("icons/icons.svg"),
        name,
    )


# Prefix of a view name -> its tab in the header.
_TABS = {
    "webhooks:connection": "connections",
    "webhooks:alert": "alerts",
    "webhooks:help": "",
    "webhooks:search": "",
    "webhooks:status": "",
    "webhooks:time_zone": "",
    "webhooks:deliver": "deliveries",
    "webhooks:event": "deliveries",
    "webhooks:resend_create_for_all": "deliveries",
    "webhooks:resend_create": "webhooks",
    "webhooks:resend": "deliveries",
    "webhooks:": "webhooks",
    "admin:webhooks_delivery": "deliveries",
    "admin:webhooks_apikey": "keys",
}


@register.filter
def current_tab(match: ResolverMatch | None) -> str:
    """Return the current tab of the header; empty on pages without one."""
    name = match.view_name if match else ""
    return next((tab for start, tab in _TABS.items() if name.startswith(start)), "")


@register.filter
def dotted(name: str) -> SafeString:
    """Allow line breaks in a name after each dot rather than inside a word."""
    parts = ((part,) for part in name.split("."))
    return format_html_join(SafeString(".<wbr>"), "{}", parts)


@register.filter
def compact_address(address: str) -> SafeString:
    """Show the beginning and the end of a URL, with line breaks allowed between its parts."""
    if len(address) > _HEAD + _TAIL + 3:
        address = f"{address[:_HEAD]}…{address[-_TAIL:]}"
    parts = ((part,) for part in _ADDRESS_PART.findall(address))
    return format_html_join(SafeString("<wbr>"), "{}", parts)


@register.filter
def address_ends(address: str) -> tuple[str, str]:
    """Return the beginning of a URL, which a narrow cell cuts, and its last characters."""
    at = max(len(address) - _SHORT_TAIL, 0)
    start = address[:at] if at <= _HEAD else f"{address[:_HEAD]}…"
    return start, address[at:]


@register.filter
def sentence(stored: str) -> str:
    """Return a stored message in the reader's language; it is neither escaped nor marked safe."""
    return messages.render(stored, SENTENCES)


def _local(moment: datetime) -> datetime:
    """Return a time in the reader's time zone; in UTC if it is out of range there."""
    try:
        return timezone.localtime(moment)
    except OverflowError:
        return moment.astimezone(UTC)


def _written(moment: datetime) -> tuple[str, str]:
    """Return a time in ISO 8601, and to the second for people."""
    local = _local(moment)
    return local.isoformat(), f"{local:%Y-%m-%d %H:%M:%S %Z}"


@register.filter
def ago(moment: datetime | None, kind: str = "") -> SafeString | str:
    """Show how far a time is in the past or future, with the exact time on hover.

    With the kind "due", the page changes it to "due now" when the time has come.
    """
    # A template passes an empty string for a missing value.
    if not moment:
        return ""
    seconds = (timezone.now() - moment).total_seconds()
    if abs(seconds) < 60:
        words = _("just now") if seconds >= 0 else _("in a moment")
    elif seconds > 0:
        words = _("%s ago") % timesince(moment, depth=1)
    else:
        words = _("in %s") % timeuntil(moment, depth=1)
    return format_html(
        '<time datetime="{}" title="{}" data-ago="{}">{}</time>', *_written(moment), kind, words
    )


@register.filter
def clock(moment: datetime) -> SafeString:
    """Show the time of day, and the date if it is not today."""
    local = _local(moment)
    is_today = local.date() == timezone.localdate()
    words = f"{local:%H:%M:%S}" if is_today else date(local, "j M, H:i:s")
    iso, exactly = _written(moment)
    return format_html('<time class="num" datetime="{}" title="{}">{}</time>', iso, exactly, words)


@register.filter
def due(moment: datetime | None) -> SafeString | str:
    """Show when something is due; "due now" if the time has passed."""
    if moment is None or moment > timezone.now():
        return ago(moment, "due")
    return format_html('<time datetime="{}" title="{}">{}</time>', *_written(moment), _("due now"))


@register.filter
def next_attempt(moment: datetime | None) -> SafeString | str:
    """Show the time of a waiting delivery's next attempt, for a table."""
    is_due = moment is None or moment <= timezone.now()
    return due(moment) if is_due else format_html("{} {}", _("next"), due(moment))


@register.filter
def day(moment: datetime) -> SafeString:
    """Show a date in words, with the exact time on hover."""
    words = date(_local(moment), "j E Y")
    return format_html('<time datetime="{}" title="{}">{}</time>', *_written(moment), words)


@register.filter
def minute(moment: datetime | None) -> SafeString | str:
    """Show a time to the minute in words, with the exact time on hover."""
    if moment is None:
        return ""
    words = date(_local(moment), "j E Y, H:i")
    return format_html('<time datetime="{}" title="{}">{}</time>', *_written(moment), words)


@register.filter
def exact(moment: datetime | None) -> SafeString | str:
    """Show a time to the millisecond."""
    if moment is None:
        return ""
    local = _local(moment)
    text = f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} {local:%Z}"
    return format_html('<time class="num nowrap" datetime="{}">{}</time>', local.isoformat(), text)


@register.filter
def status_badge(delivery: Delivery) -> SafeString:
    return _badge(delivery.status, delivery.get_status_display())


@register.filter
def token_badge(token: OAuthToken | None) -> SafeString:
    """Show the state of a token; None means that none was ever issued."""
    if not token:
        return _badge(TokenState.NONE, str(TokenState.NONE.label))
    return _badge(token.state, token.get_state_display())


@register.filter
def badge_class(state: str) -> str:
    """Return the CSS class of the badge of a status or state."""
    return _BADGES.get(state, "is-neutral")  # type: ignore[call-overload,no-any-return]


def _badge(state: str, label: str) -> SafeString:
    css_class = badge_class(state)
    return format_html('<span class="badge has-dot {}">{}</span>', css_class, label)


@register.filter
def code_badge(status_code: int | None) -> SafeString | str:
    """Show a response code, coloured by its class."""
    if not status_code:
        return ""
    css_class = {2: "is-success", 3: "is-warning", 4: "is-danger", 5: "is-danger"}.get(
        status_code // 100, "is-neutral"
    )
    return format_html('<span class="badge num {}">{}</span>', css_class, status_code)


@register.inclusion_tag("webhooks/ui/_timing.html")
def timing(attempt: Attempt) -> dict[str, Any]:
    """Draw the durations of an attempt's phases."""
    known = [attempt.dns_ms or 0.0, attempt.connect_ms or 0.0, attempt.tls_ms or 0.0]
    waiting = max((attempt.first_byte_ms or attempt.total_ms or 0.0) - sum(known), 0.0)
    total = max(attempt.total_ms or 0.0, sum(known) + waiting)
    phases = [
        ("dns", _("Name lookup"), known[0]),
        ("connect", _("Connect"), known[1]),
        ("tls", _("TLS"), known[2]),
        ("wait", _("Waiting for the first byte"), waiting),
        ("read", _("Reading"), total - sum(known) - waiting),
    ]
    start = 0.0
    bars = []
    for key, label, duration in phases:
        share = 100 * duration / total if total else 0.0
        bars.append(
            {"key": key, "label": label, "x": f"{start:.2f}", "width": f"{share:.2f}",
             "duration_ms": duration}
        )  # fmt: skip
        start += share
    return {"bars": bars, "total_ms": attempt.total_ms}


@register.inclusion_tag("webhooks/ui/_backlog.html")
def backlog_line(report: Report) -> dict[str, Any]:
    """Draw the line that shows how far behind the engine is."""
    found = report.backlog
    parts = []
    if found.due:
        oldest = rough_duration(found.oldest_due_seconds)
        text = ngettext(
            "%(count)s due, for %(oldest)s", "%(count)s due, the oldest for %(oldest)s", found.due
        )
        parts.append(text % {"count": _capped(found.due), "oldest": oldest})
    else:
        parts.append(_("Nothing overdue"))
    if found.sending:
        parts.append(_("%s being sent") % _capped(found.sending))
    if found.held:
        parts.append(_("%s on hold") % _capped(found.held))
    if found.parked:
        parts.append(_("%s stuck") % _capped(found.parked))
    if found.sent_per_second:
        parts.append(_("%s sent per second") % _rate(found.sent_per_second))
    elif found.due:
        parts.append(_("nothing sent in the last minute"))
    return {"report": report, "parts": parts}


def _rate(per_second: float) -> str:
    places = 0 if per_second >= 10 else 1
    return str(number_format(max(per_second, 0.1), places, force_grouping=True))


def _capped(count: int) -> str:
    shown = number(min(count, MAX_COUNT))
    return f"{shown}+" if count >= MAX_COUNT else shown


@register.filter
def attributes(values: dict[str, Any]) -> SafeString:
    """Draw the same as Django's `attrs.html` without a template: a form has a hundred of them."""
    return SafeString(
        "".join(
            f" {name}" if value is True else f' {name}="{_escaped(value)}"'
            for name, value in values.items()
            if value is not False
        )
    )


@register.filter
def options(widget: dict[str, Any]) -> SafeString:
    """Draw the options of a select as Django's `select.html` does, without a template for each.

    With templates, six hundred time zones take 200 ms.
    """
    groups = ((name, _drawn(choices)) for name, choices, _index in widget["optgroups"])
    return format_html_join(
        "",
        "{}",
        (
            (format_html('<optgroup label="{}">{}</optgroup>', name, drawn) if name else drawn,)
            for name, drawn in groups
        ),
    )


def _drawn(choices: list[dict[str, Any]]) -> SafeString:
    # Escaped here: `format_html` takes three times as long.
    return SafeString(
        "".join(
            f'<option value="{_escaped(one["value"])}"'
            f"{attributes(one['attrs']) if one['attrs'] else ''}>"
            f"{_escaped(one['label'])}</option>"
            for one in choices
        )
    )


def _escaped(value: object) -> str:
    text = str(value)
    # Not `conditional_escape`, which checks each of a thousand texts for being lazy first.
    return text if isinstance(text, SafeString) else html.escape(text)
