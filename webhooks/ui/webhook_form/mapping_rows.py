"""One row of the Parameters section as a person sees it, and the stored row it stands for.

A row is posted as `parameter=<key>` and fields that begin with `parameter-<key>-`; the order of
the keys is the order of the rows, so moving one is moving a part of the page.
"""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from webhooks import payloads
from webhooks.payloads import Violation

KEY = "parameter"
VARIABLE = "variable"
# As `webhooks.payloads` judges it.
_MAX_NAME_LENGTH = 200
_SOURCES = [
    (VARIABLE, _("Variable")),
    ("text", _("Text")),
    ("number", _("Number")),
    ("boolean", _("True or false")),
    ("null", _("Null")),
    ("json", _("JSON")),
]
_FORMATS = [
    ("", _("As the event has it")),
    ("iso8601", _("Date as ISO 8601")),
    ("sql", _("Date as YYYY-MM-DD HH:MM:SS")),
    ("unix", _("Date as Unix seconds")),
    ("text", _("As text")),
]
_PLAIN = {"autocomplete": "off", "spellcheck": "false"}


def _text(label: Any, length: int, help_text: Any = "", **attributes: Any) -> forms.CharField:
    widget = forms.TextInput({**_PLAIN, **attributes})
    return forms.CharField(
        label=label, required=False, max_length=length, widget=widget, help_text=help_text
    )


class ParameterRow(forms.Form):
    """The controls of one row; what is wrong is judged by `webhooks.payloads` for all at once."""

    name = _text(_("Name"), _MAX_NAME_LENGTH, placeholder="client.phone")
    source = forms.ChoiceField(
        label=_("Kind of value"), choices=_SOURCES, required=False, initial=VARIABLE
    )
    content = _text(_("Value"), payloads.MAX_VALUE_LENGTH, list="variable-names")
    format = forms.ChoiceField(label=_("Format"), choices=_FORMATS, required=False)
    time_zone = _text(_("Time zone"), 64, _("Empty: the one above."), placeholder="Europe/Kyiv")
    default = _text(_("If there is no value, send"), payloads.MAX_VALUE_LENGTH, _("Empty: null."))
    is_omitted = forms.BooleanField(label=_("Leave out when empty"), required=False)

    use_required_attribute = False

    def __init__(self, key: int | str, data: Any = None, initial: Any = None) -> None:
        super().__init__(data, initial=initial, prefix=f"{KEY}-{key}")
        self.key = key
        self.number = 0
        self.problems: list[Violation] = []
        self.note = ""

    def value(self, field: str) -> str:
        """Return what a field holds as text, without what no database keeps."""
        return str(self[field].value() or "").replace("\0", "")

    @property
    def is_blank(self) -> bool:
        """Return whether the row means nothing yet."""
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

    def choices(self, field: str) -> list[dict[str, Any]]:
        """Return the choices of a field, and which is chosen."""
        chosen = self.value(field)
        control: Any = self.fields[field]
        return [
            {"value": value, "label": label, "is_chosen": value == chosen}
            for value, label in control.choices
        ]

    @property
    def sources(self) -> list[dict[str, Any]]:
        return self.choices("source")

    @property
    def formats(self) -> list[dict[str, Any]]:
        return self.choices("format")

    @property
    def wrong(self) -> set[str]:
        """Return the names of the fields that are wrong."""
        return {problem.field for problem in self.problems}

    @property
    def has_options_open(self) -> bool:
        """Return whether something in the part that is folded is wrong."""
        return bool(self.wrong & {"format", "time_zone", "default"})

    @property
    def options(self) -> list[str]:
        """Return what is set in the part that is folded."""
        words: list[str] = []
        if self.is_variable:
            words += [
                str(one["label"]) for one in self.formats if one["is_chosen"] and one["value"]
            ]
            words += [self.value("time_zone").strip()]
            if default := self.value("default"):
                words.append(gettext("or “%s”") % default[:40])
        if self["is_omitted"].value():
            words.append(gettext("left out when empty"))
        return [word for word in words if word]

    @property
    def said_id(self) -> str:
        """Return the id of the place where this row's mistakes are said."""
        return f"{self.prefix}-errors"

    def stored(self) -> dict[str, Any]:
        """Return the row as it is stored, right or wrong."""
        row: dict[str, Any] = {"name": self.value("name").strip()}
        if self.is_variable:
            row["variable"] = self.value("content").strip()
            for field in ("format", "time_zone", "default"):
                if value := self.value(field).strip():
                    row[field] = value
        else:
            # A browser sends the line breaks of a text area as it likes.
            text = self.value("content").replace("\r\n", "\n")
            row |= {"value": text, "type": self.value("source")}
        if self["is_omitted"].value():
            row["omit_if_empty"] = True
        return row


def keeps(name: str, text: str) -> bool:
    """Return whether a row sends a name and a text as they are, to the letter."""
    if name != name.strip() or not name.isprintable() or len(name) > _MAX_NAME_LENGTH:
        return False
    # No database keeps a zero byte, and no text area a carriage return.
    if "\0" in text or "\r" in text or len(text) > payloads.MAX_VALUE_LENGTH:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def from_post(data: Any) -> list[ParameterRow]:
    """Return the posted rows in the order of the page."""
    keys = [key for key in data.getlist(KEY) if key.isdecimal()]
    # One more than is allowed, so that it can be said.
    unique = list(dict.fromkeys(keys))[: payloads.MAX_ROWS + 1]
    return [ParameterRow(key, data) for key in unique]


def from_stored(stored: Any) -> list[ParameterRow]:
    rows = stored if isinstance(stored, list) else []
    return [ParameterRow(key, initial=_initial(row)) for key, row in enumerate(rows)]


def blank(key: int | str, **initial: str) -> ParameterRow:
    return ParameterRow(key, initial=initial)


def _initial(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {
        "name": row.get("name", ""),
        "format": row.get("format", ""),
        "time_zone": row.get("time_zone", ""),
        "default": payloads.as_text(row.get("default")),
        "is_omitted": row.get("omit_if_empty", False),
    }
    if "variable" in row:
        return {**shown, "source": VARIABLE, "content": row["variable"]}
    kind, text = payloads.value_as_typed(row.get("type"), row.get("value"))
    return {**shown, "source": kind, "content": text}
