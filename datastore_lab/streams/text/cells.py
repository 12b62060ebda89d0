"""How one value of each array type is written as text, and read back bit by bit.

===========  =====================================================================================
form         text
===========  =====================================================================================
``bool``     ``true`` or ``false``
``number``   shortest decimal that gives the same number again; ``inf``, ``-inf``, ``nan``, ``-nan``; another
             NaN is ``nan:`` and its bits in hexadecimal; ``NaT`` in times that are numbers
``complex``  ``1.5-2j``
``date``     ISO 8601, in UTC; ``NaT``; years beyond 1 to 9999 are ``@`` and the number
``text``     the text, in quotes
``hex``      the bytes, two hexadecimal digits each
===========  =====================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datastore_lab.errors import Corrupt
from datastore_lab.streams.columns import numbers
from datastore_lab.streams.columns import plain as as_numpy
from datastore_lab.streams.columns import text as one
from datastore_lab.streams.columns import texts as as_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CALENDAR = ("D", "h", "m", "s", "ms", "us", "ns")
_PARTS = r"^(?P<re>.*[^e])(?P<im>[+-].*)j$"


def form(dtype: np.dtype[Any]) -> str:
    """Choose the form of a type.

    Examples
    --------
    >>> form(np.dtype("f4")), form(np.dtype("M8[ns]")), form(np.dtype("S3"))
    ('number', 'date', 'hex')
    """
    kind = dtype.kind
    if kind == "b":
        return "bool"
    if kind in "TU":
        return "text"
    if kind in "iu" or (kind == "f" and dtype.itemsize <= 8) or kind == "m":
        return "number"
    if kind == "c" and dtype.itemsize <= 16:
        return "complex"
    if kind == "M":
        unit, step = np.datetime_data(dtype)
        return "date" if step == 1 and unit in _CALENDAR else "number"
    return "hex"


def write(values: NDArray[Any]) -> Any:
    """Give the cells of a column as Arrow text.

    Examples
    --------
    >>> write(np.array([0.1, -0.0, np.inf])).to_pylist()
    ['0.1', '-0', 'inf']
    """
    how = form(values.dtype)
    if how not in {"hex", "text"}:  # (in bytes, and in text, the order is part of the value)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return _WRITERS[how](np.ascontiguousarray(values))


def read(cells: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Give the values of a column of Arrow text.

    Raises
    ------
    Corrupt
        If a cell does not hold a value of this type.
    """
    try:
        return _READERS[form(dtype)](cells, dtype)
    except (ValueError, pa.ArrowException, OverflowError) as error:
        raise Corrupt(f"a cell does not hold a value of the type {dtype}: {error}") from error


def _write_bool(values: NDArray[Any]) -> Any:
    return pc.cast(numbers(values), pa.string())


def _write_number(values: NDArray[Any]) -> Any:
    if values.dtype.kind in "mM":
        counts = values.view("i8")
        found = pc.cast(numbers(counts), pa.string())
        return _put_in(found, np.isnat(values), ["NaT"] * int(np.isnat(values).sum()))
    wide = values.astype("f4") if values.dtype == np.dtype("f2") else values
    found = pc.cast(numbers(wide), pa.string())
    if values.dtype.kind != "f":
        return found
    bits, usual, sign = _bits(values)
    odd = np.isnan(values) & (bits != usual)
    width = 2 * values.dtype.itemsize
    texts = ["-nan" if bit == usual | sign else f"nan:{bit:0{width}X}" for bit in bits[odd].tolist()]
    return _put_in(found, odd, texts)


def _bits(values: NDArray[Any]) -> tuple[NDArray[Any], int, int]:
    """Give floats as integers, the bits of the usual NaN, and the bit of the sign."""
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    usual = int(np.array(np.nan, values.dtype).view(unsigned))
    sign = 1 << (8 * values.dtype.itemsize - 1)
    return values.view(unsigned), usual & ~sign, sign


def _put_in(cells: Any, where: NDArray[Any], texts: list[str]) -> Any:
    return pc.replace_with_mask(cells, numbers(where), as_text(texts)) if texts else cells


def _write_complex(values: NDArray[Any]) -> Any:
    part = np.dtype(f"f{values.dtype.itemsize // 2}")
    both = values.view(part).reshape(-1, 2)
    real, imaginary = (_write_number(np.ascontiguousarray(both[:, axis])) for axis in (0, 1))
    plus = pc.if_else(pc.starts_with(imaginary, "-"), one(""), one("+"))
    return pc.binary_join_element_wise(real, plus, imaginary, one("j"), one(""))


def _write_date(values: NDArray[Any]) -> Any:
    years = values.astype("M8[Y]").astype("i8") + 1970
    far = ~np.isnat(values) & ((years < 1) | (years > 9999))
    near = np.where(far, np.array(0, values.dtype), values)
    found = as_text(np.datetime_as_string(near).tolist())
    return _put_in(found, far, [f"@{number}" for number in values[far].view("i8").tolist()])


def _write_text(values: NDArray[Any]) -> Any:
    plain = as_text(values.tolist())
    return pc.binary_join_element_wise(one(""), pc.replace_substring(plain, '"', '""'), one(""), one('"'))


def _write_hex(values: NDArray[Any]) -> Any:
    text, width = values.tobytes().hex(), 2 * values.dtype.itemsize
    return as_text([text[at : at + width] for at in range(0, len(text), width)])


def _read_bool(cells: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.asarray(as_numpy(pc.cast(cells, pa.bool_())), dtype)


def _read_number(cells: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    native = dtype.newbyteorder("=")
    if dtype.kind in "mM":
        lost = np.asarray(as_numpy(pc.equal(cells, one("NaT"))))
        plain = _put_in(cells, lost, ["0"] * int(lost.sum()))
        counts = np.array(as_numpy(pc.cast(plain, pa.int64())), "i8")
        counts[lost] = np.iinfo("i8").min
        return counts.view(native).astype(dtype)
    if dtype.kind != "f":
        return np.array(as_numpy(pc.cast(cells, pa.from_numpy_dtype(native))), dtype)
    odd = np.asarray(as_numpy(pc.starts_with(cells, "nan:")))
    texts = pc.filter(cells, numbers(odd)).to_pylist()
    plain = _put_in(cells, odd, ["nan"] * len(texts))
    wide = pa.float32() if native.itemsize == 2 else pa.from_numpy_dtype(native)
    values = np.array(as_numpy(pc.cast(plain, wide))).astype(native)
    if odd.any():
        values.view(f"u{native.itemsize}")[odd] = [int(text[4:], 16) for text in texts]
    return values.astype(dtype)


def _read_complex(cells: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    part = np.dtype(f"f{dtype.itemsize // 2}")
    found = pc.extract_regex(cells, _PARTS)
    if found.null_count:
        raise ValueError("not a complex number")
    out = np.empty((len(cells), 2), part)
    out[:, 0] = _read_number(pc.struct_field(found, "re"), part)
    out[:, 1] = _read_number(pc.utf8_ltrim(pc.struct_field(found, "im"), "+"), part)
    return out.reshape(-1).view(dtype.newbyteorder("=")).astype(dtype)


def _read_date(cells: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    texts = cells.to_pylist()
    far = [index for index, text in enumerate(texts) if text.startswith("@")]
    counts = [int(texts[index][1:]) for index in far]
    for index in far:
        texts[index] = "NaT"
    native = dtype.newbyteorder("=")
    values = np.array(texts, native) if texts else np.empty(0, native)
    values[far] = np.array(counts, "i8").view(native)
    return values.astype(dtype)


def _read_text(cells: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.array(cells.to_pylist(), dtype)


def _read_hex(cells: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    raw = bytes.fromhex("".join(cells.to_pylist()))
    if len(raw) != len(cells) * dtype.itemsize:
        raise ValueError("of another length")
    return np.frombuffer(raw, dtype).copy()


_WRITERS = {
    "bool": _write_bool, "number": _write_number, "complex": _write_complex, "date": _write_date,
    "text": _write_text, "hex": _write_hex,
}  # fmt: skip
_READERS = {
    "bool": _read_bool, "number": _read_number, "complex": _read_complex, "date": _read_date,
    "text": _read_text, "hex": _read_hex,
}  # fmt: skip
