"""Keys and their two forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore_lab import keys
from datastore_lab.errors import BadKey
from datastore_lab.testing import strategies


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("a", ("a",)),
        ("a/b/c", ("a", "b", "c")),
        ("/a/b/", ("a", "b")),
        ("/", ()),
        ((), ()),
        (["a", "b"], ("a", "b")),
        (("a/b", "..", "."), ("a/b", "..", ".")),
        ("a b/\N{SNOWMAN}\0", ("a b", "\N{SNOWMAN}\0")),
        ("...", ("...",)),
    ],
)
def test_what_users_write(path, key):
    assert keys.parse(path) == key


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a//b",
        "a//",
        "//a",
        "..",
        "a/..",
        "../a",
        "a/./b",
        ".",
        "\ud800",
        "a/\udfff/b",
        ("",),
        ("a", ""),
        ["a", None],
        ("a", 1),
        ("\ud800",),
        5,
        None,
        b"a",
        {"a"},
        ("a", b"b"),
        {"a": 1},
    ],
    ids=repr,
)
def test_what_no_store_holds(path):
    with pytest.raises(BadKey) as caught:
        keys.parse(path)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value)


@given(strategies.keys())
def test_the_form_for_people_leads_back(key):
    assert keys.parse(keys.show(key)) == key
    assert keys.check(key) == key


@given(st.text(max_size=8))
def test_a_path_is_parsed_or_refused_and_never_climbs(path):
    try:
        parts = keys.parse(path)
    except BadKey:
        return
    assert all(part and part not in {".", ".."} and "/" not in part for part in parts)
    assert "/".join(parts) == path.removeprefix("/").removesuffix("/")
