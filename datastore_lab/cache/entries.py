"""Where results lie in a store, and what stands beside them.

An entry is the record at ``("cache", <function>, <key>)``, readable by any tool that opens the file, with the
attributes ``function``, ``created`` (UTC) and ``arguments`` (as text, for people). Everything else is in one
more, ``entry``, as objects with few attributes are found faster in HDF5: ``seconds`` (what it took),
``nbytes``, ``parts`` (the digests of what the key is made of), ``code`` (that of the code), ``sums`` (the
digest of each array) and ``checksum`` (of these and of what the value is decoded with).
"""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import xxhash

from datastore_lab import media, objects
from datastore_lab.cache import arrays as content
from datastore_lab.cache import mapped, returned
from datastore_lab.cache.walk import digest
from datastore_lab.errors import Corrupt, LabError, NotFound
from datastore_lab.records import CODEC_STATE, Record
from datastore_lab.store.reading import reads_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.keys import Key
    from datastore_lab.store import Store

PREFIX = "cache"

PACKED = "entry"
"""The attribute that holds the others."""

_SHOWN = ("function", "created", "arguments", "variable")
"""The attributes that stand for themselves."""

_PROTECTED = {"array", "value", "xarray"}
"""Kinds whose arrays are handed out read only; tables and other objects get memory of their own."""


class CacheWarning(UserWarning):
    """Something kept the cache from keeping a result, or from giving one; the value itself is right."""


class Found(NamedTuple):
    """A stored result and its attributes."""

    value: Any
    attrs: dict[str, Any]


class Stored(NamedTuple):
    """An entry as it lies in the store, checked.

    Attributes
    ----------
    record : Record
        Its arrays are read only; some may be mapped from the file.
    attrs : dict
    unchanged : callable
        Tells whether the arrays are still what was checked.
    in_memory : int
        Bytes that the arrays take in the memory of this process.
    """

    record: Record
    attrs: dict[str, Any]
    unchanged: Callable[[], bool]
    in_memory: int

    def value(self, *, copy: bool = False) -> Any:
        """Decode it: containers are new, arrays are views that can't be written to, or copies.

        Raises
        ------
        LabError
            If it can't be decoded.
        """
        bare = objects.without_attributes(self.record)
        own = copy or bare.kind not in _PROTECTED or '"table"' in media.to_json(bare.meta.get(CODEC_STATE))
        arrays = {name: array.copy() if own else array.view() for name, array in bare.arrays.items()}
        return objects.decode(bare._replace(arrays=arrays))


def entry_key(owner: str, key: str) -> Key:
    """Give the place of one entry."""
    return (PREFIX, owner, key)


# -- reading -------------------------------------------------------------------------------------------


def fetch(store: Store, key: Key) -> Found | None:
    """Read an entry; None if there is none, or if it is damaged, which is warned about.

    Returns
    -------
    Found or None
        The value is the caller's own: changing it changes nothing in the store.
    """
    stored = read(store, key)
    if stored is None:
        return None
    try:
        return Found(stored.value(copy=True), stored.attrs)
    except LabError as error:
        damaged(store, key, str(error))
        return None


def read(store: Store, key: Key, *, verify: bool = True) -> Stored | None:
    """Read an entry and hold it against its checksum; None if there is none, or if it is damaged.

    Parameters
    ----------
    store : Store
    key : Key
    verify : bool, default True
        Digest the content. Without it large arrays are mapped and not looked at.
    """
    try:
        record, file = _load(store, key, read_ahead=verify)
    except NotFound:
        return None
    except (Corrupt, OSError) as error:
        damaged(store, key, str(error))
        return None
    attrs = unpacked(record.meta)
    if "checksum" not in attrs or "sums" not in attrs:
        return None  # (a group of entries, or a record that is not ours)
    arrays = {name: returned.protected(array) for name, array in record.arrays.items()}
    record = record._replace(arrays=arrays)
    unchanged = _always if file is None else file.unchanged
    if verify and not _check(record, attrs, unchanged):
        damaged(store, key, "its content is not what was stored")
        return None
    size = 0 if file is not None else sum(array.nbytes for array in arrays.values())
    return Stored(record, attrs, unchanged, size)


def _load(store: Store, key: Key, *, read_ahead: bool) -> tuple[Record, mapped.File | None]:
    """Read a record; large arrays are mapped where the engine keeps them in one piece."""
    engine, full = store.engine, (*store.prefix, *key)
    if reads_whole(engine) and (found := engine.read_whole(full)) is not None:
        return found, None
    return _mapped(store, key, read_ahead=read_ahead) or (store.record(key), None)


def _mapped(store: Store, key: Key, *, read_ahead: bool) -> tuple[Record, mapped.File] | None:
    engine, full = store.engine, (*store.prefix, *key)
    before = engine.revision()
    places = mapped.spans(engine, full)
    if not places:
        return None
    file = mapped.File(next(iter(places.values())).path)
    stat = engine.stat(full)
    try:
        arrays = {
            name: file.map(places[name], read_ahead=read_ahead) if name in places else engine.read(full, name)
            for name in stat.arrays
        }
    except (OSError, ValueError):  # a file system that maps nothing
        return None
    if engine.revision() != before or not file.unchanged():
        return None
    return Record(stat.kind, arrays, stat.meta, {name: info.dims for name, info in stat.arrays.items()}), file


def _check(record: Record, attrs: Mapping[str, Any], unchanged: Callable[[], bool]) -> bool:
    sums = {}
    for name, array in record.arrays.items():
        sums[name] = array_sum(array)
        if _is_plain(array) and array.flags.c_contiguous:
            returned.remember(array, bytes.fromhex(sums[name]), unchanged)
    return bool(sums == attrs["sums"] and checksum(record, sums) == attrs["checksum"])


# -- writing -------------------------------------------------------------------------------------------


def encoded(value: Any, attrs: Mapping[str, Any]) -> Record:
    """Give the record of an entry, with its checksum.

    Raises
    ------
    NotStorable
        Naming the path inside the value.
    """
    record = objects.encode(value)
    sums = {name: array_sum(array) for name, array in record.arrays.items()}
    own = {**attrs, "nbytes": nbytes(record), "sums": sums, "checksum": checksum(record, sums)}
    return objects.with_attributes(record, packed(own))


def keep(store: Store, key: Key, value: Any, attrs: Mapping[str, Any]) -> int:
    """Store a value with attributes; returns its size in bytes.

    Raises
    ------
    NotStorable
        Naming the path inside the value.
    """
    record = encoded(value, attrs)
    store.write(key, record)
    return nbytes(record)


def array_sum(array: NDArray[Any]) -> str:
    """Digest an array: XXH3-128 of its bytes in C order, or of its content where bytes do not say it all."""
    return content.raw(array).hex() if _is_plain(array) else digest(array)


def _is_plain(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "biufcmMSUV" and array.dtype.names is None and array.dtype.char not in "gG"


def checksum(record: Record, sums: Mapping[str, str]) -> str:
    """Digest what a record's value is decoded from, given the digests of its arrays."""
    forms = {
        name: [content.dtype_name(array.dtype).decode(), list(array.shape)]
        for name, array in record.arrays.items()
    }
    text = media.to_json([record.kind, record.meta.get(CODEC_STATE), forms, dict(sums)], sort=True)
    return str(xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass")))


def nbytes(record: Record) -> int:
    """Give the size of a value in bytes: that of its arrays in memory, and of the text that holds the rest.

    Examples
    --------
    >>> nbytes(objects.encode("a" * 1000)) >= 1000
    True
    """
    state = record.meta.get(CODEC_STATE)
    text = 0 if state is None else len(media.to_json(state).encode("utf-8", "surrogatepass"))
    return text + sum(int(array.nbytes) for array in record.arrays.values())


# -- beside it -----------------------------------------------------------------------------------------


def listed(store: Store, owner: str) -> Iterator[tuple[Key, dict[str, Any]]]:
    """Yield the entries of a function, without reading results."""
    try:
        names = list(store.children((PREFIX, owner)))
    except NotFound:
        return
    for name in names:
        key = entry_key(owner, name)
        attrs = about(store, key)
        if "checksum" in attrs:
            yield key, attrs


def about(store: Store, key: Key) -> dict[str, Any]:
    """Give the attributes of an entry, without reading it; `NotFound` if there is none."""
    return unpacked(store.stat(key).meta)


def update(store: Store, key: Key, attrs: Mapping[str, Any]) -> None:
    """Change attributes of an entry, without touching its value."""
    store.update(key, packed({**about(store, key), **attrs}))


def packed(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Give attributes as they are stored.

    Examples
    --------
    >>> packed({"function": "f", "seconds": 1.5})
    {'function': 'f', 'entry': {'seconds': 1.5}}
    """
    shown = {name: attrs[name] for name in _SHOWN if name in attrs}
    return {**shown, PACKED: {name: value for name, value in attrs.items() if name not in shown}}


def unpacked(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Give attributes as they were before `packed`."""
    inner = meta.get(PACKED)
    shown = {name: meta[name] for name in _SHOWN if name in meta}
    return {**shown, **inner} if isinstance(inner, Mapping) else shown


def now() -> str:
    """Give the time in UTC as text, to the millisecond."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


def age(attrs: Mapping[str, Any]) -> float:
    """Give the age of an entry in seconds; infinite if its time can't be read, or lies ahead."""
    try:
        seconds = (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(attrs["created"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return float("inf")
    return seconds if seconds > -1 else float("inf")


def warn(message: str, depth: int = 3) -> None:
    """Warn the caller of the cache."""
    warnings.warn(message, CacheWarning, stacklevel=depth)


def damaged(store: Store, key: Key, what: str) -> None:
    """Warn that an entry can't be used."""
    warn(f"the cache entry {'/'.join(key)} of {store.url} is damaged and will be computed again: {what}", 6)


def _always() -> bool:
    return True
