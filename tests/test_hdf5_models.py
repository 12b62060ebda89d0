"""Small records made by copying a model are those that would be made piece by piece."""

from __future__ import annotations

import itertools

import h5py
import numpy as np
import pytest

from datastore_lab import integrity
from datastore_lab.engines.hdf5 import HDF5Engine, models
from datastore_lab.records import Record
from datastore_lab.testing.equality import assert_same_array, assert_same_json

ARRAYS = [
    {"data": np.arange(128.0)},
    {"data": np.arange(3, dtype=">i2"), "mask": np.array([True, False, True])},
    {"data": np.array(2.5)},
    {"a,b": np.array([[1 + 2j]]), '"q"': np.array([b"ab", b""], "S3"), "é": np.zeros((2, 0, 3))},
    {"data": np.arange(1024)},
    {"data": np.arange(1025)},
    {"data": np.arange("2020", "2023", dtype="M8[Y]")},
    {"data": np.array(["text", "ü"])},
    {},
    {name: np.full(3, ord(name)) for name in "abcd"},
    {name: np.full(3, ord(name)) for name in "abcde"},
]
METAS = [{}, {"unit": "V", "list": [1, None]}, {"lab_attrs": {"data": {"unit": "V"}}}]


@pytest.fixture(params=range(len(METAS)), ids=["bare", "attributes", "attributes of arrays"])
def records(request):
    """Three records of each form, each with other values, mixed."""
    made = []
    for turn in range(3):
        for number, arrays in enumerate(ARRAYS):
            own = {name: turned(array, turn) for name, array in arrays.items()}
            meta = {**METAS[request.param], **({"turn": turn} if request.param else {})}
            made.append(((f"group {turn % 2}", f"{number} {turn}"), Record("array", own, meta, {})))
    return made


def turned(array, turn):
    return np.roll(array, turn) if array.dtype.kind != "b" else array ^ bool(turn % 2)


def fill(path, records):
    engine = HDF5Engine(path)
    with engine.transaction():
        for key, record in records:
            engine.write(key, record)
        for key, record in records:
            engine.write((*key, "below"), record)
    made = any(engine._writer.models._known.values())
    engine.close()
    return made


def seen(path):
    """Say all that another program sees."""
    found = {}

    def note(name, node):
        plist, held = node.id.get_create_plist(), {key: str(value) for key, value in node.attrs.items()}
        found[name] = [held, list(node) if isinstance(node, h5py.Group) else node[()].tolist()]
        if isinstance(node, h5py.Dataset):
            found[name] += [node.dtype, node.shape, plist.get_layout()]
        else:
            found[name] += [plist.get_attr_creation_order(), plist.get_link_creation_order()]

    with h5py.File(path) as file:
        file.visititems(note)
    return found


def test_a_copy_of_a_model_is_what_is_made_piece_by_piece(tmp_path, records, monkeypatch):
    assert fill(tmp_path / "copied.h5", records) == ("lab_attrs" not in records[0][1].meta)
    monkeypatch.setattr(models, "_form", lambda *_: None)
    assert not fill(tmp_path / "made.h5", records)
    assert seen(tmp_path / "copied.h5") == seen(tmp_path / "made.h5")


def test_what_was_copied_is_read_as_it_was_written(tmp_path, records):
    fill(tmp_path / "store.h5", records)
    engine = HDF5Engine(tmp_path / "store.h5", "r")
    assert list(engine.verify()) == []
    for key, record in records:
        stat = engine.stat(key)
        assert_same_json(stat.meta, record.meta)
        assert list(stat.arrays) == list(record.arrays)
        for name, array in record.arrays.items():
            assert_same_array(engine.read(key, name), array)
    engine.close()


def test_a_transaction_that_fails_takes_nothing_from_the_models(tmp_path):
    engine = HDF5Engine(tmp_path / "store.h5")

    def put(first):
        with engine.transaction():
            for number in range(first, first + 5):
                engine.write((str(number),), Record("array", {"data": np.full(9, number)}, {}, {}))
            assert first != 5

    put(0)
    with pytest.raises(AssertionError):
        put(5)
    engine.compact()
    put(10)
    assert list(map(int, engine.children())) == [*range(5), *range(10, 15)]
    assert engine.read(("12",), "data").tolist() == [12] * 9
    assert list(engine.verify()) == []
    engine.close()


def test_more_forms_than_are_remembered(tmp_path):
    engine = HDF5Engine(tmp_path / "store.h5")
    with engine.transaction():
        for turn, size in itertools.product(range(3), range(1, models._MOST + 9)):
            engine.write((f"{size} {turn}",), Record("array", {"data": np.full(size, turn)}, {}, {}))
    assert list(engine.verify()) == []
    assert engine.read(("70 2",), "data").tolist() == [2] * 70
    engine.close()


def test_no_copy_tells_when_its_model_was_made(tmp_path):
    engine = HDF5Engine(tmp_path / "store.h5")
    for number in range(3):
        engine.write((str(number),), Record("array", {"data": np.full(9, number)}, {}, {}))
    engine.close()
    with h5py.File(tmp_path / "store.h5") as file:
        assert not file["2/data"].id.get_create_plist().get_obj_track_times()
        assert integrity.SEAL in file["2"].attrs
