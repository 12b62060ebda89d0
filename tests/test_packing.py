"""Packing chunks: what is packed is what other libraries unpack, and what is no such thing is refused."""

import zlib

import numcodecs
import numpy as np
import pytest

from datastore_lab import packing
from datastore_lab.errors import NotStorable
from datastore_lab.records import Packing

EVERY = tuple(name for name in packing.LEVELS if name != "szip")  # (HDF5 alone has it)
DATA = {
    "smooth": np.cumsum(np.random.default_rng(0).standard_normal((500, 16)), 0),
    "noise": np.random.default_rng(1).integers(0, 255, (40, 50), "u1"),
    "zeros": np.zeros((1000, 3), ">i2"),
    "structure": np.zeros(77, [("a", "i1"), ("b", "f8")]),
}


def packings():
    for name in EVERY:
        known = packing.LEVELS[name]
        for level in {None, *([known[0], known[-1]] if known else [])}:
            for shuffle in (None, "none", "byte", "bit"):
                if shuffle in {None, "none"} or (name != "none" and (shuffle == "byte" or name == "blosc")):
                    yield Packing(name, level, shuffle)


@pytest.mark.parametrize("wanted", list(packings()), ids=str)
@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_what_was_packed_is_unpacked(data, wanted):
    checked = packing.check(wanted, EVERY, "it")
    packed = packing.pack(data, checked)
    out = np.empty_like(data)
    packing.unpack(packed, checked, out)
    assert out.tobytes() == data.tobytes()


@pytest.mark.parametrize("shuffle", ["none", "byte"])
def test_other_libraries_unpack_it(shuffle):
    data = DATA["smooth"]
    unpackers = {
        "gzip": zlib.decompress,
        "zstd": numcodecs.Zstd().decode,
        "lz4": numcodecs.LZ4().decode,
        "blosc": numcodecs.Blosc().decode,
    }
    for name, unpack in unpackers.items():
        packed = packing.pack(data, packing.check(Packing(name, shuffle=shuffle), EVERY, "it"))
        raw = unpack(packed)
        if shuffle == "byte" and name != "blosc":
            raw = numcodecs.Shuffle(8).decode(raw)
        assert bytes(raw) == data.tobytes(), name
        assert shuffle == "none" or len(packed) < data.nbytes, name


@pytest.mark.parametrize("name", ["gzip", "lz4", "zstd", "blosc"])
def test_what_claims_to_hold_another_amount_is_refused(name):
    checked = packing.check(Packing(name, shuffle="none"), EVERY, "it")
    packed = bytes(packing.pack(np.zeros(1 << 20, "u1"), checked))
    for size in (0, 1000, (1 << 20) - 1, (1 << 20) + 1):
        with pytest.raises(ValueError, match="bytes"):
            packing.unpack(packed, checked, np.empty(size, "u1"))


@pytest.mark.parametrize("name", ["none", "gzip", "lz4", "zstd", "blosc"])
def test_what_is_damaged_is_refused_or_of_the_size_that_was_asked_for(name):
    checked = packing.check(Packing(name, shuffle="none"), EVERY, "it")
    data = DATA["smooth"]
    packed, rng = bytes(packing.pack(data, checked)), np.random.default_rng(2)
    refused = 0
    for _ in range(200):
        broken = bytearray(packed)
        broken[rng.integers(len(broken))] ^= 1 << rng.integers(8)
        try:
            packing.unpack(broken[: rng.integers(len(broken) + 1)], checked, np.empty_like(data))
        except ValueError:
            refused += 1
    assert refused > 150


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Packing("rar"), "no compression 'rar'; it has none, gzip"),
        (Packing("zstd"), "it has none, gzip"),
        (Packing("gzip", 10), "no level 10; its levels are 1 to 9"),
        (Packing("gzip", 0), "no level 0"),
        (Packing("gzip", True), "no level True"),
        (Packing("gzip", "9"), "no level '9'"),
        (Packing("none", 3), "leave the level out"),
        (Packing("gzip", shuffle="bits"), "there are none, byte, bit"),
        (Packing("gzip", shuffle="bit"), "by blosc only"),
        (Packing("none", shuffle="byte"), "gains nothing with none"),
        (Packing(chunk=1), "a chunk of 1 bytes is too small"),
        (Packing(shard=1 << 20), "has no shards"),
    ],
)
def test_what_can_not_be_done_is_refused(wanted, message):
    with pytest.raises(NotStorable, match=message):
        packing.check(wanted, ("none", "gzip"), "it")


def test_threads_that_can_not_start_any_more(monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    shut = ThreadPoolExecutor(1)
    shut.shutdown()
    monkeypatch.setattr(packing, "_POOL", [shut])
    assert packing.begin(divmod, 7, 2).result() == (3, 1)
    with pytest.raises(ZeroDivisionError):
        packing.begin(divmod, 7, 0).result()


def test_gzip_where_there_is_no_igzip(monkeypatch):
    monkeypatch.setattr(packing, "_igzip", lambda: zlib)
    test_what_was_packed_is_unpacked(DATA["smooth"], Packing("gzip", 1))
    test_what_claims_to_hold_another_amount_is_refused("gzip")
