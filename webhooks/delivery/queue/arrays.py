"""Columns of rows as PostgreSQL's binary arrays.

psycopg looks at each value of a list several times; here a value costs one call. And PostgreSQL
takes a payload as it is, where text would be twice as long and read byte by byte.
Source: `array_recv` in PostgreSQL's arrayfuncs.c.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

# Dimensions, flags, type of an element, and of the one dimension its length and first index.
_header = struct.Struct("!iiIii").pack
_empty = struct.Struct("!iiI").pack
_length = struct.Struct("!i").pack
_eight_bytes = struct.Struct("!iq").pack
_NULL = _length(-1)
# From which the server counts moments.
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class _Array:
    """An array as it goes to the server, a class for each type."""

    data: bytes
    oid: ClassVar[int]
    element_oid: ClassVar[int]

    @classmethod
    def of(cls, count: int, elements: Sequence[bytes]) -> Self:
        if not count:
            return cls(_empty(0, 0, cls.element_oid))
        return cls(_header(1, 0, cls.element_oid, count, 1) + b"".join(elements))


class _Texts(_Array):
    oid, element_oid = 1009, 25


class _Bytes(_Array):
    oid, element_oid = 1001, 17


class _Moments(_Array):
    oid, element_oid = 1185, 1184


class _Numbers(_Array):
    oid, element_oid = 1016, 20


class _Known(dict[str | None, bytes]):
    """Texts as elements, each worked out once: a column often says the same in every row."""

    def __missing__(self, text: str) -> bytes:
        data = text.encode()
        made = self[text] = _length(len(data)) + data
        return made


def texts(values: Sequence[str | None]) -> _Array:
    known = _Known({None: _NULL})
    return _Texts.of(len(values), [known[value] for value in values])


def binaries(values: Sequence[bytes]) -> _Array:
    parts = [part for value in values for part in (_length(len(value)), value)]
    return _Bytes.of(len(values), parts)


def moments(values: Sequence[datetime]) -> _Array:
    return _Moments.of(
        len(values), [_eight_bytes(8, (value - _EPOCH) // _MICROSECOND) for value in values]
    )


def numbers(values: Sequence[int]) -> _Array:
    """Make an array of bigint."""
    return _Numbers.of(len(values), [_eight_bytes(8, value) for value in values])


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: _Array) -> bytes:
        return obj.data


_DUMPERS = [
    (kind, type("_ArrayDumper", (_ArrayDumper,), {"oid": kind.oid}))
    for kind in (_Texts, _Bytes, _Moments, _Numbers)
]


def register(cursor: "psycopg.Cursor[Any]") -> None:
    """Let a cursor take these arrays as parameters."""
    for kind, dumper in _DUMPERS:
        cursor.adapters.register_dumper(kind, dumper)
