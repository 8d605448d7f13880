"""The Filter section of the webhook form: rows or JSON, their meaning and their errors."""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from django.core.validators import ProhibitNullCharactersValidator
from django.http import QueryDict
from django.utils.functional import Promise
from django.utils.translation import gettext as _

from webhooks import catalogue, filters, payloads
from webhooks.filters import (
    FITTING,
    PRESETS,
    FilterError,
    compile_filter,
    known,
)
from webhooks.ui.fields import MOVES
from webhooks.ui.webhook_form.filter_rows import (
    ConditionGroup,
    carried_names,
    edit_rows,
    from_post,
    from_tree,
    phone_hint,
    problem_of,
    to_tree,
)

# The variables that most filters use, listed first and in this order.
_COMMON = (
    *("disposition", "duration_seconds", "talk_seconds", "wait_seconds", "department"),
    *("employee_name", "call_type", "is_repeated", "is_proper", "number_alias", "utm_source"),
)
# The prefix of the actions of this section's buttons.
ACTION = "filter:"
_LONGEST_JSON = 200_000


class FilterSection:
    """The posted or stored filter, as rows or as JSON; validated only if `is_checked`."""

    kind = "filter"
    moves = MOVES
    presets = PRESETS

    def __init__(
        self,
        stored: Mapping[str, Any],
        data: Any = None,
        *,
        patterns: Any = (),
        is_checked: bool = False,
    ) -> None:
        self.is_posted = isinstance(data, QueryDict) and "filter-mode" in data
        self.types = catalogue.types_for(patterns)
        self.json_error = ""
        self.error = ""
        self.focus = ""
        # Whether one of its buttons was pressed, and one that needs complete conditions.
        self.is_edited = False
        self.shows_incomplete = False
        self._stored = dict(stored)
        # A stored filter that rows cannot express was written by hand, and is shown as JSON.
        root = _as_rows(stored)
        self.mode = "json" if root is None else "rows"
        self.root = root or ConditionGroup(id=0)
        self.json_text = _as_json(stored)
        if self.is_posted:
            self._read(data)
        for row in self.root.rows():
            row.types = self.types
        if self.is_posted and is_checked:
            self._check()

    @property
    def is_valid(self) -> bool:
        return not (self.json_error or self.error or any(row.errors for row in self.root.rows()))

    @property
    def changes(self) -> bool:
        """Return whether saving changes what the stored filter means."""
        return self.is_posted and not _is_same(self.tree, self._stored)

    @property
    def tree(self) -> dict[str, Any]:
        """Return the tree to store: the stored one, unchanged, if it means the same."""
        if self.mode == "json":
            try:
                tree = _parsed(self.json_text)
            except ValueError:
                return {}
            return tree if isinstance(tree, dict) else {}
        tree = to_tree(self.root)
        stored = _as_rows(self._stored)
        is_kept = stored is not None and _is_same(tree, to_tree(stored))
        return dict(self._stored) if is_kept else tree

    @property
    def left_out(self) -> int:
        """Count the conditions that are blank, incomplete or invalid."""
        if self.mode == "json":
            return 0
        return sum(row.is_blank or bool(problem_of(row)) for row in self.root.rows())

    @property
    def mistake(self) -> str:
        """Return the error of the JSON, or of the conditions as a whole; empty if valid."""
        is_json = self.mode == "json"
        return _json_problem(self.json_text) if is_json else _problem(to_tree(self.root))

    @property
    def is_wrong(self) -> bool:
        """Return whether a save would be rejected; blank conditions are ignored."""
        is_rows = self.mode == "rows"
        return bool(self.mistake) or (is_rows and any(map(problem_of, self.root.rows())))

    @property
    def usable_tree(self) -> dict[str, Any]:
        """Return the tree of the valid conditions, or {} if it does not compile."""
        tree = self.tree
        return {} if _problem(tree) else tree

    @property
    def sentence(self) -> str:
        """Return which events pass, as text; empty while none of the conditions is valid."""
        tree = self.usable_tree
        if not tree and (self.left_out or self.mistake):
            return ""
        return filters.sentence(tree)

    @property
    def note(self) -> str:
        """Return how phone numbers are compared, for JSON; rows have hints of their own."""
        rows = from_tree(self.usable_tree).rows() if self.mode == "json" else ()
        return phone_hint() if any(row.compares_digits for row in rows) else ""

    @property
    def is_open(self) -> bool:
        """Return whether a condition is set, or the section is being edited."""
        return self.is_edited or self.mode == "json" or bool(self.root.children)

    @property
    def focus_button(self) -> str:
        """Return the part and verb of the button to focus, like "3-up"."""
        return self.focus.removeprefix(f"{self.kind}-")

    @property
    def state(self) -> str:
        """Return one line for the closed section."""
        return self.sentence or _("Incomplete")

    def show_mistakes(self) -> None:
        """Set the errors of invalid conditions, but not of those that are still being typed."""
        for row in self.root.rows():
            is_being_typed = row.is_incomplete and not self.shows_incomplete
            row.errors = {} if is_being_typed else problem_of(row)

    @cached_property
    def variable_groups(self) -> list[tuple[str, list[tuple[str, str | Promise]]]]:
        """Return the variables to choose from: common ones, those of the chosen events, others."""
        carried = carried_names(self.types or catalogue.EVENT_TYPES)
        common = [name for name in _COMMON if name in carried]
        others = [name for name in carried_names(catalogue.EVENT_TYPES) if name not in carried]
        groups = [
            (_("Often used"), [(name, _label(name)) for name in common]),
            (
                _("In the chosen events") if self.types else _("All variables"),
                _by_label(name for name in carried if name not in common),
            ),
            (_("In other events"), _by_label(others)),
        ]
        return [(label, choices) for label, choices in groups if choices]

    def problems(self) -> list[dict[str, Any]]:
        """Return every error as the form's summary lists them."""
        found = [
            {
                "target": row.target(part),
                "label": _("Filter, condition %d") % row.number,
                "sentence": sentence,
            }
            for row in self.root.rows()
            for part, sentence in row.errors.items()
        ]
        if sentence := self.json_error or self.error:
            target = "filter-json" if self.json_error else "filter"
            found.append({"target": target, "label": _("Filter"), "sentence": sentence})
        return found

    def _read(self, data: QueryDict) -> None:
        self.mode = "json" if data.get("filter-mode") == "json" else "rows"
        self.root = from_post(data)
        self.json_text = data.get("filter-json", "")
        action = data.get("action", "")
        if not action.startswith(ACTION):
            return
        self.is_edited = action != f"{ACTION}try"
        verb = action.removeprefix(ACTION)
        if verb == "json" and self.mode == "rows":
            self._leave_rows()
        elif verb == "rows" and self.mode == "json":
            self._leave_json()
        elif verb.startswith("variable:"):
            self._set_default_operator(verb.removeprefix("variable:"))
        elif self.mode == "rows":
            self.focus = edit_rows(self.root, verb)

    def _set_default_operator(self, part_id: str) -> None:
        """Set the default operator of a condition whose variable was just chosen."""
        for row in self.root.rows():
            if str(row.id) == part_id and row.variable and not any(row.values):
                row.operator = FITTING[row.kind][0].value
                row.fit()

    def _leave_rows(self) -> None:
        """Write the conditions as JSON, unless one is wrong: it would be lost."""
        for row in self.root.rows():
            for part in problem_of(row):
                self.shows_incomplete, self.focus = True, row.target(part)
                return
        self.json_text = _as_json(to_tree(self.root))
        self.mode, self.focus = "json", "filter-json"

    def _leave_json(self) -> None:
        self.json_error = _json_problem(self.json_text)
        if self.json_error:
            self.focus = "filter-json"
            return
        self.mode, self.root = "rows", from_tree(self.tree)

    def _check(self) -> None:
        if self.mode == "json":
            self.json_error = _json_problem(self.json_text)
            return
        for row in self.root.rows():
            row.errors = problem_of(row)
        self.error = _problem(to_tree(self.root))


def _by_label(names: Iterable[str]) -> list[tuple[str, str | Promise]]:
    choices = [(name, _label(name)) for name in names]
    return sorted(choices, key=lambda choice: str(choice[1]).casefold())


def _label(name: str) -> str | Promise:
    variable = known(name)
    return variable.label if variable else name


def _parsed(text: str) -> object:
    """Return the JSON value of a text, {} for an empty one; raise ValueError with a message.

    Infinity, NUL and lone surrogates are rejected: PostgreSQL cannot store them in JSON.
    """
    if not text.strip("\ufeff \t\r\n"):
        return {}
    if len(text) > _LONGEST_JSON:
        raise ValueError(_("The filter has at most %d characters.") % _LONGEST_JSON)
    try:
        parsed = payloads.load_json(text.encode())
        written = json.dumps(parsed, ensure_ascii=False, allow_nan=False).encode()
    except payloads.DocumentError:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(_("This is not JSON. See the example below.")) from error
    if b"\\u0000" in written:
        raise ValueError(str(ProhibitNullCharactersValidator.message))
    return parsed


def _json_problem(text: str) -> str:
    """Return what is wrong with a filter in JSON; "" when nothing is."""
    try:
        return _problem(_parsed(text))
    except ValueError as error:
        return str(error)


def _problem(tree: object) -> str:
    try:
        compile_filter(tree)
    except FilterError as error:
        path = " › ".join(str(step + 1 if isinstance(step, int) else step) for step in error.path)
        return f"{error} ({path})" if path else str(error)
    return ""


def _as_rows(tree: Mapping[str, Any]) -> ConditionGroup | None:
    """Return the rows of a tree; None if it does not compile, or has a value that no row takes."""
    if _problem(tree):
        return None
    root = from_tree(tree)
    # A browser removes line breaks from the text of an input, and in a list they divide values.
    has_lines = any(isinstance(one, str) and len(one.splitlines()) > 1 for one in _values(tree))
    return None if has_lines or any(map(problem_of, root.rows())) else root


def _values(node: Mapping[str, Any]) -> Iterator[Any]:
    for child in node.get("all") or node.get("any") or ():
        yield from _values(child)
    value = node.get("value")
    yield from value if isinstance(value, list) else [value]


def _is_same(one: object, other: object) -> bool:
    # As JSON, because Python's 1 and True are equal.
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _as_json(tree: object) -> str:
    return json.dumps(tree, ensure_ascii=False, indent=2) if tree else ""
