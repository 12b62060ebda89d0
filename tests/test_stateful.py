"""Any sequence of changes on each engine, against a plain mapping, with reopening and crashes."""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from datastore_lab.engines.hdf5 import HDF5Engine
from datastore_lab.engines.memory import MemoryEngine
from datastore_lab.engines.parquet import ParquetFolderEngine
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


MACHINES = [MemoryMachine, HDF5Machine, ZarrMachine, ParquetFolderMachine]


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
