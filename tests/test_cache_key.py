"""The key: every trap, in fresh processes, on every engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cache_runner
import pytest
from cache_trap_suite import MISS, REFUSED, TRAPS

from datastore_lab import open_store

pytestmark = pytest.mark.timeout(1800)  # (all steps of all traps are run for the first test)
SUFFIXES = {"hdf5": "h5", "zarr": "zarr", "sqlite": "sqlite"}
STEPS = max(map(len, TRAPS.values()))


@pytest.fixture(scope="module", params=["memory", "hdf5", "zarr", "sqlite"])
def outcomes(request, tmp_path_factory):
    """Run all steps of all traps; gives ``{trap: [(value, counts), ...]}``."""
    folder = tmp_path_factory.mktemp("traps")
    found: dict[str, list] = {name: [] for name in TRAPS}
    with open_store("memory://") as memory:
        for number in range(STEPS):
            if request.param == "memory":
                results = cache_runner.run(memory, number, folder)
            else:
                results = _fresh(folder / f"cache.{SUFFIXES[request.param]}", number, folder)
            for name, result in results.items():
                found[name].append(result)
    return found


def _fresh(store: Path, number: int, folder: Path) -> dict:
    path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONHASHSEED": str(number + 1), "PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, "-W", "error", cache_runner.__file__, str(store), str(number), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("trap", TRAPS)
def test_trap(outcomes, trap):
    for number, (step, (value, (hits, misses))) in enumerate(zip(TRAPS[trap], outcomes[trap], strict=True)):
        if step.expected == REFUSED:
            assert value.startswith("NotStorable(")
            assert step.value in value
            continue
        assert value == repr(step.value), f"step {number} gave a wrong value"
        assert (misses > 0) == (step.expected == MISS), f"step {number}: {hits} hits, {misses} misses"
