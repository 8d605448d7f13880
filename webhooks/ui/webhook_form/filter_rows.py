"""The rows of the Filter section: their input, the conditions they mean, and button actions.

The page posts one `filter-node` for each part, in the order of the page: `open-<id>`, `row-<id>`
and `close`. Field names contain the id of their part, so parts move without renumbering.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.core.validators import ProhibitNullCharactersValidator
from django.http import QueryDict
from django.utils.functional import Promise
from django.utils.translation import gettext as _

from webhooks import catalogue
from webhooks.filters import (
    FITTING,
    LISTS,
    MAX_DEPTH,
    NUMERIC,
    OPERATOR_LABELS,
    PRESENCE,
    PRESETS,
    FilterError,
    Kind,
    Operator,
    Preset,
    as_boolean,
    compile_filter,
    duration_text,
    kind_of,
    known,
    parse_duration,
    value_words,
)
from webhooks.ui.requests import whole_number

# The choice of a variable that is typed as a path into the payload.
PATH = "."
_TOKEN = re.compile(r"(?:(open|row)-([0-9]{1,6})|(close))")
# A value of a list and its terminator; a quoted value may contain commas, and "" is a quote.
_LISTED = re.compile(r'\s*(?:"((?:[^"]|"")*)"\s*(?=,|$)|([^,]*))(?:,|$)')
_BOOLEANS = {"true": True, "false": False}
# "1 500" or "48 500,50", with any kind of space.
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:\s[0-9]{3})+(?:[.,][0-9]+)?")
# "1,500" means 1500 or 1.5, depending on the locale.
_TWO_MEANINGS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
# Far more parts than a filter may have, so that a filter with too many can be shown and corrected.
_MAX_TOKENS = 1000
# Deeper groups are merged into their parent, because templates render groups recursively.
_MAX_NESTED = MAX_DEPTH + 1
# The builder adds no deeper groups; deeper stored groups are read and kept.
MAX_BUILT_DEPTH = 4


@dataclass(slots=True, kw_only=True)
class ConditionRow:
    """One condition as shown on the page; `values` are texts, at most one unless it is a list."""

    id: int
    chosen: str = ""
    path: str = ""
    operator: str = ""
    values: list[str] = field(default_factory=list)
    # The values that are stored as numbers or booleans, divided by spaces; others are text.
    typed: str = ""
    # Error messages by part: variable, operator, value.
    errors: dict[str, str] = field(default_factory=dict)
    number: int = 0
    # The chosen event types.
    types: Collection[str] = ()

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
        """Return whether a part is not filled in yet, rather than wrong."""
        needs_value = self.wanted_operator not in PRESENCE
        return not self.variable or (needs_value and not any(map(str.strip, self.values)))

    @property
    def is_absent_in_events(self) -> bool:
        """Return whether none of the chosen event types has the variable."""
        variable = known(self.variable) if self.variable and self.chosen != PATH else None
        return bool(variable and self.types and variable.name not in carried_names(self.types))

    @property
    def hint(self) -> str:
        """Return the hint for the row's variable."""
        variable = known(self.variable) if self.variable else None
        if self.chosen == PATH:
            return _("The field's name in the event. Use dots for nested fields: fields.city.")
        if variable is None:
            return ""
        if self.is_absent_in_events:
            return _not_carried(variable.name)
        words = str(variable.description)
        if self.control == "lines" and self.is_split_by_commas:
            words = _("One value per line, or separated by commas. Quotes keep a comma.")
        how = ""
        if self.kind is Kind.DATETIME and self.wanted_operator not in PRESENCE:
            how = _("Times in events are in UTC: 2026-05-14T09:26:31Z.")
        if self.compares_digits:
            is_part = self.wanted_operator in (Operator.CONTAINS, Operator.NOT_CONTAINS)
            how = _phone_part_hint() if is_part else phone_hint()
        return f"{words} {how}".strip()

    @property
    def compares_digits(self) -> bool:
        return self.kind is Kind.PHONE and self.wanted_operator not in PRESENCE

    @property
    def older_name(self) -> str:
        """Return the label of a variable chosen by its older name, which no list offers."""
        variable = known(self.chosen) if self.chosen in catalogue.CURRENT_NAMES else None
        return f"{variable.label} ({self.chosen})" if variable else ""

    @property
    def operators(self) -> list[tuple[str, str | Promise]]:
        """Return the operators that fit the variable, and the current one, which may not fit."""
        offered = dict.fromkeys([*FITTING[self.kind], self.wanted_operator])
        return [(one.value, OPERATOR_LABELS[one]) for one in offered]

    @property
    def control(self) -> str:
        """Return how the value is entered: none, text, lines, choice or checks."""
        operator = self.wanted_operator
        if operator in PRESENCE:
            return "none"
        if operator in LISTS:
            return "checks" if self.choices else "lines"
        is_picked = bool(self.choices) and operator in (Operator.EQUALS, Operator.NOT_EQUALS)
        return "choice" if is_picked else "text"

    @property
    def value_choices(self) -> list[tuple[str, str, bool]]:
        """Return value, label and whether it is chosen, including values not in the catalogue."""
        folded = {value.casefold() for value in self.values}
        known_values = {value.casefold() for value in self.choices}
        own = [value for value in self.values if value and value.casefold() not in known_values]
        is_boolean = self.kind is Kind.BOOLEAN
        return [
            (
                value,
                value_words(self.variable, value) if is_boolean else value,
                value.casefold() in folded,
            )
            for value in (*self.choices, *own)
        ]

    @property
    def placeholder(self) -> str:
        if self.kind is Kind.DURATION:
            return _("90, 1:30 or 1m 30s")
        variable = known(self.variable)
        if variable is None or kind_of(self.variable) is Kind.OBJECT:
            return ""
        sample = str(variable.sample)
        return sample if len(sample) <= 40 else ""

    def condition(self) -> dict[str, Any]:
        """Return the condition; raise FilterError, which names the wrong part."""
        if not self.variable:
            raise FilterError(_("Choose a variable."), ("variable",))
        operator = self.wanted_operator
        made: dict[str, Any] = {"variable": self.variable, "operator": operator.value}
        _refuse_null([self.variable], "variable")
        if operator not in PRESENCE:
            _refuse_null(self.values, "value")
            made["value"] = self._value(operator)
        compile_filter(made)
        return made

    @property
    def text(self) -> str:
        """Return the value for a single input, also when a list was typed before."""
        return ", ".join(line for value in self.values for line in value.splitlines() if line)

    @property
    def lines(self) -> str:
        """Return the values for a text area, one per line."""
        return "\n".join(self.values)

    @property
    def variable_id(self) -> str:
        return f"filter-{self.id}-variable"

    @property
    def value_id(self) -> str:
        return f"filter-{self.id}-value"

    def target(self, part: str) -> str:
        """Return the id of the input that the error of a part is about."""
        is_path = part == "variable" and self.chosen == PATH
        return f"filter-{self.id}-{'path' if is_path else part}"

    def fit(self) -> None:
        """Replace an operator and values that do not fit the variable, after it changed."""
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
            texts = [text.strip() for line in lines for text in self._split_list(line)]
            texts = list(dict.fromkeys(filter(None, texts)))
            if not texts:
                raise FilterError(self._missing(is_list=True), ("value",))
            return [self._parse_value(text, operator) for text in texts]
        text = self.value.strip()
        if not text:
            raise FilterError(self._missing(is_list=False), ("value",))
        return self._parse_value(text, operator)

    @property
    def is_split_by_commas(self) -> bool:
        """Return whether commas separate list values; in numbers they are decimal separators."""
        return not self.choices and self.kind is not Kind.NUMBER

    def _split_list(self, line: str) -> list[str]:
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
            return _("Enter at least one value.")
        if self.choices:
            return _("Choose a value.")
        return _("Enter a value to compare with.")

    def _parse_value(self, text: str, operator: Operator) -> Any:
        if self.kind is Kind.BOOLEAN and text in _BOOLEANS:
            return _BOOLEANS[text]
        if self.kind is Kind.DURATION or (self.kind is Kind.ANY and operator in NUMERIC):
            return _duration(text, self.kind)
        if self.kind is Kind.NUMBER:
            return _number(text)
        if text in self.typed.split():
            return _BOOLEANS[text] if text in _BOOLEANS else _number(text)
        return text


@dataclass(slots=True, kw_only=True)
class ConditionGroup:
    """Conditions and groups that must all match, or any of them, depending on `kind`."""

    id: int
    kind: str = "all"
    children: list["ConditionRow | ConditionGroup"] = field(default_factory=list)
    depth: int = 0

    is_group = True

    @property
    def add_id(self) -> str:
        return f"filter-{self.id}-add"

    def parts(self) -> Iterator["ConditionRow | ConditionGroup"]:
        """Yield all descendants in the order of the page."""
        for child in self.children:
            yield child
            if isinstance(child, ConditionGroup):
                yield from child.parts()

    def rows(self) -> Iterator[ConditionRow]:
        return (part for part in self.parts() if isinstance(part, ConditionRow))

    def groups(self) -> Iterator["ConditionGroup"]:
        yield self
        yield from (part for part in self.parts() if isinstance(part, ConditionGroup))

    def count(self, depth: int = 0) -> None:
        """Number the conditions and set the depth of each group."""
        self.depth = depth
        for child in self.children:
            if isinstance(child, ConditionGroup):
                child.count(depth + 1)
        for number, row in enumerate(self.rows(), 1):
            row.number = number


def from_post(data: QueryDict) -> ConditionGroup:
    root = _posted_group(data, 0)
    stack, seen, flattened = [root], {0}, 0
    for text in data.getlist("filter-node")[:_MAX_TOKENS]:
        found = _TOKEN.fullmatch(text)
        if found is None:
            continue
        if found[3]:
            # Closes the innermost open group, which may be a merged one.
            if flattened:
                flattened -= 1
            elif len(stack) > 1:
                stack.pop()
            continue
        part_id = int(found[2])
        if part_id in seen:
            continue
        seen.add(part_id)
        if found[1] == "row":
            stack[-1].children.append(_posted_row(data, part_id))
        elif len(stack) > _MAX_NESTED:
            flattened += 1
        else:
            group = _posted_group(data, part_id)
            stack[-1].children.append(group)
            stack.append(group)
    root.count()
    return root


def from_tree(tree: Mapping[str, Any]) -> ConditionGroup:
    """Return the rows of a valid tree."""
    if not tree:
        return ConditionGroup(id=0)
    wrapped = tree if "all" in tree or "any" in tree else {"all": [tree]}
    root = _group(wrapped, iter(range(1, _MAX_TOKENS)), part_id=0)
    root.count()
    return root


def to_tree(root: ConditionGroup) -> dict[str, Any]:
    """Return the tree of the valid rows, without blank rows and empty groups."""
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
    """Return the error message by the wrong part of a row; empty if it is valid or blank."""
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
    row = ConditionRow(
        id=part_id,
        chosen=name if is_known else PATH,
        path="" if is_known else name,
        operator=str(condition["operator"]),
    )
    value = condition.get("value")
    values = [] if value is None else value if isinstance(value, list) else [value]
    row.values = [_shown(one, row.kind) for one in values]
    row.typed = " ".join(_shown(one, Kind.ANY) for one in values if not isinstance(one, str))
    if isinstance(value, list) and not row.choices:
        row.values = ["\n".join(_as_listed(text, row) for text in row.values)]
    return row


def _as_listed(text: str, row: ConditionRow) -> str:
    """Quote a list value where it would otherwise be split."""
    if row.is_split_by_commas and ("," in text or text.startswith('"')):
        return '"' + text.replace('"', '""') + '"'
    return text


def _shown(value: Any, kind: Kind) -> str:
    flag = as_boolean(value) if kind is Kind.BOOLEAN else value
    if isinstance(flag, bool):
        return "true" if flag else "false"
    if kind is Kind.DURATION and isinstance(value, int | float) and value >= 0:
        return duration_text(value)
    return str(value)


def _posted_row(data: QueryDict, part_id: int) -> ConditionRow:
    prefix = f"filter-{part_id}"
    row = ConditionRow(
        id=part_id,
        chosen=data.get(f"{prefix}-variable", ""),
        path=data.get(f"{prefix}-path", ""),
        operator=data.get(f"{prefix}-operator", ""),
        values=data.getlist(f"{prefix}-value"),
        typed=data.get(f"{prefix}-typed", ""),
    )
    if data.get(f"{prefix}-was", "") != row.variable and row.operator:
        # The operator was chosen for another variable and may not fit this one.
        row.fit()
    return row


def _refuse_null(texts: Iterable[str], part: str) -> None:
    if any("\0" in text for text in texts):
        raise FilterError(str(ProhibitNullCharactersValidator.message), (part,))


def _posted_group(data: QueryDict, part_id: int) -> ConditionGroup:
    kind = "any" if data.get(f"filter-{part_id}-kind") == "any" else "all"
    return ConditionGroup(id=part_id, kind=kind)


def _duration(text: str, kind: Kind) -> int | float:
    text = _without_thousands(text)
    seconds = parse_duration(text)
    if seconds is not None:
        return seconds
    if kind is Kind.DURATION:
        raise FilterError(
            _("“%s” is not a duration. Enter it like 90, 1:30 or 1m 30s.") % text[:40], ("value",)
        )
    return _number(text)


def _number(text: str) -> int | float:
    # Python alone reads “1_000” as a number.
    typed = "" if "_" in text else _without_thousands(text)
    try:
        return int(typed)
    except ValueError:
        pass
    try:
        return float(typed.replace(",", "."))
    except ValueError:
        message = _("“%s” is not a number. Enter it like 3 or 2.5.") % text[:40]
        raise FilterError(message, ("value",)) from None


def _without_thousands(text: str) -> str:
    """Remove the spaces between thousands; raise FilterError for an ambiguous "1,500"."""
    if _TWO_MEANINGS.fullmatch(text):
        whole, _comma, rest = text.partition(",")
        meanings = {"typed": text, "whole": whole + rest, "decimal": f"{whole}.{rest}"}
        message = _("“%(typed)s” has two meanings. Enter %(whole)s or %(decimal)s.") % meanings
        raise FilterError(message, ("value",))
    return re.sub(r"\s", "", text) if _THOUSANDS.fullmatch(text) else text


# ---- Button actions, for a round trip of the form and for htmx --------------------------------


def edit_rows(root: ConditionGroup, action: str) -> str:
    """Apply an action such as `add:3`, `up:5` or `preset:missed`; return the id to focus."""
    verb, _colon, argument = action.partition(":")
    focus = ""
    if verb == "preset":
        focus = _add_preset(root, argument)
    elif verb in ("add", "group") and argument.isdecimal():
        focus = _add(root, whole_number(argument), is_group=verb == "group")
    elif verb in ("up", "down", "remove") and argument.isdecimal():
        focus = _edit_part(root, whole_number(argument), verb)
    root.count()
    return focus


def _add(root: ConditionGroup, group_id: int, *, is_group: bool) -> str:
    group = next((group for group in root.groups() if group.id == group_id), None)
    if group is None or (is_group and group.depth >= MAX_BUILT_DEPTH):
        return ""
    row = ConditionRow(id=_free_id(root))
    if is_group:
        kind = "any" if group.kind == "all" else "all"
        group.children.append(ConditionGroup(id=row.id + 1, kind=kind, children=[row]))
    else:
        group.children.append(row)
    return f"filter-{row.id}-variable"


def _edit_part(root: ConditionGroup, part_id: int, verb: str) -> str:
    if (place := _position_of(root, part_id)) is None:
        return ""
    group, index = place
    part = group.children.pop(index)
    if verb == "remove":
        return group.add_id
    target, at = _neighbour_position(root, group, index, is_down=verb == "down")
    target.children.insert(at, part)
    root.count()
    if max(group.depth for group in root.groups()) >= MAX_DEPTH:
        del target.children[at]
        group.children.insert(index, part)
    return f"filter-{part_id}-{verb}"


def _position_of(root: ConditionGroup, part_id: int) -> tuple[ConditionGroup, int] | None:
    """Return the group that contains a part, and the part's index in it."""
    for group in root.groups():
        for index, child in enumerate(group.children):
            if child.id == part_id:
                return group, index
    return None


def _neighbour_position(
    root: ConditionGroup, group: ConditionGroup, index: int, *, is_down: bool
) -> tuple[ConditionGroup, int]:
    """Return where to put a part taken from `group`: one step on, into a group or out of one."""
    rest = group.children
    passed = index if is_down else index - 1
    if 0 <= passed < len(rest):
        other = rest[passed]
        if isinstance(other, ConditionGroup):
            return other, 0 if is_down else len(other.children)
        return group, index + 1 if is_down else index - 1
    if (outer := _position_of(root, group.id)) is None:
        return group, index
    return outer[0], outer[1] + is_down


def _add_preset(root: ConditionGroup, key: str) -> str:
    preset = next((preset for preset in PRESETS if preset.key == key), None)
    if preset is None:
        return ""
    root.children = [
        child for child in root.children if isinstance(child, ConditionGroup) or not child.is_blank
    ]
    row = None
    for condition in preset.tree["all"]:
        (wanted,) = from_tree(condition).rows()
        row = _row_to_merge(root, wanted, preset)
        if row is None:
            wanted.id = _free_id(root)
            root.children.append(wanted)
            row = wanted
    return f"filter-{row.id}-{'value' if preset.asks_value else 'variable'}" if row else ""


def _row_to_merge(
    root: ConditionGroup, wanted: ConditionRow, preset: Preset
) -> ConditionRow | None:
    """Return a row that already has the condition, or is extended to have it; None if none can.

    Two values of one variable that must both match would pass no event, so “missed” and then
    “busy” becomes one of the two.
    """
    for row in root.children:
        if isinstance(row, ConditionGroup) or row.variable != wanted.variable:
            continue
        if row.operator == wanted.operator and (preset.asks_value or row.values == wanted.values):
            return row
        if root.kind == "all" and len(row.choices) > 2 and row.operator in ("equals", "one_of"):
            row.operator = "one_of"
            row.values = list(dict.fromkeys([*filter(None, row.values), *wanted.values]))
            return row
    return None


def _free_id(root: ConditionGroup) -> int:
    return max((part.id for part in root.parts()), default=0) + 1


# ---- Hints for a row's variable ------------------------------------------------------------------


def phone_hint() -> str:
    return _(
        "Only the digits of a number count: +1 (202) 555-0100 equals 12025550100. With a plus, a "
        "value matches only the start of a number."
    )


def _phone_part_hint() -> str:
    return _(
        "Only the digits of a number count, wherever they are: (202) is also in +1 520 255-0100. "
        "With a plus, like +1202, a value matches only the start of a number."
    )


def _not_carried(name: str) -> str:
    keys = [key for key in catalogue.EVENT_TYPES if name in carried_names([key])]
    labels = ", ".join(f"“{catalogue.EVENT_TYPES[key].label}”" for key in keys[:3])
    if not labels:
        return _("Not in the chosen events.")
    return _("Not in the chosen events. It is in %s.") % labels


def carried_names(types: Iterable[str]) -> dict[str, Any]:
    """Return the names of the variables that at least one of the event types has."""
    return {
        variable.name: None
        for key in types
        if key in catalogue.EVENT_TYPES
        for variable in catalogue.variables_for(key)
        if variable.name != "attempt"
    }
