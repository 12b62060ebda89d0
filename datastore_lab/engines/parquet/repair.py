"""Mending what can be mended without guessing.

A checksum proves what it fits: where a single bit has flipped in a small file, it is found by trying each.
What another program changed on purpose is taken as it is only when the user says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from datastore_lab import integrity
from datastore_lab.engines.parquet.doc import DESCRIPTION, body_of, parse, seal, unsealed
from datastore_lab.engines.parquet.read import read_array, verify_part
from datastore_lab.engines.parquet.tree import Node
from datastore_lab.errors import Corrupt, LabError
from datastore_lab.folders import files
from datastore_lab.records import Repair

if TYPE_CHECKING:
    from datastore_lab.engines.parquet.change import Changes
    from datastore_lab.engines.parquet.checked import Part
    from datastore_lab.engines.parquet.tree import Parts, Tree
    from datastore_lab.keys import Key

_LONGEST = 32 << 10
"""Largest file in which a flipped bit is looked for: some seconds."""


def repair_node(tree: Tree, changes: Changes, key: Key, *, accept: bool) -> Iterator[Repair]:
    """Mend one node, and say what was done."""
    parts = tree.locate(key)
    if parts is None:
        return
    try:
        raw = tree.raw(parts)
    except LabError as error:
        yield Repair(key, None, str(error), mended=False)
        return
    body = body_of(raw)
    if body is None:
        body, step = _mend_description(raw, key, tree.where((*parts, DESCRIPTION)), accept=accept)
        yield step
        if body is None:
            return
        changes.put_file((*parts, DESCRIPTION), seal(body))
    try:
        doc = parse(body, tree.where((*parts, DESCRIPTION)))
    except LabError as error:
        yield Repair(key, None, str(error), mended=False)
        return
    yield from _mend_payload(tree, changes, key, Node(parts, doc), accept=accept)


def _mend_description(raw: bytes, key: Key, where: str, *, accept: bool) -> tuple[bytes | None, Repair]:
    found = flip_back(raw, lambda tried: body_of(tried) is not None)
    if found is not None:
        return body_of(found), Repair(
            key, None, f"a flipped bit in {where!r} was put right: its seal fits again", mended=True
        )
    body = unsealed(raw)
    try:
        parse(body, where)
    except Corrupt as error:
        return None, Repair(key, None, str(error), mended=False)
    if accept:
        return body, Repair(key, None, f"{where!r} was taken as it is, and sealed anew", mended=True)
    what = f"{where!r} was changed; if that was on purpose, repair with accept=True takes it as it is"
    return None, Repair(key, None, what, mended=False)


def _mend_payload(tree: Tree, changes: Changes, key: Key, node: Node, *, accept: bool) -> Iterator[Repair]:
    parts, doc = node
    renewed: dict[str, Part] = {}
    for part in doc.parts():
        try:
            problem = verify_part(tree, key, parts, part)
        except (LabError, OSError) as error:
            problem = str(error)
        if problem is None:
            continue
        names = doc.names_in(part)
        name = names[0] if len(names) == 1 else None
        if _mend_file(tree, changes, parts, part):
            what = f"a flipped bit in {part.name!r} was put right: its checksum fits again"
            yield Repair(key, name, what, mended=True)
        elif accept and (new := _as_it_is(tree, parts, part)) is not None:
            renewed[part.name] = new
        else:
            yield Repair(key, name, problem, mended=False)
    if renewed:
        yield _accept(tree, changes, key, node, renewed)


def _mend_file(tree: Tree, changes: Changes, parts: Parts, part: Part) -> bool:
    """Look for a flipped bit in a small file, and stage it with that put right."""
    if not 0 < part.size <= _LONGEST:
        return False
    raw = _read(tree, parts, part)
    (expected,) = np.frombuffer(part.sums, "<u8").tolist()
    if raw is None or len(raw) != part.size:
        return False
    found = flip_back(raw, lambda tried: integrity.block_sum(tried) == expected)
    if found is not None:
        changes.put_file((*parts, part.name), found)
    return found is not None


def _read(tree: Tree, parts: Parts, part: Part) -> bytes | None:
    try:
        return files.read(tree.where((*parts, part.name)), tree.root)
    except (LabError, OSError):
        return None


def flip_back(raw: bytes, fits: Callable[[bytearray], bool]) -> bytes | None:
    """Give the bytes with that one bit flipped that lets them fit; None if there is none."""
    if len(raw) > _LONGEST:
        return None
    tried = bytearray(raw)
    for at in range(len(tried)):
        for bit in range(8):
            tried[at] ^= 1 << bit
            if fits(tried):
                return bytes(tried)
            tried[at] ^= 1 << bit
    return None


def _as_it_is(tree: Tree, parts: Parts, part: Part) -> Part | None:
    """Describe a file as it lies there; None if it is missing."""
    sums, size = [], 0
    try:
        with os.fdopen(files.open_inside(tree.where((*parts, part.name)), tree.root), "rb") as file:
            while block := file.read(integrity.BLOCK):
                sums.append(integrity.block_sum(block))
                size += len(block)
    except (LabError, OSError):
        return None
    return part._replace(size=size, sums=np.array(sums, "<u8").tobytes())


def _accept(tree: Tree, changes: Changes, key: Key, node: Node, renewed: dict[str, Part]) -> Repair:
    """Take files as they are, if every array of the record can then be read; else leave all as it was."""
    tables = {
        label: table._replace(parts=tuple(renewed.get(part.name, part) for part in table.parts))
        for label, table in node.doc.tables.items()
    }
    what = ", ".join(map(repr, renewed))
    mark = tree.overlay.mark()
    changes.put_doc(node.parts, node.doc._replace(tables=tables))
    try:
        for name in node.doc.arrays:
            read_array(tree, key, name)
    except (LabError, IndexError) as error:
        tree.overlay.undo(mark)
        return Repair(key, None, f"{what} can't be taken as it is: {error}", mended=False)
    return Repair(key, None, f"{what} was taken as it is, with new checksums", mended=True)
