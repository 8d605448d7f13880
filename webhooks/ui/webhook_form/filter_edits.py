"""What the builder's buttons do to its rows: add, remove, move, and add a preset's conditions.

One place for both ways to press a button: a round trip of the whole form, or htmx.
"""

from collections.abc import Mapping
from typing import Any

from webhooks.filters import MAX_DEPTH, PRESETS, Preset
from webhooks.ui.webhook_form.filter_rows import Group, Row, flatten, from_tree, rebuild

# Deeper groups are read and kept; nobody needs to make them here.
MAX_BUILT_DEPTH = 4


def apply(root: Group, action: str) -> str:
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


def _add(root: Group, group_id: int, *, is_group: bool) -> str:
    group = next((group for group in root.groups() if group.id == group_id), None)
    if group is None or (is_group and group.depth >= MAX_BUILT_DEPTH):
        return ""
    row = Row(id=_free_id(root))
    if is_group:
        kind = "any" if group.kind == "all" else "all"
        inner = Group(id=row.id + 1, kind=kind, children=[row])
        group.children.append(inner)
    else:
        group.children.append(row)
    return f"filter-{row.id}-variable"


def _remove(root: Group, part_id: int) -> str:
    for group in root.groups():
        for index, child in enumerate(group.children):
            if child.id == part_id:
                del group.children[index]
                return f"filter-{group.id}-add"
    return ""


def _move(root: Group, part_id: int, *, step: int) -> None:
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


def _add_preset(root: Group, key: str) -> str:
    preset = next((preset for preset in PRESETS if preset.key == key), None)
    if preset is None:
        return ""
    _drop_blank(root)
    row = None
    for condition in preset.conditions:
        row = _merged(root, condition, preset) or _appended(root, condition)
    return f"filter-{row.id}-{'value' if preset.asks_value else 'variable'}" if row else ""


def _merged(root: Group, condition: Mapping[str, Any], preset: Preset) -> Row | None:
    """Return the row that says the same already, or that can say it too; None when none can.

    Two values that must both hold at once would let nothing through: “missed” and then “busy”
    means either.
    """
    (wanted,) = from_tree(condition).rows()
    rows = [child for child in root.children if isinstance(child, Row)]
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


def _appended(root: Group, condition: Mapping[str, Any]) -> Row:
    (row,) = from_tree(condition).rows()
    row.id = _free_id(root)
    root.children.append(row)
    return row


def _drop_blank(root: Group) -> None:
    root.children = [
        child for child in root.children if isinstance(child, Group) or not child.is_blank
    ]


def _free_id(root: Group) -> int:
    ids = {part.id for _word, part in flatten(root)}
    return max(ids, default=0) + 1
