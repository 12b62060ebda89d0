"""Names of recordings: when, what, and the next free version."""

from __future__ import annotations

import atexit
import re
import zlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING

from datastore_lab.errors import AlreadyExists, EngineError, Locked
from datastore_lab.locks import FileLock
from datastore_lab.registry import SUFFIXES

if TYPE_CHECKING:
    import os

PATTERN = "{experiment}_{date}_{time}_{version}.{ext}"
"""Sorts by experiment, then by time."""

_LONGEST = 255
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]+')
_DEVICE_NAMES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_SPLIT = {"arrow", "parquet", "csv"}  # formats in which each stream has a file of its own
_CLAIMS: list[FileLock] = []
_VERSION = "\x00"  # stands for the version while the rest of the name is made; no file name can hold it


def run_name(
    pattern: str = PATTERN,
    folder: str | os.PathLike[str] = ".",
    *,
    experiment: str = "run",
    ext: str = "h5",
    when: datetime | None = None,
    fields: Mapping[str, str] | None = None,
    claim: bool = False,
) -> Path:
    """Suggest a file name that is not taken.

    The version is one more than the highest that is there under the same name; the files of single streams
    (``run_v1.camera.arrow``) and what lies beside a file count as well.

    Parameters
    ----------
    pattern : str
        Text with the fields ``{experiment}``, ``{date}``, ``{time}``, ``{version}``, ``{ext}`` and those
        of `fields`.
    folder : str or path-like, default ``"."``
        Where the file will lie. It need not exist yet.
    experiment, ext : str
        Characters that some file system refuses are replaced by ``-``, blanks by ``_``.
    when : datetime, optional
        Now in local time if not given; a time with a zone is converted to local time.
    fields : mapping of str to str, optional
        More fields for the pattern.
    claim : bool, default False
        Keep the name for this process until it ends, so that no other that claims one at the same moment
        gets it. The folder is made; a hidden file in it notes who has the name. Without this nothing is
        created.

    Returns
    -------
    pathlib.Path
        Always directly inside `folder`.

    Raises
    ------
    ValueError
        If the pattern has an unknown field or a path separator, or gives no usable file name.
    AlreadyExists
        If the pattern has no ``{version}`` and the name is taken.

    Examples
    --------
    >>> from datetime import datetime
    >>> run_name(experiment="wavelength scan", when=datetime(2026, 1, 25, 14, 32, 45)).name
    'wavelength_scan_2026-01-25_14-32-45_v1.h5'
    """
    moment = (when or datetime.now().astimezone()).astimezone() if when is None or when.tzinfo else when
    known = {
        **{name: _clean(text) for name, text in (fields or {}).items()},
        "experiment": _clean(experiment),
        "ext": _clean(ext.removeprefix(".")),
        "date": moment.strftime("%Y-%m-%d"),
        "time": moment.strftime("%H-%M-%S"),
        "version": _VERSION,
    }
    template = _fill(pattern, known)
    place = Path(folder)
    if claim:
        return _claimed(place, template, pattern)
    if _VERSION not in template:
        return _untaken(place / _checked(template, pattern))
    return _numbered(place, template, pattern, _next_version(place, template))


def _numbered(folder: Path, template: str, pattern: str, version: int) -> Path:
    return folder / _checked(template.replace(_VERSION, f"v{version}"), pattern)


def _claimed(folder: Path, template: str, pattern: str) -> Path:
    """Take the next name that nobody else has taken or claimed."""
    _checked(template.replace(_VERSION, "v1"), pattern)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(f"the folder {str(folder)!r} can't be made: {error}", key=str(folder)) from error
    least = 1
    while True:
        version = max(least, _next_version(folder, template))
        path = _numbered(folder, template, pattern, version)
        if _lock(path) and version >= _next_version(folder, template):
            return path if _VERSION in template else _untaken(path)
        if _VERSION not in template:
            raise AlreadyExists(f"{str(path)!r} is claimed by another; put {{version}} into the pattern")
        least = version + 1


def _lock(path: Path) -> bool:
    """Claim a name; the claim ends with the process, however that ends."""
    try:
        _CLAIMS.append(FileLock(path.with_name(_claim_name(path.name)), f"the name {path.name!r}"))
    except Locked:
        return False
    if len(_CLAIMS) == 1:
        atexit.register(_release)
    return True


def _claim_name(name: str) -> str:
    """Name the file of a claim: readable, and never too long."""
    return f".{name[:50]}-{zlib.crc32(name.casefold().encode()):08x}.claim"


def _release() -> None:
    while _CLAIMS:
        _CLAIMS.pop().release()


def _fill(pattern: str, known: Mapping[str, str]) -> str:
    return "".join(_filled(pattern, known))


def _filled(pattern: str, known: Mapping[str, str]) -> Iterator[str]:
    """Fill in by hand: the syntax of ``str.format`` reaches into attributes of the values."""
    try:
        parts = list(Formatter().parse(pattern))
    except ValueError as error:
        raise ValueError(f"{pattern!r} is not a pattern of a name: {error}") from None
    for text, field, spec, conversion in parts:
        if _FORBIDDEN.search(text):
            raise ValueError(f"{pattern!r} is not a pattern of a file name: {text!r} can't be part of one")
        yield text
        if field is None:
            continue
        if field not in known or spec or conversion:
            raise ValueError(
                f"{pattern!r} is not a pattern of a name: {{{field}}} is unknown; "
                f"known are {', '.join(sorted(known))}"
            )
        yield known[field]


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("-", "_".join(text.split()))


def _checked(name: str, pattern: str) -> str:
    """Refuse what some file system can't hold, or would take for another name."""
    try:
        length = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise ValueError(f"{pattern!r} gives the name {name!r}, which holds a lone surrogate") from None
    if not name.strip(". ") or name[-1] in ". " or _DEVICE_NAMES.fullmatch(name):
        raise ValueError(f"{pattern!r} gives {name!r}, which is not a usable file name")
    if length > _LONGEST:
        raise ValueError(f"{pattern!r} gives a name of {length} bytes; file systems hold {_LONGEST}")
    return name


def _untaken(path: Path) -> Path:
    taken = _taken(path.name)
    if any(taken.fullmatch(name.casefold()) for name in _names(path.parent)):
        raise AlreadyExists(f"{str(path)!r} is taken; put {{version}} into the pattern", key=str(path))
    return path


def _next_version(folder: Path, template: str) -> int:
    """Count on from the highest version."""
    taken = _taken(template)
    found = (taken.fullmatch(name.casefold()) for name in _names(folder))
    return 1 + max((int(match["version"]) for match in found if match), default=0)


def _taken(template: str) -> re.Pattern[str]:
    """Match names of files that take a name: itself, its single streams, and what was left beside it."""
    stem, dot, ext = template.casefold().rpartition(".")
    if not dot or _VERSION in ext:
        return re.compile(rf"{_pattern(template.casefold())}(?:-.+)?", re.DOTALL)
    streams = r"(?:\..+)?" if SUFFIXES.get(f".{ext}") in _SPLIT else ""
    return re.compile(rf"{_pattern(stem)}{streams}\.{re.escape(ext)}(?:[-.].+)?", re.DOTALL)


def _pattern(template: str) -> str:
    first, *others = re.escape(template).split(re.escape(_VERSION))
    return r"v\d+".join([r"v(?P<version>\d{1,18})".join([first, *others[:1]]), *others[1:]])


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
