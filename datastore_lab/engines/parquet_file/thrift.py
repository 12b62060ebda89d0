"""Thrift's compact protocol, as far as a footer of Parquet needs it: structures read, and written again.

Nothing has to be known of what a field means, so that what Arrow says in newer versions stays as it was said.
Format: "Thrift Compact protocol encoding" of Apache Thrift; the footer is ``FileMetaData`` of parquet-format.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
_NUMBERS = (I16, I32, I64)


class Field(NamedTuple):
    """One value with its type: a number, bytes, a list of values of one type, or a structure."""

    kind: int
    value: Any


class Items(NamedTuple):
    """A list."""

    kind: int
    values: list[Any]


Fields = dict[int, Field]


def read(raw: bytes | memoryview) -> Fields:
    """Take a structure apart.

    Raises
    ------
    ValueError, IndexError, struct.error
        If it is none.

    Examples
    --------
    >>> read(bytes([0x15, 0x04, 0x18, 0x01, 0x61, 0x00]))
    {1: Field(kind=5, value=2), 2: Field(kind=8, value=b'a')}
    """
    return _Reader(bytes(raw)).structure()


def write(fields: Fields) -> bytes:
    """Put a structure together.

    Examples
    --------
    >>> write({1: Field(I32, 2), 2: Field(BINARY, b"a")}).hex()
    '150418016100'
    """
    out = bytearray()
    _write_structure(out, fields)
    return bytes(out)


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    def structure(self) -> Fields:
        fields: Fields = {}
        number = 0
        while head := self._byte():
            kind = head & 15
            number = number + (head >> 4) if head >> 4 else self._number()
            fields[number] = Field(kind, kind == TRUE if kind in {TRUE, FALSE} else self._value(kind))
        return fields

    def _byte(self) -> int:
        self._at += 1
        return self._raw[self._at - 1]

    def _unsigned(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
        return value | byte << shift

    def _number(self) -> int:
        value = self._unsigned()
        return value >> 1 ^ -(value & 1)

    def _value(self, kind: int) -> Any:
        if kind in _NUMBERS:
            return self._number()
        if kind in {TRUE, FALSE, BYTE}:
            return self._byte()
        if kind == DOUBLE:
            self._at += 8
            return struct.unpack_from("<d", self._raw, self._at - 8)[0]
        if kind == BINARY:
            length = self._unsigned()
            self._at += length
            return self._raw[self._at - length : self._at]
        if kind == LIST:
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._unsigned()
            return Items(head & 15, [self._value(head & 15) for _ in range(count)])
        if kind == STRUCT:
            return self.structure()
        raise ValueError(f"a footer of Parquet has no field of the kind {kind}")


def _write_structure(out: bytearray, fields: Fields) -> None:
    last = 0
    for number, (kind, value) in sorted(fields.items()):
        if kind in {TRUE, FALSE}:
            kind = TRUE if value else FALSE  # noqa: PLW2901
        if 0 < number - last < 16:
            out.append(number - last << 4 | kind)
        else:
            out.append(kind)
            _write_number(out, number)
        last = number
        if kind not in {TRUE, FALSE}:
            _write_value(out, kind, value)
    out.append(0)


def _write_unsigned(out: bytearray, value: int) -> None:
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def _write_number(out: bytearray, value: int) -> None:
    _write_unsigned(out, value << 1 if value >= 0 else (-value << 1) - 1)


def _write_value(out: bytearray, kind: int, value: Any) -> None:
    if kind in _NUMBERS:
        _write_number(out, value)
    elif kind in {TRUE, FALSE, BYTE}:
        out.append(value)
    elif kind == DOUBLE:
        out += struct.pack("<d", value)
    elif kind == BINARY:
        _write_unsigned(out, len(value))
        out += value
    elif kind == STRUCT:
        _write_structure(out, value)
    else:
        _write_list(out, value)


def _write_list(out: bytearray, items: Items) -> None:
    count = len(items.values)
    out.append(min(count, 15) << 4 | items.kind)
    if count >= 15:
        _write_unsigned(out, count)
    for value in items.values:
        _write_value(out, items.kind, value)
