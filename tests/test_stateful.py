"""Any sequence of changes on each engine, against a plain mapping, with reopening and crashes."""

import hashlib

import pytest
import servers
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from datastore_lab.engines.hdf5 import HDF5Engine
from datastore_lab.engines.memory import MemoryEngine
from datastore_lab.engines.parquet import ParquetFolderEngine
from datastore_lab.engines.sql import SQLEngine, SQLiteEngine
from datastore_lab.engines.zarr import ZarrEngine
from datastore_lab.testing.stateful import QUICK, THOROUGH, EngineMachine


class MemoryMachine(EngineMachine):
    files = False

    @staticmethod
    def open(path, mode):
        return MemoryEngine("", mode)


class HDF5Machine(EngineMachine):
    name = "store.h5"

    @staticmethod
    def open(path, mode):
        return HDF5Engine(path, mode)


class ZarrMachine(EngineMachine):
    name = "store.zarr"

    @staticmethod
    def open(path, mode):
        return ZarrEngine(path, mode)


class ParquetFolderMachine(EngineMachine):
    name = "store.parquets"

    @staticmethod
    def open(path, mode):
        return ParquetFolderEngine(path, mode)


class SQLiteMachine(EngineMachine):
    name = "store.sqlite"

    @staticmethod
    def open(path, mode):
        return SQLiteEngine(path, mode)


class ServedMachine(EngineMachine):
    """On a database server: one store per temporary folder, so that it is the same one after reopening."""

    files = False
    served = True

    def teardown(self):
        url = self.engine.url
        super().teardown()
        servers.remove_store(url)


def _on(server, path, mode):
    lab = f"m{hashlib.sha256(path.encode()).hexdigest()[:24]}"
    url = servers.server(server)
    return SQLEngine(f"{url}{'&' if '?' in url else '?'}lab={lab}", mode)


class PostgreSQLMachine(ServedMachine):
    @staticmethod
    def open(path, mode):
        return _on(servers.POSTGRESQL, path, mode)


class MariaDBMachine(ServedMachine):
    @staticmethod
    def open(path, mode):
        return _on(servers.MARIADB, path, mode)


MACHINES = [
    MemoryMachine,
    HDF5Machine,
    ZarrMachine,
    ParquetFolderMachine,
    SQLiteMachine,
    PostgreSQLMachine,
    MariaDBMachine,
]


@pytest.mark.parametrize("machine", MACHINES)
def test_any_sequence_of_changes(machine):
    run_state_machine_as_test(machine, settings=QUICK)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("machine", MACHINES)
def test_many_sequences_of_changes(machine, faults):
    examples = faults.times(THOROUGH.max_examples)
    run_state_machine_as_test(machine, settings=settings(THOROUGH, max_examples=examples))
    name = machine.__name__.removesuffix("Machine")
    faults.tried(name, f"sequences of {THOROUGH.stateful_step_count} changes, reopenings, crashes", examples)
