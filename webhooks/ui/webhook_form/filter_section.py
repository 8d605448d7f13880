"""The Filter section of the webhook form: rows or JSON, what they mean, and what is wrong.

Knows no request and no event; how many events it matches is `webhooks.delivery_log.filter_preview`.
"""

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from django.http import QueryDict
from django.utils.translation import gettext as _

from webhooks import catalogue, filters
from webhooks.filters import PRESETS, InvalidFilter, compile_filter
from webhooks.ui.webhook_form import filter_choices, filter_edits
from webhooks.ui.webhook_form.filter_choices import Choices
from webhooks.ui.webhook_form.filter_rows import (
    Group,
    Row,
    from_post,
    from_tree,
    problem_of,
    to_tree,
)

# The prefix of the actions of this section's buttons.
ACTION = "filter:"
_LONGEST_JSON = 200_000


class FilterSection:
    """What is posted or stored, as rows or as JSON, and judged only when asked."""

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
        self._stored = dict(stored)
        # A filter that does not compile can only have been written by hand; it is shown as such.
        is_readable = _problem(stored) == ""
        self.mode = "rows" if is_readable else "json"
        self.root = from_tree(stored) if is_readable else Group(id=0)
        self.json_text = _written(stored)
        if self.is_posted:
            self._read(data)
        if self.is_posted and is_checked:
            self._check()

    @property
    def is_valid(self) -> bool:
        return not (self.json_error or self.error or any(row.errors for row in self.root.rows()))

    @property
    def changes(self) -> bool:
        """Say whether saving changes what the stored filter means."""
        return self.is_posted and self.tree != self._stored

    @property
    def tree(self) -> dict[str, Any]:
        """Return the tree to store: the stored one itself when it means the same."""
        if self.mode == "json":
            tree = _parsed(self.json_text)
            return tree if isinstance(tree, dict) else {}
        tree = to_tree(self.root)
        is_same = _problem(self._stored) == "" and tree == to_tree(from_tree(self._stored))
        return dict(self._stored) if is_same else tree

    @property
    def left_out(self) -> int:
        """Count the conditions that are not complete or not right yet."""
        if self.mode == "json":
            return 0
        return sum(row.is_blank or bool(problem_of(row)) for row in self.root.rows())

    @property
    def mistake(self) -> str:
        """Say what is wrong with the JSON, or with the conditions together; nothing when right."""
        return _problem(_parsed(self.json_text) if self.mode == "json" else to_tree(self.root))

    @property
    def is_wrong(self) -> bool:
        """Say whether a save would be refused; a condition that was only added means nothing."""
        is_rows = self.mode == "rows"
        return bool(self.mistake) or (is_rows and any(map(problem_of, self.root.rows())))

    @property
    def usable_tree(self) -> dict[str, Any]:
        """Return the tree of what is right so far; nothing when it is none."""
        tree = self.tree
        return {} if _problem(tree) else tree

    @property
    def sentence(self) -> str:
        """Say what passes so far; nothing while no condition is right."""
        tree = self.usable_tree
        if not tree and (self.left_out or self.mistake):
            return ""
        return filters.sentence(tree)

    def show_mistakes(self) -> None:
        """Put sentences at what is wrong, but not at what is only not typed yet."""
        for row in self.root.rows():
            row.errors = {} if row.is_incomplete else problem_of(row)

    @property
    def moves(self) -> list[tuple[str, str]]:
        return [("up", _("Move up")), ("down", _("Move down")), ("remove", _("Remove"))]

    @cached_property
    def variable_groups(self) -> list[Choices]:
        return filter_choices.variable_groups(self.types)

    @property
    def presets(self) -> list[dict[str, Any]]:
        return [{"key": preset.key, "label": preset.label} for preset in PRESETS]

    def problems(self) -> list[dict[str, Any]]:
        """Return every error as the form's summary lists them."""
        found = [
            {
                "target": f"filter-{row.id}-{part}",
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
        self.json_text = data.get("filter-json", "")[:_LONGEST_JSON]
        action = data.get("action", "")
        if not action.startswith(ACTION):
            return
        verb = action.removeprefix(ACTION)
        if verb == "json" and self.mode == "rows":
            self.json_text = _written(to_tree(self.root))
            self.mode, self.focus = "json", "filter-json"
        elif verb == "rows" and self.mode == "json":
            self._leave_json()
        elif verb.startswith("variable:"):
            self._start_anew(verb.removeprefix("variable:"))
        elif self.mode == "rows":
            self.focus = filter_edits.apply(self.root, verb)

    def _start_anew(self, part_id: str) -> None:
        """Begin a condition whose variable was just chosen with the usual operator for it."""
        for row in self.root.rows():
            if str(row.id) == part_id and row.variable and not any(row.values):
                row.operator = filter_choices.usual_operator(row)
                row.fit()

    def _leave_json(self) -> None:
        self.json_error = _problem(_parsed(self.json_text))
        if self.json_error:
            self.focus = "filter-json"
            return
        self.mode, self.root = "rows", from_tree(self.tree)

    def _check(self) -> None:
        if self.mode == "json":
            self.json_error = _problem(_parsed(self.json_text))
            return
        for row in self.root.rows():
            row.errors = problem_of(row)
        self.error = _problem(to_tree(self.root))


def offered(row: Row, section: FilterSection) -> dict[str, Any]:
    """Return what the page needs to draw one row."""
    hint, is_warning = filter_choices.hint_of(row, section.types)
    return {
        "operators": filter_choices.operator_choices(row),
        "control": filter_choices.control_of(row),
        "values": filter_choices.value_choices(row),
        "placeholder": filter_choices.placeholder_of(row),
        "foreign": filter_choices.foreign_choice(row),
        "hint": hint,
        "is_warning": is_warning,
    }


def _parsed(text: str) -> object:
    """Return the JSON value of a text, {} for an empty one, or None when it is not JSON.

    NaN, NUL and half a surrogate pair are in no JSON that PostgreSQL stores.
    """
    if not text.strip():
        return {}
    try:
        parsed = json.loads(text)
        written = json.dumps(parsed, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return None
    return None if b"\\u0000" in written else parsed


def _problem(tree: object) -> str:
    if tree is None:
        return _("This is not JSON. A filter looks like the example below.")
    try:
        compile_filter(tree)
    except InvalidFilter as error:
        place = " › ".join(str(step + 1 if isinstance(step, int) else step) for step in error.path)
        return f"{error} ({place})" if place else str(error)
    return ""


def _written(tree: object) -> str:
    return json.dumps(tree, ensure_ascii=False, indent=2) if tree else ""
