"""The Parameters section: every variable, mapped rows, or a JSON body with placeholders.

Owns what is posted or stored, what is wrong with it, and what saving writes. Knows no request.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from webhooks import catalogue, payloads
from webhooks.catalogue import VariableType
from webhooks.models import BodyFormat, Event, Webhook
from webhooks.payloads import Violation
from webhooks.payloads.variables import as_text
from webhooks.ui.webhook_form.mapping_rows import KEY, ParameterRow, blank, from_post, from_stored

EVERYTHING, ROWS, TEMPLATE = "all", "rows", "template"
# Names in the newest event of this many chosen types are variables too, catalogued or not.
_TYPES_LOOKED_AT = 5
# The prefix of the actions of this section's buttons.
ACTION = "parameter:"
_DIRECTIONS = {"up": -1, "down": 1}
_SAMPLE_LENGTH = 60


class MappingSection:
    """What is posted or stored, with the mistakes at the rows that make them."""

    def __init__(self, webhook: Webhook, data: Any = None) -> None:
        self._webhook = webhook
        self.is_posted = isinstance(data, QueryDict) and "parameters_mode" in data
        self.focus = ""
        self.uses_older = False
        self.is_refused = False
        self.event_types: Iterable[str] = (
            data.getlist("event_types") if isinstance(data, QueryDict) else webhook.event_types
        )
        self.mode = mode_of(webhook)
        self.template = webhook.body_template
        self.rows = from_stored(webhook.parameters)
        self.problems: list[Violation] = []
        if self.is_posted:
            self._read(data)
        for number, row in enumerate(self.rows, start=1):
            row.number = number

    def _read(self, data: QueryDict) -> None:
        mode = data.get("parameters_mode", "")
        self.mode = mode if mode in (EVERYTHING, ROWS, TEMPLATE) else EVERYTHING
        self.template = data.get("body_template", "").replace("\r\n", "\n")
        self.uses_older = bool(data.get("parameters_older"))
        self.rows = from_post(data)
        if (action := data.get("action", "")).startswith(ACTION):
            self._edit(action.removeprefix(ACTION))

    def _edit(self, action: str) -> None:
        """Do what a button of the section asks for."""
        verb, _colon, argument = action.partition(":")
        names = {one["name"]: one["older_name"] for one in self.variables if self.uses_older}
        if verb == "body":
            if not self.template.strip():
                self.template = as_body(self.stored_rows(), self.offered)
            self.mode, self.focus = TEMPLATE, "id_body_template"
        elif verb == "pick" and self.mode == TEMPLATE:
            self.template = with_place(self.template, argument, names)
            self.focus = "id_body_template"
        else:
            self.rows, self.focus = edit_rows(
                self.rows, verb, argument, offered=self.offered, older=names
            )
            self.mode = ROWS

    @property
    def shown_rows(self) -> list[ParameterRow]:
        """Return the rows of the page: never none, so that there is one to fill in."""
        if self.rows:
            return self.rows
        first = blank(0)
        first.number = 1
        return [first]

    @property
    def modes(self) -> list[tuple[str, str]]:
        return [
            (EVERYTHING, _("All variables")),
            (ROWS, _("Chosen parameters")),
            (TEMPLATE, _("JSON body")),
        ]

    @property
    def moves(self) -> list[tuple[str, str]]:
        return [("up", _("Move up")), ("down", _("Move down")), ("remove", _("Remove"))]

    @property
    def focus_button(self) -> str:
        """Return the row and verb of the button to go on with, like "3-up"."""
        return self.focus.removeprefix(f"{KEY}-")

    @property
    def examples(self) -> dict[str, str]:
        """Return what the hints show as it is typed."""
        return {
            "place": '"{{ duration_seconds }}"',
            "body": '{"phone": "{{ client_number }}", "seconds": "{{ talk_seconds }}"}',
            "dated": "\"{{ call_started_at | sql | zone:'Europe/Kyiv' }}\"",
        }

    @property
    def template_text(self) -> str:
        """Return the JSON body; HTML takes a line break at its beginning for its own."""
        return f"\n{self.template}"

    @property
    def is_full(self) -> bool:
        return len(self.rows) >= payloads.MAX_ROWS

    def stored_rows(self) -> list[dict[str, Any]]:
        return [row.stored() for row in self.rows if not row.is_blank]

    def usable_rows(self) -> list[dict[str, Any]]:
        """Return the rows that can be sent as they are."""
        return [row.stored() for row in self.rows if not row.is_blank and not row.problems]

    def check(self, *, method: str, body_format: str) -> list[Violation]:
        """Find what is wrong, put it at its row, and return it in the order of the page."""
        kind = payloads.sent_as(method, body_format)
        known = payloads.known_names()
        self.problems = self._find(kind, known)
        if self.problems and (seen := self.seen_names()):
            self.problems = self._find(kind, known | seen)
        rows = [row for row in self.rows if not row.is_blank]
        for index, row in enumerate(rows):
            row.problems = [problem for problem in self.problems if problem.row == index]
        return self.problems

    def check_typed(self, *, method: str, body_format: str) -> list[Violation]:
        """Find what is wrong while somebody types: that nothing is typed yet is no mistake."""
        problems = self.check(method=method, body_format=body_format)
        if self.is_untouched and not self.is_refused:
            # A request that can have no JSON body stays wrong, whatever is typed.
            self.problems = [one for one in problems if self.mode == TEMPLATE and not one.line]
        return self.problems

    @property
    def is_untouched(self) -> bool:
        """Return whether another way was chosen and nothing is typed for it yet."""
        if self.mode == TEMPLATE:
            return not self.template.strip()
        return self.mode == ROWS and not self.stored_rows()

    def show_notes(self, other: "MappingSection") -> None:
        """Take over what another reading of the same rows found; what was refused stays said."""
        if not self.is_refused:
            self.problems = other.problems
        for row, same in zip(self.rows, other.rows, strict=True):
            row.problems, row.note = same.problems, same.note

    def _find(self, kind: str, known: set[str]) -> list[Violation]:
        if self.mode == TEMPLATE:
            problems = payloads.template_problems(self.template, known)
            if kind != BodyFormat.JSON:
                problems.insert(0, Violation(sentence=_no_json(), field="mode"))
            return problems
        if self.mode == EVERYTHING:
            return []
        stored = self.stored_rows()
        if not stored:
            sentence = _("Add at least one row, or choose All variables.")
            return [Violation(sentence=sentence, field="mode")]
        return payloads.rows_problems(stored, body_format=kind, known=known)

    def seen_names(self) -> set[str]:
        """Return the names in the newest event of each chosen type."""
        names: set[str] = set()
        for key in catalogue.types_for(self.event_types)[:_TYPES_LOOKED_AT]:
            newest = Event.objects.filter(type=key).order_by("-id").first()
            if newest is not None:
                names |= payloads.load_json(bytes(newest.payload)).keys()
        return names

    def page_problems(self) -> list[dict[str, Any]]:
        """Return what is wrong as the form's summary lists it, once saving was refused."""
        if not self.is_refused:
            return []
        rows = [row for row in self.rows if not row.is_blank]
        found = []
        for problem in self.problems:
            target, label = "id_body_template", _("JSON body")
            if problem.row is not None:
                row = rows[problem.row]
                target = row[problem.field or "name"].auto_id
                label = _("Parameters, row %d") % row.number
            elif problem.field != "body_template":
                target, label = "parameters", _("Parameters")
            found.append({"target": target, "label": label, "sentence": problem.sentence})
        return found

    @property
    def own_problems(self) -> list[Violation]:
        """Return the mistakes that belong to no row and no line."""
        return [one for one in self.problems if one.row is None and one.field != "body_template"]

    @property
    def template_problems(self) -> list[Violation]:
        return [one for one in self.problems if one.field == "body_template"]

    @property
    def summary(self) -> str:
        """Return one line about what is sent."""
        if self.mode == TEMPLATE:
            return _("a JSON body of your own")
        if self.mode == ROWS:
            count = len(self.stored_rows())
            return ngettext("%d parameter", "%d parameters", count) % count
        return _("every variable of the event")

    @property
    def drops(self) -> str:
        """Return what saving removes, because another way was chosen."""
        unused = self.mode != ROWS and self.stored_rows()
        if unused or (self.mode != TEMPLATE and self.template.strip()):
            return _("Saving keeps what is chosen here and removes the other way.")
        return ""

    @cached_property
    def variables(self) -> list[dict[str, Any]]:
        return variable_entries(self.event_types)

    @property
    def offered(self) -> list[str]:
        """Return the variables of the chosen events."""
        return [one["name"] for one in self.variables if one["is_offered"]]

    def write(self, webhook: Webhook) -> set[str]:
        """Set what was posted on the webhook; return the columns that changed."""
        if not self.is_posted:
            return set()
        rows = self.stored_rows() if self.mode == ROWS else []
        template = self.template if self.mode == TEMPLATE else ""
        changed = set()
        # A value that is stored as a number reads the same as one that was typed.
        if rows != [row.stored() for row in from_stored(webhook.parameters)]:
            webhook.parameters = rows
            changed.add("parameters")
        if template != webhook.body_template:
            webhook.body_template = template
            changed.add("body_template")
        return changed


def mode_of(webhook: Webhook) -> str:
    if webhook.body_template:
        return TEMPLATE
    return ROWS if webhook.parameters else EVERYTHING


def _no_json() -> str:
    return _(
        "Only a JSON request can have a JSON body. Choose JSON as the body format and another "
        "method than GET."
    )


# ---- What the buttons do to the rows or the JSON body -----------------------------------------


def edit_rows(
    rows: list[ParameterRow],
    verb: str,
    argument: str,
    *,
    offered: Sequence[str],
    older: Mapping[str, str],
) -> tuple[list[ParameterRow], str]:
    """Return the rows after a button, and the id of the control to go on with."""
    if verb == "add":
        return _added(rows, blank(_next_key(rows)))
    if verb == "pick":
        return _added(_filled(rows), _mapped(rows, argument, older))
    if verb == "every":
        return _with_every(_filled(rows), offered, older)
    index = next((i for i, row in enumerate(rows) if str(row.key) == argument), None)
    if index is None:
        return rows, ""
    row = rows.pop(index)
    if verb == "remove":
        return rows, "parameter-add"
    rows.insert(max(index + _DIRECTIONS.get(verb, 0), 0), row)
    return rows, f"{KEY}-{row.key}-{verb}"


def as_body(rows: Sequence[Mapping[str, Any]], offered: Sequence[str]) -> str:
    """Write what the rows send, or every variable, as a JSON body with places."""
    try:
        document = payloads.rows_as_places(rows) if rows else {}
    except ValueError:
        # Rows that make no document yet.
        document = {}
    return _written(document or {name: f"{{{{ {name} }}}}" for name in offered})


def with_place(template: str, variable: str, older: Mapping[str, str]) -> str:
    """Add a variable at the end of a JSON body; one that is no object stays as it is."""
    try:
        document = payloads.load_json(template.encode()) if template.strip() else {}
    except payloads.DocumentError:
        return template
    if not isinstance(document, dict):
        return template
    name = older.get(variable) or variable
    return _written({**document, name: f"{{{{ {variable} }}}}"})


def _written(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2)


def _next_key(rows: Sequence[ParameterRow]) -> int:
    return max((int(row.key) for row in rows), default=-1) + 1


def _filled(rows: Sequence[ParameterRow]) -> list[ParameterRow]:
    return [row for row in rows if not row.is_blank]


def _mapped(rows: Sequence[ParameterRow], variable: str, older: Mapping[str, str]) -> ParameterRow:
    name = "" if variable == payloads.WHOLE_EVENT else older.get(variable) or variable
    return blank(_next_key(rows), name=name, source="variable", content=variable)


def _added(rows: Sequence[ParameterRow], row: ParameterRow) -> tuple[list[ParameterRow], str]:
    return [*rows, row], row["name"].auto_id or ""


def _with_every(
    rows: list[ParameterRow], offered: Sequence[str], older: Mapping[str, str]
) -> tuple[list[ParameterRow], str]:
    """Add a row for each variable of the chosen events that has none."""
    mapped = {row.value("content") for row in rows if row.is_variable}
    for name in offered:
        if name not in mapped:
            rows.append(_mapped(rows, name, older))
    return rows, "parameter-add"


# ---- The variables to pick from: what each means, a sample, and which events have it ----------


def variable_entries(patterns: Iterable[str]) -> list[dict[str, Any]]:
    """Return every variable; those of no chosen event are there and not offered."""
    numbers = event_numbers()
    carried: dict[str, tuple[Any, list[int]]] = {}
    for key, number in numbers.items():
        for variable in catalogue.variables_for(key):
            carried.setdefault(variable.name, (variable, []))[1].append(number)
    chosen = {numbers[key] for key in catalogue.types_for(patterns)}
    # What only some events have is what people look for; what all have comes last.
    ordered = sorted(carried.values(), key=lambda pair: pair[0].name in catalogue.ALWAYS)
    return [_entry(variable, types, chosen) for variable, types in ordered]


def event_numbers() -> dict[str, int]:
    """Return a short number for each event type that can be chosen."""
    types = [kind for kind in catalogue.EVENT_TYPES.values() if kind.is_subscribable]
    return {kind.key: number for number, kind in enumerate(types)}


def _entry(
    variable: catalogue.Variable, types: Collection[int], chosen: set[int]
) -> dict[str, Any]:
    sample = as_text(variable.sample)
    if len(sample) > _SAMPLE_LENGTH:
        sample = sample[: _SAMPLE_LENGTH - 1] + "…"
    return {
        "name": variable.name,
        "older_name": variable.older_name or "",
        "label": variable.label,
        "description": variable.description or ", ".join(variable.choices),
        "type": type_label(variable.type),
        "sample": sample,
        # The numbers of the events that have it.
        "types": " ".join(map(str, types)),
        "is_offered": not chosen or bool(chosen.intersection(types)),
    }


def type_label(kind: VariableType) -> str:
    labels = {
        VariableType.STRING: _("text"),
        VariableType.INTEGER: _("number"),
        VariableType.NUMBER: _("number"),
        VariableType.BOOLEAN: _("true or false"),
        VariableType.DATETIME: _("date"),
        VariableType.URL: _("address"),
        VariableType.CHOICE: _("choice"),
        VariableType.OBJECT: _("object"),
    }
    return labels[kind]
