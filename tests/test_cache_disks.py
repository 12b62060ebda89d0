"""A cache on a disk that fills up or turns read-only: values are right, and what was kept stays."""

import sys
import warnings

import numpy as np
import pytest
from engines import WHOLE

from datastore_lab.cache import CacheWarning, cached
from datastore_lab.testing import failing
from datastore_lab.testing.processes import all_well, judge_all


def noise(number):
    return np.random.default_rng(number).integers(0, 2**62, 1 << 17)


def right(function, number):
    """Call, and give what was warned about."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert np.array_equal(function(number), noise(number))
    assert all(issubclass(warning.category, CacheWarning) for warning in seen), seen
    return [str(warning.message) for warning in seen]


def on_a_disk(case, folder):
    failing.mount(folder, "12m")
    return lambda trouble: trouble(cached(folder / case.name, deps="none")(noise), folder)


def fills_up(function, folder):
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(5 << 20))
    kept = []
    for number in range(100):
        if said := right(function, number):
            assert "is returned, but could not be written" in said[0]
            break
        kept.append(number)
    assert 0 < len(kept) < 12
    for number in kept:
        assert function.is_cached(number)
        assert right(function, number) == []
    ballast.unlink()
    assert right(function, 50) == []
    assert function.is_cached(50)
    assert function.stats()["entries"] == len(kept) + 1


def turns_read_only(function, folder):
    assert right(function, 1) == []
    function._core.shelf.place.close()
    failing.make_read_only(folder)
    hits = function._core.counts["hits"]
    assert right(function, 1) == []
    assert function._core.counts["hits"] == hits + 1
    assert len(right(function, 2)) == 1
    assert right(function, 3) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs the mounts of Linux")
@pytest.mark.parametrize("trouble", [fills_up, turns_read_only])
@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.engine)
def test_a_disk(case, trouble, tmp_path):
    assert all_well(judge_all(on_a_disk, (case, tmp_path), [trouble], workers=1)) == 1
