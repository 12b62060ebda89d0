"""The seal of a node: a checksum over its description, and with it the sums of its small arrays.

``lab_seal`` is one text of fixed length, so that it lies in the object header, which HDF5 checksums:
``{"seal": "<32 digits>", "sums": {"<array>": "<16 digits>" or null, ...}}``. Null stands for an array whose
sums are kept on the dataset; ``sums`` is left out where it would be too long, and then all are there.
Of a record that grows there is ``"birth"`` too.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from h5py import h5a, h5s, h5t

from datastore_lab import integrity
from datastore_lab.engines.hdf5 import attrs
from datastore_lab.errors import Corrupt
from datastore_lab.keys import Key, show
from datastore_lab.records import GROUP, ArrayInfo, Stat

NAME = integrity.SEAL
_RAW = NAME.encode()
_LONGEST = 16 << 10
_SHORT = 4
_DIGEST = slice(9, 41)
_SCALAR = h5s.create(h5s.SCALAR)
_quoted = json.encoder.encode_basestring_ascii


class Seal(NamedTuple):
    """What ``lab_seal`` says: the checksum, the sum of each array that is one block, and a birth."""

    digest: str
    sums: Mapping[str, str | None] | None
    birth: str | None = None


def digest(stat: Stat) -> str:
    """Give the checksum of a description; that of many small records is the same."""
    if stat.meta or len(stat.arrays) > _SHORT:
        return integrity.seal(stat)
    return _digest(stat.kind, tuple((name, *info[:3]) for name, info in stat.arrays.items()))


@functools.lru_cache(maxsize=1024)
def _digest(kind: str, arrays: tuple[tuple[str, str, tuple[int, ...], tuple[str, ...]], ...]) -> str:
    infos = {name: ArrayInfo(dtype, shape, dims, 0, None) for name, dtype, shape, dims in arrays}
    return integrity.seal(Stat(kind, infos, {}))


def check(key: Key, stat: Stat, found: Seal | None, url: str) -> None:
    """Hold a description against the seal that was found with it.

    Raises
    ------
    Corrupt
    """
    if found is None or found.digest != digest(stat):
        integrity.check_seal(key, stat, found and found.digest, url)


def put(
    group: Any,
    stat: Stat,
    sums: Mapping[str, str | None] | None,
    *,
    new: bool = False,
    birth: str | None = None,
) -> None:
    """Seal a node that is as `stat` says; in place where a seal of this length is there."""
    put_raw(group, _pack(digest(stat), sums, birth), new=new)


class Blank:
    """The seal of a record whose arrays are one block each, to be filled in again and again.

    Parameters
    ----------
    group : h5py.h5g.GroupID
        Which has no seal yet.
    names : iterable of str
        Its arrays, in order.
    """

    def __init__(self, group: Any, names: Iterable[str]) -> None:
        self._raw = bytearray(_text("0" * 32, {}).removesuffix(b"}}"))
        self._places: list[int] = []
        for name in names:
            self._raw += _entry((name, "0" * 16)).encode() + b","
            self._places.append(len(self._raw) - 18)
        self._raw[-1 if self._places else len(self._raw) :] = b"}}"
        self._data = np.frombuffer(self._raw, f"S{len(self._raw)}").reshape(())
        self._kind = _type(len(self._raw))
        self._attribute = h5a.create(group, _RAW, self._kind, _SCALAR)

    def fill(self, digest: str, sums: Iterable[int]) -> None:
        """Write it anew, with one sum for each array."""
        self._raw[_DIGEST] = digest.encode()
        for at, value in zip(self._places, sums, strict=True):
            self._raw[at : at + 16] = b"%016x" % value
        self._attribute.write(self._data, self._kind)


def fits(sums: Mapping[str, str | None]) -> bool:
    """Say whether a seal has room for these sums."""
    return len(sums) <= _SHORT or len(_text("0" * 32, sums)) <= _LONGEST


def _pack(digest: str, sums: Mapping[str, str | None] | None, birth: str | None = None) -> bytes:
    return _text(digest, sums if sums is not None and fits(sums) else None, birth)


def _text(digest: str, sums: Mapping[str, str | None] | None, birth: str | None = None) -> bytes:
    held = "" if sums is None else f',"sums":{{{",".join(map(_entry, sums.items()))}}}'
    born = "" if birth is None else f',"birth":{_quoted(birth)}'
    return f'{{"seal":"{digest}"{held}{born}}}'.encode()


def _entry(item: tuple[str, str | None]) -> str:
    return f"{_quoted(item[0])}:{'null' if item[1] is None else _quoted(item[1])}"


def put_raw(group: Any, raw: bytes, *, new: bool = False) -> None:
    """Write the text of a seal; with `new` there is none yet."""
    data, kind = np.array(raw), _type(len(raw))
    if not new and h5a.exists(group, _RAW):
        attribute = h5a.open(group, _RAW)
        if attribute.get_type() == kind:
            attribute.write(data, kind)
            return
        h5a.delete(group, _RAW)
    attrs.create(group, _RAW, kind, _SCALAR).write(data, kind)


def get(group: Any, key: Key = ()) -> Seal | None:
    """Read the seal of a node; None if it has none.

    Raises
    ------
    Corrupt
        If what stands there is no seal.
    """
    if not h5a.exists(group, _RAW):
        return None
    attribute = h5a.open(group, _RAW)
    size = attribute.get_storage_size()
    kind = _type(size)
    if attribute.get_type() != kind:
        raise _broken(key)
    data = np.empty((), f"S{size}")
    attribute.read(data, kind)
    return parse(data.item(), key)


def parse(raw: bytes, key: Key) -> Seal:
    """Read the text of a seal."""
    try:
        held = json.loads(raw.decode())
        digest, sums, birth = held["seal"], held.get("sums"), held.get("birth")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _broken(key) from error
    if not isinstance(digest, str) or not (sums is None or isinstance(sums, dict)):
        raise _broken(key)
    return Seal(digest, sums, birth if isinstance(birth, str) else None)


def _broken(key: Key) -> Corrupt:
    return Corrupt(f"the attribute {NAME} of {show(key)!r} is no seal; restore the item from a copy", key=key)


def begin(root: Any) -> None:
    """Mark the root of a new store."""
    attrs.put(root, integrity.VERSION, integrity.LAYOUT)
    put_raw(root, EMPTY)


EMPTY = _pack(integrity.seal(Stat(GROUP, {}, {})), {})
"""The seal of a group that holds nothing but children."""


@functools.lru_cache(maxsize=256)
def _type(size: int) -> Any:
    return h5t.py_create(np.dtype(f"S{max(1, size)}"))
