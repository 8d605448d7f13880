"""The condition tree: compiled once, matched often, and able to say what refused an event."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext as _

from webhooks.filters.operators import (
    ABSENT,
    MAX_LENGTH,
    NEGATIVE,
    FilterError,
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
Document = Mapping[str, Any]


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

    def refusals(self) -> Iterator["Judgement"]:
        """Yield the conditions that did not hold, but for those of a group that did."""
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

    def matches(self, document: Document) -> bool:
        actual = self.find(document)
        return self.operator in NEGATIVE if actual is ABSENT else self.test(actual)

    def judge(self, document: Document) -> Judgement:
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

    def matches(self, document: Document) -> bool:
        if self.needs_all:
            return all(child.matches(document) for child in self.children)
        return any(child.matches(document) for child in self.children)

    def judge(self, document: Document) -> Judgement:
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

    def matches(self, document: Document) -> bool:
        return self._root is None or self._root.matches(document)

    def explain(self, document: Document) -> list[Judgement]:
        """Return the conditions that refused the event; [] when it passes."""
        judged = self.judge(document)
        return list(judged.refusals()) if judged else []

    def judge(self, document: Document) -> Judgement | None:
        """Return what every condition made of the event; None when there are none."""
        return None if self._root is None else self._root.judge(document)


def validate(tree: object) -> None:
    """Raise FilterError, with the path of the wrong part, unless the tree compiles."""
    compile_filter(tree)


def compile_filter(tree: object) -> Filter:
    """Return the filter of a condition tree; raise FilterError.

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
        raise FilterError(_("A part of a filter is an object."), path)
    left[0] -= 1
    if left[0] < 0:
        message = _("A filter has at most %d conditions and groups.") % MAX_CONDITIONS
        raise FilterError(message, path)
    if "all" in node or "any" in node:
        return _compile_group(node, path, left)
    return _compile_condition(node, path)


def _compile_group(node: Tree, path: Path, left: list[int]) -> _Group:
    if len(node) != 1:
        raise FilterError(_("A group has either “all” or “any” and nothing else."), path)
    (kind,) = node
    children = node[kind]
    if not isinstance(children, list) or not children:
        raise FilterError(_("A group holds at least one condition."), (*path, kind))
    # Each level adds the kind and the index to the path.
    if len(path) // 2 >= MAX_DEPTH:
        raise FilterError(_("Groups are nested at most %d deep.") % MAX_DEPTH, path)
    return _Group(
        needs_all=kind == "all",
        children=tuple(
            _compile(child, (*path, kind, index), left) for index, child in enumerate(children)
        ),
    )


def _compile_condition(node: Tree, path: Path) -> _Condition:
    if unknown := node.keys() - {"variable", "operator", "value"}:
        name = shown(min(map(str, unknown)))
        raise FilterError(_("A condition has no “%s”.") % name, path)
    variable = node.get("variable")
    if not isinstance(variable, str) or not 0 < len(variable) <= MAX_LENGTH:
        raise FilterError(_("Choose the variable to compare."), (*path, "variable"))
    try:
        operator = Operator(str(node.get("operator")))
    except ValueError:
        raise FilterError(_("Choose how to compare."), (*path, "operator")) from None
    value = node.get("value")
    return _Condition(
        variable=variable,
        operator=operator,
        value=value,
        test=make_test(operator, value, (*path, "value")),
        find=_finder(variable),
    )


def _finder(variable: str) -> Callable[[Document], Any]:
    """Return how to read a variable: where a mapping finds it, but never the event as a whole."""
    if variable == WHOLE_EVENT:
        return lambda document: present_value(document.get(variable))
    find = finder(variable)
    return lambda document: present_value(find(document))
