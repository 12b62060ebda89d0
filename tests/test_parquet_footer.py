"""Row groups that were made each by itself, and the footer that makes one file of them."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datastore_lab.engines.parquet_file import ParquetFileEngine, thrift
from datastore_lab.records import ArrayInfo, Stat


def footer_of(raw):
    start = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    return raw[start:-8]


@pytest.mark.parametrize("groups", [0, 1, 14, 15, 200])
def test_a_footer_of_arrow_is_written_as_it_was_read(groups):
    table = pa.table(
        {"x": np.arange(10 * groups) * 0.5, "t": ["a"] * 10 * groups, "b": [True, None] * 5 * groups},
        metadata={"k": "µ" * 200},
    )
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=10, write_page_index=True)
    raw = footer_of(file.getvalue())
    assert thrift.write(thrift.read(raw)) == raw


@pytest.mark.parametrize("raw", [b"\x15", b"\x18\x7f", b"\x1d\x00", b"\x00" * 0])
def test_what_is_no_footer_is_refused(raw):
    with pytest.raises((ValueError, IndexError)):
        thrift.read(raw)


def test_every_reader_finds_the_rows_of_all_groups(tmp_path):
    count = 300_000
    rng = np.random.default_rng(0)
    rows = {
        "time": np.cumsum(rng.integers(1, 99, count)).view("M8[ns]"),
        "x": rng.normal(size=count),
        "n": rng.integers(-(2**63), 2**63 - 1, count),
        "v": rng.normal(size=(count, 3)).astype("f4"),
    }
    spec = {name: ArrayInfo(array.dtype.str, (0, *array.shape[1:]), ("time", "c")[: array.ndim], 0, None)
            for name, array in rows.items()}  # fmt: skip
    engine = ParquetFileEngine(tmp_path / "run.parquet")
    appender = engine.append(("s",), Stat("stream", spec, {}))
    for start in range(0, count, 70_001):  # a flush ends a batch, and no row group
        appender.extend({name: array[start : start + 70_001] for name, array in rows.items()})
        appender.flush()
    appender.close({})
    path = tmp_path / "run.s.parquet"
    found = pq.read_metadata(path)
    assert {found.row_group(index).num_rows for index in range(found.num_row_groups - 1)} == {65_536}
    for index in range(1, found.num_row_groups):
        before, here = found.row_group(index - 1), found.row_group(index)
        last = before.column(before.num_columns - 1)
        assert here.column(0).data_page_offset == last.data_page_offset + last.total_compressed_size
    by_arrow = pq.read_table(path, page_checksum_verification=True)
    by_polars = pl.read_parquet(path)
    for name in ("x", "n"):
        assert np.array_equal(by_arrow[name].to_numpy(), rows[name])
        assert np.array_equal(by_polars[name].to_numpy(), rows[name])
    for name, array in rows.items():
        assert np.array_equal(engine.read(("s",), name), array)
    assert list(engine.verify()) == []
    engine.close()
