"""The content of a copy of the database, byte by byte."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql

from tests.leaks.sinks import Sink


def dump(database_url: str) -> Iterator[Sink]:
    """Yield the whole database as its own tools dump it, and each table with its bytes as text."""
    if database_url.startswith("sqlite"):
        yield from _sqlite(Path(database_url.removeprefix("sqlite:///")))
    else:
        yield from _postgres(database_url)


def _sqlite(path: Path) -> Iterator[Sink]:
    for file in sorted(path.parent.glob(f"{path.name}*")):
        # Includes rows that were deleted and not yet overwritten.
        yield Sink("database", f"file {file.suffix}", file.read_bytes().decode("latin-1"))
    connection = sqlite3.connect(path)
    try:
        yield Sink("database", "SQL dump", "\n".join(connection.iterdump()))
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
        ).fetchall()
        for (table,) in tables:
            rows = connection.execute(f'SELECT * FROM "{table}"').fetchall()
            yield Sink("table", table, _text(rows))
    finally:
        connection.close()


def _postgres(url: str) -> Iterator[Sink]:
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        for (table,) in tables:
            name = sql.Identifier(table)
            command = sql.SQL("COPY (SELECT * FROM {}) TO STDOUT").format(name)
            with connection.cursor().copy(command) as copy:
                copied = b"".join(bytes(part) for part in copy)
            yield Sink("database", f"COPY of {table}", copied.decode())
            rows = connection.execute(sql.SQL("SELECT * FROM {}").format(name)).fetchall()
            yield Sink("table", table, _text(rows))


def _text(rows: list[tuple[object, ...]]) -> str:
    return "\n".join(_cell(value) for row in rows for value in row)


def _cell(value: object) -> str:
    if isinstance(value, bytes | memoryview):
        data = bytes(value)
        return f"{data.decode(errors='replace')}\n{data.decode('latin-1')}"
    return str(value)
