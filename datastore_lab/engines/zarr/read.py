"""Reading arrays of a Zarr hierarchy, and checking that they are as they were written."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datastore_lab import media
from datastore_lab.engines.zarr import chunks as chunking
from datastore_lab.engines.zarr.meta import CHECKSUM, ArrayDoc
from datastore_lab.engines.zarr.types import from_stored
from datastore_lab.errors import Corrupt, EngineError, LabError
from datastore_lab.folders import files
from datastore_lab.keys import Key, show
from datastore_lab.records import Problem, Selection, normalise_selection

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.engines.zarr.tree import Parts, Tree

_CHEAP = 64 << 20
_SLAB = 64 << 20


class _Source(NamedTuple):
    """An array that is to be read: where it is in the tree, and whether every chunk of it must be there."""

    tree: Tree
    key: Key
    name: str
    parts: Parts
    doc: ArrayDoc
    ours: bool

    @property
    def title(self) -> str:
        return f"{self.name!r} in {show(self.key)!r}"

    @property
    def folder(self) -> str:
        return self.tree.overlay.path(self.parts) or ""


def read_array(tree: Tree, key: Key, name: str, selection: Selection = ()) -> NDArray[Any]:
    """Read an array or a part of it, as a new array."""
    node, folder, doc = tree.array_of(key, name)
    wanted = normalise_selection(selection, doc.user_shape)
    axes = [_axis(index, length) for index, length in zip(wanted, doc.user_shape, strict=True)]
    if doc.as_bytes:
        axes.append((slice(0, doc.shape[-1], 1), doc.shape[-1]))
    source = _Source(tree, key, name, (*node.parts, folder), doc, node.is_record)
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


def _read(source: _Source, axes: list[chunking.Axis]) -> NDArray[Any]:
    tree, doc, folder = source.tree, source.doc, source.folder
    _refuse_absurd(source, axes)
    if not doc.simple:
        return _read_by_zarr(folder, tree.root, doc, axes)

    def locate(chunk: str) -> str:
        path = tree.overlay.path((*source.parts, *chunk.split("/")))
        if path is None:
            raise chunking.MissingChunkError(chunk)
        return path

    try:
        return chunking.read_region(tree.root, doc, axes, locate)
    except chunking.MissingChunkError as error:
        if not source.ours:
            return _read_by_zarr(folder, tree.root, doc, axes)
        raise Corrupt(
            f"a chunk of {source.title} is missing ({error}); restore it from a copy, or delete the item",
            key=source.key,
        ) from error


def _refuse_absurd(source: _Source, axes: list[chunking.Axis]) -> None:
    """Refuse, before any memory is taken, what metadata claims and files or memory can't hold."""
    doc, item = source.doc, max(source.doc.stored.itemsize, 1)
    wanted, chunk = math.prod(count for _, count in axes) * item, math.prod(doc.chunks) * item
    if max(wanted, chunk) <= _CHEAP:
        return
    if source.ours and "." in doc.separator:
        needed = math.prod(math.ceil(n / size) for n, size in zip(doc.shape, doc.chunks, strict=True))
        if (present := chunking.count_files(source.folder)) < needed:
            raise Corrupt(
                f"{source.title} claims {needed} chunks, but {present} are there; restore it from a copy, or "
                "delete the item",
                key=source.key,
            )
    if max(wanted, chunk if doc.simple else 0) > _memory():
        raise EngineError(
            f"{source.title} claims {wanted:,} bytes in chunks of {chunk:,}, more than the memory "
            "of this computer; read a part of it",
            key=source.key,
        )


def _memory() -> int:
    """Give the size of this computer's memory in bytes; no limit where it does not say."""
    if not hasattr(os, "sysconf"):
        return 1 << 62
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _read_by_zarr(folder: str, root: str, doc: ArrayDoc, axes: list[chunking.Axis]) -> NDArray[Any]:
    """Leave to zarr what other programs have written with other codecs, and their missing chunks."""
    import zarr
    from zarr.storage import LocalStore

    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(place, name)
            if os.path.islink(path):
                files.refuse_outside(path, root)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = zarr.open_array(LocalStore(folder, read_only=True), mode="r", zarr_format=3)
            return np.array(source[tuple(cut for cut, _ in axes)], dtype=doc.stored)
    except Exception as error:
        raise EngineError(f"zarr can't read {folder!r}: {error!r}", key=folder) from error


def verify_array(tree: Tree, key: Key) -> Iterator[Problem]:
    """Read all arrays of one node and yield what is not as it was written."""
    try:
        node = tree.node(key)
        names = tree.array_names(node)
    except LabError as error:
        yield Problem(key, None, str(error))
        return
    for name in names:
        try:
            problem = _verify(tree, key, name)
        except (LabError, OSError) as error:
            problem = str(error)
        if problem is not None:
            yield Problem(key, name, problem)


def _verify(tree: Tree, key: Key, name: str) -> str | None:
    import xxhash

    _, _, doc = tree.array_of(key, name)
    digest = xxhash.xxh3_128()
    shape = doc.user_shape
    row = max(math.prod(shape[1:]) * doc.dtype.itemsize, 1)
    rows = max(_SLAB // row, 1)
    cuts: list[Selection] = [(slice(at, at + rows),) for at in range(0, shape[0], rows)] if shape else [()]
    for cut in cuts:
        media.add_checksum(digest, read_array(tree, key, name, cut))
    expected = doc.attributes.get(CHECKSUM)
    if expected is None or expected == digest.hexdigest():
        return None
    return f"its checksum is {digest.hexdigest()}, where {expected} was written"
