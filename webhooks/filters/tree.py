"""The condition tree: compiled once, matched often, and able to say what refused an event."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext as _

from webhooks.filters.operators import (
    ABSENT,
    MAX_LENGTH,
    NEGATIVE,
    OPERATOR_LABELS,
    PRESENCE,
    InvalidFilter,
    Operator,
    Path,
    Test,
    make_test,
    present_value,
    shown,
)
from webhooks.payloads import WHOLE_EVENT, finder

# A person's filter has a handful of conditions; the limits keep a hostile one cheap.
MAX_DEPTH = 8
MAX_CONDITIONS = 200

Tree = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A condition that did not hold, and the value it met (None when there was none)."""

    path: Path
    variable: str
    operator: Operator
    value: object
    actual: object

    def __str__(self) -> str:
        words = [self.variable, str(OPERATOR_LABELS[self.operator])]
        if self.operator not in PRESENCE:
            words.append(f"“{shown(self.value)}”")
        found = _("no value") if self.actual is None else f"“{shown(self.actual)}”"
        return _("%(condition)s: the event has %(found)s.") % {
            "condition": " ".join(words),
            "found": found,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What one condition or group made of an event; `group` is "all", "any" or "" for a condition.

    `actual` is None when the event has no value.
    """

    passes: bool
    group: str = ""
    children: tuple["Judgement", ...] = ()
    variable: str = ""
    operator: Operator = Operator.EXISTS
    value: object = None
    actual: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Condition:
    path: Path
    variable: str
    operator: Operator
    value: object
    test: Test
    find: Callable[[Mapping[str, Any]], Any]

    def matches(self, document: Mapping[str, Any]) -> bool:
        actual = self.find(document)
        if actual is ABSENT:
            return self.operator in NEGATIVE
        return self.test(actual)

    def refusals(self, document: Mapping[str, Any]) -> list[Refusal]:
        if self.matches(document):
            return []
        actual = self.find(document)
        return [
            Refusal(
                path=self.path,
                variable=self.variable,
                operator=self.operator,
                value=self.value,
                actual=None if actual is ABSENT else actual,
            )
        ]

    def judge(self, document: Mapping[str, Any]) -> Judgement:
        actual = self.find(document)
        return Judgement(
            passes=self.matches(document),
            variable=self.variable,
            operator=self.operator,
            value=self.value,
            actual=None if actual is ABSENT else actual,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    children: tuple["_Condition | _Group", ...]
    needs_all: bool

    def matches(self, document: Mapping[str, Any]) -> bool:
        if self.needs_all:
            return all(child.matches(document) for child in self.children)
        return any(child.matches(document) for child in self.children)

    def refusals(self, document: Mapping[str, Any]) -> list[Refusal]:
        if self.matches(document):
            return []
        return [refusal for child in self.children for refusal in child.refusals(document)]

    def judge(self, document: Mapping[str, Any]) -> Judgement:
        return Judgement(
            passes=self.matches(document),
            group="all" if self.needs_all else "any",
            children=tuple(child.judge(document) for child in self.children),
        )


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled filter; safe to share between threads."""

    _root: _Condition | _Group | None = field(repr=False)

    @property
    def is_empty(self) -> bool:
        return self._root is None

    def matches(self, document: Mapping[str, Any]) -> bool:
        return self._root is None or self._root.matches(document)

    def explain(self, document: Mapping[str, Any]) -> list[Refusal]:
        """Return the conditions that refused the event; [] when it passes."""
        return [] if self._root is None else self._root.refusals(document)

    def judge(self, document: Mapping[str, Any]) -> Judgement | None:
        """Return what every condition made of the event; None when there are none."""
        return None if self._root is None else self._root.judge(document)


def validate(tree: object) -> None:
    """Raise InvalidFilter, with the path of the wrong part, unless the tree compiles."""
    compile_filter(tree)


def compile_filter(tree: object) -> Filter:
    """Return the filter of a condition tree; raise InvalidFilter.

    Text is compared without regard to case. A number is compared as a number, also when the
    filter spells it as text. Variables may be given by either name, and a part of an object or a
    list as `fields.city` or `items[0].id`. A variable without a value passes only the negative
    operators.
    """
    if tree == {}:
        return Filter(None)
    return Filter(_compile(tree, (), [MAX_CONDITIONS]))


def _compile(node: object, path: Path, left: list[int]) -> _Condition | _Group:
    if not isinstance(node, Mapping):
        raise InvalidFilter(_("A part of a filter is an object."), path)
    left[0] -= 1
    if left[0] < 0:
        message = _("A filter has at most %d conditions and groups.") % MAX_CONDITIONS
        raise InvalidFilter(message, path)
    if "all" in node or "any" in node:
        return _compile_group(node, path, left)
    return _compile_condition(node, path)


def _compile_group(node: Tree, path: Path, left: list[int]) -> _Group:
    if len(node) != 1:
        raise InvalidFilter(_("A group has either “all” or “any” and nothing else."), path)
    (kind,) = node
    children = node[kind]
    if not isinstance(children, list) or not children:
        raise InvalidFilter(_("A group holds at least one condition."), (*path, kind))
    # Each level adds the kind and the index to the path.
    if len(path) // 2 >= MAX_DEPTH:
        raise InvalidFilter(_("Groups are nested at most %d deep.") % MAX_DEPTH, path)
    return _Group(
        needs_all=kind == "all",
        children=tuple(
            _compile(child, (*path, kind, index), left) for index, child in enumerate(children)
        ),
    )


def _compile_condition(node: Tree, path: Path) -> _Condition:
    if unknown := node.keys() - {"variable", "operator", "value"}:
        name = shown(min(map(str, unknown)))
        raise InvalidFilter(_("A condition has no “%s”.") % name, path)
    variable = node.get("variable")
    if not isinstance(variable, str) or not 0 < len(variable) <= MAX_LENGTH:
        raise InvalidFilter(_("Choose the variable to compare."), (*path, "variable"))
    try:
        operator = Operator(str(node.get("operator")))
    except ValueError:
        raise InvalidFilter(_("Choose how to compare."), (*path, "operator")) from None
    value = node.get("value")
    return _Condition(
        path=path,
        variable=variable,
        operator=operator,
        value=value,
        test=make_test(operator, value, (*path, "value")),
        find=_finder(variable),
    )


def _finder(variable: str) -> Callable[[Mapping[str, Any]], Any]:
    """Return how to read a variable: where a mapping finds it, but never the event as a whole."""
    if variable == WHOLE_EVENT:
        return lambda document: present_value(document.get(variable))
    find = finder(variable)
    return lambda document: present_value(find(document))
