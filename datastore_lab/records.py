"""The one value and the protocols that everything meets in.

A `Record` is named arrays with named dimensions plus JSON metadata, of a ``kind`` that says which codec
made it. An `Engine` keeps records at hierarchical keys; a `Codec` turns Python objects into records and
back. This module needs nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

from datastore_lab.errors import BadKey, NotStorable
from datastore_lab.keys import Key, show

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

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
    """

    dtype: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    nbytes: int
    chunks: tuple[int, ...] | None


class Stat(NamedTuple):
    """A record without its payload; asking for it costs no read of array data."""

    kind: str
    arrays: Mapping[str, ArrayInfo]
    meta: Mapping[str, Any]


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
        Several processes may write one store at once; fit for object storage.
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


MOST_AXES = 32
"""Axes of one array: what HDF5 holds, so that a record can move to every engine."""

DURABILITIES = ("disk", "process")
"""What a commit survives: a power cut, or only the end of the process."""


@runtime_checkable
class Engine(Protocol):
    """A place where records live. Synchronous, and safe to call from several threads.

    An engine class is constructed as ``EngineClass(path, mode, *, timeout=0.0, durability="disk")`` with the
    modes of h5py: ``r`` (must exist, read only), ``r+`` (must exist), ``a`` (create if missing), ``w``
    (start empty), ``x`` (must not exist). `timeout` is how long to wait for another writer, in seconds,
    before `Locked` names it; a `durability` of ``"process"`` leaves out the syncs, so that commits survive
    the end of the process but no power cut. A part that is not as it was written raises `Corrupt` when it is
    read, and hides nothing else. Every operation on a key that holds nothing raises `NotFound`; every change
    on a store opened with ``r`` raises `ReadOnly`. The names of a node's arrays, of its dimensions and of its
    children are distinct (a dimension may be named like its coordinate array); a write that would break
    this raises `AlreadyExists`.
    """

    traits: ClassVar[Traits]

    @property
    def url(self) -> str:
        """Where it is: opening this address again gives the same store."""
        ...

    @property
    def writable(self) -> bool:
        """Whether changes are accepted."""
        ...

    def keys(self, prefix: Key = ()) -> Iterator[Key]:
        """Yield the keys of all records at or below `prefix`, parents before their children."""
        ...

    def children(self, prefix: Key = ()) -> Iterator[str]:
        """Yield the names of the child nodes of one node, lazily; arrays are not children."""
        ...

    def stat(self, key: Key) -> Stat:
        """Describe a node; kind is ``"group"`` where it holds no record."""
        ...

    def read(self, key: Key, name: str, selection: Selection = ()) -> NDArray[Any]:
        """Read one array of a record, or a part of it, as a new array of its own."""
        ...

    def write(self, key: Key, record: Record) -> None:
        """Put a record at a key: atomic and durable. A record that is there is replaced, children stay."""
        ...

    def update(self, key: Key, meta: Mapping[str, Any], *, drop: tuple[str, ...] = ()) -> None:
        """Merge into the attributes of a node; a value of None is stored as None.

        Attributes named in `drop` are removed before; those that are not there are passed over.
        """
        ...

    def move(self, old: Key, new: Key) -> None:
        """Move a node with everything below; `AlreadyExists` if there is anything at `new`."""
        ...

    def delete(self, key: Key) -> None:
        """Delete a node with everything below it."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """All changes inside are one atomic, durable commit; an exception undoes them. May be nested."""
        ...

    def revision(self) -> int:
        """Give a number that grows with every commit, so that a view can see that it is stale."""
        ...

    def fingerprint(self, key: Key) -> str:
        """Give a short text that is another one once other data is at a key; no payload is read for it.

        It covers what a view relies on: kind, names, types, shapes, dimensions and the stored sums of the
        payload; attributes may change. Of a record that was begun with `append` it is the same from the
        first row to the last and after `close`, and another one for whatever replaces it. Equal records may
        differ in it, as some engines number what they write; of what another program made, without sums,
        it tells no more than the file system does.
        """
        ...

    def verify(self, key: Key = ()) -> Iterator[Problem]:
        """Read everything at or below `key` and yield what is not as it was written."""
        ...

    def repair(self, key: Key = (), *, accept: bool = False) -> Iterator[Repair]:
        """Mend what can be mended without guessing, and say what was done and what was not.

        Nothing that can still be read is given up. With `accept`, what is readable but not as it was written
        is taken as it is, and gets new checksums.
        """
        ...

    def compact(self) -> int:
        """Give back the space of what was deleted; returns bytes freed."""
        ...

    def close(self) -> None:
        """Release the store; may be called twice."""
        ...


class Appender(Protocol):
    """A record that grows along axis 0 of all its arrays."""

    def extend(self, block: Mapping[str, NDArray[Any]]) -> None:
        """Add rows: every array of the record, equal lengths on axis 0."""
        ...

    def flush(self) -> None:
        """Make everything added so far durable and visible to readers; returns when it is."""
        ...

    def close(self, meta: Mapping[str, Any]) -> None:
        """Flush, merge `meta` into the attributes, and end the record; may be called twice."""
        ...


@runtime_checkable
class Appends(Protocol):
    """The one optional capability of an engine: records that grow."""

    def append(self, key: Key, spec: Stat) -> Appender:
        """Begin a new record; shapes in `spec` have 0 on axis 0. `AlreadyExists` if one is there."""
        ...


class Codec(Protocol[T]):
    """Turns objects of one family into records and back."""

    kind: str

    def encode(self, obj: T) -> Record:
        """Give the record of an object, or raise `NotStorable` that names the path inside it."""
        ...

    def decode(self, record: Record) -> T:
        """Give back an equal object of the same type. Runs no code from the record."""
        ...


class Block(NamedTuple):
    """Consecutive samples of one device.

    Attributes
    ----------
    first : int
        Sequence number of the first sample; a jump tells how many were lost before it.
    time : ndarray of int64, shape (n,)
        UTC by the host's clock, in ns since 1970, one per sample.
    data : mapping of str to ndarray, shapes (n, ...)
        Axis 0 is the sample.
    device_time : ndarray of int64, shape (n,), optional
        The device's own clock in ns, where it has one.
    """

    first: int
    time: NDArray[Any]
    data: Mapping[str, NDArray[Any]]
    device_time: NDArray[Any] | None = None


class Device(Protocol):
    """A source of blocks. A new driver is these four methods and a name.

    ``describe()`` gives a `Stat` of kind ``"stream"`` whose shapes have 0 on axis 0 and whose meta holds
    ``rate`` (samples per second or None) and ``units`` (``{array: unit}``), for example::

        Stat("stream", {"adc": ArrayInfo("<f8", (0, 16), ("time", "channel"), 0, None)},
             {"rate": 1000.0, "units": {"adc": "V"}})
    """

    name: str

    def describe(self) -> Stat:
        """Say what the blocks will hold. May be called before `start`."""
        ...

    def start(self) -> None:
        """Begin to sample."""
        ...

    def read(self, timeout: float) -> Block | None:
        """Wait at most `timeout` seconds for the next block; None if there is none yet."""
        ...

    def stop(self) -> None:
        """End sampling and release the hardware; may be called twice."""
        ...


@runtime_checkable
class Writer(Protocol):
    """A sink of blocks and of the documents of bluesky's event model."""

    def consume_document(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a start, descriptor, event, event_page or stop document."""
        ...

    def write(self, stream: str, block: Block) -> None:
        """Take a block of a stream that was described before."""
        ...

    def flush(self) -> None:
        """Make everything taken so far durable."""
        ...

    def close(self) -> None:
        """Flush and release the files; may be called twice."""
        ...


def check_durability(durability: str) -> bool:
    """Say whether a commit has to be synced to the disk.

    Raises
    ------
    ValueError
        If `durability` is none of `DURABILITIES`.
    """
    if durability not in DURABILITIES:
        raise ValueError(f"durability {durability!r} is neither 'disk' nor 'process'")
    return durability == "disk"


def default_dims(name: str, ndim: int) -> tuple[str, ...]:
    """Name the dimensions of an array that has no names of its own.

    Examples
    --------
    >>> default_dims("data", 2)
    ('data_0', 'data_1')
    """
    return tuple(f"{name}_{axis}" for axis in range(ndim))


def dims_of(record: Record, name: str) -> tuple[str, ...]:
    """Give the dimension names of one array of a record, the default ones if it has none."""
    return tuple(record.dims.get(name) or default_dims(name, record.arrays[name].ndim))


def check_record(record: Record) -> None:
    """Refuse a record that no engine may accept, before anything is written.

    Raises
    ------
    BadKey
        If the kind or a name is empty or not text, or a dimension list does not fit its array.
    NotStorable
        If an array has more than `MOST_AXES` axes.
    """
    names = [record.kind, *record.arrays, *(dim for dims in record.dims.values() for dim in dims)]
    for name in names:
        if not isinstance(name, str) or not name:
            raise BadKey(f"a record can't use {name!r} as a name: names are non-empty text", key=name)
    if record.kind == GROUP:
        raise BadKey(f"{GROUP!r} is the kind of a node without a record", key=record.kind)
    for name, array in record.arrays.items():
        if array.ndim > MOST_AXES:
            raise NotStorable(
                f"array {name!r} has {array.ndim} axes, and no store holds more than {MOST_AXES}; reshape it",
                key=name,
            )
        if len(dims_of(record, name)) != array.ndim:
            raise BadKey(
                f"array {name!r} has {array.ndim} axes but dimensions {record.dims[name]!r}", key=name
            )


def check_rows(key: Key, block: Mapping[str, NDArray[Any]], arrays: Mapping[str, Any]) -> int:
    """Refuse rows that do not fit a growing record; returns how many they are.

    Parameters
    ----------
    key : Key
        The record, for the message.
    block : mapping of str to ndarray, shapes (n, ...)
    arrays : mapping of str to anything with dtype and shape
        What the record was declared to hold.

    Raises
    ------
    NotStorable
        If an array is missing, unknown, or of another row shape, or if the lengths differ.
    """
    if block.keys() != arrays.keys():
        raise NotStorable(f"{show(key)!r} takes the arrays {sorted(arrays)}, not {sorted(block)}", key=key)
    lengths = {len(rows) for rows in block.values()}
    if len(lengths) > 1:
        raise NotStorable(
            f"the arrays of one block for {show(key)!r} differ in length: {sorted(lengths)}", key=key
        )
    for name, rows in block.items():
        if rows.shape[1:] != tuple(arrays[name].shape[1:]):
            raise NotStorable(
                f"rows of {name!r} in {show(key)!r} have the shape {rows.shape[1:]}, "
                f"not {tuple(arrays[name].shape[1:])}",
                key=key,
            )
    return lengths.pop() if lengths else 0


def normalise_selection(selection: Selection, shape: tuple[int, ...]) -> Selection:
    """Complete a selection to one entry per axis, with non-negative bounds inside the shape.

    Integers stay integers (they drop the axis); slices come back with explicit start, stop and step.

    Raises
    ------
    IndexError
        If there are more entries than axes, or an integer lies outside its axis.

    Examples
    --------
    >>> normalise_selection((slice(None, None, 2), -1), (5, 3))
    (slice(0, 5, 2), 2)
    >>> normalise_selection((), (4,))
    (slice(0, 4, 1),)
    """
    if len(selection) > len(shape):
        raise IndexError(f"{len(selection)} indices for an array of {len(shape)} axes")
    padded = (*selection, *(slice(None) for _ in shape[len(selection) :]))
    return tuple(_normalise_axis(index, length) for index, length in zip(padded, shape, strict=True))


def _normalise_axis(index: int | slice, length: int) -> int | slice:
    if isinstance(index, slice):
        start, stop, step = index.indices(length)
        return slice(start, None if stop < 0 else stop, step)
    at = index.__index__()
    if not -length <= at < length:
        raise IndexError(f"index {at} is outside an axis of length {length}")
    return at % length if length else at
