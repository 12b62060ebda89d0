"""Room for large pieces is asked for in one step, and nothing depends on the answer."""

from pathlib import Path

import numpy as np
import pytest

from datastore_lab import linux, open_store

LARGE = np.random.default_rng(0).standard_normal(1_000_000)


@pytest.mark.parametrize("name", ["a.h5", "a.zarr"])
def test_a_large_item_is_written_where_no_room_can_be_asked_for(tmp_path, name, monkeypatch):
    asked = []
    monkeypatch.setattr(linux, "_fallocate", lambda *given: asked.append(given) or -1)
    with open_store(tmp_path / name, "w") as store:
        store["a"] = LARGE
        assert np.array_equal(store["a"], LARGE)
    assert len(asked) == 1


@pytest.mark.parametrize("name", ["a.h5", "a.zarr"])
def test_nothing_is_left_over_of_the_room_that_was_asked_for(tmp_path, name):
    with open_store(tmp_path / name, "w") as store:
        store["a"] = LARGE
    sizes = [path.stat().st_size for path in [tmp_path / name, *tmp_path.rglob("*")] if path.is_file()]
    assert LARGE.nbytes < max(sizes) < LARGE.nbytes + 50_000


def test_a_piece_in_the_middle_lies_where_it_was_written(tmp_path: Path):
    content = b"x" * (2 << 20)
    with (tmp_path / "a").open("wb+") as file:
        linux.reserve(file.fileno(), 5, len(content))
        file.seek(5)
        file.write(content)
    assert (tmp_path / "a").read_bytes() == bytes(5) + content
