"""Links of HDF5 groups: names, and what they lead to; only hard links are followed."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from h5py import h5, h5d, h5g, h5l, h5o, h5p, h5s, h5t

from datastore_lab import media
from datastore_lab.errors import Untrusted

if TYPE_CHECKING:
    from datastore_lab.keys import Key


class Unusual(Exception):
    """What is there is not of the plain form in which this package writes."""


def _link_plist() -> Any:
    plist = h5p.create(h5p.LINK_CREATE)
    plist.set_char_encoding(h5t.CSET_UTF8)
    return plist


def _group_plist() -> Any:
    plist = h5p.create(h5p.GROUP_CREATE)
    plist.set_link_creation_order(h5p.CRT_ORDER_TRACKED | h5p.CRT_ORDER_INDEXED)
    plist.set_attr_creation_order(h5p.CRT_ORDER_TRACKED | h5p.CRT_ORDER_INDEXED)
    return plist


LINK = _link_plist()
"""How links are created: names in UTF-8."""


GROUP = _group_plist()
"""How groups are created: links and attributes keep their order."""

_INDEXED = 64
"""A group of ours with more links than this has an index of them."""

_NOTHING = h5s.create(h5s.SCALAR)


@contextmanager
def pinned(root: Any) -> Iterator[None]:
    """Keep space that is freed inside from being used again.

    A file of ours forgets what is freed, but for one case: what lies at the very end would be given to
    what is written next, while another program may have it mapped. So something lies behind it meanwhile.
    """
    pin = h5d.create(root, None, h5t.NATIVE_INT8, _NOTHING)
    yield
    del pin  # without a name, it goes with its identifier


class Contents(NamedTuple):
    """What hangs below a group.

    Attributes
    ----------
    groups, datasets : list of bytes
        Links.
    refused : dict of str to str
        What is not followed, with the reason.
    damaged : list of bytes
        Links to what HDF5 can't make sense of.
    """

    groups: list[bytes]
    datasets: list[bytes]
    refused: dict[str, str]
    damaged: list[bytes]


def decode(link: bytes) -> str:
    """Give the name that a link stands for."""
    return media.unescape_link(link.decode("utf-8", "surrogateescape"))


@functools.lru_cache(maxsize=4096)
def encode(name: str) -> bytes:
    """Give the link that this package makes for a name."""
    return media.escape_link(name).encode("utf-8", "surrogateescape")


def link_of(group: Any, name: str) -> bytes | None:
    """Find the link of a name: escaped as this package writes it, or as another program did."""
    own = encode(name)
    if group.links.exists(own):
        return own
    other = name.encode("utf-8", "surrogateescape")
    usable = other != own and not {"/", "\0"} & {*name} and name not in {".", ".."}
    return other if usable and media.unescape_link(name) == name and group.links.exists(other) else None


def find(root: Any, key: Key) -> Any | None:
    """Open the group of a key, link by link; None if there is none."""
    group = root
    for part in key:
        link = link_of(group, part)
        if link is None or kind_of(group, link, part) != h5o.TYPE_GROUP:
            return None
        group = h5g.open(group, link)
    return group


def address(root: Any, key: Key) -> int:
    """Give the address of what is at a key, as hard links made by this package lead there.

    Raises
    ------
    Unusual
        If they do not.
    """
    group = root
    for part in key[:-1]:
        group = h5g.open(group, _hard(group, part)[0])
    return int(_hard(group, key[-1])[1]) if key else int(h5o.get_info(root).addr)


def _hard(group: Any, part: str) -> tuple[bytes, int]:
    link = encode(part)
    try:
        info = group.links.get_info(link)
    except (KeyError, RuntimeError, OSError) as error:
        raise Unusual from error
    if info.type != h5l.TYPE_HARD:
        raise Unusual
    return link, info.u


def kind_of(group: Any, link: bytes, name: str) -> int:
    """Say what a link leads to.

    Raises
    ------
    Untrusted
        If it is not a hard link.
    """
    if group.links.get_info(link).type != h5l.TYPE_HARD:
        raise Untrusted(
            f"{name!r} is a soft or external link, which is not followed: it may leave the store", key=name
        )
    return int(h5o.get_info(group, link).type)


def contents(group: Any) -> Contents:
    """Sort the links of a group, in the order in which they were made where the file keeps it."""
    return sort(group, group)


def first(group: Any, count: int) -> list[bytes]:
    """List the first links of a group in the order in which they were made, where the file keeps it.

    HDF5 sorts all links before it gives the first, except in the order in which its index of a large group
    has them, which is the same. A small group has no index.
    """
    ordered = group.get_create_plist().get_link_creation_order() & h5p.CRT_ORDER_INDEXED
    if len(group) <= max(count, _INDEXED) or not ordered:
        return list(group)[:count]
    found: list[bytes] = []

    def take(link: bytes) -> bool:
        found.append(link)
        return len(found) >= count

    group.links.iterate(take, idx_type=h5.INDEX_CRT_ORDER, order=h5.ITER_NATIVE)
    return found


def addresses(group: Any, wanted: Iterable[bytes]) -> dict[int, bytes]:
    """Give links of a group by the address of what they lead to."""
    return {int(group.links.get_info(link).u): link for link in wanted}


def sort(group: Any, wanted: Iterable[bytes]) -> Contents:
    """Sort links of a group by what they lead to."""
    found = Contents([], [], {}, [])
    for link in wanted:
        try:
            hard = group.links.get_info(link).type == h5l.TYPE_HARD
            kind = h5o.get_info(group, link).type if hard else None
        except (OSError, RuntimeError, KeyError, ValueError):  # KeyError: HDF5's for what it can't open
            found.damaged.append(link)
            continue
        if not hard:
            found.refused[decode(link)] = "a soft or external link, which may lead to another file"
        elif kind == h5o.TYPE_GROUP:
            found.groups.append(link)
        elif kind == h5o.TYPE_DATASET:
            found.datasets.append(link)
    return found
