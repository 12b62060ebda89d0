"""What binds the parts of a record: sums of chunks in the array's metadata, digests of that in the group's.

The seal of a group covers all its attributes, among them ``lab_arrays``, which holds a digest of each array's
``zarr.json``, which holds in ``lab_sums`` the sum of each of its chunk files. So a chunk that was changed,
exchanged with another or removed, a shape, type, codec or name that differs, is noticed by whoever reads
it, and no reader has to look at more than lies on its way.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from datastore_lab import integrity, media
from datastore_lab.records import Stat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.keys import Key

KIND, SEAL, VERSION = "lab_kind", integrity.SEAL, integrity.VERSION
_SUM = np.dtype("<u8")


def pack_sums(sums: Iterable[int]) -> str:
    """Turn the sums of all chunks, in C order of their indices, into the text of ``lab_sums``."""
    return base64.b64encode(np.fromiter(sums, _SUM).tobytes()).decode()


def unpack_sums(text: Any) -> NDArray[np.uint64]:
    """Undo `pack_sums`.

    Raises
    ------
    ValueError
        If it is no such text.
    """
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is no list of sums")  # noqa: TRY004 (damage, not a wrong call)
    return np.frombuffer(base64.b64decode(text, validate=True), _SUM)


def digest(document: Mapping[str, Any]) -> str:
    """Give the checksum of the content of an array's ``zarr.json``, however it is spaced and ordered."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(text.encode())


def digest_parsed(doc: Mapping[str, Any]) -> str:
    """Give the same of metadata that was parsed, whose attributes are untagged."""
    return digest({**doc, "attributes": media.tag_floats(doc["attributes"])})


def sealed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Give the attributes of a group with their seal, if it is one of ours."""
    bare = {name: value for name, value in attributes.items() if name != SEAL}
    return {**bare, SEAL: integrity.seal(_stat(bare))} if KIND in bare else dict(attributes)


def check(key: Key, attributes: Mapping[str, Any], url: str) -> None:
    """Compare the attributes of a group with its seal; those of other programs have none.

    Raises
    ------
    Corrupt
    """
    if KIND in attributes or SEAL in attributes or VERSION in attributes:
        bare = {name: value for name, value in attributes.items() if name != SEAL}
        integrity.check_seal(key, _stat(bare), attributes.get(SEAL), url)


def is_sealed(attributes: Mapping[str, Any]) -> bool:
    """Tell whether the attributes of a group are as they were sealed."""
    bare = {name: value for name, value in attributes.items() if name != SEAL}
    return KIND in bare and attributes.get(SEAL) == integrity.seal(_stat(bare))


def _stat(attributes: Mapping[str, Any]) -> Stat:
    return Stat(str(attributes.get(KIND)), {}, attributes)
