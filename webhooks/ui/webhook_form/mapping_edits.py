"""What the buttons of the Parameters section do to its rows or its JSON body."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from webhooks import payloads
from webhooks.ui.webhook_form.mapping_rows import KEY, ParameterRow, blank

# The prefix of the actions of this section's buttons.
ACTION = "parameter:"
_DIRECTIONS = {"up": -1, "down": 1}


def apply(
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
    except payloads.InvalidPayload:
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
