"""A filter in plain words: "disposition is NO ANSWER and duration is over 30 s"."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks.filters.durations import duration_text
from webhooks.filters.kinds import kind_of, label_of
from webhooks.filters.operators import LISTS, PRESENCE, Kind, Operator, as_boolean, shown
from webhooks.filters.tree import Judgement

# Values and refusals beyond these are only counted in a sentence.
_MAX_VALUES = 6
_MAX_REFUSALS = 3

_PHRASES = {
    Operator.EQUALS: gettext_lazy("%(name)s is %(value)s"),
    Operator.NOT_EQUALS: gettext_lazy("%(name)s is not %(value)s"),
    Operator.ONE_OF: gettext_lazy("%(name)s is %(value)s"),
    Operator.NOT_ONE_OF: gettext_lazy("%(name)s is not %(value)s"),
    Operator.CONTAINS: gettext_lazy("%(name)s contains %(value)s"),
    Operator.NOT_CONTAINS: gettext_lazy("%(name)s does not contain %(value)s"),
    Operator.STARTS_WITH: gettext_lazy("%(name)s starts with %(value)s"),
    Operator.GREATER_THAN: gettext_lazy("%(name)s is over %(value)s"),
    Operator.AT_LEAST: gettext_lazy("%(name)s is at least %(value)s"),
    Operator.LESS_THAN: gettext_lazy("%(name)s is under %(value)s"),
    Operator.AT_MOST: gettext_lazy("%(name)s is at most %(value)s"),
    Operator.EXISTS: gettext_lazy("%(name)s has a value"),
    Operator.NOT_EXISTS: gettext_lazy("%(name)s has no value"),
}


def sentence(tree: Mapping[str, Any]) -> str:
    """Return what a valid filter lets through, in words without a full stop."""
    if not tree:
        return _("Every chosen event is sent")
    return _("Sent when %s") % _words(tree, is_inner=False)


def condition_words(variable: str, operator: Operator, value: object) -> str:
    """Return one condition in words, without a full stop."""
    given = "" if operator in PRESENCE else value_words(variable, value, operator)
    label = str(label_of(variable))
    # A field without a label is named as it is written in the event.
    name = label if label == variable else _uncapitalized(label)
    return _PHRASES[operator] % {"name": name, "value": given}


def value_words(variable: str, value: object, operator: Operator | None = None) -> str:
    """Return a value as its variable is shown: a duration with units, text in quotes."""
    if isinstance(value, list) and operator in LISTS:
        words = [value_words(variable, one) for one in value[:_MAX_VALUES]]
        if (more := len(value) - _MAX_VALUES) > 0:
            words.append(_("%d more") % more)
        return _joined(words, _("or"))
    kind = kind_of(variable)
    flag = as_boolean(value) if kind is Kind.BOOLEAN else value
    if isinstance(flag, bool):
        return _("true") if flag else _("false")
    if isinstance(value, int | float):
        return duration_text(value) if kind is Kind.DURATION else shown(value)
    return shown(value) if kind is Kind.CHOICE else f"“{shown(value)}”"


def refusal_words(refusals: Sequence[Judgement]) -> str:
    """Return the reasons why an event was refused, in words."""
    text = "; ".join(map(_refusal, refusals[:_MAX_REFUSALS]))
    if (more := len(refusals) - _MAX_REFUSALS) > 0:
        text = _("%(reasons)s; and %(count)d more") % {"reasons": text, "count": more}
    return text[:1].upper() + text[1:]


def _refusal(refusal: Judgement) -> str:
    asked = condition_words(refusal.variable, refusal.operator, refusal.value)
    found = found_words(refusal.variable, refusal.actual)
    return _("%(condition)s, but here it is %(found)s") % {"condition": asked, "found": found}


def found_words(variable: str, actual: object) -> str:
    return _("empty") if actual is None else value_words(variable, actual)


def _words(node: Mapping[str, Any], *, is_inner: bool) -> str:
    kind = next((kind for kind in ("all", "any") if kind in node), None)
    if kind is None:
        operator = Operator(node["operator"])
        return condition_words(node["variable"], operator, node.get("value"))
    children = node[kind]
    is_alone = len(children) == 1
    parts = [_words(child, is_inner=is_inner or not is_alone) for child in children]
    text = f" {_('and') if kind == 'all' else _('or')} ".join(parts)
    return f"({text})" if is_inner and not is_alone else text


def _joined(words: list[str], conjunction: str) -> str:
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"


def _uncapitalized(label: str) -> str:
    """Lower-case the first letter of a label, unless it begins with an abbreviation."""
    return label if label[1:2].isupper() or label[1:2] == "-" else label[:1].lower() + label[1:]
