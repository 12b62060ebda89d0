"""How names and attributes are written in Zarr's metadata, and read back.

Groups carry the record's attributes as they are, with floats that JSON lacks tagged; ``lab_kind`` is the
kind, ``lab_arrays`` the names of the record's arrays in order, each with the digest of its metadata,
``lab_name`` the full name where the folder's name was cut, ``lab_seal`` the seal, and of
a record that grows ``lab_birth`` what tells it from another one. Arrays carry their own
attributes plus ``lab_sums`` (sums of the chunk files) and, where Zarr lacks the type, ``lab_dtype``; an axis
of the bytes of an item is named ``lab_item_<size>``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datastore_lab import dtypes, integrity, media
from datastore_lab.engines.zarr import shards
from datastore_lab.engines.zarr.seals import KIND, SEAL, VERSION, pack_sums, sealed, unpack_sums
from datastore_lab.engines.zarr.types import (
    BYTE,
    TEXT,
    ask_zarr,
    fill_value,
    numpy_type,
    stored_type,
    zarr_type,
)
from datastore_lab.errors import Corrupt, Foreign, NotStorable
from datastore_lab.records import GROUP, ArrayInfo, default_dims

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.engines.zarr.shards import Shard

METADATA = "zarr.json"
ARRAYS, NAME, DTYPE, SUMS = "lab_arrays", "lab_name", "lab_dtype", integrity.SUMS
BIRTH = integrity.BIRTH
REVISION = "lab_revision"
GROUP_LAYOUT = {KIND, ARRAYS, NAME, SEAL, VERSION, REVISION, BIRTH}
ARRAY_LAYOUT = {NAME, DTYPE, SUMS}
LARGEST = 256 << 20
"""No metadata of more bytes are read."""

_MEMBERS = {"zarr_format", "node_type", "attributes", "consolidated_metadata"}
_COPIES = b', "consolidated_metadata": '


def escape(part: str) -> str:
    """Turn a name into that of a folder; the name of the metadata files is escaped too."""
    text = media.escape_file(part)
    return f"%{ord(text[0]):02X}{text[1:]}" if text.casefold() == METADATA else text


def unescape(folder: str) -> str | None:
    """Turn a folder's name back; None where it was cut, the name itself where `escape` did not make it."""
    try:
        part = media.unescape_file(folder)
        if part is None:
            return None
        return part if part and escape(part) == folder else folder
    except UnicodeEncodeError:
        return folder


def full_name(part: str) -> dict[str, str]:
    """Give the attribute that keeps a name which its folder's name can't."""
    return {NAME: part} if unescape(escape(part)) is None else {}


class ArrayDoc(NamedTuple):
    """The metadata of one stored array.

    Attributes
    ----------
    dtype, stored : dtype
        As users see it, and as Zarr holds it.
    shape, chunks : tuple of int
        Of what is stored: with one more axis where items are stored as bytes.
    dims : tuple of str
        Of the array as users see it.
    packing : str
        Codec after the bytes: ``"zstd"``, ``"crc32c"`` or ``""``; ``"shard"`` where several chunks share a
        file.
    endian : str
        ``"<"`` or ``">"``, of the stored bytes.
    prefix, separator : str
        How chunk files are named.
    attributes : mapping
        All attributes, ours included, untagged.
    simple : bool
        Whether the chunks can be read without zarr.
    shard : Shard or None
        How what is a chunk here is made of several smaller ones.
    """

    dtype: np.dtype[Any]
    stored: np.dtype[Any]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dims: tuple[str, ...]
    packing: str
    endian: str
    prefix: str
    separator: str
    attributes: Mapping[str, Any]
    simple: bool
    shard: Shard | None = None

    @property
    def as_bytes(self) -> bool:
        """Whether an item is stored as a row of bytes."""
        return self.stored == BYTE and self.dtype != BYTE

    @property
    def is_text(self) -> bool:
        """Whether items are stored as text of variable length."""
        return self.stored.kind == "T"

    @property
    def user_shape(self) -> tuple[int, ...]:
        """Shape of the array as users see it."""
        return self.shape[:-1] if self.as_bytes else self.shape

    @property
    def user_chunks(self) -> tuple[int, ...]:
        """Shape of a chunk as users see it."""
        return self.chunks[:-1] if self.as_bytes else self.chunks

    def chunk_name(self, index: tuple[int, ...]) -> str:
        """Name of the file of one chunk, relative to the array's folder."""
        if not index and not self.prefix:
            return "0"
        numbers = map(str, index)
        return self.separator.join([self.prefix, *numbers] if self.prefix else numbers)

    def info(self) -> ArrayInfo:
        """Describe the array."""
        shape, chunks = self.user_shape, self.user_chunks
        whole = all(chunk >= length for chunk, length in zip(chunks, shape, strict=True))
        size = math.prod(shape) * self.dtype.itemsize
        return ArrayInfo(dtypes.name(self.dtype), shape, self.dims, size, None if whole else chunks)

    def user_attributes(self) -> dict[str, Any]:
        """Give the attributes that are not the layout's."""
        return {name: value for name, value in self.attributes.items() if name not in ARRAY_LAYOUT}

    @property
    def grid(self) -> tuple[int, ...]:
        """How many chunks there are along each axis."""
        return tuple(math.ceil(n / size) for n, size in zip(self.shape, self.chunks, strict=True))

    def sums(self) -> NDArray[np.uint64]:
        """Give the sums of the chunk files, in C order; only arrays of ours have them."""
        found = unpack_sums(self.attributes.get(SUMS))
        if len(found) != math.prod(self.grid):
            raise ValueError(f"it has {math.prod(self.grid)} chunks, and sums of {len(found)}")
        return found

    def with_sums(self, sums: Iterable[int]) -> ArrayDoc:
        """Give the same with other sums."""
        return self._replace(attributes={**self.attributes, SUMS: pack_sums(sums)})

    def document(self) -> dict[str, Any]:
        """Give the content of ``zarr.json``."""
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": self.shape,
            "data_type": zarr_type(self.stored),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": self.chunks}},
            # all chunks in one folder: no intermediate folders to make and to sync for every append
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": self.separator}},
            "fill_value": fill_value(self.stored),
            "codecs": _codecs(self.stored, self.packing, self.shard, self.chunks),
            "attributes": media.tag_floats(self.attributes),
            "dimension_names": [
                *self.dims,
                *([f"lab_item_{self.dtype.itemsize}"] if self.as_bytes else []),
            ],
            "storage_transformers": [],
        }


def new_array(
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    dims: tuple[str, ...],
    chunks: tuple[int, ...],
    *,
    stored: np.dtype[Any],
    packing: str,
    attributes: Mapping[str, Any],
    shard: Shard | None = None,
) -> ArrayDoc:
    """Describe an array that is to be written; `shape` and `chunks` as users see them."""
    dtype = np.dtype(TEXT) if dtype.kind == "T" else dtype
    layout: dict[str, Any] = full_name(name)
    if stored != dtype:
        layout[DTYPE] = dtypes.name(dtype)
    item = (dtype.itemsize,) if stored == BYTE and dtype != BYTE else ()
    block = (*chunks, *(max(size, 1) for size in item))
    attributes = {**attributes, **layout}
    return ArrayDoc(
        dtype, stored, (*shape, *item), block, dims, packing, "<", "c", ".", attributes, True, shard
    )


def group_json(attributes: Mapping[str, Any]) -> bytes:
    """Give the content of a new group's ``zarr.json``, sealed."""
    return changed({"zarr_format": 3, "node_type": "group"}, {KIND: GROUP, **attributes})


def changed(doc: Mapping[str, Any], attributes: Mapping[str, Any]) -> bytes:
    """Give the content of a group's ``zarr.json`` that was parsed, with other attributes, sealed anew.

    Consolidated metadata, a copy of what lies below, would be out of date after any change: it is left out.
    """
    kept = {name: value for name, value in doc.items() if name != "consolidated_metadata"}
    return to_json({**kept, "attributes": media.tag_floats(sealed(attributes))})


def user_meta(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Give the attributes of a group that are not the layout's."""
    return {name: value for name, value in attributes.items() if name not in GROUP_LAYOUT}


def parse(raw: bytes, where: str) -> dict[str, Any]:
    """Read a ``zarr.json`` as far as to know that it is one.

    Raises
    ------
    Corrupt
        If it is not valid metadata.
    Foreign
        If it is that of another version of the format.
    """
    try:
        doc = _load(raw)
        attributes = doc.get("attributes", {})
        if b"float" in raw or b"\\u" in raw:  # else none can be tagged
            attributes = media.untag_floats(attributes)
        version, known = doc["zarr_format"], doc["node_type"] in {"group", "array"}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Corrupt(
            f"the metadata {where!r} is damaged ({error!r}); restore it or delete its folder", key=where
        ) from error
    ours = isinstance(attributes, dict) and not attributes.keys().isdisjoint({KIND, SEAL, SUMS})
    if version != 3 and not ours:
        raise Foreign(f"{where!r} is Zarr of version {version!r}; only version 3 is read", key=where)
    if not known or version != 3 or not isinstance(attributes, dict) or _unknown(doc):
        raise Corrupt(
            f"the metadata {where!r} is neither a group's nor an array's, or has members that nobody knows; "
            "restore it",
            key=where,
        )
    return {**doc, "attributes": attributes}


def _load(raw: bytes) -> dict[str, Any]:
    """Parse metadata without the copies that a root holds of all below: they are not to be trusted."""
    head, found, _ = raw.partition(_COPIES)
    if found:
        try:
            return {**json.loads(head + b"}"), "consolidated_metadata": {}}
        except ValueError:  # an attribute of that name
            return dict(json.loads(raw))
    return dict(json.loads(raw))


def _unknown(doc: Mapping[str, Any]) -> bool:
    """Tell whether a group has members which the format says must be understood."""
    if doc["node_type"] != "group":
        return False
    extra = (doc[name] for name in doc.keys() - _MEMBERS)
    return any(not isinstance(member, dict) or member.get("must_understand") is not False for member in extra)


def parse_array(doc: Mapping[str, Any], name: str, where: str) -> ArrayDoc:
    """Understand the metadata of an array; that of other programs as far as to describe it.

    Raises
    ------
    Corrupt
        If it is not valid.
    """
    try:
        return _parse_array(doc, name)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        if isinstance(error, Corrupt):
            raise
        raise Corrupt(
            f"the metadata {where!r} is damaged ({error!r}); restore it or delete its folder", key=where
        ) from error


def _parse_array(doc: Mapping[str, Any], name: str) -> ArrayDoc:
    attributes = doc["attributes"]
    shape = _lengths(doc["shape"], 0)
    grid = doc["chunk_grid"]
    chunks = _lengths(grid["configuration"]["chunk_shape"], 1) if grid["name"] == "regular" else shape
    if len(chunks) != len(shape):
        raise ValueError("chunks and shape differ in length")
    stored = numpy_type(doc["data_type"])
    shard = None if stored is None else shards.parse(doc["codecs"], chunks, stored.itemsize)
    codecs = doc["codecs"] if shard is None else doc["codecs"][0]["configuration"]["codecs"][:1]
    packing, endian, known = _read_codecs(codecs, stored)
    packing = packing if shard is None else shards.PACKING
    prefix, separator = _key_encoding(doc["chunk_key_encoding"])
    simple = bool(
        known and stored is not None and grid["name"] == "regular" and not doc.get("storage_transformers")
    )
    if stored is None:
        stored = ask_zarr(doc)
    dtype = dtypes.parse(attributes[DTYPE]) if DTYPE in attributes else stored
    as_bytes = stored == BYTE and dtype != BYTE
    ndim = len(shape) - as_bytes
    if DTYPE in attributes and (
        stored_type(dtype, as_bytes=as_bytes) != stored or (as_bytes and shape[-1:] != (dtype.itemsize,))
    ):
        raise ValueError(f"items of {attributes[DTYPE]!r} are not stored like this")
    names = doc.get("dimension_names") or [None] * len(shape)
    defaults = default_dims(name, ndim)
    dims = tuple(str(given or default) for given, default in zip(names, defaults, strict=False))
    return ArrayDoc(
        dtype, stored, shape, chunks, dims, packing, endian, prefix, separator, attributes, simple, shard
    )


def _lengths(values: Any, least: int) -> tuple[int, ...]:
    if not isinstance(values, list) or any(type(value) is not int or value < least for value in values):
        raise ValueError(f"{values!r} is not a shape")
    return tuple(values)


def _codecs(
    stored: np.dtype[Any], packing: str, shard: Shard | None, chunks: tuple[int, ...]
) -> list[dict[str, Any]]:
    first: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
    if stored.kind == "T":
        first = {"name": "vlen-utf8", "configuration": {}}
    elif stored.itemsize == 1:
        first = {"name": "bytes"}
    if shard is not None:
        return [shard.codec(chunks, first, stored.itemsize)]
    zstd = {"name": "zstd", "configuration": {"level": 1, "checksum": True}}
    packings: dict[str, list[dict[str, Any]]] = {"zstd": [zstd], "crc32c": [{"name": "crc32c"}]}
    return [first, *packings.get(packing, [])]


def _read_codecs(codecs: Any, stored: np.dtype[Any] | None) -> tuple[str, str, bool]:
    """Give packing, byte order, and whether these are codecs that are decoded here."""
    names = [codec if isinstance(codec, str) else codec["name"] for codec in codecs]
    first = "vlen-utf8" if stored is not None and stored.kind == "T" else "bytes"
    known = names[:1] == [first] and len(names) <= 2 and set(names[1:]) <= {"zstd", "crc32c"}
    settings = codecs[0].get("configuration", {}) if isinstance(codecs[0], dict) else {}
    return "".join(names[1:2]), ">" if settings.get("endian") == "big" else "<", known


def _key_encoding(encoding: Mapping[str, Any]) -> tuple[str, str]:
    default = encoding["name"] == "default"
    separator = encoding.get("configuration", {}).get("separator", "/" if default else ".")
    if separator not in {"/", "."} or encoding["name"] not in {"default", "v2"}:
        raise ValueError(f"unknown chunk key encoding {encoding!r}")
    return "c" if default else "", separator


def to_json(doc: Mapping[str, Any]) -> bytes:
    """Write metadata as JSON; its floats must be tagged."""
    try:
        return json.dumps(doc, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:  # an int of more digits than Python turns into text
        raise NotStorable(f"the attributes can't be written as JSON: {error}") from error
