"""The engines of this package, each held against the same suite."""

import pytest
import servers

from datastore_lab.engines.arrow import ArrowEngine
from datastore_lab.engines.csv import CSVEngine
from datastore_lab.engines.hdf5 import HDF5Engine
from datastore_lab.engines.memory import MemoryEngine
from datastore_lab.engines.parquet import ParquetFolderEngine
from datastore_lab.engines.parquet_file import ParquetFileEngine
from datastore_lab.engines.sql import SQLEngine, SQLiteEngine
from datastore_lab.engines.trials import TrialsEngine
from datastore_lab.engines.zarr import ZarrEngine
from datastore_lab.testing import samples
from datastore_lab.testing.conformance import AppendOnlyConformance, EngineConformance, FileEngineConformance


class TestMemory(EngineConformance):
    @staticmethod
    def open(path, mode):
        return MemoryEngine("", mode)


class TestHDF5(FileEngineConformance):
    name = "store.h5"

    @staticmethod
    def open(path, mode):
        return HDF5Engine(path, mode)


class TestZarr(FileEngineConformance):
    name = "store.zarr"

    @staticmethod
    def open(path, mode):
        return ZarrEngine(path, mode)


class TestParquetFolder(FileEngineConformance):
    name = "store.parquets"

    @staticmethod
    def open(path, mode):
        return ParquetFolderEngine(path, mode)


class TestSQLite(FileEngineConformance):
    name = "store.sqlite"

    @staticmethod
    def open(path, mode):
        return SQLiteEngine(path, mode)


QUICK = {"bool", ">i4", "float64", "complex128", "datetime64[ns]", "<U5", "|S7", "StringDType()"}
few_dtypes = pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(dtype, id=str(dtype), marks=[] if str(dtype) in QUICK else [pytest.mark.slow])
        for dtype in samples.DTYPES
    ],
)


class OnServer(EngineConformance):
    """What holds for a store in a database that others share; most types in the slow tests only."""

    server = ""

    @staticmethod
    def open(path, mode):
        return SQLEngine(path, mode)

    @pytest.fixture
    def path(self):
        url = servers.new_store(servers.server(self.server))
        yield url
        servers.remove_store(url)

    @few_dtypes
    def test_every_type_in_every_shape(self, engine, dtype):
        super().test_every_type_in_every_shape(engine, dtype)

    @few_dtypes
    def test_parts_of_every_type(self, engine, dtype):
        super().test_parts_of_every_type(engine, dtype)

    @few_dtypes
    def test_rows_of_every_type(self, engine, dtype):
        super().test_rows_of_every_type(engine, dtype)


class TestPostgreSQL(OnServer):
    server = servers.POSTGRESQL


class TestMariaDB(OnServer):
    server = servers.MARIADB


class TestArrow(AppendOnlyConformance):
    name = "run.arrow"

    @staticmethod
    def open(path, mode):
        return ArrowEngine(path, mode)


class TestParquetFile(AppendOnlyConformance):
    name = "run.parquet"

    @staticmethod
    def open(path, mode):
        return ParquetFileEngine(path, mode)


class TestCSV(AppendOnlyConformance):
    name = "run.csv"
    other = bytes(range(256)) * 10

    @staticmethod
    def open(path, mode):
        return CSVEngine(path, mode)


class TestTrials(AppendOnlyConformance):
    name = "experiment.trials"

    @staticmethod
    def open(path, mode):
        return TrialsEngine(path, mode)
