"""What stands in ``lab.yaml``: the description of a node, for people and for this package.

The last line is ``lab_seal``: the XXH3-128 of all bytes before it, so that not even a flipped blank goes
unnoticed, and nothing is parsed that is not as it was written.
"""

from __future__ import annotations

import base64
import binascii
import functools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import xxhash

from datastore_lab import dtypes, integrity, media
from datastore_lab.engines.parquet import text
from datastore_lab.engines.parquet.checked import Part
from datastore_lab.engines.parquet.columns import Column, restored
from datastore_lab.errors import Corrupt, LabError
from datastore_lab.records import ARRAY_ATTRIBUTES, GROUP, RESERVED, ArrayInfo, Stat

DESCRIPTION = "lab.yaml"
KIND, NAME, STATE = "lab_kind", "lab_name", "lab_state"
_SEAL = f"{integrity.SEAL}: ".encode()
_FILE = re.compile(r"(?i)record(\..+)?\.parquet")
_WRONG = (LabError, ValueError, TypeError, KeyError, AttributeError, binascii.Error)
_ALIKE = 16 << 10
_TABLES = b"\ntables:\n"
_WORD, _COUNT = rb"([A-Za-z_][A-Za-z0-9_.]{0,99})", rb"([0-9]{1,18})"
_PART_LINES = (
    rb"      - name: %s\n        rows: %s\n        size: %s\n"
    rb'        lab_sums: ([A-Za-z][A-Za-z0-9+/]*|"[A-Za-z0-9+/]*={0,2}")\n'
) % (_WORD, _COUNT, _COUNT)
_TABLE_LINES = rb"  %s:\n(?:    rows_per_group: %s\n)?    files:\n((?:%s)+)" % (_WORD, _COUNT, _PART_LINES)
_PART, _TABLE = re.compile(_PART_LINES), re.compile(_TABLE_LINES)
_ALL_TABLES = re.compile(rb"(?:%s)+" % _TABLE_LINES)
_HEAD = "# A record of datastore-lab: its arrays are columns of the Parquet files beside this one.\n"


def escape(part: str) -> str:
    """Turn a name into that of a folder; names that a node's own files have are escaped too."""
    name = media.escape_file(part)
    own = name[0] in "rRlL" and (name.casefold() == DESCRIPTION or _FILE.fullmatch(name))
    return f"%{ord(name[0]):02X}{name[1:]}" if own else name


def unescape(folder: str) -> str | None:
    """Turn a folder's name back; None where it was cut, the name itself where `escape` did not make it."""
    try:
        part = media.unescape_file(folder)
        return None if part is None else part if part and escape(part) == folder else folder
    except UnicodeEncodeError:
        return folder


def is_payload(name: str) -> bool:
    """Tell whether a file of this name belongs to a record's payload."""
    return name[0] in "rR" and _FILE.fullmatch(name) is not None


class Array(NamedTuple):
    """An array of a record: how it is stored, the names of its axes, and in which table."""

    column: Column
    dims: tuple[str, ...]
    table: str


class Table(NamedTuple):
    """Columns of equal length, in one Parquet file or, while they grow, several.

    Attributes
    ----------
    parts : tuple of Part
        In the order of their rows.
    group : int
        Number of rows per row group; 0 where it varies.
    """

    parts: tuple[Part, ...]
    group: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(part.rows for part in self.parts)


class Doc(NamedTuple):
    """The description of one node; never changed in place.

    Attributes
    ----------
    kind : str
    name : str or None
        The full name, where that of the folder was cut.
    meta : mapping
        All attributes, reserved ones and those of arrays included.
    arrays : mapping of str to Array
    tables : mapping of str to Table
    """

    kind: str = GROUP
    name: str | None = None
    meta: Mapping[str, Any] = {}
    arrays: Mapping[str, Array] = {}
    tables: Mapping[str, Table] = {}

    def stat(self) -> Stat:
        """Describe the node, in objects of its own."""
        meta = {name: _copy(value) for name, value in self.meta.items() if name != integrity.BIRTH}
        infos = {name: _info(array, self._group(array)) for name, array in self.arrays.items()}
        return Stat(self.kind, infos, meta)

    def fingerprint(self) -> str:
        """Give what tells the data of the node from other data; see `Engine.fingerprint`."""
        tables = {label: [part.sums for part in table.parts] for label, table in self.tables.items()}
        sums = {name: tables.get(array.table) for name, array in self.arrays.items()}
        return integrity.fingerprint(self.stat(), sums, self.meta.get(integrity.BIRTH))

    def _group(self, array: Array) -> int:
        return self.tables[array.table].group if array.table else 0

    def parts(self) -> Iterator[Part]:
        """Yield all Parquet files."""
        for table in self.tables.values():
            yield from table.parts

    def names_in(self, part: Part) -> list[str]:
        """Name the arrays that a file holds."""
        return [name for name, a in self.arrays.items() if a.table and part in self.tables[a.table].parts]


@functools.lru_cache(maxsize=1024)
def _info(array: Array, group: int) -> ArrayInfo:
    column = array.column
    size = math.prod(column.shape) * column.dtype.itemsize
    chunks = (group, *column.shape[1:]) if column.lead == 1 and 0 < group < column.rows else None
    return ArrayInfo(dtypes.name(column.dtype), column.shape, array.dims, size, chunks)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(item) for name, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, (list, tuple)) else value


# -- writing -------------------------------------------------------------------------------------------


def to_bytes(doc: Doc, *, root: bool = False) -> bytes:
    """Give the content of ``lab.yaml``."""
    given: dict[str, Any] = {integrity.VERSION: integrity.LAYOUT} if root else {}
    if doc.kind != GROUP:
        given[KIND] = doc.kind
    if doc.name is not None:
        given[NAME] = doc.name
    own, plain, state = _split(doc.meta, doc.arrays)
    given |= {"attributes": plain} if plain else {}
    given |= {STATE: state} if state else {}
    if doc.arrays:
        given["arrays"] = {name: _array(array, own.get(name)) for name, array in doc.arrays.items()}
    if doc.tables:
        given["tables"] = {name: _table(table) for name, table in doc.tables.items()}
    head = _HEAD.encode() if doc.kind != GROUP else b""
    return seal(head + (text.dump(given) if given else b""))


def seal(body: bytes) -> bytes:
    """Add the last line."""
    return b"%s%s%s\n" % (body, _SEAL, xxhash.xxh3_128_hexdigest(body).encode())


def _split(
    meta: Mapping[str, Any], arrays: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Separate attributes of arrays, attributes for people, and, as JSON texts, those of the layout."""
    given = meta.get(ARRAY_ATTRIBUTES)
    attributes = given if isinstance(given, Mapping) else {}
    own = {name: v for name, v in attributes.items() if name in arrays and isinstance(v, Mapping) and v}
    state = {name: value for name, value in meta.items() if name.startswith(RESERVED)}
    if own:
        state[ARRAY_ATTRIBUTES] = {name: value for name, value in attributes.items() if name not in own}
        if not state[ARRAY_ATTRIBUTES]:
            del state[ARRAY_ATTRIBUTES]
    plain = {name: value for name, value in meta.items() if not name.startswith(RESERVED)}
    return own, plain, {name: media.to_json(value) for name, value in state.items()}


def _array(array: Array, attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    column = array.column
    given = {
        "dtype": dtypes.name(column.dtype),
        "shape": list(column.shape),
        "dims": list(array.dims),
        "stored": column.stored,
    }
    given |= {"table": array.table} if array.table else {}
    return given | ({"attributes": attributes} if attributes else {})


def _table(table: Table) -> dict[str, Any]:
    files = [
        {
            "name": part.name,
            "rows": part.rows,
            "size": part.size,
            integrity.SUMS: base64.b64encode(part.sums).decode(),
        }
        for part in table.parts
    ]
    return ({"rows_per_group": table.group} if table.group else {}) | {"files": files}


# -- reading -------------------------------------------------------------------------------------------


def body_of(raw: bytes | bytearray) -> bytes | None:
    """Give what is sealed; None if the seal does not fit."""
    body, mark, found = raw.rpartition(_SEAL)
    if mark and found == xxhash.xxh3_128_hexdigest(body).encode() + b"\n":
        return bytes(body)
    return None


def looks_like_record(raw: bytes) -> bool:
    """Tell a record's description from a group's, even if a part of it is damaged."""
    return raw.startswith(_HEAD.encode()) or f"\n{KIND}: ".encode() in raw


def unsealed(raw: bytes) -> bytes:
    """Give what may be a description, whatever its seal says."""
    body, mark, _ = raw.rpartition(_SEAL)
    return body if mark else raw


def parse(body: bytes, where: str) -> Doc:
    """Read what is sealed.

    Raises
    ------
    Corrupt
        If it is no description; a stranger's file may well be sealed.
    """
    if len(body) <= _ALIKE and (found := _parse_alike(body)) is not None:
        return found
    given = text.load(body, where) if body else {}
    try:
        return _parse(given)
    except _WRONG as error:
        raise Corrupt(
            f"the description {where!r} is damaged ({error!r}); restore it or delete its folder", key=where
        ) from error


def layout_of(body: bytes, where: str) -> Any:
    """Give the version of the layout that the description of a root names."""
    return text.load(body, where).get(integrity.VERSION) if body else None


def _parse(given: Mapping[str, Any]) -> Doc:
    tables = {str(label): _parse_table(table) for label, table in given.get("tables", {}).items()}
    return _joined(_parse_head(given), tables)


def _parse_alike(body: bytes) -> Doc | None:
    """Read a description whose tables stand last and as they are written here; None for any other.

    What stands before them is the same in all records of one shape and of the same attributes. What is
    wrong with one is found again, and said, by the reader of all of them.
    """
    head, mark, tail = body.partition(_TABLES)
    if not mark or _ALL_TABLES.fullmatch(tail) is None:
        return None
    described = list(_TABLE.finditer(tail))
    try:
        found = _head(head + b"\n")
        tables = {one[1].decode(): Table(_parts(one[3]), int(one[2] or 0)) for one in described}
        return _joined(found, tables) if found and len(tables) == len(described) else None
    except _WRONG:
        return None


@functools.lru_cache(maxsize=1024)
def _head(raw: bytes) -> Doc | None:
    given = text.load_plain(raw)
    return None if given is None or "tables" in given else _parse_head(given)


def _joined(head: Doc, tables: Mapping[str, Table]) -> Doc:
    for array in head.arrays.values():
        _check_table(array, tables)
    _check_names([part.name for table in tables.values() for part in table.parts])
    return head._replace(tables=tables)


def _parse_head(given: Mapping[str, Any]) -> Doc:
    kind, name = given.get(KIND, GROUP), given.get(NAME)
    if not isinstance(kind, str) or not kind or not isinstance(name, (str, type(None))):
        raise ValueError("kind and name are text")
    described = dict(given.get("arrays", {}))
    arrays = {label: _parse_array(array) for label, array in described.items()}
    meta = dict(given.get("attributes", {}))
    meta |= {label: media.from_json(value) for label, value in given.get(STATE, {}).items()}
    own = {label: dict(a["attributes"]) for label, a in described.items() if a.get("attributes")}
    if own:
        meta[ARRAY_ATTRIBUTES] = {**meta.get(ARRAY_ATTRIBUTES, {}), **own}
    return Doc(kind, name, meta, arrays)


def _parse_array(given: Mapping[str, Any]) -> Array:
    shape, dims = _counts(given["shape"]), tuple(map(str, given["dims"]))
    column = _column(given["dtype"], shape, given["stored"])
    if len(dims) != len(shape):
        raise ValueError("dims and shape differ in length")
    return Array(column, dims, str(given.get("table", "")))


def _check_table(array: Array, tables: Mapping[str, Table]) -> None:
    rows, table = array.column.rows, array.table
    if table and tables[table].rows != rows:
        raise ValueError(f"the files hold {tables[table].rows} rows, not {rows}")
    if not table and rows * array.column.row_bytes:
        raise ValueError("an array lies in no table")


@functools.lru_cache(maxsize=256)
def _column(dtype: str, shape: tuple[int, ...], stored: str) -> Column:
    return restored(dtypes.parse(dtype), shape, stored)


def _parse_table(given: Mapping[str, Any]) -> Table:
    (group,) = _counts([given.get("rows_per_group", 0)])
    return Table(tuple(map(_parse_part, given["files"])), group)


def _parse_part(given: Mapping[str, Any]) -> Part:
    rows, size = _counts([given["rows"], given["size"]])
    return _part(given["name"], rows, size, given[integrity.SUMS])


def _parts(lines: bytes) -> tuple[Part, ...]:
    return tuple(
        _part(name.decode(), int(rows), int(size), sums.strip(b'"'))
        for name, rows, size, sums in _PART.findall(lines)
    )


def _part(name: str, rows: int, size: int, encoded: str | bytes) -> Part:
    sums = base64.b64decode(encoded, validate=True)
    if len(sums) != 8 * math.ceil(size / integrity.BLOCK):
        raise ValueError(f"{name!r} has sums for {len(sums) // 8} blocks")
    return Part(name, rows, size, sums)


def _counts(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or any(type(value) is not int or value < 0 for value in values):
        raise ValueError(f"{values!r} is no list of counts")
    return tuple(values)


def _check_names(names: list[str]) -> None:
    """Refuse files that lie elsewhere, or that hold two parts."""
    for name in names:
        if not is_payload(name) or any(sign in name for sign in "/\\\0"):
            raise ValueError(f"{name!r} is no file of a record")
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError("two parts have one file")
