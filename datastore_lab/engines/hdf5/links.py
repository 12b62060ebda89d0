"""Links of HDF5 groups: names, and what they lead to; only hard links are followed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from h5py import h5g, h5l, h5o, h5p, h5t

from datastore_lab import media
from datastore_lab.errors import Untrusted

if TYPE_CHECKING:
    from datastore_lab.keys import Key


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


class Contents(NamedTuple):
    """What hangs below a group: links to groups and to datasets, and what is refused, with the reason."""

    groups: list[bytes]
    datasets: list[bytes]
    refused: dict[str, str]


def decode(link: bytes) -> str:
    """Give the name that a link stands for."""
    return media.unescape_link(link.decode("utf-8", "surrogateescape"))


def link_of(group: Any, name: str) -> bytes | None:
    """Find the link of a name: escaped as this package writes it, or as another program did."""
    for text in dict.fromkeys((media.escape_link(name), name)):
        usable = not {"/", "\0"} & {*text} and text not in {".", ".."} and media.unescape_link(text) == name
        if usable and group.links.exists(text.encode("utf-8", "surrogateescape")):
            return text.encode("utf-8", "surrogateescape")
    return None


def find(root: Any, key: Key) -> Any | None:
    """Open the group of a key, link by link; None if there is none."""
    group = root
    for part in key:
        link = link_of(group, part)
        if link is None or kind_of(group, link, part) != h5o.TYPE_GROUP:
            return None
        group = h5g.open(group, link)
    return group


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
    found = Contents([], [], {})
    for link in group:
        if group.links.get_info(link).type != h5l.TYPE_HARD:
            found.refused[decode(link)] = "a soft or external link"
            continue
        kind = h5o.get_info(group, link).type
        if kind == h5o.TYPE_GROUP:
            found.groups.append(link)
        elif kind == h5o.TYPE_DATASET:
            found.datasets.append(link)
    return found
