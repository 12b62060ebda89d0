"""Copying between stores: every pair of engines, interruptions, damage, and what comes with it."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from copies import EVERY, MEMORY, ONLY_APPENDED, assert_copied, fill, opened, stream
from engines import WHOLE

from datastore_lab import copy_store, open_store
from datastore_lab.errors import (
    AlreadyExists,
    BadKey,
    Corrupt,
    Foreign,
    NotFound,
    NotStorable,
    ReadOnly,
)
from datastore_lab.records import GROUP, Record
from datastore_lab.testing import samples

PAIRS_WITH_MEMORY = [
    pytest.param(
        one,
        other,
        id=f"{one.engine}-{other.engine}",
        marks=[] if MEMORY in (one, other) else [pytest.mark.slow],
    )
    for one, other in itertools.product(EVERY, repeat=2)
]


PAIRS = [
    pytest.param(one, other, id=f"{one.engine}-{other.engine}")
    for one, other in itertools.product(EVERY, repeat=2)
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_everything_is_copied_between_every_pair_of_engines(one, other, tmp_path):
    with opened(one, tmp_path / "source") as source, opened(other, tmp_path / "target") as target:
        fill(source)
        report = copy_store(source, target)
        assert report.complete, report
        assert (report.copied, report.kept, report.verified) == (len(source), 0, True)
        assert_copied(source, target)
        for key in ((), "arrays", "gone"):
            assert target.attrs(key) == source.attrs(key)
        assert target.stat("gone").kind == GROUP
        assert target.verify() == []
        assert "lab_copying" not in list(target.children())


@pytest.mark.parametrize(("one", "other"), PAIRS_WITH_MEMORY)
def test_large_items_go_in_blocks_and_are_the_same(one, other, tmp_path, small_blocks):
    with opened(one, tmp_path / "source") as source, opened(other, tmp_path / "target") as target:
        fill(source)
        source["large"] = np.random.default_rng(1).random((100, 7))
        source["large/child"] = "stays below"
        source["wide"] = np.arange(3000).reshape(2, 1500)
        source.write(
            "uneven", Record("array", {"a": np.arange(100), "b": np.arange(90.0)}, {}, {"a": ("t",)})
        )
        source["texts"] = np.array(["x" * n for n in range(100)], np.dtypes.StringDType())
        report = copy_store(source, target)
        assert report.complete, report
        assert_copied(source, target)
        assert "lab_copying" not in list(target.children())
        source["large"] = np.ones((90, 7))
        again = copy_store(source, target, overwrite=True)
        assert (again.copied, again.problems) == (1, ())
        assert_copied(source, target)


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.engine)
def test_every_type_of_array_is_streamed_as_it_is(case, tmp_path, small_blocks):
    with opened(MEMORY, tmp_path) as source, opened(case, tmp_path / "target") as target:
        for dtype in samples.DTYPES:
            for number, shape in enumerate([(), (60,), (2, 300)]):
                made = Record("array", {"data": samples.array(dtype, shape, number)}, {}, {})
                source.write((str(dtype), f"a{number}"), made)
        assert copy_store(source, target).complete
        assert_copied(source, target)


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.engine)
def test_copying_again_copies_nothing_and_overwrites_what_differs(case, tmp_path):
    with opened(MEMORY, tmp_path) as source, opened(case, tmp_path / "target") as target:
        fill(source)
        copy_store(source, target)
        again = copy_store(source, target)
        assert (again.copied, again.kept, again.problems) == (0, len(source), ())
        target["values/mixed"] = "another"
        target.update((), {"title": "ours"})
        kept = copy_store(source, target)
        assert {problem.key for problem in kept.problems} == {("values", "mixed"), ()}
        assert target["values/mixed"] == "another"
        over = copy_store(source, target, overwrite=True)
        assert (over.copied, over.problems) == (1, ())
        assert_copied(source, target)
        assert target.attrs()["title"] == "bench"


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.engine)
def test_groups_of_stores_are_copied_and_never_into_themselves(case, tmp_path):
    with opened(case, tmp_path / "source") as store:
        store["run/a"] = 1
        store["run/b/c"] = 2
        store.update("run", {"sample": "7b"})
        assert copy_store(store.group("run"), store.group("backup/run")).copied == 2
        assert dict(store.group("backup")) == {"run/a": 1, "run/b/c": 2}
        assert store.attrs("backup/run") == {"sample": "7b"}
        for target in (store, store.group("run"), store.group("run/b")):
            with pytest.raises(BadKey, match="itself"):
                copy_store(store.group("run"), target)
        with pytest.raises(NotFound):
            copy_store(store.group("absent"), store.group("x"))
        store["v"] = np.arange(3)
        assert copy_store(store.group("v"), store.group("w")).copied == 1
        assert np.array_equal(store["w"], np.arange(3))


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.engine)
def test_what_a_user_named_like_an_unfinished_item_is_kept(case, tmp_path, small_blocks):
    place = "memory://" if case is MEMORY else tmp_path / case.name
    with open_store("memory://") as source, open_store(place) as target:
        target["lab_copying"] = target["lab_copying/below"] = "mine"
        source["a/lab_copying/too"] = source["small"] = 1
        assert copy_store(source, target).complete
        source["large"] = np.arange(1000.0)
        source["lab_copying_2"] = np.arange(2000.0)
        source["lab_copying_3/large"] = np.arange(3000.0)
        for _ in range(2):
            assert copy_store(source, target, overwrite=True).complete
            assert target["lab_copying"] == target["lab_copying/below"] == "mine"
            assert target["a/lab_copying/too"] == 1
            for key in ["large", "lab_copying_2", "lab_copying_3/large"]:
                assert target[key].tolist() == source[key].tolist()
            assert set(target) == {*source, "lab_copying", "lab_copying/below"}


def test_a_copy_for_which_no_name_is_left_says_so(small_blocks):
    with open_store("memory://") as source, open_store("memory://") as target:
        source["large"] = np.arange(1000.0)
        names = ["lab_copying", *(f"lab_copying_{number}" for number in range(2, 10))]
        for name in names:
            target[name] = "mine"
        with pytest.raises(AlreadyExists, match="move one of them to another name"):
            copy_store(source, target)
        target.move("lab_copying_5", "other")
        assert copy_store(source, target).complete
        assert set(target) == {*names, "other", "large"} - {"lab_copying_5"}


def test_a_copy_that_is_refused_leaves_another_that_runs_alone(small_blocks):
    with open_store("memory://") as source, open_store("memory://") as target:
        source["large"] = np.arange(1000.0)
        running = {"lab_unfinished": "of another copy"}
        begun = []

        def begin_another(progress):
            if progress.phase == "copying" and not begun:
                begun.append(1)
                target.write("lab_copying", Record("array", {"data": np.arange(3)}, running, {}))

        with pytest.raises(AlreadyExists, match="still running"):
            copy_store(source, target, progress=begin_another)
        assert target.record("lab_copying").arrays["data"].tolist() == [0, 1, 2]
        assert copy_store(source, target).complete
        assert list(target) == ["large"]


def test_no_target_is_made_for_a_source_that_is_not_there(tmp_path):
    with pytest.raises(NotFound, match="absent"):
        copy_store(tmp_path / "absent.h5", tmp_path / "new.zarr")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_never_copied_into_itself_by_another_name(tmp_path):
    with open_store(tmp_path / "lab.h5") as store:
        store["a"] = 1
    os.link(tmp_path / "lab.h5", tmp_path / "hard.h5")
    (tmp_path / "soft.h5").symlink_to("lab.h5")
    for other in ("hard.h5", "soft.h5"):
        with pytest.raises(BadKey, match="into itself"):
            copy_store(tmp_path / "lab.h5", tmp_path / other)


def test_paths_are_opened_and_closed(tmp_path):
    with open_store(tmp_path / "a.h5") as store:
        store["x"] = 1
    assert copy_store(tmp_path / "a.h5", tmp_path / "b.zarr").copied == 1
    with open_store(tmp_path / "b.zarr", "r") as store:
        assert store["x"] == 1
    with pytest.raises(BadKey, match="itself"):
        copy_store(tmp_path / "a.h5", tmp_path / "a.h5")
    with open_store(tmp_path / "b.zarr", "r") as reader, pytest.raises(ReadOnly, match=r"b\.zarr"):
        copy_store(tmp_path / "a.h5", reader)


# -- files that are only appended to -------------------------------------------------------------------


@pytest.mark.parametrize("case", ONLY_APPENDED, ids=lambda case: case.engine)
def test_streams_go_into_files_that_are_only_appended_to(case, tmp_path, small_blocks):
    with opened(MEMORY, tmp_path) as source, opened(case, tmp_path / "target") as target:
        stream(source, "log", 100)
        assert copy_store(source, target).complete
        assert_copied(source, target)
        again = copy_store(source, target, overwrite=True)
        assert (again.copied, again.kept, again.problems) == (0, 1, ())
        source.delete("log")
        stream(source, "log", 5)
        assert [problem.key for problem in copy_store(source, target).problems] == [("log",)]
        with pytest.raises(ReadOnly, match="log"):
            copy_store(source, target, overwrite=True)
    with opened(case, tmp_path / "target", "r") as back, open_store(tmp_path / "back.h5") as target:
        assert copy_store(back, target).complete
        assert_copied(back, target)


@pytest.mark.parametrize("case", ONLY_APPENDED, ids=lambda case: case.engine)
def test_what_can_not_be_appended_is_named_before_anything_is_written(case, tmp_path):
    with opened(MEMORY, tmp_path) as source, opened(case, tmp_path / "target") as target:
        stream(source, "log", 10)
        source["scalar"] = np.float64(1)
        source.write("uneven", Record("array", {"a": np.arange(2), "b": np.arange(3)}, {}, {}))
        source.update((), {"title": "no place for it"})
        with pytest.raises(NotStorable, match=r"'scalar'.*'uneven'.*attributes"):
            copy_store(source, target)
        assert list(target) == []


# -- what is wrong with the source ---------------------------------------------------------------------


def test_arrays_of_a_root_go_to_the_group_root(tmp_path):
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = np.arange(3)
        file["group/y"] = np.ones((2, 2))
        file.attrs["title"] = "theirs"
    report = copy_store(tmp_path / "foreign.h5", tmp_path / "copy.zarr")
    assert (report.root, report.problems) == (("root",), ())
    with open_store(tmp_path / "copy.zarr", "r") as copy:
        assert copy.record("root").arrays["x"].tolist() == [0, 1, 2]
        assert copy.record("group").arrays["y"].shape == (2, 2)
        assert copy.attrs("root") == {"title": "theirs"}
    with h5py.File(tmp_path / "foreign.h5", "a") as file:
        file["root/z"] = 1
    with pytest.raises(BadKey, match="root"):
        copy_store(tmp_path / "foreign.h5", tmp_path / "other.zarr")


def test_what_is_not_read_of_foreign_files_is_never_left_out_silently(tmp_path):
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["g/x"] = np.arange(3)
        file["g/link"] = h5py.ExternalLink("secret.h5", "/x")
    with pytest.raises(Foreign, match="link"):
        copy_store(tmp_path / "foreign.h5", tmp_path / "copy.h5")
    report = copy_store(tmp_path / "foreign.h5", tmp_path / "copy.h5", skip_damaged=True)
    assert [(problem.key, problem.name) for problem in report.skipped] == [(("g",), "link")]
    assert (report.copied, report.complete, report.problems) == (1, False, ())


def _flip(path: Path, needle: bytes) -> None:
    """Flip one bit of what is found in one of the files of a store."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    (damaged,) = [file for file in files if needle in file.read_bytes()]
    data = bytearray(damaged.read_bytes())
    data[data.index(needle)] ^= 1
    damaged.write_bytes(bytes(data))


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("other", EVERY, ids=lambda case: case.engine)
def test_a_damaged_item_stops_the_copy_or_is_left_out(other, large, tmp_path, request):
    bad = np.random.default_rng(2).random(1000)
    with open_store(tmp_path / "lab.zarr") as store:
        store["a"], store["bad"], store["c"] = np.arange(3), bad, "text"
    _flip(tmp_path / "lab.zarr", bad.tobytes()[6000:6016])
    with open_store(tmp_path / "lab.zarr", "r") as source:
        assert {problem.key for problem in source.verify()} == {("bad",)}
        if large:
            request.getfixturevalue("small_blocks")
        with opened(other, tmp_path / "target") as target:
            with pytest.raises(Corrupt, match="bad"):
                copy_store(source, target)
            report = copy_store(source, target, skip_damaged=True)
            assert [problem.key for problem in report.skipped] == [("bad",)]
            assert (report.complete, report.problems) == (False, ())
            assert sorted(target) == ["a", "c"]
            assert np.array_equal(target["a"], np.arange(3))


@pytest.mark.parametrize("one", WHOLE, ids=lambda case: case.engine)
def test_a_source_that_changes_meanwhile_is_reported(one, tmp_path):
    with opened(one, tmp_path / "source") as source, opened(MEMORY, tmp_path) as target:
        source["a"], source["b"] = np.arange(5), 1

        def change(progress: Any) -> None:
            if progress.phase == "verifying" and "late" not in source:
                source["a"] = np.ones(3)
                source["late"] = 2

        report = copy_store(source, target, progress=change)
        assert {problem.key for problem in report.problems} == {("a",), ()}
        assert any("was changed while" in problem.what for problem in report.problems)
        assert copy_store(source, target, overwrite=True).complete
        assert_copied(source, target)


def test_progress_counts_items_and_bytes_up_to_all(tmp_path, small_blocks):
    seen: list[Any] = []
    with opened(MEMORY, tmp_path) as source, opened(MEMORY, tmp_path) as target:
        fill(source)
        source["large"] = np.zeros(1000)
        copy_store(source, target, progress=seen.append)
    for phase in ("copying", "verifying"):
        mine = [progress for progress in seen if progress.phase == phase]
        assert [progress.nbytes for progress in mine] == sorted(progress.nbytes for progress in mine)
        assert mine[-1].items == mine[-1].of_items
        assert mine[-1].nbytes == mine[-1].of_nbytes > 8000
    assert len([progress for progress in seen if progress.nbytes % 8000 > 0]) > 20
