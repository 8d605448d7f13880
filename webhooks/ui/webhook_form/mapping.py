"""The Parameters section: every variable, mapped rows, or a JSON body with placeholders.

A row is posted as `parameter=<key>` and fields that begin with `parameter-<key>-`. The order of
the keys is the order of the rows, so a row moves without renumbering.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from webhooks import catalogue, payloads
from webhooks.delivery_log import filter_preview
from webhooks.models import BodyFormat, Webhook
from webhooks.payloads import Violation
from webhooks.payloads.json_reader import load_typed
from webhooks.payloads.paths import MAX_NAME_LENGTH
from webhooks.payloads.variables import as_text
from webhooks.ui.fields import MOVES

EVERYTHING, ROWS, TEMPLATE = "all", "rows", "template"
# Names in this many of the newest events of each chosen type are accepted as variables, too.
_EVENTS_LOOKED_AT = 20
# The prefix of the actions of this section's buttons.
ACTION = "parameter:"
_DIRECTIONS = {"up": -1, "down": 1}
_SAMPLE_LENGTH = 60

KEY = "parameter"
VARIABLE = "variable"
# Rows above the limit stay on the page, but a forged form cannot create thousands of them.
MAX_POSTED_ROWS = 2 * payloads.MAX_ROWS
# Longer keys are forged: the page numbers rows from 0.
_MAX_KEY_DIGITS = 9
# Prefix of the name of a variable chosen from the list; VARIABLE alone means a typed name.
_LISTED_PREFIX = "="
_FIXED = [
    ("text", gettext_lazy("Text")),
    ("number", gettext_lazy("Number")),
    ("boolean", gettext_lazy("True or false")),
    ("null", gettext_lazy("Null")),
    ("json", gettext_lazy("JSON")),
]
_FORMATS = [
    ("", gettext_lazy("As is")),
    ("iso8601", gettext_lazy("Date as ISO 8601")),
    ("sql", gettext_lazy("Date as YYYY-MM-DD HH:MM:SS")),
    ("unix", gettext_lazy("Date as Unix seconds")),
    ("text", gettext_lazy("As text")),
]


class ParameterRow(forms.Form):
    """The controls of one row; `webhooks.payloads` validates all rows together."""

    name = forms.CharField()
    source = forms.CharField()
    content = forms.CharField()
    format = forms.ChoiceField(choices=_FORMATS)
    time_zone = forms.CharField()
    default = forms.CharField()
    # The default as it was stored, as JSON, if it is not text.
    stored_default = forms.CharField()
    is_omitted = forms.BooleanField()

    def __init__(self, key: int | str, data: Any = None, initial: Any = None) -> None:
        super().__init__(data, initial=initial, prefix=f"{KEY}-{key}")
        self.key = key
        self.number = 1
        self.problems: list[Violation] = []
        self.note = ""
        # The options of the value's select, as HTML.
        self.options_html = SafeString()

    def value(self, field: str) -> str:
        """Return the value of a field as text."""
        picked = str(self["source"].value() or "")
        if picked.startswith(_LISTED_PREFIX) and field in ("source", "content"):
            return VARIABLE if field == "source" else picked.removeprefix(_LISTED_PREFIX)
        return str(self[field].value() or "")

    @property
    def path(self) -> str:
        """Return the name of the variable; empty for a fixed value."""
        return self.value("content").strip() if self.is_variable else ""

    @property
    def chosen(self) -> str:
        """Return the selected option: a variable of the list, or the kind of a typed value."""
        if not self.is_variable:
            return self.value("source")
        if self.path == payloads.WHOLE_EVENT or self.path in _variables_by_name():
            return _LISTED_PREFIX + self.path
        return VARIABLE if self.path or self["source"].value() == VARIABLE else ""

    @property
    def text(self) -> str:
        """Return the typed text: a fixed value, or the name of a variable not in the list."""
        return "" if self.chosen.startswith(_LISTED_PREFIX) else self.value("content")

    @property
    def is_blank(self) -> bool:
        """Return whether nothing is filled in yet."""
        if self.value("name").strip() or self.value("source") in ("null", "json", "boolean"):
            return False
        return not self.value("content").strip()

    @property
    def is_variable(self) -> bool:
        return self.value("source") in (VARIABLE, "")

    @property
    def has_lines(self) -> bool:
        """Return whether the value needs more than one line."""
        return "\n" in self.value("content")

    @property
    def wrong(self) -> set[str]:
        """Return the names of the fields that are wrong."""
        return {problem.field for problem in self.problems}

    @property
    def has_options_open(self) -> bool:
        """Return whether a field under Options has an error."""
        return bool(self.wrong & {"format", "time_zone", "default"})

    @property
    def options(self) -> list[str]:
        """Return a few words about each field that is set under Options."""
        words: list[str] = []
        if self.is_variable:
            if chosen := self.value("format"):
                words.append(str(dict(_FORMATS).get(chosen, "")))
            words.append(self.value("time_zone").strip())
            if default := self.value("default"):
                words.append(_("or “%s”") % default[:40])
        if self["is_omitted"].value():
            words.append(_("omitted when empty"))
        return [word for word in words if word]

    @property
    def errors_id(self) -> str:
        """Return the id of the element with this row's errors."""
        return f"{self.prefix}-errors"

    def stored(self) -> dict[str, Any]:
        """Return the row in its stored form, valid or not."""
        row: dict[str, Any] = {"name": self.value("name").strip()}
        if self.is_variable:
            row["variable"] = self.value("content").strip()
            for field in ("format", "time_zone"):
                if value := self.value(field).strip():
                    row[field] = value
            if default := self.value("default"):
                row["default"] = default
                if default == self.value("stored_default"):
                    with suppress(ValueError):
                        row["default"] = load_typed(default)
        else:
            # Browsers post the line breaks of a text area as CRLF or as LF.
            text = self.value("content").replace("\r\n", "\n")
            row |= {"value": text, "type": self.value("source")}
        if self["is_omitted"].value():
            row["omit_if_empty"] = True
        return row


def sends_unchanged(name: str, text: str) -> bool:
    """Return whether a row sends a name and a text without any change."""
    if name != name.strip() or not name.isprintable() or len(name) > MAX_NAME_LENGTH:
        return False
    # PostgreSQL cannot store NUL, and a text area does not keep carriage returns.
    if "\0" in text or "\r" in text or len(text) > payloads.MAX_VALUE_LENGTH:
        return False
    return payloads.is_encodable(text)


def from_post(data: Any) -> list[ParameterRow]:
    """Return the posted rows in the order of the page."""
    keys = [key for key in data.getlist(KEY) if key.isdecimal() and len(key) <= _MAX_KEY_DIGITS]
    unique = list(dict.fromkeys(keys))[:MAX_POSTED_ROWS]
    return [ParameterRow(key, data) for key in unique]


def from_stored(stored: Any) -> list[ParameterRow]:
    rows = stored if isinstance(stored, list) else []
    return [ParameterRow(key, initial=_initial(row)) for key, row in enumerate(rows)]


def blank(key: int | str, **initial: str) -> ParameterRow:
    return ParameterRow(key, initial=initial)


def _initial(row: Mapping[str, Any]) -> dict[str, Any]:
    default = row.get("default")
    shown = {
        "name": row.get("name", ""),
        "format": row.get("format", ""),
        "time_zone": row.get("time_zone", ""),
        "default": payloads.as_text(default),
        "stored_default": "" if isinstance(default, str) else payloads.as_text(default),
        "is_omitted": row.get("omit_if_empty", False),
    }
    if "variable" in row:
        return {**shown, "source": VARIABLE, "content": row["variable"]}
    kind, text = payloads.value_as_typed(row.get("type"), row.get("value"))
    return {**shown, "source": kind, "content": text}


class MappingSection:
    """The posted or stored parameters, with each error at its row."""

    modes = (
        (EVERYTHING, gettext_lazy("All variables")),
        (ROWS, gettext_lazy("Chosen parameters")),
        (TEMPLATE, gettext_lazy("JSON body")),
    )
    kind = "parameter"
    moves = MOVES
    # Examples that the hints show exactly as they are typed.
    examples = {
        "place": '"{{ duration_seconds }}"',
        "body": '{"phone": "{{ client_number }}", "seconds": "{{ talk_seconds }}"}',
        "dated": "\"{{ call_started_at | sql | zone:'Europe/Kyiv' }}\"",
    }

    def __init__(self, webhook: Webhook, data: Any = None) -> None:
        self._webhook = webhook
        self.is_posted = isinstance(data, QueryDict) and "parameters_mode" in data
        self.focus = ""
        self.uses_older = False
        self.is_refused = False
        # The mode in which the last save was rejected; the form posts it to the live preview.
        self.refused_mode = ""
        # Whether one of its buttons was pressed.
        self.is_edited = False
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
        self.refused_mode = data.get("parameters_refused", "")
        self.template = data.get("body_template", "").replace("\r\n", "\n")
        self.uses_older = bool(data.get("parameters_older"))
        self._picked = data.get("parameter_variable", "")
        kind = payloads.sent_as(data.get("method", ""), data.get("body_format", ""))
        self._names_are_paths = kind == BodyFormat.JSON
        self.rows = from_post(data)
        if (action := data.get("action", "")).startswith(ACTION):
            self.is_edited = True
            self._edit(action.removeprefix(ACTION))

    def _edit(self, action: str) -> None:
        """Apply the action of a button of the section."""
        verb, _colon, argument = action.partition(":")
        if verb in ("body", "pick"):
            self.mode, self.focus = TEMPLATE, "id_body_template"
            if verb == "pick":
                name = self._name_of(self._picked)
                self.template = with_placeholder(self.template, self._picked, name)
            elif not self.template.strip():
                offered = {self._name_of(name): name for name in self.offered}
                self.template = as_body(self.stored_rows(), offered)
            return
        self.mode = ROWS
        if verb == "add":
            self.focus = self._add()["name"].auto_id or ""
        elif verb == "every":
            self.rows = [row for row in self.rows if not row.is_blank]
            mapped = {row.path for row in self.rows}
            for name in self.offered:
                if name not in mapped:
                    sent = self._name_of(name)
                    sent = payloads.escape(sent) if self._names_are_paths else sent
                    self._add(name=sent, source=VARIABLE, content=name)
            self.focus = "parameter-add"
        else:
            self._move(argument, verb)

    def _add(self, **initial: str) -> ParameterRow:
        key = max((int(row.key) for row in self.rows), default=-1) + 1
        self.rows.append(blank(key, **initial))
        return self.rows[-1]

    def _move(self, key: str, verb: str) -> None:
        index = next((i for i, row in enumerate(self.rows) if str(row.key) == key), None)
        if index is None:
            return
        row = self.rows.pop(index)
        self.focus = "parameter-add"
        if verb != "remove":
            self.rows.insert(max(index + _DIRECTIONS.get(verb, 0), 0), row)
            self.focus = f"{KEY}-{key}-{verb}"

    def _name_of(self, variable: str) -> str:
        """Return the name to send a variable under: its older name if older names are chosen."""
        one = _variables_by_name().get(variable) if self.uses_older else None
        return (one.older_name if one else None) or variable

    @property
    def state(self) -> str:
        """Return one line for the closed section."""
        if self.mode == ROWS and (count := len(self.stored_rows())):
            return ngettext("%d parameter", "%d parameters", count) % count
        return str(dict(self.modes)[self.mode])

    @cached_property
    def _options_html(self) -> SafeString:
        """Render the options of a value once for all rows: variables, then fixed values."""
        offered = [_option(one) for one in self.variables if one["is_offered"]]
        others = [_option(one) for one in self.variables if not one["is_offered"]]
        every = (
            _LISTED_PREFIX + payloads.WHOLE_EVENT,
            _("All other variables, under their own names"),
        )
        groups: list[tuple[str, list[tuple[str, Any]]]] = [
            (_("Variables of the chosen events"), [*offered, every]),
            (_("Other variables"), [*others, (VARIABLE, _("Another field…"))]),
            (_("Same in every request"), _FIXED),
        ]
        return format_html_join(
            "",
            '<optgroup label="{}">{}</optgroup>',
            (
                (label, format_html_join("", '<option value="{}">{}</option>', choices))
                for label, choices in groups
            ),
        )

    @property
    def shown_rows(self) -> list[ParameterRow]:
        """Return the rows of the page, or one blank row to fill in."""
        rows = self.rows or [blank(0)]
        for row in rows:
            chosen = format_html('value="{}"', row.chosen)
            # Safe: `_options_html` has escaped every value.
            row.options_html = SafeString(
                self._options_html.replace(f"{chosen}>", f"{chosen} selected>")
            )
        return rows

    @property
    def focus_button(self) -> str:
        """Return the row and verb of the button to focus, like "3-up"."""
        return self.focus.removeprefix(f"{KEY}-")

    @property
    def is_full(self) -> bool:
        return len(self.rows) >= payloads.MAX_ROWS

    def stored_rows(self) -> list[dict[str, Any]]:
        return [row.stored() for row in self.rows if not row.is_blank]

    def usable_rows(self) -> list[dict[str, Any]]:
        """Return the rows that have no error."""
        return [row.stored() for row in self.rows if not row.is_blank and not row.problems]

    def check(self, *, method: str, body_format: str) -> list[Violation]:
        """Validate, attach each error to its row, and return all in the order of the page."""
        kind = payloads.sent_as(method, body_format)
        known = payloads.known_names()
        self.problems = self._find(kind, known)
        if self.problems and (others := other_names(self.event_types, self._webhook)):
            self.problems = self._find(kind, known | others)
        for index, row in enumerate(self.rows):
            row.problems = [problem for problem in self.problems if problem.row == index]
        return self.problems

    def check_typed(self, *, method: str, body_format: str) -> list[Violation]:
        """Validate while a user types: an empty section is no error before a save was rejected."""
        problems = self.check(method=method, body_format=body_format)
        if self.is_untouched and not self.is_refused and self.mode != self.refused_mode:
            # A method or body format without a JSON body is an error, even before one is typed.
            self.problems = [one for one in problems if self.mode == TEMPLATE and not one.line]
        return self.problems

    @property
    def is_untouched(self) -> bool:
        """Return whether rows or a JSON body are chosen, and nothing is entered yet."""
        if self.mode == TEMPLATE:
            return not self.template.strip()
        return self.mode == ROWS and not self.stored_rows()

    def show_notes(self, other: "MappingSection") -> None:
        """Copy errors and notes from another reading of the same rows.

        The errors of a rejected save are kept.
        """
        if not self.is_refused:
            self.problems = other.problems
        for row, same in zip(self.rows, other.rows, strict=True):
            row.problems, row.note = same.problems, same.note

    def _find(self, kind: str, known: set[str]) -> list[Violation]:
        if self.mode == TEMPLATE:
            return template_violations(self.template, kind, known)
        if self.mode == EVERYTHING:
            return []
        stored = self.stored_rows()
        if not stored:
            sentence = _("Add a parameter, or choose All variables.")
            return [Violation(sentence=sentence, field="mode")]
        # As the page counts them: blank rows stay on it, and are not saved.
        numbers = [index for index, row in enumerate(self.rows) if not row.is_blank]
        return payloads.rows_problems(stored, body_format=kind, known=known, numbers=numbers)

    def page_problems(self) -> list[dict[str, Any]]:
        """Return the errors as the form's summary lists them, after a save was rejected."""
        if not self.is_refused:
            return []
        found = []
        for problem in self.problems:
            target, label = "id_body_template", _("JSON body")
            if problem.row is not None:
                row = self.rows[problem.row]
                target = row[problem.field or "name"].auto_id
                label = _("Parameters, row %d") % row.number
            elif problem.field != "body_template":
                target, label = "parameters", _("Parameters")
            found.append({"target": target, "label": label, "sentence": problem.sentence})
        return found

    @property
    def own_problems(self) -> list[Violation]:
        """Return the errors that belong neither to a row nor to the JSON body."""
        return [one for one in self.problems if one.row is None and one.field != "body_template"]

    @property
    def template_problems(self) -> list[Violation]:
        return [one for one in self.problems if one.field == "body_template"]

    @property
    def removal_warning(self) -> str:
        """Return a warning if saving removes what was entered for another mode."""
        unused = self.mode != ROWS and self.stored_rows()
        if unused or (self.mode != TEMPLATE and self.template.strip()):
            return _("Saving keeps what is chosen here and removes the rest.")
        return ""

    @cached_property
    def variables(self) -> list[dict[str, Any]]:
        return variable_entries(self.event_types)

    @property
    def offered(self) -> list[str]:
        """Return the names of the variables of the chosen events."""
        return [one["name"] for one in self.variables if one["is_offered"]]

    def write(self, webhook: Webhook) -> set[str]:
        """Set the posted parameters on the webhook; return the columns that changed."""
        if not self.is_posted:
            return set()
        rows = self.stored_rows() if self.mode == ROWS else []
        template = self.template if self.mode == TEMPLATE else ""
        changed = set()
        # Compared in typed form, in which a number stored as such is no change.
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


def other_names(event_types: Iterable[str], stored: Webhook) -> set[str]:
    """Return names of variables beyond the catalogue: those of the newest events without tests.

    Also those that the stored webhook sends, because the newest events may lack them.
    """
    names = {str(row["variable"]) for row in stored.parameters if row.get("variable")}
    with suppress(ValueError):
        names |= payloads.template_variables(stored.body_template)
    for key in catalogue.types_for(event_types):
        for event in filter_preview.recent_events([key], limit=_EVENTS_LOOKED_AT):
            names |= payloads.read_document(event.payload).keys()
    return names


def template_violations(template: str, kind: str, known: set[str]) -> list[Violation]:
    problems = payloads.template_problems(template, known)
    if kind != BodyFormat.JSON:
        problems.insert(0, Violation(sentence=_no_json(), field="mode"))
    return problems


def _no_json() -> str:
    return _("A JSON body needs the body format JSON and a method other than GET.")


# ---- The JSON body that buttons write or extend ------------------------------------------------


def as_body(rows: Sequence[Mapping[str, Any]], offered: Mapping[str, str]) -> str:
    """Return a JSON body with placeholders that sends what the rows do, or every variable.

    `offered` are the variables that stand for “every”, by the names to send them under.
    """
    try:
        document = payloads.rows_as_placeholders(rows) if rows else {}
    except ValueError:
        # The rows do not form a document yet.
        document = {}
    if not document or any(map(_is_spread, rows)):
        every = {name: f"{{{{ {variable} }}}}" for name, variable in offered.items()}
        document = {**every, **document}
    return _as_json(document)


def _is_spread(row: Mapping[str, Any]) -> bool:
    whole = payloads.WHOLE_EVENT
    return row.get("variable") == whole and row.get("name") in ("", whole)


def with_placeholder(template: str, variable: str, name: str) -> str:
    """Append a variable to a JSON body; a body that is not an object stays unchanged."""
    try:
        document = payloads.load_json(template.encode()) if template.strip() else {}
    except payloads.DocumentError:
        return template
    if not isinstance(document, dict):
        return template
    return _as_json({**document, name: f"{{{{ {variable} }}}}"})


def _as_json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2)


# ---- The variables to choose from: each with a sample, and whether a chosen event has it -------


@lru_cache(maxsize=1)
def _variables_by_name() -> dict[str, catalogue.Variable]:
    """Return every variable by its name; those that all events have come last."""
    found: dict[str, catalogue.Variable] = {}
    for kind in catalogue.EVENT_TYPES.values():
        for one in catalogue.variables_for(kind.key) if kind.is_subscribable else ():
            found.setdefault(one.name, one)
    # Users look for the variables that only some events have.
    return dict(sorted(found.items(), key=lambda item: item[0] in catalogue.ALWAYS))


def variable_entries(patterns: Iterable[str]) -> list[dict[str, Any]]:
    """Return every variable; those of no chosen event have `is_offered` false."""
    chosen = catalogue.types_for(patterns)
    offered = {one.name for key in chosen for one in catalogue.variables_for(key)}
    return [
        {
            "name": name,
            "older_name": one.older_name or "",
            "label": one.label,
            "sample": Truncator(as_text(one.sample)).chars(_SAMPLE_LENGTH),
            "is_offered": not chosen or name in offered,
        }
        for name, one in _variables_by_name().items()
    ]


def _option(one: Mapping[str, Any]) -> tuple[str, str]:
    label = f"{one['label']} · {one['sample']}" if one["sample"] else str(one["label"])
    return _LISTED_PREFIX + one["name"], label
