"""How arrays lie in the columns of a Parquet file, bit for bit.

A row of a file is an element of an array's first axis. The word ``stored`` of an array in ``lab.yaml`` says
how its rows are held:

- ``values``: arrays of one axis, as Parquet's own numbers, booleans, date-times or durations;
- ``lists``: a list of fixed length per row, for up to `LONGEST_LIST` numbers; complex numbers are pairs;
- ``text``: text of any length, or lists of such;
- ``bytes``: the row's bytes as numpy holds them, for what Parquet lacks and for long rows such as images;
- ``nothing``: no column, as the rows have no bytes.

Numbers are little-endian whatever the array was; date-times in units that Arrow lacks are 64-bit integers.
Rows of more than `LONGEST_ROW` bytes are cut along the next axes, so that several rows of the file make up
one of the array.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from datastore_lab.errors import NotStorable

if TYPE_CHECKING:
    from numpy.typing import NDArray

VALUES, LISTS, TEXT, BYTES, NOTHING = WAYS = ("values", "lists", "text", "bytes", "nothing")
LONGEST_LIST = 1024
LONGEST_ROW = 64 << 20
_DAMAGED = "a column is not of the type that its description says"
_NUMBERS = {
    np.dtype(code): getattr(pa, name)()
    for code, name in {
        "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64", "u1": "uint8", "u2": "uint16",
        "u4": "uint32", "u8": "uint64", "f2": "float16", "f4": "float32", "f8": "float64",
    }.items()
}  # fmt: skip
_INSTANTS, _SPANS = {"ms", "us", "ns"}, {"s", "ms", "us", "ns"}
_NAT = np.iinfo(np.int64).min


class Column(NamedTuple):
    """How an array is cut into rows, and how a row is held.

    Attributes
    ----------
    dtype : dtype
        Of the array.
    shape : tuple of int
        Of the array.
    stored : str
        One of `WAYS`.
    lead : int
        How many of the first axes make up the rows.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    stored: str
    lead: int

    @property
    def inner(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.shape[self.lead :]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return math.prod(self.shape[: self.lead])

    @property
    def per_item(self) -> int:
        """Number of rows per element of the first axis."""
        return math.prod(self.shape[1 : self.lead])

    @property
    def row_bytes(self) -> int:
        """Size of one row in numpy, in bytes."""
        return math.prod(self.inner) * self.dtype.itemsize

    @property
    def arrow_type(self) -> Any:
        """Type of the column."""
        return _arrow_type(self)

    def field(self, name: str) -> Any:
        """Make the field of a schema."""
        return pa.field(name, self.arrow_type, nullable=self.dtype.kind in "mM" and self.stored == VALUES)


@functools.lru_cache(maxsize=256)
def _arrow_type(column: Column) -> Any:
    count = math.prod(column.inner)
    if column.stored == BYTES:
        return pa.binary(count * column.dtype.itemsize)
    leaf = pa.string() if column.stored == TEXT else _leaf_type(column.dtype)
    if column.stored == VALUES or (column.stored == TEXT and len(column.shape) <= column.lead):
        return leaf
    element = pa.field("element", leaf, nullable=column.dtype.kind in "mM")
    return pa.list_(element, count * (2 if column.dtype.kind == "c" else 1))


def choose(dtype: np.dtype[Any], shape: tuple[int, ...], *, as_text: bool) -> Column:
    """Decide how an array is held.

    Parameters
    ----------
    dtype : dtype
    shape : tuple of int
    as_text : bool
        Whether fixed-width text may be held as text: whether all of it can be said in UTF-8.
    """
    lead = _lead(dtype, shape)
    count = math.prod(shape[lead:])
    if not count * (dtype.itemsize or (1 if dtype.kind == "T" else 0)):
        return Column(dtype, shape, NOTHING, lead)
    if dtype.kind == "T" or (dtype.kind == "U" and as_text):
        return Column(dtype, shape, TEXT, lead)
    if _leaf_type(dtype) is None or count > LONGEST_LIST:
        return Column(dtype, shape, BYTES, lead)
    flat = lead >= len(shape) and dtype.kind != "c"
    return Column(dtype, shape, VALUES if flat else LISTS, lead)


def restored(dtype: np.dtype[Any], shape: tuple[int, ...], stored: str) -> Column:
    """Give the column of an array that was stored, or raise ValueError where it can't be stored like this."""
    column = choose(dtype, shape, as_text=stored == TEXT)
    if column.stored != stored:
        raise ValueError(f"an array of {dtype} and the shape {shape} is not stored as {stored!r}")
    return column


def _lead(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    lead = min(len(shape), 1)
    while lead < len(shape) and math.prod(shape[lead:]) * dtype.itemsize > LONGEST_ROW:
        lead += 1
    return lead


def _leaf_type(dtype: np.dtype[Any]) -> Any:
    """Give the Arrow type of single numbers; None where Parquet has none."""
    if dtype.kind == "b":
        return pa.bool_()
    if dtype.kind in "mM":
        return _time_type(dtype)
    if dtype.kind == "c" and dtype.itemsize <= 16:
        return _NUMBERS[np.dtype(f"f{dtype.itemsize // 2}")]
    return _NUMBERS.get(dtype.newbyteorder("=")) if dtype.kind in "iuf" else None


def _time_type(dtype: np.dtype[Any]) -> Any:
    unit, step = np.datetime_data(dtype)
    if step == 1 and dtype.kind == "M" and unit in _INSTANTS:
        return pa.timestamp(unit)
    if step == 1 and dtype.kind == "m" and unit in _SPANS:
        return pa.duration(unit)
    return pa.int64()


def is_text(array: NDArray[Any]) -> bool:
    """Tell whether fixed-width text holds only code points that UTF-8 can say."""
    if not array.dtype.itemsize:
        return True
    points = np.ascontiguousarray(array).reshape(-1).view(array.dtype.str[0] + "u4")
    return not bool(((points > 0x10FFFF) | ((points >= 0xD800) & (points < 0xE000))).any())


def as_raw(array: NDArray[Any]) -> NDArray[Any]:
    """View structured items as bytes: numpy copies them field by field, and leaves chance in the gaps."""
    return array.view(f"V{array.dtype.itemsize}") if array.dtype.names is not None else array


def to_arrow(rows: NDArray[Any], column: Column) -> Any:
    """Turn rows, of the shape (n, *inner), into an Arrow array; without a copy where possible."""
    kind, count = column.arrow_type, len(rows)
    if column.stored == BYTES:
        raw = np.ascontiguousarray(as_raw(rows)).reshape(-1).view(np.uint8)
        return pa.Array.from_buffers(kind, count, [None, pa.py_buffer(raw)])
    flat = np.ascontiguousarray(rows).reshape(-1)
    leaf = _texts(flat) if column.stored == TEXT else _leaf(flat, column.dtype)
    if pa.types.is_fixed_size_list(kind):
        return pa.Array.from_buffers(kind, count, [None], children=[leaf])
    return leaf


def _leaf(flat: NDArray[Any], dtype: np.dtype[Any]) -> Any:
    kind = _leaf_type(dtype)
    if dtype.kind == "b":
        bits = np.packbits(flat.view(np.uint8) != 0, bitorder="little")
        return pa.Array.from_buffers(kind, len(flat), [None, pa.py_buffer(bits)])
    if dtype.kind == "c":
        flat = flat.view(f"{dtype.str[0]}f{dtype.itemsize // 2}")
    # byteswap, not astype: a conversion of floats might quieten a signalling NaN
    native = flat.byteswap() if flat.dtype.str[0] == ">" else flat
    valid = None
    if kind != pa.int64() and dtype.kind in "mM":
        there = native.view(np.int64) != _NAT
        valid = None if there.all() else pa.py_buffer(np.packbits(there, bitorder="little"))
    return pa.Array.from_buffers(kind, len(native), [valid, pa.py_buffer(native.view(np.uint8))])


def _texts(flat: NDArray[Any]) -> Any:
    """Encode texts; not by `pyarrow.array`, which imports pandas and cuts fixed-width text at NULs."""
    try:
        encoded = [text.encode() for text in flat.tolist()]
    except UnicodeEncodeError as error:
        raise NotStorable("text with a lone surrogate can't be stored as text") from error
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise NotStorable("text of more than 2 GB in one piece can't be stored; store it as bytes")
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def from_arrow(values: Any, column: Column) -> NDArray[Any]:
    """Undo `to_arrow`; the result may be a view of Arrow's memory.

    Raises
    ------
    ValueError
        If it is not of the column's type or lacks values.
    """
    kind, count = column.arrow_type, len(values)
    if values.type != kind:
        raise ValueError(f"{_DAMAGED}: {values.type}, not {kind}")
    if pa.types.is_fixed_size_list(kind):
        _refuse_nulls(values)
        values = values.flatten()
    if column.stored == TEXT:
        flat = _from_texts(values, column.dtype)
    elif column.stored == BYTES:
        flat = _buffer(values, np.dtype(f"V{kind.byte_width}")).view(column.dtype)
    else:
        flat = _from_leaf(values, column.dtype)
    return flat.reshape(count, *column.inner)


def _from_texts(values: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    _refuse_nulls(values)
    texts = values.to_pylist()
    if dtype.kind == "U" and max(map(len, texts), default=0) > dtype.itemsize // 4:
        raise ValueError(f"{_DAMAGED}: a text is too long")
    return np.array(texts, dtype)


def _from_leaf(values: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "b":
        _refuse_nulls(values)
        bits = np.frombuffer(values.buffers()[1] or b"", np.uint8)
        end = values.offset + len(values)
        return np.unpackbits(bits, bitorder="little", count=end)[values.offset :].view(np.bool_)
    if dtype.kind == "c":
        part = np.dtype(f"f{dtype.itemsize // 2}")
        flat = _buffer(values, part).view(dtype.newbyteorder("<"))
    else:
        flat = _buffer(values, dtype.newbyteorder("<"), may_lack=dtype.kind in "mM")
    return flat.byteswap().view(dtype) if dtype.str[0] == ">" else flat


def _buffer(values: Any, dtype: np.dtype[Any], *, may_lack: bool = False) -> NDArray[Any]:
    """View the memory of an array of fixed-size values; missing ones are NaT."""
    if not may_lack:
        _refuse_nulls(values)
    buffer = values.buffers()[1]
    flat = np.frombuffer(buffer or b"", dtype, len(values), values.offset * dtype.itemsize)
    if not values.null_count:
        return flat
    valid = np.frombuffer(values.buffers()[0], np.uint8)
    end = values.offset + len(values)
    there = np.unpackbits(valid, bitorder="little", count=end)[values.offset :].view(np.bool_)
    return np.where(there, flat.view(np.int64), _NAT).view(dtype)


def _refuse_nulls(values: Any) -> None:
    if values.null_count:
        raise ValueError(f"{_DAMAGED}: {values.null_count} values are missing")
