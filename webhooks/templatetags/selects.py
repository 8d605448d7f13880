"""The options of a select, drawn in one go: six hundred time zones by templates take 200 ms."""

from typing import Any

from django import template
from django.forms.utils import flatatt
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

register = template.Library()


@register.filter
def options(widget: dict[str, Any]) -> SafeString:
    """Draw what Django's `select.html` draws between the tags of a select."""
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
    return format_html_join(
        "",
        '<option value="{}"{}>{}</option>',
        ((one["value"], flatatt(one["attrs"]), one["label"]) for one in choices),
    )
