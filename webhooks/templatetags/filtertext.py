"""A filter on the page: its rows, its sentence, and what a condition made of an event."""

from collections.abc import Mapping
from typing import Any

from django import template

from webhooks import filters
from webhooks.filters import InvalidFilter, Judgement, Kind
from webhooks.ui.webhook_form.filter_rows import Row
from webhooks.ui.webhook_form.filter_section import FilterSection, offered

register = template.Library()


@register.simple_tag
def offer(row: Row, section: FilterSection) -> dict[str, Any]:
    """Return what the page needs to draw one condition."""
    return offered(row, section)


@register.filter
def filter_sentence(tree: Mapping[str, Any]) -> str:
    """Say what a stored filter lets through."""
    try:
        filters.validate(tree)
    except InvalidFilter as error:
        return str(error)
    return filters.sentence(tree)


@register.filter
def asked(judgement: Judgement) -> str:
    """Say what a condition asks for."""
    words = filters.condition_words(judgement.variable, judgement.operator, judgement.value)
    return words[:1].upper() + words[1:]


@register.filter
def found(judgement: Judgement) -> str:
    """Say what the event has; a long text is cut, a duration has its unit."""
    if judgement.actual is None:
        return filters.found_words(judgement.variable, None)
    kind = filters.kind_of(judgement.variable)
    is_number = kind is Kind.DURATION and isinstance(judgement.actual, int | float)
    text = filters.found_words(judgement.variable, judgement.actual)
    return text if is_number else text.strip("“”")
