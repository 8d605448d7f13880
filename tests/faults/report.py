"""The rows of a run, their table, and the line of numbers at the end."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SURVIVED, BROKEN, SKIPPED = "survived", "broken", "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow:
    """The result of one round of one fault on one database."""

    id: str
    title: str
    database: str
    round: int
    result: str
    seconds: float
    lost: int = 0
    duplicates: int = 0
    allowed: int = 0
    note: str = ""


def number(id: str) -> tuple[str, int]:
    """Return a sort key: F2 before F10, and process faults before receiver faults."""
    return id[0], int(id[1:])


def _result(rows: Iterable[ReportRow]) -> str:
    results = {row.result for row in rows}
    return next((found for found in (BROKEN, SURVIVED) if found in results), SKIPPED)


def _grouped(rows: Sequence[ReportRow]) -> dict[tuple[str, str, str], list[ReportRow]]:
    groups: dict[tuple[str, str, str], list[ReportRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (number(row.id), row.database, row.round)):
        groups[row.id, row.title, row.database].append(row)
    return groups


def table(rows: Sequence[ReportRow]) -> str:
    """Return a Markdown table: one line per fault and database, over all rounds."""
    lines = [
        "| fault | database | result | rounds | lost | duplicates / allowed | slowest | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (id, title, database), group in _grouped(rows).items():
        counted = f"{sum(r.duplicates for r in group)} / {sum(r.allowed for r in group)}"
        notes = [row.note for row in group if row.result != SURVIVED and row.note]
        note = (notes or [group[-1].note])[0][:200]
        lines.append(
            f"| {id} {title} | {database} | {_result(group)} | {len(group)} "
            f"| {sum(row.lost for row in group)} | {counted} "
            f"| {max(row.seconds for row in group):.0f} s | {note} |"
        )
    return "\n".join(lines)


def summary(rows: Sequence[ReportRow]) -> str:
    """Return the last line: how many of the tried faults survived, and the delivery counts."""
    by_id: dict[str, list[ReportRow]] = defaultdict(list)
    for row in rows:
        by_id[row.id].append(row)
    tried = {id: _result(group) for id, group in by_id.items() if _result(group) != SKIPPED}
    survived = [id for id, result in tried.items() if result == SURVIVED]
    return json.dumps(
        {
            "process": {
                "survived": sum(id.startswith("F") for id in survived),
                "of": sum(id.startswith("F") for id in tried),
            },
            "receiver": {
                "classified": sum(id.startswith("R") for id in survived),
                "of": sum(id.startswith("R") for id in tried),
            },
            "lost": sum(row.lost for row in rows),
            "duplicates": sum(row.duplicates for row in rows),
            "duplicates_allowed": sum(row.allowed for row in rows),
        }
    )


def is_broken(rows: Sequence[ReportRow]) -> bool:
    return not rows or any(row.result == BROKEN for row in rows)
