"""Row groups of Parquet, made each by itself, in threads, and put into one file."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from datastore_lab import packing
from datastore_lab.engines.parquet_file import thrift

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAGIC = b"PAR1"
_ROWS, _GROUPS, _PAIRS = 3, 4, 5  # of the footer
_COLUMNS, _GROUP_AT = 1, 5  # of a row group
_COLUMN_AT, _COLUMN = 2, 3  # of a column of one
_PAGES_AT = (9, 10, 11)  # of what is said of a column


class Groups:
    """A Parquet file that is made of row groups in their order.

    Parameters
    ----------
    schema : pyarrow schema
    options : dict
        Of `pyarrow.parquet.ParquetWriter`.
    """

    def __init__(self, schema: Any, options: dict[str, Any]) -> None:
        self._schema, self._options = schema, options
        self._footer = self._made(None)[1]
        self._described: list[Any] = []

    def bodies(self, tables: Iterable[Any]) -> Iterator[memoryview]:
        """Yield the bytes of a file up to its footer; each table is a row group."""
        at = len(MAGIC)
        yield memoryview(MAGIC)
        for body, footer in self._in_turn(tables):
            yield body
            found = footer[_GROUPS].value.values
            for group in found:
                _shift(group, at - len(MAGIC))
            self._described += found
            at += len(body)

    def footer(self, said: dict[str, str]) -> bytes:
        """Give what ends the file, when all before it was taken; the pairs are for its metadata."""
        footer = self._footer
        rows = sum(group[_ROWS].value for group in self._described)
        footer[_ROWS] = footer[_ROWS]._replace(value=rows)
        footer[_GROUPS] = thrift.Field(thrift.LIST, thrift.Items(thrift.STRUCT, self._described))
        pairs = [
            {number: thrift.Field(thrift.BINARY, text.encode()) for number, text in enumerate(pair, 1)}
            for pair in said.items()
        ]
        footer[_PAIRS].value.values.extend(pairs)
        raw = thrift.write(footer)
        return raw + len(raw).to_bytes(4, "little") + MAGIC

    def _in_turn(self, tables: Iterable[Any]) -> Iterator[tuple[memoryview, thrift.Fields]]:
        """Yield what is made of tables in threads, at most one table per thread being ahead."""
        begun: deque[Any] = deque()
        for table in tables:
            begun.append(packing.begin(self._made, table))
            if len(begun) > (os.cpu_count() or 1):
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()

    def _made(self, table: Any) -> tuple[memoryview, thrift.Fields]:
        """Make a file in memory of a table: its body, and its footer."""
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, self._schema, **self._options) as writer:
            if table is not None:
                writer.write_table(table, row_group_size=table.num_rows)
        raw = memoryview(sink.getvalue())
        end = len(raw) - 8
        start = end - int.from_bytes(raw[end : end + 4], "little")
        return raw[len(MAGIC) : start], thrift.read(raw[start:end])


def _shift(group: thrift.Fields, by: int) -> None:
    """Say that a row group lies further behind."""
    _move(group, _GROUP_AT, by)
    for column in group[_COLUMNS].value.values:
        _move(column, _COLUMN_AT, by)
        for number in _PAGES_AT:
            _move(column[_COLUMN].value, number, by)


def _move(fields: thrift.Fields, number: int, by: int) -> None:
    found = fields.get(number)
    if found is not None and found.value:  # (0 says that it is not there)
        fields[number] = found._replace(value=found.value + by)
