"""Programs that are named as readers of a format, and are no part of this package, read its files."""

import numpy as np
import pytest

from datastore_lab import dtypes, open_store
from datastore_lab.records import ArrayInfo, Stat
from datastore_lab.registry import ENGINES

COUNT = 300
ROWS = {
    "time": np.datetime64("2026-01-01", "us") + np.arange(COUNT) * 1_000_003,
    "v": np.linspace(0, 1, COUNT),
    "n": np.arange(COUNT, dtype="i4"),
    "on": np.arange(COUNT) % 3 == 0,
    "text": np.array([f'row, "{number}" µ' for number in range(COUNT)], np.dtypes.StringDType()),
    "m": np.arange(2 * COUNT, dtype="f8").reshape(COUNT, 2),
}
FILES = {
    "parquet-folder": ("lab.parquets", "lab.parquets/daq/record.parquet"),
    "parquet": ("run.parquet", "run.daq.parquet"),
    "arrow": ("run.arrow", "run.daq.arrow"),
    "csv": ("run.csv", "run.daq.csv"),
}


def record(path):
    infos = {
        name: ArrayInfo(dtypes.name(rows.dtype), (0, *rows.shape[1:]), ("time", "axis")[: rows.ndim], 0, None)
        for name, rows in ROWS.items()
    }
    with open_store(path) as store:
        stream = store.append("daq", Stat("stream", infos, {"rate": 1.0}))
        for start in range(0, COUNT, 100):
            stream.extend({name: rows[start : start + 100] for name, rows in ROWS.items()})
            stream.flush()
        stream.close({})


def with_polars(path):
    polars = pytest.importorskip("polars")
    read = {".parquet": polars.read_parquet, ".arrow": polars.read_ipc, ".csv": polars.read_csv}
    frame = read[path.suffix](path)
    if path.suffix == ".csv":
        frame = frame.with_columns(polars.col("time").str.to_datetime(time_unit="us"))
    frame = frame.with_columns(polars.col("time").dt.epoch("us"))
    return {name: frame[name].to_list() for name in frame.columns}


def with_duckdb(path):
    duckdb = pytest.importorskip("duckdb")
    table = duckdb.sql(f"select * replace (epoch_us(time) as time) from '{path}'")
    return dict(zip(table.columns, map(list, zip(*table.fetchall(), strict=True)), strict=True))


READERS = [("Polars", with_polars), ("DuckDB", with_duckdb)]
CASES = [
    pytest.param(engine, read, id=f"{engine}-{label}")
    for engine in FILES
    for label, read in READERS
    if label in ENGINES.load(engine).traits.opens_in or engine == "csv"
]


@pytest.mark.parametrize(("engine", "read"), CASES)
def test_named_programs_read_the_values_that_were_written(engine, read, tmp_path):
    name, file = FILES[engine]
    record(tmp_path / name)
    found = read(tmp_path / file)
    for array, rows in ROWS.items():
        if rows.ndim == 2 and engine == "csv":
            got = np.stack([found[f"{array}[{column}]"] for column in range(2)], axis=1)
        else:
            got = np.array(found[array])
        expected = rows.astype("i8") if rows.dtype.kind == "M" else np.array(rows.tolist())
        assert np.array_equal(got, expected), array
