"""The one value that everything meets in, and what is said of it: plain tuples of the standard library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.keys import Key

Selection: TypeAlias = tuple[int | slice, ...]
"""Basic indexing: one integer or slice per leading axis; missing axes are taken whole."""

GROUP = "group"
"""Kind of a node that holds no record: an inner node of the tree, or a group of another program."""

ARRAYS = "arrays"
"""Kind of a node with arrays that no codec wrote: a group of HDF5 datasets made by another program."""

ARRAY_ATTRIBUTES = "lab_attrs"
"""Reserved name in ``meta``: ``{array: {attribute: value}}``, kept by file engines on the array itself."""

CODEC_STATE = "lab_codec"
"""Reserved name in ``meta``: what the codec needs to decode; everything else is for people."""

BESIDE = "lab_beside"
"""Reserved name in ``meta``: which attributes were given beside the object, and what they hide of its own."""

RESERVED = "lab_"
"""Prefix of every attribute name that belongs to the layout rather than to the user."""


class Record(NamedTuple):
    """Named arrays with named dimensions, and JSON metadata.

    Attributes
    ----------
    kind : str
        Name of the codec that can decode the record, such as ``"array"``; never empty.
    arrays : mapping of str to ndarray
        The payload. Names are non-empty text.
    meta : mapping of str to JSON value
        Attributes: ``None``, ``bool``, ``int`` of any size, ``float`` (NaN and infinities too), ``str``,
        and lists and string-keyed mappings of these. Names that begin with ``lab_`` are reserved.
    dims : mapping of str to tuple of str
        Dimension names, one per axis, for those arrays that have names; others get `default_dims`.
    """

    kind: str
    arrays: Mapping[str, NDArray[Any]]
    meta: Mapping[str, Any]
    dims: Mapping[str, tuple[str, ...]]


class Packing(NamedTuple):
    """How the chunks of an array that grows are to be packed; see `datastore_lab.packing`.

    Attributes
    ----------
    compression : str
        ``"none"``, ``"gzip"``, ``"szip"``, ``"lz4"``, ``"zstd"`` or ``"blosc"``.
    level : int or None
        Of the compression; None for a fast one.
    shuffle : str or None
        ``"none"``, ``"byte"`` or ``"bit"``: how the bytes of items are sorted before they are compressed.
        None sorts those of items that have more than one.
    chunk : int or None
        About how many bytes lie together, before compression.
    shard : int or None
        About how many bytes go into one file, before compression, where chunks would each have their own.
    """

    compression: str = "none"
    level: int | None = None
    shuffle: str | None = None
    chunk: int | None = None
    shard: int | None = None


class ArrayInfo(NamedTuple):
    """What is known about a stored array without reading it.

    Attributes
    ----------
    dtype : str
        Canonical name, as `datastore_lab.dtypes.name` gives it.
    shape : tuple of int
    dims : tuple of str
        One name per axis.
    nbytes : int
        Size in memory when read whole, in bytes; for text of variable length an estimate.
    chunks : tuple of int or None
        Shape of the stored chunks, or None where the array is one piece.
    packing : Packing or None
        Given to `Appends.append`, how the array is to be packed; None leaves it to the engine. What is read
        from a store has none.
    """

    dtype: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    nbytes: int
    chunks: tuple[int, ...] | None
    packing: Packing | None = None


class Stat(NamedTuple):
    """A record without its payload; asking for it costs no read of array data."""

    kind: str
    arrays: Mapping[str, ArrayInfo]
    meta: Mapping[str, Any]


class Span(NamedTuple):
    """Where an array lies in one piece in a file, in C order and as it is in memory.

    Attributes
    ----------
    path : str
    offset : int
        Of its first byte.
    dtype : str
        As in `ArrayInfo`; its bytes are those of the array.
    shape : tuple of int
    """

    path: str
    offset: int
    dtype: str
    shape: tuple[int, ...]


class Problem(NamedTuple):
    """One finding of `Engine.verify`: which item, which part of it, and what is wrong."""

    key: Key
    name: str | None
    what: str


class Repair(NamedTuple):
    """One step of `Engine.repair`: what was found, what was done about it, and whether it is well now."""

    key: Key
    name: str | None
    what: str
    mended: bool


class Traits(NamedTuple):
    """What a storage format can do; declared once, on the engine class, and probed by a test.

    Attributes
    ----------
    label : str
        The format's name for people.
    structure : str
        The shape of what it holds, in two or three words.
    compresses, appends, hierarchical, n_dimensional, self_describing : bool
    parallel_write, cloud : bool
        Several processes may write one store at once, where a file holds one stream each its own; fit for
        object storage.
    opens_in : tuple of str
        Programs and libraries that read it without this package.
    """

    label: str
    structure: str
    compresses: bool
    appends: bool
    hierarchical: bool
    n_dimensional: bool
    self_describing: bool
    parallel_write: bool
    cloud: bool
    opens_in: tuple[str, ...]
