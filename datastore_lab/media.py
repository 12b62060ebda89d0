"""What the media share: JSON that keeps every float, escapes for names, checksums, atomic files."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import xxhash

from datastore_lab.errors import Corrupt, NotStorable

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLOAT_TAG = "$float"
"""A number that JSON lacks is stored as ``{"$float": "nan"}``, ``"inf"`` or ``"-inf"``."""

_DEEPEST = 100
_LONGEST_INT = 14_000  # Python refuses to write or read more than 4,300 decimal digits


def check_json(value: Any, path: str = "meta", depth: int = 0) -> None:
    """Refuse what JSON can't hold, naming the place.

    Raises
    ------
    NotStorable
        For anything but None, bool, int, float, str, list, tuple, and mappings with text keys; for text
        with a lone surrogate; for nesting deeper than 100; for integers of more than 14,000 bits; for a
        mapping whose only key is ``$float``.
    """
    if depth > _DEEPEST:
        raise NotStorable(f"{path} is nested deeper than {_DEEPEST} levels", key=path)
    if value is None or isinstance(value, (bool, float)):
        return
    if isinstance(value, int):
        _check_size(value, path)
        return
    if isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            check_json(item, f"{path}[{index}]", depth + 1)
    elif isinstance(value, Mapping):
        _check_mapping(value, path, depth)
    else:
        raise NotStorable(f"{path} is {type(value).__name__}, which JSON can't hold", key=path)


def _check_mapping(value: Mapping[Any, Any], path: str, depth: int) -> None:
    if value.keys() == {FLOAT_TAG}:
        raise NotStorable(f"{path} uses the reserved name {FLOAT_TAG!r}", key=path)
    for name, item in value.items():
        if not isinstance(name, str):
            raise NotStorable(f"{path} has the key {name!r}, which is not text", key=path)
        _check_text(name, path)
        check_json(item, f"{path}[{name!r}]", depth + 1)


def _check_size(number: int, path: str) -> None:
    if number.bit_length() > _LONGEST_INT:
        raise NotStorable(
            f"{path} is an integer of more than {_LONGEST_INT} bits, which JSON can't hold", key=path
        )


def _check_text(text: str, path: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise NotStorable(f"{path} holds text with a lone surrogate", key=path) from error


def to_json(value: Any, *, indent: int | None = None, sort: bool = False) -> str:
    """Write a JSON value as text, NaN and infinities included, as valid JSON.

    Examples
    --------
    >>> to_json({"a": [1, float("nan")]})
    '{"a": [1, {"$float": "nan"}]}'
    """
    check_json(value)
    return json.dumps(tag_floats(value), ensure_ascii=False, allow_nan=False, indent=indent, sort_keys=sort)


def from_json(text: str | bytes) -> Any:
    """Read what `to_json` wrote.

    Raises
    ------
    Corrupt
        If it is not JSON.

    Examples
    --------
    >>> from_json('[{"$float": "-inf"}]')
    [-inf]
    """
    plain = isinstance(text, str) and FLOAT_TAG not in text and "\\u" not in text  # nor written as an escape
    try:
        return json.loads(text) if plain else json.loads(text, object_hook=_untag)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"this is not valid JSON ({error}): {text[:80]!r}") from error


def tag_floats(value: Any) -> Any:
    """Replace the floats that JSON lacks by their tags, in a copy."""
    if isinstance(value, float) and not math.isfinite(value):
        return {FLOAT_TAG: "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
    if isinstance(value, Mapping):
        return {name: tag_floats(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [tag_floats(item) for item in value]
    return value


def untag_floats(value: Any) -> Any:
    """Undo `tag_floats`, in a copy."""
    if isinstance(value, Mapping):
        return _untag({name: untag_floats(item) for name, item in value.items()})
    if isinstance(value, list):
        return [untag_floats(item) for item in value]
    return value


def _untag(mapping: dict[str, Any]) -> Any:
    text = mapping.get(FLOAT_TAG)
    if len(mapping) == 1 and isinstance(text, str) and text in {"nan", "inf", "-inf"}:
        return float(text)
    return mapping


def checksum(array: NDArray[Any]) -> str:
    """Give the 128-bit XXH3 of an array's bytes in C order, as 32 hexadecimal digits.

    Variable-length text counts as its UTF-8, each text after its length in bytes and a colon.

    Examples
    --------
    >>> import numpy as np
    >>> checksum(np.zeros(3)) == checksum(np.zeros((3, 2))[:, 0])
    True
    """
    state = xxhash.xxh3_128()
    add_checksum(state, array)
    return state.hexdigest()


def add_checksum(state: xxhash.xxh3_128, array: NDArray[Any]) -> None:
    """Go on with a checksum: rows added one block after the other give that of the whole."""
    import numpy as np

    if array.dtype.kind == "T":  # its bytes are pointers: the UTF-8 texts instead
        texts = [str(text).encode("utf-8", "surrogatepass") for text in array.reshape(-1).tolist()]
        state.update(b"".join(b"%d:%s" % (len(text), text) for text in texts))
    elif array.dtype.itemsize:
        state.update(_without_gaps(np.ascontiguousarray(array)).reshape(-1).view(np.uint8).data)


def _without_gaps(array: NDArray[Any]) -> NDArray[Any]:
    """Drop bytes that mean nothing, as a copy may change them: between fields, after an 80-bit float."""
    import numpy as np

    if array.dtype.names is not None:
        from numpy.lib.recfunctions import repack_fields

        packed = repack_fields(array.dtype, recurse=True)
        return array if packed == array.dtype else array.astype(packed)
    if array.dtype.kind in "fc" and np.finfo(array.dtype).nmant == 63:
        size = np.dtype(np.longdouble).itemsize
        return np.ascontiguousarray(array.reshape(-1).view(np.uint8).reshape(-1, size)[:, :10])
    return array


_UNSAFE = re.compile(r'[%/\\:*?"<>|\x00-\x1f\x7f]')
_WINDOWS = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)")
_LONGEST = 200


def escape_file(part: str) -> str:
    """Turn any text into a name that every file system and Zarr accept.

    Reserved characters become ``%XX`` (of the UTF-8 bytes); so do a leading dot or two underscores, a
    trailing dot or blank, and the first letter of a Windows device name. A name of more than 200 bytes is
    cut and ends in ``%~`` and a checksum of the whole; the caller keeps the full name elsewhere.

    Examples
    --------
    >>> escape_file("a/b"), escape_file(".."), escape_file("plain name")
    ('a%2Fb', '%2E%2E', 'plain name')
    """
    text = _UNSAFE.sub(_percent, part)
    if text.startswith((".", "__")) or _WINDOWS.match(text):
        text = _percent(text[0]) + text[1:]
    if text.endswith((".", " ")):
        text = text[:-1] + _percent(text[-1])
    raw = text.encode()
    if len(raw) <= _LONGEST:
        return text
    head = raw[:_LONGEST].decode(errors="ignore").rpartition("%")[0][:60] or raw[:60].decode(errors="ignore")
    return f"{head}%~{xxhash.xxh3_128_hexdigest(part.encode())}"


def unescape_file(text: str) -> str | None:
    """Undo `escape_file`; None for a name that was cut.

    Examples
    --------
    >>> unescape_file("a%2Fb")
    'a/b'
    """
    if "%~" in text:
        return None
    raw = re.sub(rb"%([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), text.encode())
    return raw.decode(errors="surrogateescape")


_LINK_UNSAFE = re.compile(r"[%/\x00]")


def escape_link(part: str) -> str:
    """Turn any text into a name that an HDF5 link can have: no slash, no NUL, neither ``.`` nor ``..``.

    Examples
    --------
    >>> escape_link("a/b"), escape_link(".."), escape_link("plain name")
    ('a%2Fb', '%2E%2E', 'plain name')
    """
    return part.replace(".", "%2E") if part in {".", ".."} else _LINK_UNSAFE.sub(_percent, part)


def unescape_link(text: str) -> str:
    """Undo `escape_link`; a name that it can't have made comes back as it is.

    Examples
    --------
    >>> unescape_link("a%2Fb"), unescape_link("100 %"), unescape_link("a%20b")
    ('a/b', '100 %', 'a%20b')
    """
    part = re.sub("%(25|2F|00|2E)", lambda match: chr(int(match[1], 16)), text)
    return part if escape_link(part) == text else text


def _percent(match: re.Match[str] | str) -> str:
    text = match if isinstance(match, str) else match[0]
    return "".join(f"%{byte:02X}" for byte in text.encode())


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Make the names in a folder durable; does nothing where folders can't be opened (Windows)."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file that is there completely or not at all, durable when the block ends.

    The bytes go to a temporary file beside it, which is synced and renamed; on an error it is removed and
    what was at `path` stays as it was.
    """
    target = Path(path)
    name = target.parent / f".{target.name[:40]}-{secrets.token_hex(8)}.tmp"
    handle = os.open(
        name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666
    )  # others may read it, as far as umask lets them
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)  # noqa: PTH105 (the pair of mkstemp)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108
        raise
    sync_folder(target.parent)
