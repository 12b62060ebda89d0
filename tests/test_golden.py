"""What version 1 wrote is read by this version, value by value."""

import sys
import tarfile

import numpy as np
import pytest
from engines import FILES
from golden import content

from datastore_lab import integrity
from datastore_lab.errors import LabError, Newer
from datastore_lab.store.mapping import Store
from datastore_lab.testing.conformance.suite import assert_record
from datastore_lab.testing.equality import assert_same, assert_same_array, assert_same_json

V1 = content.ROOT / "v1"
WRITTEN = {path.name.partition(".")[0] for path in V1.iterdir()} if V1.exists() else set()


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folders = {}
    for case in FILES:
        if case.engine not in WRITTEN:
            continue
        folders[case.engine] = tmp_path_factory.mktemp(case.engine)
        with tarfile.open(V1 / f"{case.engine}.tar.xz") as archive:
            archive.extractall(folders[case.engine], filter="data")
    return folders


@pytest.fixture
def store(case, unpacked):
    store = Store(case.open(unpacked[case.engine] / case.name, "r"))
    yield store
    store.close()


every_engine = pytest.mark.parametrize("case", FILES, ids=lambda case: case.engine)
every_whole = pytest.mark.parametrize(
    "case", [case for case in FILES if case.whole], ids=lambda case: case.engine
)


def test_every_engine_has_golden_files():
    assert {case.engine for case in FILES} == WRITTEN


@every_whole
def test_records_are_as_they_were_written(case, store):
    expected = content.records()
    for key, record in expected.items():
        assert_record(store.engine, key, record)
    objects = {("objects", family, name) for family, found in content.OBJECTS.items() for name in found}
    assert set(store.engine.keys()) == {*expected, *objects, content.STREAM}


@every_whole
def test_objects_are_as_they_were_written(case, store):
    for family, found in content.OBJECTS.items():
        for name, obj in found.items():
            assert_same(store["objects", family, name], obj, f"{family}, {name}")
    assert_same_json(store.attrs("objects"), content.ATTRIBUTES)


@every_engine
def test_streams_are_as_they_were_written(case, store):
    key = content.key_of(case)
    stat = store.engine.stat(key)
    spec, rows = content.stream(plain="frame" not in stat.arrays)
    assert stat.kind == "stream"
    assert set(stat.arrays) == set(rows)
    assert_same_json({**stat.meta}, {**spec.meta, "ended": True})
    for name, values in rows.items():
        assert_same_array(store.engine.read(key, name), np.asarray(values), name)
        assert_same_array(store.engine.read(key, name, (slice(30, 5, -7),)), values[30:5:-7], name)
        assert stat.arrays[name].dims == spec.arrays[name].dims


@every_engine
def test_nothing_is_amiss(case, store):
    assert store.verify() == []


@every_engine
def test_golden_files_are_small_and_tell_nothing(case):
    path = V1 / f"{case.engine}.tar.xz"
    assert path.stat().st_size < 200_000
    with tarfile.open(path) as archive:
        for member in archive:
            found = archive.extractfile(member).read()
            assert not [word for word in (b"/tmp/", b"/home/", b"/root/", b"/work/") if word in found], member


def files_of(folder):
    """Read all that is not empty."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    return {path: path.read_bytes() for path in files}


def in_the_future(patch):
    """Let this version take itself for the next one, wherever the number has been imported to."""
    now = integrity.LAYOUT
    for name, module in list(sys.modules.items()):
        if name.startswith("datastore_lab.") and vars(module).get("LAYOUT") == now:
            patch.setattr(module, "LAYOUT", now + 1)


@every_engine
def test_a_layout_of_the_future_is_refused(case, tmp_path, monkeypatch):
    path = tmp_path / case.name
    with monkeypatch.context() as patch:
        case.open(tmp_path / f"now-{case.name}", "w").close()  # so that all modules are there
        in_the_future(patch)
        engine = case.open(path, "w")
        content.append(engine, content.key_of(case), plain=not case.whole)
        engine.close()
        later = case.open(path, "r")
        assert later.stat(content.key_of(case)).kind == "stream"
        later.close()
    before = files_of(tmp_path)
    for mode in ("r", "r+", "a"):
        with pytest.raises(Newer, match="newer version"):
            case.open(path, mode).stat(content.key_of(case))
    if not case.whole:  # such a store is one file per stream, so that the others can still be read
        engine = case.open(path, "a")
        with pytest.raises(LabError):
            content.append(engine, content.key_of(case), plain=True)
        engine.close()
    after = files_of(tmp_path)
    assert {name: after.get(name) for name in before} == before
