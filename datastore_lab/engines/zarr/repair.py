"""Mending what is damaged: from the seals where they tell what was there, and never by a guess."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from datastore_lab import media
from datastore_lab.engines.zarr import seals, verify
from datastore_lab.engines.zarr.chunks import sum_found
from datastore_lab.engines.zarr.meta import ARRAYS, LARGEST, SUMS, changed, parse, parse_array, to_json
from datastore_lab.engines.zarr.read import Source
from datastore_lab.errors import LabError
from datastore_lab.records import Repair

if TYPE_CHECKING:
    from datastore_lab.engines.zarr.documents import Documents
    from datastore_lab.engines.zarr.verify import Finding

_SMALL = 16 << 10
_SMALL_CHUNK = 64 << 10


def mend(changes: Documents, finding: Finding, *, accept: bool) -> Repair:
    """Do about one finding what can be done, inside the present change."""
    done = _MENDERS[finding.sort](changes, finding)
    if done is None and accept:
        done = _accept(changes, finding)
    key, name, what = finding.problem
    if done is None:
        return Repair(key, name, f"{what}. Not mended", mended=False)
    if finding.sort != verify.COPIES:
        changes.forget_copies((*key, "any"))
    return Repair(key, name, f"{what}. {done}", mended=True)


def _group(changes: Documents, finding: Finding) -> str | None:
    raw = changes.tree.place.get(finding.parts, LARGEST)
    fixed = None if raw is None else flip_back(raw, _is_sealed_group, _SMALL)
    if fixed is None:
        return None
    changes.put_file(finding.parts, fixed)
    return "The one flipped bit was found by the seal and turned back"


def _is_sealed_group(raw: bytes) -> bool:
    try:
        doc = parse(raw, "")
        return doc["node_type"] == "group" and seals.is_sealed(doc["attributes"])
    except LabError:
        return False


def _array(changes: Documents, finding: Finding) -> str | None:
    tree, (key, name, _) = changes.tree, finding.problem
    expected = tree.digests(tree.node(key)).get(name or "")
    raw = tree.place.get(finding.parts, LARGEST)
    fixed = None if raw is None else flip_back(raw, lambda text: _has_digest(text, expected), _SMALL)
    if fixed is None:
        return None
    changes.put_file(finding.parts, fixed)
    return "The one flipped bit was found by its digest and turned back"


def _has_digest(raw: bytes, expected: str | None) -> bool:
    try:
        return seals.digest_parsed(parse(raw, "")) == expected
    except (LabError, RecursionError):
        return False


def _chunk(changes: Documents, finding: Finding) -> str | None:
    source = Source(changes.tree, finding.problem.key, finding.problem.name or "")
    raw = source.raw(finding.chunk)
    if raw is None:
        return None
    fixed = flip_back(raw, lambda data: verify.sum_matches(source, finding.chunk, data), _SMALL_CHUNK)
    if fixed is None:
        return None
    changes.put_file(finding.parts, fixed)
    return "The one flipped bit was found by the sum and turned back"


def flip_back(raw: bytes, is_right: Callable[[bytes], bool], limit: int) -> bytes | None:
    """Look for the one bit whose flip makes some bytes right again; None if there is none, or too many.

    Examples
    --------
    >>> flip_back(b"date", lambda data: data == b"data", 100)
    b'data'
    """
    data = bytearray(raw)
    for at in range(min(len(raw), limit)) if len(raw) <= limit or raw[:1] == b"{" else ():
        for bit in range(8):
            data[at] ^= 1 << bit
            if is_right(bytes(data)):
                return bytes(data)
            data[at] ^= 1 << bit
    return None


def _spelling(changes: Documents, finding: Finding) -> str | None:
    doc = parse(changes.tree.place.get(finding.parts, LARGEST) or b"", "")
    known = doc if doc["node_type"] == "array" else {n: doc[n] for n in ("zarr_format", "node_type")}
    changes.put_file(finding.parts, to_json({**known, "attributes": media.tag_floats(doc["attributes"])}))
    return "It was written again"


def _copies(changes: Documents, _finding: Finding) -> str | None:
    changes.forget_copies(("root",))
    changes.consolidate()
    return "It was made again"


def _leftover(changes: Documents, finding: Finding) -> str | None:
    changes.remove(finding.parts)
    return "It was removed"


def _unknown(_changes: Documents, _finding: Finding) -> str | None:
    return None


_MENDERS: dict[str, Callable[[Documents, Finding], str | None]] = {
    verify.GROUP_DOC: _group,
    verify.ARRAY_DOC: _array,
    verify.CHUNK: _chunk,
    verify.SPELLING: _spelling,
    verify.COPIES: _copies,
    verify.LEFTOVER: _leftover,
    verify.UNKNOWN: _unknown,
}


# -- taking what is there as it is ---------------------------------------------------------------------


def _accept(changes: Documents, finding: Finding) -> str | None:
    accept = {verify.GROUP_DOC: _accept_group, verify.ARRAY_DOC: _accept_array, verify.CHUNK: _accept_chunk}
    try:
        return accept[finding.sort](changes, finding) if finding.sort in accept else None
    except LabError:  # nothing that could be read
        return None


def _accept_group(changes: Documents, finding: Finding) -> str | None:
    tree = changes.tree
    doc = parse(tree.place.get(finding.parts, LARGEST) or b"", tree.place.where(finding.parts))
    attributes = doc["attributes"]
    listed = attributes.get(ARRAYS, {})
    if not isinstance(attributes.get(seals.KIND), str) or not isinstance(listed, dict) or "" in listed:
        return None
    changes.put_file(finding.parts, changed(doc, attributes))
    return "It was taken as it is and sealed anew"


def _accept_array(changes: Documents, finding: Finding) -> str | None:
    tree, (key, name, _) = changes.tree, finding.problem
    doc = tree.doc(finding.parts[:-1])
    if doc is None or name is None or doc["node_type"] != "array":
        return None
    found = parse_array(doc, name, tree.place.where(finding.parts))
    if not found.simple or SUMS not in found.attributes:
        return None
    found.sums()
    node = tree.node(key)
    changed_node = changes.put_arrays(
        node, {name: {**doc, "attributes": media.tag_floats(doc["attributes"])}}
    )
    changes.put_doc(changed_node, changed_node.attributes)
    return "It was taken as it is and sealed anew"


def _accept_chunk(changes: Documents, finding: Finding) -> str | None:
    key, name = finding.problem.key, finding.problem.name or ""
    source = Source(changes.tree, key, name)
    raw = source.raw(finding.chunk)
    if raw is None or not verify.decodes(source, finding.chunk, raw):
        return None
    sums = source.doc.sums().tolist()
    sums[source.number(finding.chunk)] = sum_found(source.doc.packing, raw) or 0
    node = changes.put_arrays(changes.tree.node(key), {name: source.doc.with_sums(sums).document()})
    changes.put_doc(node, node.attributes)
    return "Its own checksum fits, so it was taken as it is"
