"""Checking that everything is as it was written: every bit of every file of ours."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datastore_lab import media
from datastore_lab.engines.zarr.change import copies_below
from datastore_lab.engines.zarr.chunks import decode, sum_found
from datastore_lab.engines.zarr.meta import LARGEST, METADATA, parse, to_json
from datastore_lab.engines.zarr.read import Source, read_array
from datastore_lab.engines.zarr.seals import is_sealed
from datastore_lab.errors import Corrupt, EngineError, LabError
from datastore_lab.records import Problem

if TYPE_CHECKING:
    from datastore_lab.engines.zarr.places import Parts
    from datastore_lab.engines.zarr.tree import Node, Tree
    from datastore_lab.keys import Key

_SLAB = 64 << 20
_LEFT = re.compile(r"\..*\.tmp|c(\.[0-9]+)*")

GROUP_DOC, ARRAY_DOC, SPELLING, COPIES, CHUNK, LEFTOVER, UNKNOWN = (
    "group", "array", "spelling", "copies", "chunk", "leftover", "unknown"
)  # fmt: skip
"""What can be wrong: with which file, or with what is around."""


class Finding(NamedTuple):
    """A problem, and what repairing it needs to know.

    Attributes
    ----------
    problem : Problem
    sort : str
        One of the words above.
    parts : tuple of str
        The file.
    chunk : tuple of int
        Index of the chunk, where it is one.
    """

    problem: Problem
    sort: str
    parts: Parts
    chunk: tuple[int, ...] = ()


def findings(tree: Tree[Any], key: Key) -> Iterator[Finding]:
    """Check one group and its arrays, children left out."""
    try:
        node = tree.node(key)
    except (Corrupt, EngineError):
        yield _damaged_group(tree, key)
    else:
        yield from _examine(tree, key, node)


def _examine(tree: Tree[Any], key: Key, node: Node) -> Iterator[Finding]:
    yield from _spelling(tree, key, None, node.parts)
    if not key:
        yield from _copies(tree)
    if not node.is_ours:
        yield from _read_through(tree, node)
        return
    yield from _strangers(tree, node)
    try:
        names = tree.array_names(node)
    except LabError as error:
        yield Finding(Problem(key, None, str(error)), UNKNOWN, node.parts)
        return
    for name, folder in names.items():
        yield from _array(tree, node, name, folder)


def _damaged_group(tree: Tree[Any], key: Key) -> Finding:
    try:
        tree.node(key)
        what = "it changed while it was looked at"
    except LabError as error:
        what = str(error)
    parts = tree.locate_or_none(key) or ()
    return Finding(Problem(key, None, what), GROUP_DOC, (*parts, METADATA))


def _spelling(tree: Tree[Any], key: Key, name: str | None, parts: Parts) -> Iterator[Finding]:
    """Find a bit that changes nothing, as in the case of an exponent: as we write it, it is as long."""
    where = (*parts, METADATA)
    raw = tree.place.get(where, LARGEST) or b""
    doc = parse(raw, tree.place.where(where))
    if doc["node_type"] == "group" and not is_sealed(doc["attributes"]):
        return
    if doc.pop("consolidated_metadata", None) is not None:
        raw = raw.partition(b', "consolidated_metadata": ')[0] + b"}"
    ours = to_json({**doc, "attributes": media.tag_floats(doc["attributes"])})
    if len(ours) == len(raw) and ours != raw:
        what = f"{tree.place.where(where)!r} is spelled otherwise than it was written, to the same effect"
        yield Finding(Problem(key, name, what), SPELLING, where)
    extra = sorted(doc.keys() - {"zarr_format", "node_type", "attributes"})
    if extra and doc["node_type"] == "group":
        what = f"{tree.place.where(where)!r} has the unknown members {extra}"
        yield Finding(Problem(key, name, what), SPELLING, where)


def _copies(tree: Tree[Any]) -> Iterator[Finding]:
    """Compare the copies that the root may hold of all metadata, which other programs believe."""
    raw = tree.place.get((METADATA,), LARGEST) or b""
    where = tree.place.where((METADATA,))
    try:
        doc = json.loads(raw)
        copies = doc.get("consolidated_metadata")
        if copies is None or _same(tree, copies):
            return
        what = f"the copy of all metadata in {where!r} is out of date or damaged"
    except (ValueError, RecursionError) as error:
        what = f"the copy of all metadata in {where!r} is damaged ({error})"
    yield Finding(Problem((), None, what), COPIES, (METADATA,))


def _same(tree: Tree[Any], copies: Any) -> bool:
    """Compare copies with what they were made from, where that is not damaged itself."""
    if not isinstance(copies, dict) or copies.keys() != {"kind", "must_understand", "metadata"}:
        return False
    expected = copies_below(tree)
    found = copies["metadata"]
    if (copies["kind"], copies["must_understand"]) != ("inline", False) or not isinstance(found, dict):
        return False
    for path in found.keys() - expected.keys():
        parts = tuple(path.split("/"))
        if tree.place.choose(parts[:-1], parts[-1:]) is None:
            return False
    return all(_text(found.get(path)) == _text(doc) for path, doc in expected.items())


def _text(doc: Any) -> str:
    return json.dumps(doc, sort_keys=True)


def _strangers(tree: Tree[Any], node: Node) -> Iterator[Finding]:
    """Find what lies beside the children and arrays of a group and is neither."""
    for name in tree.candidates_of(node):
        parts = (*node.parts, name)
        try:
            if tree.place.choose(node.parts, (name,)) is None:
                yield _stranger(tree, node.key, None, parts, name)
            elif tree.place.get((*parts, METADATA), LARGEST) is None:
                what = f"the folder {tree.place.where(parts)!r} has no {METADATA}; an item may be lost"
                yield Finding(Problem(node.key, None, what), UNKNOWN, parts)
        except LabError:  # a link that leads out; it is listed as a child
            continue


def _stranger(tree: Tree[Any], key: Key, name: str | None, parts: Parts, file: str) -> Finding:
    where = tree.place.where(parts)
    if _LEFT.fullmatch(file):
        return Finding(Problem(key, name, f"{where!r} is left over and part of nothing"), LEFTOVER, parts)
    return Finding(Problem(key, name, f"{where!r} is no part of the store"), UNKNOWN, parts)


def _array(tree: Tree[Any], node: Node, name: str, folder: str) -> Iterator[Finding]:
    parts = (*node.parts, folder)
    try:
        source = Source(tree, node.key, name)
    except LabError as error:
        yield Finding(Problem(node.key, name, str(error)), ARRAY_DOC, (*parts, METADATA))
        return
    yield from _spelling(tree, node.key, name, parts)
    expected = {METADATA}
    for index in itertools.product(*map(range, source.doc.grid)):
        file = source.doc.chunk_name(index)
        expected.add(file)
        if (what := _chunk(source, index)) is not None:
            yield Finding(Problem(node.key, name, what), CHUNK, (*parts, *file.split("/")), index)
    for file in sorted(set(tree.place.names(parts)) - expected):
        yield _stranger(tree, node.key, name, (*parts, file), file)


def _chunk(source: Source, index: tuple[int, ...]) -> str | None:
    try:
        source.fetch(index)
    except (LabError, OSError) as error:
        return str(error)
    return None


def _read_through(tree: Tree[Any], node: Node) -> Iterator[Finding]:
    """Read the arrays of another program, whose chunks may have checksums of their own."""
    for name, folder in tree.array_names(node).items():
        try:
            shape = tree.array(node, name, folder).user_shape
            row = max(math.prod(shape[1:]) * 8, 1)
            rows = max(_SLAB // row, 1)
            for at in range(0, shape[0], rows) if shape else [None]:
                read_array(tree, node.key, name, () if at is None else (slice(at, at + rows),))
        except (LabError, OSError) as error:
            problem = Problem(node.key, name, str(error))
            yield Finding(problem, UNKNOWN, (*node.parts, folder))


def sum_matches(source: Source, index: tuple[int, ...], raw: bytes) -> bool:
    """Tell whether some bytes are what the file of a chunk held."""
    return sum_found(source.doc.packing, raw) == source.sum_at(index)


def decodes(source: Source, index: tuple[int, ...], raw: bytes) -> bool:
    """Tell whether some bytes are a chunk, by its own checksum."""
    try:
        decode(raw, index, source.doc, np.empty(source.doc.chunks, source.doc.stored))
    except Corrupt:
        return False
    return True
