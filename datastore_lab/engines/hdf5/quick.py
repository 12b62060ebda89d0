"""Small records straight from their object headers, without opening every object through HDF5.

HDF5 takes a third of a millisecond to open a group, its attributes and a dataset; for ten thousand small
items that is what counts. Here the two headers (version 2) are parsed as the file format describes them.
Whatever is not of the plain form in which this package writes small records gives `Unusual`, and so does any
damage: the seal and the sums are checked in the same way, and the slow path is there to say what is wrong.

Source: HDF5 File Format Specification Version 3.0, IV.A.1.b, IV.A.2 and III.E.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from h5py import h5d, h5t

from datastore_lab import dtypes, integrity
from datastore_lab.engines.hdf5 import attrs, links, names, seals, types
from datastore_lab.engines.hdf5.describe import Node
from datastore_lab.engines.hdf5.links import Unusual
from datastore_lab.engines.hdf5.payload import Array
from datastore_lab.errors import LabError
from datastore_lab.records import ARRAYS, GROUP, ArrayInfo, Stat, default_dims

if TYPE_CHECKING:
    from datastore_lab.keys import Key

_WINDOW = 16 << 10
_LARGEST = 96 << 10
_NOWHERE = b"\xff" * 8
_SPACE, _LINK_INFO, _TYPE, _LINK, _EXTERNAL, _LAYOUT = 0x01, 0x02, 0x03, 0x06, 0x07, 0x08
_FILTERS, _ATTRIBUTE, _CONTINUED, _ATTRIBUTE_INFO = 0x0B, 0x0C, 0x10, 0x15
_SHARED = 0x02
_PLAIN, _TRACKED = struct.Struct("<BHB0s"), struct.Struct("<BHBH")
_SIZES, _ATTRIBUTE_AT = struct.Struct("<HHH"), 9
_order = itemgetter(0)
_MOST_PARTS, _MOST_FORMS = 32, 4
_CHECKSUM, _TIMED = 4, 0x20
_STRANGE = (LabError, ValueError, IndexError, KeyError, TypeError, struct.error, OverflowError)


class _Header(NamedTuple):
    """An object header: attributes and links by name, and the other messages by type."""

    attributes: dict[str, Any]
    links: dict[bytes, int]
    messages: dict[int, bytes]


class _Form(NamedTuple):
    """A header that was parsed, with all of it that differs between records of one form.

    Attributes
    ----------
    size : int
    mask, fixed : int
        Which bits of a header have to be as they are here, and these bits, as one number.
    attributes : list of (str, str, int, int)
        Name, form, and where the value begins and ends.
    links : list of (bytes, int)
        Name, and where the address begins.
    messages : dict of int to bytes
    layout : (int, int) or None
        Where the message begins and ends that tells where the data is.
    """

    size: int
    mask: int
    fixed: int
    attributes: list[tuple[str, str, int, int]]
    links: list[tuple[bytes, int]]
    messages: dict[int, bytes]
    layout: tuple[int, int] | None


class _Message(NamedTuple):
    """A message of a header: its type, creation order, body, and where this is in the file."""

    kind: int
    order: int
    body: bytes
    at: int


class Quick:
    """The headers of one committed state of a file.

    Parameters
    ----------
    read_at : callable
        Fills a buffer with the bytes of the file from an offset on.
    """

    def __init__(self, read_at: Callable[[memoryview, int], int]) -> None:
        self._read_at = read_at
        self._begin, self._window = 0, b""
        self._heaps: dict[int, dict[int, bytes]] = {}
        self._forms: list[_Form] = []

    def node(self, address: int, key: Key, url: str) -> Node:
        """Describe the group whose header is at an address, held against its seal.

        Raises
        ------
        Unusual
        """
        try:
            return self._node(address, key, url)
        except _STRANGE as error:
            raise Unusual from error

    def seems_alone(self, address: int) -> bool:
        """Say whether a header, which may be damaged, still looks like that of a record with nothing below.

        Raises
        ------
        Unusual
        """
        try:
            header = self._parsed(self._messages(*self._prefix(address, signed=False)))
            seal = seals.parse(header.attributes[integrity.SEAL], ())
        except _STRANGE as error:
            raise Unusual from error
        arrays = {links.encode(name) for name in seal.sums or ()}
        return names.KIND in header.attributes and header.links.keys() <= arrays

    def _node(self, address: int, key: Key, url: str) -> Node:
        header = self._header(address)
        seal = seals.parse(header.attributes[integrity.SEAL], key)
        if seal.sums is None or header.links.keys() != {links.encode(name) for name in seal.sums}:
            raise Unusual
        arrays = {}
        for name, total in seal.sums.items():
            if total is None:
                raise Unusual
            arrays[name] = self._array(name, header.links[links.encode(name)], total)
        kind = header.attributes.get(names.KIND) or (ARRAYS if arrays else GROUP)
        meta = {
            attrs.unescape(name, names.NODE_RESERVED): value
            for name, value in header.attributes.items()
            if name not in names.NODE_RESERVED
        }
        stat = Stat(kind, {name: array.info for name, array in arrays.items()}, meta)
        seals.check(key, stat, seal, url)
        return Node(stat, arrays, {}, [], seal)

    def _array(self, name: str, address: int, total: str) -> Array:
        header = self._header(address)
        messages, declared = header.messages, header.attributes
        native, info = _info(name, messages[_TYPE], messages[_SPACE], declared.get(types.TYPE))
        strange = declared.keys() - {types.TYPE, types.ESCAPED} if declared else ()
        if strange and not (strange <= types.CF_NAMES and native.kind == "i" and info.dtype[1:2] in "Mm"):
            raise Unusual
        if _EXTERNAL in messages or _FILTERS in messages:
            raise Unusual
        layout, place = _place(messages[_LAYOUT])
        return Array(None, info, native, layout, declared, total, own=True, place=place)

    def _header(self, address: int) -> _Header:
        """Read a header: one that is like an earlier one, but for the values in it, is not parsed again."""
        for form in self._forms:
            raw = self._some_bytes(address, form.size)
            if int.from_bytes(raw, "little") & form.mask == form.fixed and len(raw) == form.size:
                return self._filled(form, raw)
        begin, size, flags = self._prefix(address, signed=True)
        messages = self._messages(begin, size, flags)
        if all(begin <= message.at < begin + size for message in messages):
            raw = self._bytes(address, begin + size + _CHECKSUM - address)
            self._forms = [_form_of(raw, address, flags, messages), *self._forms[: _MOST_FORMS - 1]]
        return self._parsed(messages)

    def _filled(self, form: _Form, raw: bytes) -> _Header:
        held = {name: self._value(kind, raw[begin:end]) for name, kind, begin, end in form.attributes}
        linked = {name: int.from_bytes(raw[at : at + 8], "little") for name, at in form.links}
        if form.layout is None:
            return _Header(held, linked, form.messages)
        begin, end = form.layout
        return _Header(held, linked, {**form.messages, _LAYOUT: raw[begin:end]})

    def _parsed(self, messages: list[_Message]) -> _Header:
        header, found = _Header({}, {}, {}), []
        for kind, order, body, _at in messages:
            if kind == _ATTRIBUTE:
                size, name, form = _attribute(body)
                found.append((order, name, self._value(form, body[size:])))
            elif kind == _LINK:
                name_of_link, at = _link(body)
                header.links[name_of_link] = int.from_bytes(body[at : at + 8], "little")
            elif kind in {_LINK_INFO, _ATTRIBUTE_INFO}:
                _check_compact(kind, body)
            else:
                header.messages[kind] = body
        found.sort(key=_order)
        header.attributes.update((name, value) for _number, name, value in found)
        return header

    def _messages(self, begin: int, size: int, flags: int) -> list[_Message]:
        """Cut a header, with all that it is continued in, into its messages."""
        form = _TRACKED if flags & 4 else _PLAIN
        found, parts = [], [(begin, size)]
        for at, length in parts:
            raw, done = self._bytes(at, length), 0
            while (begun := done + form.size) <= length:
                kind, count, marks, order = form.unpack_from(raw, done)
                done = begun + count
                if marks & _SHARED or len(parts) > _MOST_PARTS:
                    raise Unusual
                if kind == _CONTINUED:
                    parts.append(self._continued(raw[begun:done]))
                elif kind:
                    found.append(_Message(kind, order or 0, raw[begun:done], at + begun))
        return found

    def _prefix(self, address: int, *, signed: bool) -> tuple[int, int, int]:
        raw = self._bytes(address, 34)
        if signed and raw[:5] != b"OHDR\x02":
            raise Unusual
        flags = raw[5]
        at = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        return address + at + width, int.from_bytes(raw[at : at + width], "little"), flags

    def _continued(self, body: bytes) -> tuple[int, int]:
        at, length = struct.unpack("<QQ", body)
        if self._bytes(at, 4) != b"OCHK":
            raise Unusual
        return at + 4, length - 8

    def _value(self, form: str, data: bytes) -> Any:
        if form == "text":
            size, address, index = struct.unpack("<IQI", data)
            return attrs.value_of_text(self._heap(address)[index][:size].decode() if size else "")
        if form == "bytes":
            return data
        value = np.frombuffer(data, form).item()
        return bool(value) if form == "i1" else value

    def _heap(self, address: int) -> dict[int, bytes]:
        """Read a global heap collection, in which texts of variable length lie."""
        found = self._heaps.get(address)
        if found is None:
            magic, size = struct.unpack("<8sQ", self._bytes(address, 16))
            if magic != b"GCOL\x01\0\0\0":
                raise Unusual
            found = self._heaps[address] = dict(_objects(self._bytes(address, size)))
        return found

    def _bytes(self, at: int, count: int) -> bytes:
        raw = self._some_bytes(at, count)
        if len(raw) < count:
            raise Unusual
        return raw

    def _some_bytes(self, at: int, count: int) -> bytes:
        """Read bytes, or fewer at the end of the file."""
        inside = at - self._begin
        if inside < 0 or inside + count > len(self._window):
            if count > _LARGEST:
                raise Unusual
            buffer = bytearray(max(_WINDOW, count))
            got = self._read_at(memoryview(buffer), at)
            self._begin, self._window, inside = at, bytes(buffer[:got]), 0
        return self._window[inside : inside + count]


def _form_of(raw: bytes, address: int, flags: int, messages: list[_Message]) -> _Form:
    """Tell what of a header may be otherwise in another one of the same form."""
    form = _Form(len(raw), 0, 0, [], [], {}, None)
    free = [(6, 22)] if flags & _TIMED else []
    attributes = []
    for kind, order, body, at in messages:
        begin, end = at - address, at - address + len(body)
        if kind == _ATTRIBUTE:
            size, name, value = _attribute(body)
            attributes.append((order, (name, value, begin + size, end)))
            free.append((begin + size, end))
        elif kind == _LINK:
            link, where = _link(body)
            form.links.append((link, begin + where))
            free.append((begin + where, begin + where + 8))
        elif kind == _LAYOUT:
            form = form._replace(layout=(begin, end))
            free.append((begin + 4, end) if body[1] == h5d.COMPACT else (begin + 2, begin + 10))
        elif kind not in {_LINK_INFO, _ATTRIBUTE_INFO}:
            form.messages[kind] = body
    attributes.sort(key=_order)
    form.attributes.extend(entry for _number, entry in attributes)
    mask = bytearray(b"\xff" * (len(raw) - _CHECKSUM)).ljust(len(raw), b"\0")
    for begin, end in free:
        mask[begin:end] = bytes(end - begin)
    bits = int.from_bytes(mask, "little")
    return form._replace(mask=bits, fixed=int.from_bytes(raw, "little") & bits)


def _attribute(body: bytes) -> tuple[int, str, str]:
    """Give where the value of an attribute begins, its name, and how the value is to be read."""
    size = _ATTRIBUTE_AT + sum(_SIZES.unpack_from(body, 2))
    return size, *_attribute_form(body[:size])


def _objects(raw: bytes) -> Iterator[tuple[int, bytes]]:
    at = 16
    while at + 16 <= len(raw):
        index, _count, size = struct.unpack_from("<HH4xQ", raw, at)
        if not index:
            return
        yield index, raw[at + 16 : at + 16 + size]
        at += 16 + (size + 7) // 8 * 8


def _check_compact(kind: int, body: bytes) -> None:
    """Refuse links or attributes that are kept outside of the header."""
    at = 2 + (0 if not body[1] & 1 else 8 if kind == _LINK_INFO else 2)
    if body[at : at + 8] != _NOWHERE:
        raise Unusual


def _link(body: bytes) -> tuple[bytes, int]:
    """Give the name of a link, and where in the message the address begins."""
    version, marks = body[0], body[1]
    if version != 1 or marks & 0x08:  # a soft or external link says its type
        raise Unusual
    at = 2 + (8 if marks & 0x04 else 0) + (1 if marks & 0x10 else 0)
    width = 1 << (marks & 3)
    size = int.from_bytes(body[at : at + width], "little")
    at += width
    return body[at : at + size], at + size


@functools.lru_cache(maxsize=1024)
def _info(name: str, kind: bytes, space: bytes, own: str | None) -> tuple[np.dtype[Any], ArrayInfo]:
    """Describe an array by the messages of its header."""
    native = _decoded(kind).dtype
    version, rank, _marks, form = space[:4]
    if native.hasobject or version != 2 or form > 1:
        raise Unusual
    shape = struct.unpack_from(f"<{rank}Q", space, 4)
    dtype = types.declared(native, {types.TYPE: own})
    nbytes = math.prod(shape) * dtypes.parse(dtype).itemsize
    return native, ArrayInfo(dtype, shape, default_dims(name, len(shape)), nbytes, None)


def _place(body: bytes) -> tuple[int, bytes | int]:
    """Give the layout, and the data itself or where it lies."""
    version, kind = body[0], body[1]
    if version not in {3, 4} or kind not in {h5d.COMPACT, h5d.CONTIGUOUS}:
        raise Unusual
    if kind == h5d.COMPACT:
        size = int.from_bytes(body[2:4], "little")
        return kind, body[4 : 4 + size]
    return kind, int.from_bytes(body[2:10], "little")


@functools.lru_cache(maxsize=1024)
def _decoded(body: bytes) -> Any:
    try:
        return h5t.decode(b"\x03\x00" + body)
    except (RuntimeError, ValueError, OSError) as error:
        raise Unusual from error


@functools.lru_cache(maxsize=1024)
def _attribute_form(body: bytes) -> tuple[str, str]:
    """Give name and form of an attribute by all that comes before its value."""
    name, kind, _space = _SIZES.unpack_from(body, 2)
    at = _ATTRIBUTE_AT + name
    form = _form(body[at : at + kind])
    if body[:2] != b"\x03\0" or body[at + kind + 1] or body[at + kind + 3] or form is None:
        raise Unusual
    return body[_ATTRIBUTE_AT : at - 1].decode(), form


@functools.lru_cache(maxsize=1024)
def _form(body: bytes) -> str | None:
    """Say how the value of an attribute is to be read."""
    kind = _decoded(body)
    if isinstance(kind, h5t.TypeStringID):
        return "text" if kind.is_variable_str() and kind.get_cset() == h5t.CSET_UTF8 else "bytes"
    native = kind.dtype
    if native == np.dtype(bool):
        return "i1"
    return native.str if native in {np.dtype("<i8"), np.dtype("<f8")} else None
