"""Reading arrays of a Zarr hierarchy."""

from __future__ import annotations

import math
import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import integrity
from datastore_lab.engines.zarr import chunks as chunking
from datastore_lab.engines.zarr.types import from_stored
from datastore_lab.errors import Corrupt, EngineError
from datastore_lab.keys import Key, show
from datastore_lab.records import Selection, normalise_selection

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.engines.zarr.places import Parts
    from datastore_lab.engines.zarr.tree import Tree

_CHEAP = 64 << 20
_MUCH = 1 << 30
_RATIO = 1000
_ATTEMPTS = 5


class MissingChunkError(Exception):
    """A chunk of another program's array has no file: it holds fill values."""


class Source:
    """An array that is to be read.

    Parameters
    ----------
    tree : Tree
    key, name
        Of the record and the array.
    seen : bool, default False
        Whether metadata that was checked a moment ago will do.

    Attributes
    ----------
    parts : tuple of str
        Where it is.
    doc : ArrayDoc
    ours : bool
        Whether every chunk must be there and have the sum that was noted.
    """

    def __init__(self, tree: Tree[Any], key: Key, name: str, *, seen: bool = False) -> None:
        self.tree, self.key, self.name = tree, key, name
        node, folder, self.doc = (tree.array_seen if seen else tree.array_of)(key, name)
        self.parts: Parts = (*node.parts, folder)
        self.ours = node.is_ours
        self._sums = self._read_sums() if self.ours else None

    @property
    def title(self) -> str:
        """What it is, for messages."""
        return f"{self.name!r} in {show(self.key)!r}"

    def _read_sums(self) -> NDArray[np.uint64]:
        try:
            return self.doc.sums()
        except ValueError as error:
            raise Corrupt(
                f"{self.title} is damaged: {error}; restore it from a copy", key=self.key
            ) from error

    def sum_at(self, index: tuple[int, ...]) -> int | None:
        """Give the sum that the file of a chunk should have; None for an array of another program."""
        return None if self._sums is None else int(self._sums[self.number(index)])

    def number(self, index: tuple[int, ...]) -> int:
        """Give the place of a chunk among all, in C order."""
        return int(np.ravel_multi_index(index, self.doc.grid)) if index else 0

    def raw(self, index: tuple[int, ...]) -> bytes | None:
        """Give the file of a chunk as it is; None if there is none."""
        name = self.doc.chunk_name(index)
        raw: bytes | None = self.tree.place.get((*self.parts, *name.split("/")))
        return raw

    def fetch(self, index: tuple[int, ...]) -> bytes:
        """Give the file of a chunk, compared with its sum."""
        for _ in range(_ATTEMPTS):
            raw, expected = self.raw(index), self.sum_at(index)
            if expected is None and raw is None:
                raise MissingChunkError(self.doc.chunk_name(index))
            if raw is not None and (
                expected is None or chunking.sum_found(self.doc.packing, raw) == expected
            ):
                return raw
            if not self._has_grown(index):
                break
        where = f"the chunk {self.tree.place.where((*self.parts, self.doc.chunk_name(index)))!r}"
        if raw is None:
            where += " (missing)"
        raise integrity.damaged(self.key, self.name, where, self.tree.root)

    def _has_grown(self, index: tuple[int, ...]) -> bool:
        """Look whether a writer has meanwhile put more rows into a chunk; then its new sum counts."""
        before, again = self.sum_at(index), Source(self.tree, self.key, self.name)
        if again.doc.shape[1:] != self.doc.shape[1:] or again.doc.shape[:1] < self.doc.shape[:1]:
            return False
        if again.doc.chunks != self.doc.chunks or again.sum_at(index) == before:
            return False
        self._sums, self.doc = again._sums, again.doc
        return True


def read_array(tree: Tree[Any], key: Key, name: str, selection: Selection = ()) -> NDArray[Any]:
    """Read an array or a part of it, as a new array."""
    source = Source(tree, key, name, seen=True)
    doc = source.doc
    wanted = normalise_selection(selection, doc.user_shape)
    axes = [_axis(index, length) for index, length in zip(wanted, doc.user_shape, strict=True)]
    if doc.as_bytes:
        axes.append((slice(0, doc.shape[-1], 1), doc.shape[-1]))
    array = from_stored(_read(source, axes), doc)
    final = tuple(_finish(index) for index in wanted)
    result = array[(*final, ...)]
    return result if all(index == slice(None) for index in final) else result.copy()


def _axis(index: int | slice, length: int) -> chunking.Axis:
    """Turn one index into a slice with a positive step and its count."""
    if not isinstance(index, slice):
        return slice(index, index + 1, 1), 1
    points = range(*index.indices(length)) if index.stop is not None else range(index.start, -1, index.step)
    points = points if points.step > 0 else points[::-1]
    return slice(points.start, points.stop, points.step), len(points)


def _finish(index: int | slice) -> int | slice:
    if not isinstance(index, slice):
        return 0
    return slice(None, None, -1) if index.step < 0 else slice(None)


def _read(source: Source, axes: list[chunking.Axis]) -> NDArray[Any]:
    _refuse_absurd(source, axes)
    if not source.doc.simple and source.ours:
        raise Corrupt(
            f"{source.title} is stored in a way that this package never uses; restore it from a copy",
            key=source.key,
        )
    if not source.doc.simple:
        return _read_by_zarr(source, axes)
    try:
        return chunking.read_region(source.doc, axes, source.fetch, checked=source.ours)
    except MissingChunkError:
        return _read_by_zarr(source, axes)


def _refuse_absurd(source: Source, axes: list[chunking.Axis]) -> None:
    """Refuse, before any memory is taken, what metadata claims and files or memory can't hold."""
    doc, item = source.doc, max(source.doc.stored.itemsize, 1)
    wanted, chunk = math.prod(count for _, count in axes) * item, math.prod(doc.chunks) * item
    claimed = max(wanted, chunk if doc.simple else 0)
    if claimed <= _CHEAP:
        return
    # zeros pack well: what is ours and whole may hold a lot of them, as far as memory goes
    much = memory() // 4 if source.ours else _MUCH
    if claimed > memory() or (claimed > much and claimed > _RATIO * _stored(source)):
        raise EngineError(
            f"{source.title} claims {wanted:,} bytes in chunks of {chunk:,}, more than the memory of this "
            "computer or than its files can hold; read a part of it",
            key=source.key,
        )


def _stored(source: Source) -> int:
    """Count the bytes of an array's files; those in further folders count as one folder each."""
    return int(source.tree.place.stored(source.parts))


def memory() -> int:
    """Give the size of this computer's memory in bytes; no limit where it does not say."""
    if not hasattr(os, "sysconf"):
        return 1 << 62
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _read_by_zarr(source: Source, axes: list[chunking.Axis]) -> NDArray[Any]:
    """Leave to zarr what other programs have written with other codecs, and their missing chunks."""
    import zarr

    where = source.tree.place.where(source.parts)
    store = source.tree.place.zarr_store(source.parts)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = zarr.open_array(store, mode="r", zarr_format=3)
            return np.array(array[tuple(cut for cut, _ in axes)], dtype=source.doc.stored)
    except Exception as error:
        raise EngineError(f"zarr can't read {where!r}: {error!r}", key=where) from error
