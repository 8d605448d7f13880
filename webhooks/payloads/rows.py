"""Parameters as rows: each has a name and either a variable of the event or its own value.

A stored row is `{"name", "variable"}` or `{"name", "value"}`, optionally with `format`,
`time_zone`, `default` and `omit_if_empty` for a variable, or `type` and `omit_if_empty` for a
value. In JSON a name is a path (`webhooks.payloads.paths`); in a form or a query string it is sent
unchanged.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from django.core.validators import ProhibitNullCharactersValidator
from django.utils.translation import gettext as _

from webhooks.payloads.document import ENCODER, shown
from webhooks.payloads.errors import DocumentError, MappingError, Violation
from webhooks.payloads.json_reader import check_depth, load_json, load_typed
from webhooks.payloads.paths import MAX_NAME_LENGTH, Shape, parse_path
from webhooks.payloads.variables import (
    AS_TEXT,
    AS_THE_WEBHOOK,
    FORM_WEIGHT,
    TEXT_WEIGHT,
    WHOLE_EVENT,
    Style,
    as_text,
    size_problem,
    typed_default,
    variable_problem,
    zone_problem,
)

MAX_ROWS = 100
MAX_VALUE_LENGTH = 8192
FORMATS = ("iso8601", "sql", "unix", AS_TEXT)
_KEYS = {"name", "variable", "value", "type", "format", "time_zone", "default", "omit_if_empty"}


class ValueType(StrEnum):
    TEXT = "text"
    NUMBER = "number"
    BOOLEAN = "boolean"
    NULL = "null"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One parsed parameter. `variable` is empty if the row has its own value."""

    name: str
    variable: str = ""
    value: Any = None
    style: Style = AS_THE_WEBHOOK
    is_omitted_if_empty: bool = False

    @property
    def is_spread(self) -> bool:
        """Return whether the row adds every variable under its own name."""
        return self.variable == WHOLE_EVENT and self.name in ("", WHOLE_EVENT)


def typed_value(kind: str, text: str) -> Any:
    """Return the value for a typed text. Raise ValueError with a sentence for people."""
    if len(text) > MAX_VALUE_LENGTH:
        raise ValueError(_("A value has at most %d characters.") % MAX_VALUE_LENGTH)
    if kind == ValueType.TEXT:
        return text
    if kind == ValueType.NULL:
        return None
    if kind == ValueType.BOOLEAN:
        word = text.strip().lower()
        if word not in ("true", "false"):
            raise ValueError(_("Write true or false."))
        return word == "true"
    if kind == ValueType.NUMBER:
        return _number(text)
    try:
        value = load_json(text.encode(errors="surrogatepass"))
        check_depth(value)
        ENCODER.encode(value).encode()
    except (ValueError, OverflowError) as error:
        sentence = str(error) if isinstance(error, DocumentError) else _("This is not JSON.")
        raise ValueError(_("%s Choose Text to send it as it is.") % sentence) from error
    return value


def read_row(stored: Mapping[str, Any]) -> Row:
    """Parse a stored row. Raise MappingError if it is invalid."""
    problem = row_problem(stored)
    if problem is not None:
        raise MappingError(problem)
    variable = str(stored.get("variable") or "")
    is_omitted = bool(stored.get("omit_if_empty"))
    name = str(stored.get("name") or "")
    if not variable:
        value = stored.get("value")
        if isinstance(value, str):
            value = typed_value(stored.get("type") or ValueType.TEXT, value)
        elif stored.get("type") == ValueType.NULL:
            value = None
        return Row(name=name, value=value, is_omitted_if_empty=is_omitted)
    default = stored.get("default")
    style = Style(
        format="" if stored.get("format") == AS_TEXT else str(stored.get("format") or ""),
        time_zone=str(stored.get("time_zone") or ""),
        is_text=stored.get("format") == AS_TEXT,
        has_default=default not in (None, ""),
        default=typed_default(variable, default) if isinstance(default, str) else default,
    )
    row = Row(name=name, variable=variable, style=style, is_omitted_if_empty=is_omitted)
    if row.is_spread:
        # Text, default and omission apply to single values only.
        style = Style(format=style.format, time_zone=style.time_zone)
        return replace(row, style=style, is_omitted_if_empty=False)
    return row


def row_problem(stored: Any, known: Collection[str] | None = None) -> Violation | None:
    """Return what is wrong with one row; variables are checked if `known` is given."""
    if not isinstance(stored, Mapping) or stored.keys() - _KEYS:
        return Violation(sentence=_("A row must be an object with a name and a variable or value."))
    variable, kind = stored.get("variable"), stored.get("type") or ValueType.TEXT
    if ("variable" in stored) == ("value" in stored):
        sentence = _("A row has either a variable or a value of its own.")
        return Violation(sentence=sentence, field="content")
    if sentence := _name_sentence(stored.get("name") or "", is_spread=variable == WHOLE_EVENT):
        return Violation(sentence=sentence, field="name")
    if "value" in stored:
        return _value_problem(kind, stored["value"])
    if not isinstance(variable, str):
        return Violation(sentence=variable_problem("", ()), field="content")
    if known is not None and (sentence := variable_problem(variable, known)):
        return Violation(sentence=sentence, field="content")
    return _style_problem(stored)


def rows_problems(
    stored: Sequence[Any],
    *,
    body_format: str,
    known: Collection[str],
    numbers: Sequence[int] = (),
) -> list[Violation]:
    """Return all problems of the rows and of conflicts between them, in the order of the rows.

    `numbers` are those of the rows, counted from 0, if some were left out.
    """
    if len(stored) > MAX_ROWS:
        return [Violation(sentence=_("There can be at most %d rows.") % MAX_ROWS)]
    problems: list[Violation] = []
    good: list[tuple[int, Row]] = []
    for number, one in zip(numbers or range(len(stored)), stored, strict=True):
        problem = row_problem(one, known)
        if problem is None and body_format == "json":
            problem = _path_problem(one)
        if problem is None:
            good.append((number, read_row(one)))
        else:
            problems.append(replace(problem, row=number))
    problems += _repeated_spreads(good)
    if body_format == "json":
        problems += _conflicts(good)
    if body_format != "query":
        rows = [row for _number, row in good]
        fixed = sum(len(as_text(row.value).encode()) for row in rows) * FORM_WEIGHT
        if sentence := size_problem(uses(rows, body_format), fixed_bytes=fixed):
            problems.append(Violation(sentence=sentence))
    return sorted(problems, key=lambda problem: problem.row or 0)


def read_rows(stored: Iterable[Mapping[str, Any]]) -> list[Row]:
    return [read_row(one) for one in stored]


def uses(rows: Iterable[Row], body_format: str) -> Iterator[tuple[str, int]]:
    """Yield each variable and the maximum number of bytes sent per byte of its value."""
    for row in rows:
        if row.variable and body_format == "json":
            yield row.variable, TEXT_WEIGHT if row.style.is_text else 1
        elif row.variable:
            yield row.variable, FORM_WEIGHT


def _repeated_spreads(rows: Iterable[tuple[int, Row]]) -> list[Violation]:
    """Return a problem for each row that adds every variable once more."""
    numbers = [number for number, row in rows if row.is_spread]
    sentence = _("Row %d adds all other variables already. Remove one of the two.")
    return [
        Violation(sentence=sentence % (numbers[0] + 1), row=number, field="content")
        for number in numbers[1:]
    ]


def _conflicts(rows: Iterable[tuple[int, Row]]) -> list[Violation]:
    """Return a problem for each row whose name conflicts with an earlier row."""
    shape, problems = Shape(), []
    for number, row in rows:
        if row.is_spread:
            continue
        try:
            shape.add(parse_path(row.name), number)
        except ValueError as error:
            problems.append(Violation(sentence=str(error), row=number, field="name"))
    return problems


def _name_sentence(name: Any, *, is_spread: bool) -> str:
    if not isinstance(name, str):
        return _("A name must be text.")
    if is_spread and name in ("", WHOLE_EVENT):
        return ""
    if not name.strip():
        return _("Give this row a name, for example “phone”.")
    if len(name) > MAX_NAME_LENGTH:
        return _("A name has at most %d characters.") % MAX_NAME_LENGTH
    if not name.isprintable():
        return _("A name has no line breaks and no invisible characters.")
    return ""


def _path_problem(stored: Mapping[str, Any]) -> Violation | None:
    name = stored.get("name") or ""
    if stored.get("variable") == WHOLE_EVENT and name in ("", WHOLE_EVENT):
        return None
    try:
        steps = parse_path(name)
    except ValueError as error:
        return Violation(sentence=str(error), field="name")
    if None in steps[:-1]:
        sentence = _("[] can only end a name. Number the elements instead, like “items[0].id”.")
        return Violation(sentence=sentence, field="name")
    return None


def _value_problem(kind: Any, value: Any) -> Violation | None:
    if kind not in list(ValueType):
        names = ", ".join(ValueType)
        return Violation(sentence=_("The type is one of %s.") % names, field="source")
    try:
        if isinstance(value, str):
            typed_value(kind, value)
        _check_encodable(value)
    except ValueError as error:
        return Violation(sentence=str(error), field="content")
    return None


def _style_problem(stored: Mapping[str, Any]) -> Violation | None:
    if (chosen := stored.get("format") or "") and chosen not in FORMATS:
        sentence = _("“%(format)s” is not a format. Use one of %(all)s.") % {
            "format": shown(str(chosen)),
            "all": ", ".join(FORMATS),
        }
        return Violation(sentence=sentence, field="format")
    if (zone := stored.get("time_zone")) and (sentence := zone_problem(str(zone))):
        return Violation(sentence=sentence, field="time_zone")
    try:
        _check_encodable(default := stored.get("default"))
    except ValueError as error:
        return Violation(sentence=str(error), field="default")
    if len(str(default or "")) > MAX_VALUE_LENGTH:
        sentence = _("A value has at most %d characters.") % MAX_VALUE_LENGTH
        return Violation(sentence=sentence, field="default")
    return None


def _check_encodable(value: Any) -> None:
    """Raise ValueError with a sentence if a request or the database cannot hold the value."""
    if isinstance(value, str) and "\0" in value:
        raise ValueError(str(ProhibitNullCharactersValidator.message))
    check_depth(value)
    try:
        ENCODER.encode(value).encode()
    except UnicodeEncodeError:
        raise ValueError(_("There is half a character in this text. Type it again.")) from None
    except (ValueError, TypeError):
        raise ValueError(_("This is not JSON.")) from None


def _number(text: str) -> Any:
    try:
        value = load_typed(text)
        if type(value) in (int, float) and math.isfinite(value):
            return value
    except (ValueError, OverflowError):
        pass
    raise ValueError(_("Write a number like 42 or 0.5, with a dot, or choose Text."))


def value_as_typed(kind: str | None, value: Any) -> tuple[str, str]:
    """Return the type and the text to show in the form for a stored value."""
    if isinstance(value, str):
        return kind or ValueType.TEXT, value
    if value is None:
        return ValueType.NULL, ""
    if isinstance(value, bool):
        return ValueType.BOOLEAN, as_text(value)
    is_number = isinstance(value, int | float)
    return ValueType.NUMBER if is_number else ValueType.JSON, as_text(value)
