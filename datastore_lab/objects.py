"""Objects to records and back: which codec an object or a record belongs to.

A type is recognised by its qualified name, so that neither pandas nor xarray is imported before an object
of theirs turns up. Decoding uses registered codecs only: no class and no module that a file names is ever
imported.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from datastore_lab import media
from datastore_lab.errors import Corrupt, LabError, NotStorable, Untrusted
from datastore_lab.records import BESIDE, CODEC_STATE, GROUP, RESERVED, Codec, Record
from datastore_lab.registry import CODECS

_CLAIMS = {
    "numpy.ndarray": "array",
    "numpy.generic": "array",
    "pandas.DataFrame": "table",
    "pandas.Series": "table",
    "pandas.Index": "table",
    "pandas.Timestamp": "table",
    "pandas.Timedelta": "table",
    "pandas.Period": "table",
    "pandas.Interval": "table",
    "pandas.NaTType": "table",
    "pandas.NAType": "table",
    "xarray.DataArray": "xarray",
    "xarray.Dataset": "xarray",
    "xarray.DataTree": "xarray",
    "xarray.Variable": "xarray",
}
"""Codec by top-level package and class name; whatever is not here is a plain Python value."""


class _Registered(NamedTuple):
    kind: str
    cls: type
    to_storable: Callable[[Any], Any]
    from_storable: Callable[[Any], Any]


_by_type: dict[type, _Registered] = {}
_by_kind: dict[str, _Registered] = {}


def register_type(
    cls: type, encode: Callable[[Any], Any], decode: Callable[[Any], Any], *, kind: str | None = None
) -> None:
    """Teach every store a class of one's own, for this session.

    Parameters
    ----------
    cls : type
        The class; exactly this one, not its subclasses.
    encode : callable
        Gives something storable for an object: an array, or a mapping or tuple of arrays, tables, text and
        numbers.
    decode : callable
        Gives the object back from what `encode` gave.
    kind : str, optional
        The name under which files know the type; by default ``"module.QualifiedName"``. It must stay the
        same for as long as files are to be read.

    Examples
    --------
    >>> register_type(complex, lambda z: [z.real, z.imag], lambda parts: complex(*parts), kind="polar")
    >>> decode(encode(1 + 2j))
    (1+2j)
    >>> forget_type(complex)
    """
    entry = _Registered(kind or _name(cls), cls, encode, decode)
    taken = _by_kind.get(entry.kind)
    if entry.kind in {GROUP, *CODECS.builtin()} or (taken is not None and _name(taken.cls) != _name(cls)):
        raise ValueError(f"the kind {entry.kind!r} is taken; choose another one for {cls.__qualname__}")
    _by_type[cls] = _by_kind[entry.kind] = entry


def forget_type(cls: type) -> None:
    """Undo `register_type`."""
    entry = _by_type.pop(cls, None)
    if entry is not None:
        _by_kind.pop(entry.kind, None)


def encode(obj: Any) -> Record:
    """Give the record of any object that can be stored.

    Raises
    ------
    NotStorable
        Naming the path inside the object of what can't be stored, and the way out.
    """
    entry = _by_type.get(type(obj))
    if entry is not None:
        return _wrap(entry, obj)
    codec = codec_of(kind_of(obj))
    try:
        return codec.encode(obj)
    except RecursionError as error:
        raise NotStorable(f"this {type(obj).__qualname__} is nested too deeply to be stored") from error


def decode(record: Record) -> Any:
    """Give the object of a record.

    Raises
    ------
    Untrusted
        If no codec of this session knows the record's kind.
    Corrupt
        If the record is not what its codec writes.
    """
    if not isinstance(record.kind, str):
        raise Corrupt(f"the kind of a record is text, not {record.kind!r:.80}", key=record.kind)
    try:
        entry = _by_kind.get(record.kind)
        if entry is not None:
            return entry.from_storable(decode(_unwrap(record)))
        return codec_of(record.kind).decode(record)
    except (LabError, MemoryError):
        raise
    except Exception as error:  # (what a stranger wrote may fail anywhere in numpy, pandas or xarray)
        raise Corrupt(
            f"a record of kind {record.kind!r} can't be decoded: {error!r:.300}", key=record.kind
        ) from error


def checked_attributes(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Give the attributes that a user chose, if a record can have them.

    Raises
    ------
    NotStorable
        If a value is no JSON, or a name is empty or reserved.

    Examples
    --------
    >>> checked_attributes({"unit": "V"})
    {'unit': 'V'}
    """
    media.check_json(attrs, "attrs")
    for name in attrs:
        if name.startswith(RESERVED) or not name:
            raise NotStorable(
                f"an attribute can't be named {name!r}: names are not empty, and those that begin with "
                f"{RESERVED!r} belong to the layout; choose another",
                key=name,
            )
    return dict(attrs)


def with_attributes(record: Record, attrs: Mapping[str, Any]) -> Record:
    """Add attributes that are not the object's own, so that `without_attributes` can take them off again.

    Examples
    --------
    >>> record = Record("xarray", {}, {"note": "of the dataset"}, {})
    >>> without_attributes(with_attributes(record, {"note": "of the item", "gain": 2})).meta
    {'note': 'of the dataset'}
    """
    if not attrs:
        return record
    hidden = {name: record.meta[name] for name in attrs if name in record.meta}
    beside = {"names": list(attrs), "hidden": hidden}
    return record._replace(meta={**record.meta, **attrs, BESIDE: beside})


def without_attributes(record: Record) -> Record:
    """Give the record as the codec made it.

    Raises
    ------
    Corrupt
        If what it says of attributes beside the object is damaged.
    """
    beside = record.meta.get(BESIDE)
    if not isinstance(beside, Mapping):
        return record
    names, hidden = beside.get("names"), beside.get("hidden")
    if not isinstance(names, list) or not isinstance(hidden, Mapping) or not all(map(_is_text, names)):
        raise Corrupt(
            f"{BESIDE} says {beside!r:.200}, not which attributes stand beside the object", key=BESIDE
        )
    own = {name: value for name, value in record.meta.items() if name not in {BESIDE, *names}}
    return record._replace(meta={**own, **hidden})


def kind_of(obj: Any) -> str:
    """Name the codec that stores objects like this one."""
    cls = type(obj)
    if callable(getattr(cls, "storage_prepare", None)) and callable(getattr(cls, "storage_retrieve", None)):
        return "object"
    for base in cls.__mro__:
        name = f"{base.__module__.partition('.')[0]}.{base.__qualname__}"
        if name in _CLAIMS:
            return _CLAIMS[name]
    return _plugin_kind(_name(cls)) or "value"


@functools.lru_cache(maxsize=1024)
def _plugin_kind(name: str) -> str | None:
    """Find a codec that another distribution announces under the full name of a class."""
    return name if CODECS.find(name) is not None else None


@functools.cache
def codec_of(kind: str) -> Codec[Any]:
    """Give the codec of a kind, made with the callbacks through which it reaches the others."""
    make = CODECS.find(kind)
    if make is None:
        raise Untrusted(
            f"nothing in this session decodes the kind {kind!r}; import the package that registers it, or "
            "call register_type(); store.record(key) gives the arrays as they are",
            key=kind,
        )
    try:
        return make(encode, decode)  # type: ignore[no-any-return]
    except Exception as error:  # (a class of another distribution may raise anything)
        raise Untrusted(
            f"the codec {kind!r} that this session knows can't be used: {error!r:.300}; update the package "
            "that brings it, or remove it; store.record(key) gives the arrays as they are",
            key=kind,
        ) from error


def _wrap(entry: _Registered, obj: Any) -> Record:
    inner = encode(entry.to_storable(obj))
    state = {"kind": inner.kind, "state": inner.meta.get(CODEC_STATE)}
    return inner._replace(kind=entry.kind, meta={**inner.meta, CODEC_STATE: state})


def _unwrap(record: Record) -> Record:
    state = record.meta[CODEC_STATE]
    return record._replace(kind=state["kind"], meta={**record.meta, CODEC_STATE: state["state"]})


def _is_text(name: Any) -> bool:
    return isinstance(name, str)


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
