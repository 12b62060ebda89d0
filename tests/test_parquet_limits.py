"""Parquet files that unpack into much more than they are."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datastore_lab.engines.parquet_file import ParquetFileEngine
from datastore_lab.engines.parquet_file import seal as sealing
from datastore_lab.errors import EngineError
from datastore_lab.records import ArrayInfo, Stat


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()], ids=str)
def test_one_long_text_in_many_rows_is_not_unpacked(tmp_path, kind):
    rows = pa.array(np.zeros(100_000, "i4"))
    coded = pa.DictionaryArray.from_arrays(rows, pa.array(["x" * 1_000_000], kind))
    file = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"t": coded, "n": rows}), file, store_schema=False)
    assert file.stat().st_size < 3_000_000
    engine = ParquetFileEngine(file, "r")
    with pytest.raises(EngineError, match="unpacks into 100000000000"):
        engine.read((), "t", (slice(0, 1),))
    assert engine.read((), "n", (slice(0, 2),)).tolist() == [0, 0]


def test_front_coded_text_is_counted_with_what_it_repeats(tmp_path):
    texts = ["x" * 1_000_000 + str(number) for number in range(1000)]
    file = tmp_path / "bomb.parquet"
    encoding = {"t": "DELTA_BYTE_ARRAY"}
    pq.write_table(pa.table({"t": texts}), file, use_dictionary=False, column_encoding=encoding)
    assert file.stat().st_size < 3_000_000
    engine = ParquetFileEngine(file, "r")
    with pytest.raises(EngineError, match="unpacks into"):
        engine.read((), "t", (slice(0, 1),))


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_BYTE_ARRAY", None])
def test_text_of_others_reads_in_every_encoding(tmp_path, encoding):
    texts = ["", "a", "µ", "abc", "abd"] * 200
    file = tmp_path / "run.parquet"
    if encoding:
        pq.write_table(pa.table({"t": texts}), file, use_dictionary=False, column_encoding={"t": encoding})
    else:
        pq.write_table(pa.table({"t": texts}), file)
    assert ParquetFileEngine(file, "r").read((), "t").tolist() == texts


def test_a_few_rows_need_one_small_row_group(tmp_path):
    engine = ParquetFileEngine(tmp_path / "run.parquet", durability="process")
    info = ArrayInfo("<f8", (0,), ("time",), 0, None)
    appender = engine.append(("s",), Stat("stream", {"x": info}, {}))
    appender.extend({"x": np.arange(1_000_000.0)})
    appender.close({})
    groups = pq.ParquetFile(tmp_path / "run.s.parquet").metadata
    sizes = {groups.row_group(index).num_rows * 8 for index in range(groups.num_row_groups)}
    assert sizes == {sealing._GROUP_BYTES}
    assert engine.read(("s",), "x", (slice(499_998, 500_002),)).tolist() == [499998, 499999, 500000, 500001]
