"""Attributes of other programs: those whose references all lead to one long text are shown, but not read."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest

from datastore_lab.engines.hdf5 import HDF5Engine
from datastore_lab.errors import Foreign

TEXT, NUMBERS = h5py.string_dtype(), h5py.vlen_dtype("f8")
PAIR = np.dtype([("n", "i2"), ("text", TEXT), ("z", "f8"), ("more", TEXT, (3,))])
SIZE = 4 << 20
OTHER = "y" * 23


def texts(count):
    return np.full(count, OTHER, TEXT)


def pairs(count):
    held = np.zeros(count, PAIR)
    held["text"], held["more"] = OTHER, OTHER
    return held


def numbers(count):
    held = np.empty(count, NUMBERS)
    held[:] = [np.arange(23.0)] * count
    return held


CASES = {
    "version 1": ("earliest", 0, texts(1000)),
    "version 1, continued": ("earliest", 30, texts(500)),
    "version 2": ("latest", 0, texts(1000)),
    "version 2, continued": ("latest", 5, texts(1000)),
    "a type with a name": ("earliest", 0, texts(500)),
    "a type with a name, dense": ("latest", 30, texts(500)),
    "dense, managed": ("latest", 30, texts(200)),
    "dense, huge": ("latest", 30, texts(20_000)),
    "compound and array": ("earliest", 0, pairs(300)),
    "compound and array, dense": ("latest", 30, pairs(2000)),
    "lists of numbers": ("v108", 0, numbers(500)),
}


@pytest.fixture(params=CASES)
def made(request, tmp_path):
    """A file with an attribute ``many``, and in ``long`` one long text and one long list of numbers."""
    libver, beside, held = CASES[request.param]
    path = tmp_path / "theirs.h5"
    with h5py.File(path, "w", libver=libver) as file:
        group = file.create_group("group")
        if "continued" in request.param:
            file.create_group("behind")  # so that the header of the other one can't become longer in place
        for number in range(beside):
            group.attrs[f"beside {number}"] = number
        if "name" in request.param:
            file["type"] = held.dtype
        group.attrs.create("many", held, dtype=file.get("type", held.dtype))
        group.attrs["after"] = 1
        if isinstance(held[0], np.ndarray):
            file.create_dataset("long", (1,), NUMBERS)[0] = np.zeros(SIZE // 8)
        else:
            file.create_dataset("long", (1,), TEXT)[0] = "x" * SIZE
    return path, held


@pytest.mark.parametrize("mode", ["r", "a"])
def test_honest_texts_are_read_however_many(made, mode):
    path, held = made
    engine = HDF5Engine(path, mode)
    found = engine.stat(("group",)).meta["many"]
    assert found == [shown(held[0])] * len(held)
    if mode == "a":
        with engine.transaction():
            engine.update(("group",), {"changed": 1})
            assert engine.stat(("group",)).meta["many"] == found
    engine.close()


def shown(item):
    if isinstance(item, np.void):
        return {"n": 0, "text": OTHER, "z": 0.0, "more": [OTHER] * 3}
    return item.tolist() if isinstance(item, np.ndarray) else item


READER = """
    import os, resource, sys
    from datastore_lab.engines.hdf5 import HDF5Engine
    engine = HDF5Engine(sys.argv[1], "r")
    engine.stat(())
    size = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + (200 << 20), size + (200 << 20)))
    meta = engine.stat(("group",)).meta
    print(meta["many"], meta["after"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as on Linux")
def test_texts_that_all_lead_to_one_are_shown_before_memory_is_asked_for(made):
    path, held = made
    point_all_to_the_long_one(path, len(held))
    command = [sys.executable, "-c", textwrap.dedent(READER), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stderr == ""
    assert done.stdout == f"<{len(held)} items of {held.dtype}> 1\n"


def test_a_file_whose_texts_all_lead_to_one_is_not_written_anew(tmp_path):
    path = tmp_path / "theirs.h5"
    with h5py.File(path, "w") as file:
        file.attrs["many"] = texts(500)
        file.create_dataset("long", (1,), TEXT)[0] = "x" * SIZE
    point_all_to_the_long_one(path, 500)
    engine = HDF5Engine(path)
    with pytest.raises(Foreign, match="'many' would take"):
        engine.compact()
    engine.close()


def test_lists_of_texts_are_shown_where_they_can_not_be_told(tmp_path):
    path = tmp_path / "theirs.h5"
    with h5py.File(path, "w") as file:
        held = np.empty(2, h5py.vlen_dtype(TEXT))
        held[:] = [np.array(["a", "b"], object), np.array(["c"], object)]
        file.attrs.create("many", held, dtype=h5py.vlen_dtype(TEXT))
        file["zeros"] = np.zeros(100_000)
    engine = HDF5Engine(path, "r")
    assert engine.stat(()).meta == {"many": "<2 items of object>"}
    engine.close()


def point_all_to_the_long_one(path, least):
    """Let all references in a file lead to the same, and mend the checksums of what holds them."""
    whole = bytearray(path.read_bytes())
    blocks = [block for block in checked_blocks(whole) if checksum(whole, *block) == stated(whole, block[2])]
    places = list(references(whole))
    (long,) = {bytes(whole[at : at + 16]) for at in places if whole[at + 2]}
    assert len(places) > least
    for at in places:
        whole[at : at + 16] = long
    for block in blocks:
        whole[block[2] : block[2] + 4] = checksum(whole, *block).to_bytes(4, "little")
    path.write_bytes(whole)


def stated(whole, at):
    return int.from_bytes(whole[at : at + 4], "little")


def checksum(whole, begin, end, at):
    """Give the checksum of a block, where it is taken to be 0 unless it stands last."""
    return lookup3(whole[begin:at] + (bytes(4) + whole[at + 4 : end] if at + 4 < end else b""))


def find_all(whole, what):
    at = whole.find(what)
    while at >= 0:
        yield at
        at = whole.find(what, at + 1)


def references(whole):
    """Yield where 23 or very many items are referred to: the length, and the address of a heap."""
    heaps = set(find_all(whole, b"GCOL\1"))
    for heap in heaps:
        for at in find_all(whole, heap.to_bytes(8, "little")):
            if int.from_bytes(whole[at - 4 : at], "little") in {23, 24, SIZE, SIZE + 1, SIZE // 8}:
                yield at - 4


def checked_blocks(whole):
    """Yield begin and end of all that may be a block with a checksum, and where this is."""
    for begin in find_all(whole, b"OHDR\2"):
        flags = whole[begin + 5]
        at, width = begin + 6 + (16 if flags & 32 else 0) + (4 if flags & 16 else 0), 1 << (flags & 3)
        at += width + int.from_bytes(whole[at : at + width], "little")
        yield begin, at + 4, at
    for begin in find_all(whole, b"OCHK"):
        for named in find_all(whole, begin.to_bytes(8, "little")):
            end = begin + int.from_bytes(whole[named + 8 : named + 16], "little")
            if begin + 8 < end <= len(whole):
                yield begin, end, end - 4
    for begin in find_all(whole, b"FHDB\0"):
        yield from ((begin, begin + (1024 << more), begin + 18) for more in range(5))


def lookup3(raw):
    """Give the checksum of HDF5's metadata: Bob Jenkins' lookup3, which is in the public domain."""
    mask = 0xFFFFFFFF

    def rot(value, by):
        return (value << by | value >> (32 - by)) & mask

    a = b = c = (0xDEADBEEF + len(raw)) & mask
    words = np.frombuffer(bytes(raw).ljust(max(12, -(-len(raw) // 12) * 12), b"\0"), "<u4").tolist()
    for at in range(0, len(words), 3):
        a, b, c = (a + words[at]) & mask, (b + words[at + 1]) & mask, (c + words[at + 2]) & mask
        if at + 3 == len(words):
            break
        for first, second, third in ((4, 6, 8), (16, 19, 4)):
            a = ((a - c) & mask) ^ rot(c, first)
            c = (c + b) & mask
            b = ((b - a) & mask) ^ rot(a, second)
            a = (a + c) & mask
            c = ((c - b) & mask) ^ rot(b, third)
            b = (b + a) & mask
    for first, second, third in ((14, 11, 25), (16, 4, 14)):
        c = ((c ^ b) - rot(b, first)) & mask
        a = ((a ^ c) - rot(c, second)) & mask
        b = ((b ^ a) - rot(a, third)) & mask
    return ((c ^ b) - rot(b, 24)) & mask
