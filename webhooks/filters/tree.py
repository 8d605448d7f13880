"""The condition tree: compiled once, matched often, and able to explain a refusal."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext as _

from webhooks.filters.kinds import kind_of
from webhooks.filters.operators import (
    ABSENT,
    MAX_LENGTH,
    NEGATIVE,
    FilterError,
    Folded,
    Operator,
    Path,
    Test,
    make_test,
    present_value,
    shown,
)
from webhooks.payloads import WHOLE_EVENT, finder, path_problem

# Real filters have a handful of conditions; the limits keep a hostile one cheap.
MAX_DEPTH = 8
MAX_CONDITIONS = 200
# Values in all lists of a filter together.
MAX_VALUES = 1000

Tree = Mapping[str, Any]
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The result of a condition or group; `group` is "all", "any", or "" for a condition.

    `actual` is None when the event has no value.
    """

    passes: bool
    group: str = ""
    children: tuple["Judgement", ...] = ()
    variable: str = ""
    operator: Operator = Operator.EXISTS
    value: object = None
    actual: object = None

    def refusals(self) -> Iterator["Judgement"]:
        """Yield the conditions that failed, except those in a group that passed."""
        if not self.passes and not self.group:
            yield self
        elif not self.passes:
            for child in self.children:
                yield from child.refusals()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Condition:
    variable: str
    operator: Operator
    value: object
    test: Test
    find: Callable[[Document], Any]

    def matches(self, event: Folded) -> bool:
        actual = self.find(event.values)
        return self.operator in NEGATIVE if actual is ABSENT else self.test(actual, event)

    def judge(self, event: Folded) -> Judgement:
        actual = self.find(event.values)
        return Judgement(
            passes=self.matches(event),
            variable=self.variable,
            operator=self.operator,
            value=self.value,
            actual=None if actual is ABSENT else actual,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    children: tuple["_Condition | _Group", ...]
    needs_all: bool

    def matches(self, event: Folded) -> bool:
        if self.needs_all:
            return all(child.matches(event) for child in self.children)
        return any(child.matches(event) for child in self.children)

    def judge(self, event: Folded) -> Judgement:
        return Judgement(
            passes=self.matches(event),
            group="all" if self.needs_all else "any",
            children=tuple(child.judge(event) for child in self.children),
        )


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled filter; safe to share between threads."""

    _root: _Condition | _Group | None = field(repr=False)

    @property
    def is_empty(self) -> bool:
        return self._root is None

    def matches(self, event: Document | Folded) -> bool:
        """Return whether an event passes; filters given the same Folded event share its work."""
        return self._root is None or self._root.matches(_folded(event))

    def explain(self, document: Document) -> list[Judgement]:
        """Return the conditions that refused the event; [] when it passes."""
        judged = self.judge(document)
        return list(judged.refusals()) if judged else []

    def judge(self, event: Document | Folded) -> Judgement | None:
        """Return the result of every condition, or None for an empty filter."""
        return None if self._root is None else self._root.judge(_folded(event))


def _folded(event: Document | Folded) -> Folded:
    return event if isinstance(event, Folded) else Folded(event)


def compile_filter(tree: object) -> Filter:
    """Compile a condition tree. Raise FilterError with the path of the wrong part.

    Text is compared without regard to case. Numbers are compared as numbers, even if the filter
    writes them as text. Variables may be given by either name, and a part of an object or a list as
    `fields.city` or `items[0].id`. A variable without a value passes only negative operators.
    """
    if tree == {}:
        return Filter(None)
    return Filter(_compile(tree, (), Counter()))


def _compile(node: object, path: Path, count: Counter[str]) -> _Condition | _Group:
    if not isinstance(node, Mapping):
        raise FilterError(_("Each part of a filter must be an object."), path)
    count["parts"] += 1
    if count["parts"] > MAX_CONDITIONS:
        message = _("A filter has at most %d conditions and groups.") % MAX_CONDITIONS
        raise FilterError(message, path)
    value = node.get("value")
    count["values"] += len(value) if isinstance(value, list) else 0
    if count["values"] > MAX_VALUES:
        message = _("The lists of a filter have at most %d values together.") % MAX_VALUES
        raise FilterError(message, (*path, "value"))
    if "all" in node or "any" in node:
        return _compile_group(node, path, count)
    return _compile_condition(node, path)


def _compile_group(node: Tree, path: Path, count: Counter[str]) -> _Group:
    if len(node) != 1:
        raise FilterError(_("A group must have either “all” or “any” and nothing else."), path)
    (kind,) = node
    children = node[kind]
    if not isinstance(children, list) or not children:
        raise FilterError(_("A group must have at least one condition."), (*path, kind))
    # Each level adds the kind and the index to the path.
    if len(path) // 2 >= MAX_DEPTH:
        raise FilterError(_("Groups are nested at most %d deep.") % MAX_DEPTH, path)
    return _Group(
        needs_all=kind == "all",
        children=tuple(
            _compile(child, (*path, kind, index), count) for index, child in enumerate(children)
        ),
    )


def _compile_condition(node: Tree, path: Path) -> _Condition:
    if unknown := node.keys() - {"variable", "operator", "value"}:
        name = shown(min(map(str, unknown)))
        raise FilterError(_("A condition has no “%s”.") % name, path)
    variable = node.get("variable")
    if not isinstance(variable, str) or not variable:
        raise FilterError(_("Choose the variable to compare."), (*path, "variable"))
    if len(variable) > MAX_LENGTH:
        sentence = _("A name has at most %d characters.") % MAX_LENGTH
        raise FilterError(sentence, (*path, "variable"))
    if sentence := path_problem(variable):
        raise FilterError(sentence, (*path, "variable"))
    try:
        operator = Operator(str(node.get("operator")))
    except ValueError:
        raise FilterError(_("Choose how to compare."), (*path, "operator")) from None
    value = node.get("value")
    return _Condition(
        variable=variable,
        operator=operator,
        value=value,
        test=make_test(operator, value, (*path, "value"), kind_of(variable)),
        find=_finder(variable),
    )


def _finder(variable: str) -> Callable[[Document], Any]:
    """Return a function that reads a variable as mappings do, but never the whole event."""
    if variable == WHOLE_EVENT:
        return lambda document: present_value(document.get(variable))
    find = finder(variable)
    return lambda document: present_value(find(document))
