"""Columns of rows as PostgreSQL's binary arrays.

psycopg inspects each value of a list several times; here a value costs one call. PostgreSQL takes a
binary payload as it is, while its text would be twice as long and read byte by byte.
Source: `array_recv` in PostgreSQL's arrayfuncs.c.
"""

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import psycopg
from psycopg.adapt import Dumper, PyFormat
from psycopg.pq import Format

# Dimensions, flags, element type, then length and first index of the one dimension.
_header = struct.Struct("!iiIii").pack
_empty = struct.Struct("!iiI").pack
_length = struct.Struct("!i").pack
_eight_bytes = struct.Struct("!iq").pack
# The server counts timestamps from here.
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class _ColumnArray:
    """An array in the form that the server receives, a class for each type."""

    __slots__ = ("data",)
    oid: ClassVar[int]
    element_oid: ClassVar[int]

    def __init__(self, elements: Iterable[bytes], count: int) -> None:
        if count:
            self.data = _header(1, 0, self.element_oid, count, 1) + b"".join(elements)
        else:
            self.data = _empty(0, 0, self.element_oid)


class _Texts(_ColumnArray):
    oid, element_oid = 1009, 25


class _Bytes(_ColumnArray):
    oid, element_oid = 1001, 17


class _Moments(_ColumnArray):
    oid, element_oid = 1185, 1184


class _Numbers(_ColumnArray):
    oid, element_oid = 1016, 20


# Frequent values of text columns.
_KNOWN: dict[str | None, bytes] = {
    text: _length(len(text)) + text.encode() for text in ("", "pending", "held", "event")
}
_KNOWN[None] = _length(-1)


# Columns of one row with one of these values.
_ALONE = {text: _Texts([data], 1) for text, data in _KNOWN.items()}


def texts(values: Sequence[str | None]) -> _ColumnArray:
    if len(values) == 1:
        return _ALONE.get(values[0]) or _Texts((_text(values[0]),), 1)
    if _is_constant(values):
        elements = [_text(values[0])] * len(values)
    else:
        elements = [_KNOWN.get(value) or _text(value) for value in values]
    return _Texts(elements, len(values))


def _text(value: str | None) -> bytes:
    if value is None:
        return _KNOWN[None]
    data = value.encode()
    return _length(len(data)) + data


def binaries(values: Sequence[bytes]) -> _ColumnArray:
    parts = [part for value in values for part in (_length(len(value)), value)]
    return _Bytes(parts, len(values))


def moments(values: Sequence[datetime]) -> _ColumnArray:
    if _is_constant(values):
        return _Moments(_of_eight_bytes([_microseconds(values[0])]) * len(values), len(values))
    return _Moments(_of_eight_bytes([*map(_microseconds, values)]), len(values))


def _microseconds(value: datetime) -> int:
    return (value - _EPOCH) // _MICROSECOND


def numbers(values: Sequence[int]) -> _ColumnArray:
    """Make an array of bigint."""
    return _Numbers(_of_eight_bytes(values), len(values))


def _of_eight_bytes(values: Sequence[int]) -> list[bytes]:
    if _is_constant(values):
        return [_eight_bytes(8, values[0])] * len(values)
    return [_eight_bytes(8, value) for value in values]


def _is_constant(values: Sequence[object]) -> bool:
    """Return whether a column has the same value in every row, as many do in a batch."""
    return len(values) > 1 and values[0] == values[-1] and values.count(values[0]) == len(values)


class _ColumnDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: _ColumnArray) -> bytes:
        return obj.data


_DUMPERS = [
    (kind, type("_ColumnDumper", (_ColumnDumper,), {"oid": kind.oid}))
    for kind in (_Texts, _Bytes, _Moments, _Numbers)
]


def register(connection: "psycopg.Connection[Any]") -> None:
    """Let the cursors that a connection makes from now on accept these arrays as parameters."""
    try:
        connection.adapters.get_dumper(_Texts, PyFormat.BINARY)
    except psycopg.ProgrammingError:
        for kind, dumper in _DUMPERS:
            connection.adapters.register_dumper(kind, dumper)
