"""JSON with every float, escapes of names, checksums, and files that are whole or absent."""

import json
import math
import os
import pathlib
import stat
import unicodedata

import numpy as np
import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from datastore_lab import media
from datastore_lab.errors import Corrupt, NotStorable
from datastore_lab.testing import samples, strategies
from datastore_lab.testing.equality import assert_same_json

_TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)


@given(strategies.json_values())
@example({"a": [math.nan, math.inf, -math.inf, -0.0, 5e-324, 2**64, -(7**100)]})
@example({"$float": "nan", "x": 1})
@example([{"$float": math.nan, "b": {}}])
def test_json_comes_back(value):
    text = media.to_json(value)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert_same_json(media.from_json(text), value)
    assert_same_json(media.from_json(text.encode()), value)
    assert_same_json(media.untag_floats(media.tag_floats(value)), value)
    assert_same_json(media.from_json(media.to_json(value, indent=2, sort=True)), value)


@pytest.mark.parametrize("tag", [["nan"], {"a": 1}, None, 1, "NaN", ""])
def test_what_only_looks_like_a_float_stays(tag):
    value = {media.FLOAT_TAG: tag}
    assert media.untag_floats(value) == value
    assert media.from_json(json.dumps(value)) == value


@pytest.mark.parametrize("meta", samples.METAS, ids=range(len(samples.METAS)))
def test_all_sample_metadata_is_json(meta):
    media.check_json(meta)
    assert_same_json(media.from_json(media.to_json(meta)), meta)


def test_mappings_keep_their_order_unless_sorted():
    assert media.to_json({"b": 1, "a": 2}) == '{"b": 1, "a": 2}'
    assert media.to_json({"b": 1, "a": 2}, sort=True) == '{"a": 2, "b": 1}'


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1, {2}]}, r"meta\['a'\]\[1\] is set"),
        ({"a": {1: 2}}, r"meta\['a'\] has the key 1"),
        ({"a": "\ud800"}, r"meta\['a'\].*surrogate"),
        ({"\udc00": 1}, "meta.*surrogate"),
        ({"a": np.zeros(2)}, r"meta\['a'\] is ndarray"),
        ({"a": np.int64(2)}, r"meta\['a'\] is int64"),
        ({"a": b"x"}, r"meta\['a'\] is bytes"),
        ({"a": {"$float": "nan"}}, r"meta\['a'\].*reserved"),
        ({"a": 1j}, r"meta\['a'\] is complex"),
        ([1 << 15_000], r"meta\[0\].*bits"),
        (deep(200), "deeper than 100"),
    ],
)
def test_what_json_does_not_hold_is_named(value, place):
    with pytest.raises(NotStorable, match=place):
        media.check_json(value)
    with pytest.raises(NotStorable, match=place):
        media.to_json(value)


def test_the_largest_integer_is_written_and_read():
    assert media.from_json(media.to_json((1 << 14_000) - 1)) == (1 << 14_000) - 1


@pytest.mark.parametrize("text", ["", "{", "nan", "[1,]", "'a'", b"\xff", "[" * 100_000, "9" * 5000])
def test_what_is_no_json_is_corrupt(text):
    with pytest.raises(Corrupt, match="not valid JSON"):
        media.from_json(text)


@given(_TEXT)
@example("..")
@example("%7E~")
@example("é" * 150)
@example("a" * 199 + "/")
@example("com1.txt")
def test_any_name_fits_every_file_system(part):
    name = media.escape_file(part)
    assert 0 < len(name.encode()) <= 255
    assert not set(name) & set('/\\:*?"<>|\0')
    assert not any(unicodedata.category(letter) == "Cc" and ord(letter) < 128 for letter in name)
    assert name not in {".", ".."}
    assert not name.startswith((".", "__"))
    assert not name.endswith((".", " "))
    assert pathlib.PureWindowsPath(name).is_reserved() is False
    if (back := media.unescape_file(name)) is not None:
        assert back == part
    else:
        assert len(part.encode()) > 66  # every byte becomes at most three


@given(_TEXT)
def test_any_name_is_an_hdf5_link(part):
    name = media.escape_link(part)
    assert name not in {"", ".", ".."}
    assert not set(name) & {"/", "\0"}
    assert media.unescape_link(name) == part


def test_escapes_of_different_names_differ():
    parts = (
        list(samples.PARTS)
        + [f"{'n' * 250}{number}" for number in range(50)]
        + ["%252F", "a%2Fb", "%2E", "%2e"]
    )
    for escape in (media.escape_file, media.escape_link):
        assert len({escape(part) for part in parts}) == len(set(parts))


@given(_TEXT, _TEXT)
def test_escapes_are_one_to_one(one, other):
    assert (media.escape_file(one) == media.escape_file(other)) == (one == other)
    assert (media.escape_link(one) == media.escape_link(other)) == (one == other)


@given(_TEXT)
def test_any_foreign_link_has_a_name(name):
    if "/" not in name and "\0" not in name:
        assert media.unescape_link(name)


@pytest.mark.parametrize("dtype", samples.DTYPES, ids=str)
def test_checksums_see_every_value(dtype):
    array = samples.array(dtype, (4, 3), 1)
    assert media.checksum(array) == media.checksum(np.asfortranarray(array))
    assert media.checksum(array) == media.checksum(array.copy())
    assert media.checksum(array[::2]) == media.checksum(array[::2].copy())
    assert len(media.checksum(array)) == 32
    changed = array.copy()
    changed[1, 1] = samples.array(dtype, (1,), 99)[0]
    if changed.tobytes() != array.tobytes():
        assert (media.checksum(changed) != media.checksum(array)) or dtype.kind == "T"
    assert media.checksum(array[:0]) == media.checksum(array[:0])


def test_a_checksum_of_parts_is_that_of_the_whole():
    for dtype in [np.dtype("f8"), np.dtypes.StringDType(), np.dtype("i4,S3")]:
        array = samples.array(dtype, (10,), 3)
        state = xxhash.xxh3_128()
        for part in (array[:3], array[3:3], array[3:]):
            media.add_checksum(state, part)
        assert state.hexdigest() == media.checksum(array)


def test_texts_of_equal_joined_bytes_have_other_checksums():
    text = np.dtypes.StringDType()
    assert media.checksum(np.array(["ab", "c"], text)) != media.checksum(np.array(["a", "bc"], text))


def test_a_file_appears_whole(tmp_path):
    target = tmp_path / "file.json"
    with media.atomic_file(target) as file:
        file.write(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_file_leaves_the_old_one(tmp_path):
    target = tmp_path / "file.json"
    target.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), media.atomic_file(target) as file:  # noqa: PT012
        file.write(b"half")
        file.flush()
        raise ZeroDivisionError
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError), media.atomic_file(tmp_path / "missing" / "file"):
        pytest.fail("there is nowhere to write")


def test_long_names_have_room_for_the_temporary_one(tmp_path):
    target = tmp_path / ("\N{MUSICAL SYMBOL G CLEF}" * 60)
    with media.atomic_file(target) as file:
        file.write(b"x")
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_others_may_read_what_the_mask_allows(tmp_path, mask):
    before = os.umask(mask)
    try:
        with media.atomic_file(tmp_path / "file"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


def test_a_folder_can_be_made_durable(tmp_path):
    media.sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        media.sync_folder(tmp_path / "missing")
