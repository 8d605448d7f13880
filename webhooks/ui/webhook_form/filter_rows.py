"""The condition builder's rows and groups: read from a tree or a post, edited, written as a tree.

The page posts `filter-node` once for each part, in the order of the page: `open-<id>`, `row-<id>`
and `close`; the fields of a part carry its id. So parts can be moved without renumbering.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.http import QueryDict
from django.utils.translation import gettext as _

from webhooks.filters import (
    FITTING,
    LISTS,
    MAX_DEPTH,
    NUMERIC,
    PRESENCE,
    PRESETS,
    FilterError,
    Kind,
    Operator,
    Preset,
    compile_filter,
    duration_text,
    kind_of,
    known,
    parse_duration,
)

# The choice of a variable by its path into the payload.
PATH = "."
_TOKEN = re.compile(r"(?:(open|row)-([0-9]{1,6})|(close))")
# A value of a list, with what ends it; in quotes it may have commas, and "" is a quote.
_LISTED = re.compile(r'\s*(?:"((?:[^"]|"")*)"\s*(?=,|$)|([^,]*))(?:,|$)')
# Far more parts than a filter may have: what was typed is kept so that it can be corrected.
_MAX_TOKENS = 1000
# Groups deeper than one too many become part of the last: pages are drawn by recursion.
_MAX_NESTED = MAX_DEPTH + 1

# Deeper groups are read and kept; the builder makes none.
MAX_BUILT_DEPTH = 4


@dataclass(slots=True, kw_only=True)
class ConditionRow:
    """One condition as it is on the page; `values` are texts, one for all but lists."""

    id: int
    chosen: str = ""
    path: str = ""
    operator: str = ""
    values: list[str] = field(default_factory=list)
    # Sentences by part: variable, operator, value.
    errors: dict[str, str] = field(default_factory=dict)
    number: int = 0

    is_group = False

    @property
    def variable(self) -> str:
        return self.path.strip() if self.chosen == PATH else self.chosen

    @property
    def kind(self) -> Kind:
        return kind_of(self.variable) if self.variable else Kind.ANY

    @property
    def value(self) -> str:
        return self.values[0] if self.values else ""

    @property
    def wanted_operator(self) -> Operator:
        try:
            return Operator(self.operator)
        except ValueError:
            return FITTING[self.kind][0]

    @property
    def is_blank(self) -> bool:
        return not self.variable and not any(map(str.strip, self.values))

    @property
    def is_incomplete(self) -> bool:
        """Return whether something is still to be filled in, rather than wrong."""
        needs_value = self.wanted_operator not in PRESENCE
        return not self.variable or (needs_value and not any(map(str.strip, self.values)))

    def condition(self) -> dict[str, Any]:
        """Return the condition; raise FilterError with the part that is wrong."""
        if not self.variable:
            raise FilterError(_("Choose what this condition looks at."), ("variable",))
        operator = self.wanted_operator
        made: dict[str, Any] = {"variable": self.variable, "operator": operator.value}
        if operator not in PRESENCE:
            made["value"] = self._value(operator)
        compile_filter(made)
        return made

    @property
    def text(self) -> str:
        """Return the value for a single input, also when a list was typed before."""
        return ", ".join(line for value in self.values for line in value.splitlines() if line)

    @property
    def lines(self) -> str:
        """Return the values for a text area, one a line."""
        return "\n".join(self.values)

    @property
    def variable_id(self) -> str:
        return f"filter-{self.id}-variable"

    @property
    def value_id(self) -> str:
        return f"filter-{self.id}-value"

    def fit(self) -> None:
        """Choose an operator and values that fit the variable, which was changed."""
        if self.operator not in FITTING[self.kind]:
            self.operator = FITTING[self.kind][0]
        if choices := self.choices:
            self.values = [value for value in self.values if value in choices]
        if self.kind is Kind.BOOLEAN and not self.values:
            self.values = ["true"]

    @property
    def choices(self) -> tuple[str, ...]:
        variable = known(self.variable)
        if self.kind is Kind.BOOLEAN:
            return ("true", "false")
        return variable.choices if variable else ()

    def _value(self, operator: Operator) -> Any:
        if operator in LISTS:
            lines = [line for value in self.values for line in value.splitlines()]
            texts = [text.strip() for line in lines for text in self._listed(line)]
            texts = list(dict.fromkeys(filter(None, texts)))
            if not texts:
                raise FilterError(self._missing(is_list=True), ("value",))
            return [self._typed(text, operator) for text in texts]
        text = self.value.strip()
        if not text:
            raise FilterError(self._missing(is_list=False), ("value",))
        return self._typed(text, operator)

    @property
    def is_split_by_commas(self) -> bool:
        """Return whether commas part the values of a list; in a number they are decimal."""
        return not self.choices and self.kind is not Kind.NUMBER

    def _listed(self, line: str) -> list[str]:
        if not self.is_split_by_commas:
            return [line]
        return [
            plain if quoted is None else quoted.replace('""', '"')
            for quoted, plain in (found.groups() for found in _LISTED.finditer(line))
        ]

    def _missing(self, *, is_list: bool) -> str:
        if is_list:
            if self.choices:
                return _("Tick at least one value.")
            return _("Enter at least one value, each on a line of its own.")
        if self.choices:
            return _("Choose a value.")
        return _("Enter a value to compare with.")

    def _typed(self, text: str, operator: Operator) -> Any:
        if self.kind is Kind.BOOLEAN:
            return {"true": True, "false": False}.get(text, text)
        if self.kind is Kind.DURATION or (self.kind is Kind.ANY and operator in NUMERIC):
            return _duration(text, self.kind)
        if self.kind is Kind.NUMBER:
            return _number(text)
        return text


@dataclass(slots=True, kw_only=True)
class ConditionGroup:
    """Rows and groups of which all, or any, have to hold."""

    id: int
    kind: str = "all"
    children: list["ConditionRow | ConditionGroup"] = field(default_factory=list)
    error: str = ""
    depth: int = 0

    is_group = True

    @property
    def add_id(self) -> str:
        return f"filter-{self.id}-add"

    def rows(self) -> Iterator[ConditionRow]:
        for child in self.children:
            if isinstance(child, ConditionGroup):
                yield from child.rows()
            else:
                yield child

    def groups(self) -> Iterator["ConditionGroup"]:
        yield self
        for child in self.children:
            if isinstance(child, ConditionGroup):
                yield from child.groups()


# "open" and a group, "row" and a row, or "close" and a group, in the order of the page.
Token = tuple[str, "ConditionRow | ConditionGroup"]


def flatten(group: ConditionGroup) -> Iterator[Token]:
    """Yield the parts inside a group in the order of the page."""
    for child in group.children:
        if isinstance(child, ConditionGroup):
            yield "open", child
            yield from flatten(child)
            yield "close", child
        else:
            yield "row", child


def rebuild(root: ConditionGroup, tokens: list[Token]) -> None:
    """Put the parts into the root as their order says, and number the conditions."""
    for _word, part in tokens:
        if isinstance(part, ConditionGroup):
            part.children = []
    root.children, stack = [], [root]
    for word, part in tokens:
        if word == "close":
            if len(stack) > 1:
                stack.pop()
            continue
        stack[-1].children.append(part)
        if isinstance(part, ConditionGroup):
            part.depth = len(stack)
            stack.append(part)
    for number, row in enumerate(root.rows(), 1):
        row.number = number


def from_post(data: QueryDict) -> ConditionGroup:
    root = ConditionGroup(id=0, kind=_group_kind(data, 0))
    tokens: list[Token] = []
    seen = {0}
    depth = flattened = 0
    for text in data.getlist("filter-node")[:_MAX_TOKENS]:
        found = _TOKEN.fullmatch(text)
        if found is None:
            continue
        if found[3]:
            # Which group it closes follows from the order.
            if flattened:
                flattened -= 1
            else:
                depth -= 1
                tokens.append(("close", root))
            continue
        part_id = int(found[2])
        if part_id in seen:
            continue
        seen.add(part_id)
        if found[1] == "open":
            if depth >= _MAX_NESTED:
                flattened += 1
                continue
            depth += 1
            tokens.append(("open", ConditionGroup(id=part_id, kind=_group_kind(data, part_id))))
        else:
            tokens.append(("row", _posted_row(data, part_id)))
    rebuild(root, tokens)
    return root


def from_tree(tree: Mapping[str, Any]) -> ConditionGroup:
    """Return the rows of a valid tree."""
    root = ConditionGroup(id=0)
    if not tree:
        return root
    is_group = "all" in tree or "any" in tree
    numbers = iter(range(1, _MAX_TOKENS))
    wrapped = tree if is_group else {"all": [tree]}
    root = _group(wrapped, numbers, part_id=0)
    rebuild(root, list(flatten(root)))
    return root


def to_tree(root: ConditionGroup) -> dict[str, Any]:
    """Return the tree of the rows that are right; blank rows and empty groups mean nothing."""
    children: list[dict[str, Any]] = []
    for child in root.children:
        if isinstance(child, ConditionGroup):
            inner = to_tree(child)
        else:
            inner = {} if child.is_blank or problem_of(child) else child.condition()
        if inner:
            children.append(inner)
    return {root.kind: children} if children else {}


def problem_of(row: ConditionRow) -> dict[str, str]:
    """Return the sentence at the part of a row that is wrong; nothing for a blank row."""
    if row.is_blank:
        return {}
    try:
        row.condition()
    except FilterError as error:
        part = next((step for step in error.path if isinstance(step, str)), "value")
        return {part: str(error)}
    return {}


def _group(node: Mapping[str, Any], numbers: Iterator[int], *, part_id: int) -> ConditionGroup:
    kind = "any" if "any" in node else "all"
    group = ConditionGroup(id=part_id, kind=kind)
    for child in node[kind]:
        if "all" in child or "any" in child:
            group.children.append(_group(child, numbers, part_id=next(numbers)))
        else:
            group.children.append(_row(child, next(numbers)))
    return group


def _row(condition: Mapping[str, Any], part_id: int) -> ConditionRow:
    name = str(condition["variable"])
    is_known = known(name) is not None
    value = condition.get("value")
    values = [] if value is None else value if isinstance(value, list) else [value]
    kind = kind_of(name)
    texts = [_shown(one, kind) for one in values]
    row = ConditionRow(
        id=part_id,
        chosen=name if is_known else PATH,
        path="" if is_known else name,
        operator=str(condition["operator"]),
        values=texts,
    )
    if isinstance(value, list) and not row.choices:
        row.values = ["\n".join(_as_listed(text, row) for text in texts)]
    return row


def _as_listed(text: str, row: ConditionRow) -> str:
    """Write a value of a list so that it is read as one."""
    if row.is_split_by_commas and ("," in text or text.startswith('"')):
        return '"' + text.replace('"', '""') + '"'
    return text


def _shown(value: Any, kind: Kind) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if kind is Kind.DURATION and isinstance(value, int | float) and value >= 0:
        return duration_text(value)
    return str(value)


def _posted_row(data: QueryDict, part_id: int) -> ConditionRow:
    prefix = f"filter-{part_id}"
    row = ConditionRow(
        id=part_id,
        chosen=data.get(f"{prefix}-variable", "").replace("\0", ""),
        path=data.get(f"{prefix}-path", "").replace("\0", ""),
        operator=data.get(f"{prefix}-operator", ""),
        values=[value.replace("\0", "") for value in data.getlist(f"{prefix}-value")],
    )
    if data.get(f"{prefix}-was", "") != row.variable and row.operator:
        # Chosen for another variable, unless nothing was chosen then and it fits.
        row.fit()
    return row


def _group_kind(data: QueryDict, part_id: int) -> str:
    return "any" if data.get(f"filter-{part_id}-kind") == "any" else "all"


def _duration(text: str, kind: Kind) -> int | float:
    seconds = parse_duration(text)
    if seconds is not None:
        return seconds
    if kind is Kind.DURATION:
        raise FilterError(
            _("“%s” is not a time. Write it like 90, 1:30 or 1m 30s.") % text[:40], ("value",)
        )
    return _number(text)


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text.replace(",", "."))
    except ValueError:
        message = _("“%s” is not a number. Write it like 3 or 2.5.") % text[:40]
        raise FilterError(message, ("value",)) from None


# ---- What the buttons do: one place for a round trip of the form and for htmx -----------------


def edit_rows(root: ConditionGroup, action: str) -> str:
    """Change the rows as `add:3`, `up:5` or `preset:missed` says; return the id to focus."""
    verb, _colon, argument = action.partition(":")
    focus = ""
    if verb == "preset":
        focus = _add_preset(root, argument)
    elif verb in ("add", "group") and argument.isdecimal():
        focus = _add(root, int(argument), is_group=verb == "group")
    elif verb == "remove" and argument.isdecimal():
        focus = _remove(root, int(argument))
    elif verb in ("up", "down") and argument.isdecimal():
        _move(root, int(argument), step=-1 if verb == "up" else 1)
        focus = f"filter-{argument}-{verb}"
    rebuild(root, list(flatten(root)))
    return focus


def _add(root: ConditionGroup, group_id: int, *, is_group: bool) -> str:
    group = next((group for group in root.groups() if group.id == group_id), None)
    if group is None or (is_group and group.depth >= MAX_BUILT_DEPTH):
        return ""
    row = ConditionRow(id=_free_id(root))
    if is_group:
        kind = "any" if group.kind == "all" else "all"
        inner = ConditionGroup(id=row.id + 1, kind=kind, children=[row])
        group.children.append(inner)
    else:
        group.children.append(row)
    return f"filter-{row.id}-variable"


def _remove(root: ConditionGroup, part_id: int) -> str:
    for group in root.groups():
        for index, child in enumerate(group.children):
            if child.id == part_id:
                del group.children[index]
                return f"filter-{group.id}-add"
    return ""


def _move(root: ConditionGroup, part_id: int, *, step: int) -> None:
    """Move a part by one place; at the edge of a group, out of it or into the next one."""
    tokens = list(flatten(root))
    places = [index for index, (_word, part) in enumerate(tokens) if part.id == part_id]
    if not places:
        return
    first, last = places[0], places[-1]
    block, rest = tokens[first : last + 1], tokens[:first] + tokens[last + 1 :]
    target = first + step
    if not 0 <= target <= len(rest):
        return
    moved = [*rest[:target], *block, *rest[target:]]
    before = list(flatten(root))
    rebuild(root, moved)
    if max(group.depth for group in root.groups()) >= MAX_DEPTH:
        rebuild(root, before)


def _add_preset(root: ConditionGroup, key: str) -> str:
    preset = next((preset for preset in PRESETS if preset.key == key), None)
    if preset is None:
        return ""
    _drop_blank(root)
    row = None
    for condition in preset.tree["all"]:
        row = _merged(root, condition, preset) or _appended(root, condition)
    return f"filter-{row.id}-{'value' if preset.asks_value else 'variable'}" if row else ""


def _merged(
    root: ConditionGroup, condition: Mapping[str, Any], preset: Preset
) -> ConditionRow | None:
    """Return the row that says the same already, or that can say it too; None when none can.

    Two values that must both hold at once would let nothing through: “missed” and then “busy”
    means either.
    """
    (wanted,) = from_tree(condition).rows()
    rows = [child for child in root.children if isinstance(child, ConditionRow)]
    for row in rows:
        if row.variable != wanted.variable:
            continue
        if row.operator == wanted.operator and (preset.asks_value or row.values == wanted.values):
            return row
        if root.kind == "all" and len(row.choices) > 2 and row.operator in ("equals", "one_of"):
            row.operator = "one_of"
            row.values = list(dict.fromkeys([*filter(None, row.values), *wanted.values]))
            return row
    return None


def _appended(root: ConditionGroup, condition: Mapping[str, Any]) -> ConditionRow:
    (row,) = from_tree(condition).rows()
    row.id = _free_id(root)
    root.children.append(row)
    return row


def _drop_blank(root: ConditionGroup) -> None:
    root.children = [
        child for child in root.children if isinstance(child, ConditionGroup) or not child.is_blank
    ]


def _free_id(root: ConditionGroup) -> int:
    ids = {part.id for _word, part in flatten(root)}
    return max(ids, default=0) + 1
