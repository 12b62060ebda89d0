"""Seals and block sums: what they cover."""

import numpy as np
import pytest

from datastore_lab import integrity
from datastore_lab.errors import Corrupt, Foreign
from datastore_lab.records import ArrayInfo, Stat

ONE = Stat(
    "array",
    {"a": ArrayInfo("<f8", (2, 3), ("x", "y"), 48, None), "b": ArrayInfo("<i4", (), (), 4, None)},
    {"unit": "V", "list": [1, 2.5, None, float("nan")], "nested": {"z": 1, "a": -0.0}},
)


@pytest.mark.parametrize(
    "other",
    [
        ONE._replace(kind="arraz"),
        ONE._replace(meta={**ONE.meta, "unit": "mV"}),
        ONE._replace(meta={**ONE.meta, "list": [1, 2.5, None, float("inf")]}),
        ONE._replace(meta={**ONE.meta, "nested": {"z": 1, "a": 0.0}}),
        ONE._replace(meta={**ONE.meta, "nested": {"z": True, "a": -0.0}}),
        ONE._replace(meta={name: value for name, value in ONE.meta.items() if name != "unit"}),
        ONE._replace(arrays={"a": ONE.arrays["a"]}),
        ONE._replace(arrays={**ONE.arrays, "a": ONE.arrays["a"]._replace(dtype="<i8")}),
        ONE._replace(arrays={**ONE.arrays, "a": ONE.arrays["a"]._replace(shape=(3, 2))}),
        ONE._replace(arrays={**ONE.arrays, "a": ONE.arrays["a"]._replace(dims=("y", "x"))}),
        ONE._replace(arrays={"c": ONE.arrays["a"], "b": ONE.arrays["b"]}),
    ],
    ids=str,
)
def test_a_seal_covers_everything_but_the_payload(other):
    assert integrity.seal(other) != integrity.seal(ONE)
    with pytest.raises(Corrupt, match=r"'k' in lab\.h5"):
        integrity.check_seal(("k",), other, integrity.seal(ONE), "lab.h5")


def test_a_seal_leaves_out_how_it_is_stored_and_in_which_order():
    stored = {name: info._replace(chunks=(1,), nbytes=0) for name, info in reversed(ONE.arrays.items())}
    again = Stat(ONE.kind, stored, dict(reversed(ONE.meta.items())))
    assert integrity.seal(again) == integrity.seal(ONE)
    integrity.check_seal(("k",), again, integrity.seal(ONE), "lab.h5")


def test_a_missing_seal_is_damage():
    with pytest.raises(Corrupt):
        integrity.check_seal(("k",), ONE, None, "lab.h5")


def test_sums_find_every_flipped_bit_of_a_block():
    data = np.arange(100, dtype="u1")
    sums = integrity.block_sums(data, 40)
    assert len(sums) == 3
    for bit in range(800):
        flipped = data.copy()
        flipped[bit // 8] ^= 1 << bit % 8
        assert [*(integrity.block_sums(flipped, 40) != sums)].index(True) == bit // 320


def test_a_later_layout_is_refused():
    integrity.check_layout(None, "lab.h5")
    integrity.check_layout(integrity.LAYOUT, "lab.h5")
    with pytest.raises(Foreign, match="newer version"):
        integrity.check_layout(integrity.LAYOUT + 1, "lab.h5")
