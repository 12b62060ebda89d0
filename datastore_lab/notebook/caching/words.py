"""The lines that a cached cell shows, and the words of ``%cache``."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from datastore_lab import units
from datastore_lab.cache import cell_store, entries
from datastore_lab.cache.cells import CODE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from datastore_lab.cache.cell_store import Entry
    from datastore_lab.cache.cells import CellKey

_NAMES = 6
"""Variables that a line names."""


def hit(attrs: Mapping[str, Any]) -> str:
    """Write the line of a cell that was restored.

    Examples
    --------
    >>> attrs = {"created": "2026-01-01T00:00:00+00:00", "variables": ["y"], "nbytes": 8, "seconds": 724.0}
    >>> hit(attrs).split(" · ")[1:]
    ['y', '8 B', 'saved 12 min 4 s']
    """
    size = units.format_size(attrs.get("total", 0) + attrs["nbytes"])
    saved = spent(attrs["seconds"])
    return f"✓ cached {ago(entries.age(attrs))} · {listed(attrs['variables'])} · {size} · saved {saved}"


def ran(seconds: float, names: Iterable[str], size: int, note: str | None = None) -> str:
    """Write the line of a cell that was run and stored."""
    line = f"● ran {spent(seconds)} · stored {listed(names)} · {units.format_size(size)}"
    return f"{line} · {note}" if note else line


def listed(names: Iterable[str]) -> str:
    """Write names, not too many of them.

    Examples
    --------
    >>> listed("abcdefgh"), listed("")
    ('a, b, c, d, e and 3 more', 'output')
    """
    found = list(names)
    if len(found) > _NAMES:
        return f"{', '.join(found[: _NAMES - 1])} and {len(found) - _NAMES + 1} more"
    return ", ".join(found) or "output"


def ago(seconds: float) -> str:
    """Write an age in its largest unit.

    Examples
    --------
    >>> ago(0.2), ago(300000)
    ('just now', '3 d ago')
    """
    if seconds < 1:
        return "just now"
    number, unit = units.format_duration(float(int(seconds))).split(" ")[:2]
    return f"{number} {unit} ago"


def spent(seconds: float) -> str:
    """Write how long something took."""
    return units.format_duration(round(seconds, 3) if seconds < 60 else float(round(seconds)))


def table(found: list[Entry]) -> str:
    """Write results as a table for people, the newest first."""
    rows: list[tuple[str, ...]] = [("variables", "cell", "size", "made", "took", "code")]
    for entry in reversed(found):
        attrs = entry.attrs
        size, took = units.format_size(entry.nbytes), spent(attrs["seconds"])
        made = ago(entry.age) + (" (too old)" if entry.expired else "")
        rows.append(
            (listed(attrs["variables"]), entry.name or "", size, made, took, _first_line(attrs["source"]))
        )
    if not any(row[1] for row in rows[1:]):
        rows = [(row[0], *row[2:]) for row in rows]
    return _aligned(rows)


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _first_line(source: str) -> str:
    lines = [line.strip() for line in source.splitlines()]
    code = next((line for line in lines if line and not line.startswith(("#", "import ", "from "))), "")
    return code if len(code) <= 40 else code[:39] + "…"


def reasons(entry: Entry | None, key: CellKey, source: str, inputs: Mapping[str, str]) -> list[str]:
    """Say why the result of a cell is not in the cache: in what it differs from one that is.

    Parameters
    ----------
    entry : Entry or None
        The result that comes nearest.
    key : CellKey
        That of the cell.
    source : str
        The cell.
    inputs : mapping of str to str
        The variables that it reads, as short text.
    """
    if entry is None:
        return ["nothing like this cell is in the cache"]
    found = []
    for difference in cell_store.differences(entry.attrs["parts"], key.parts):
        text = difference.text
        old, new = entry.attrs.get("inputs", {}).get(difference.part), inputs.get(difference.part)
        if text.endswith("has another value") and old and new:
            text = f"{difference.part}: {old} → {new}" if old != new else f"{text} ({new})"
        found.append(text)
        if difference.part == CODE:
            found += _diff(entry.attrs["source"], source)
    if not found and any(move["from"] for move in entry.attrs["random"].values()):
        return ["random numbers would go on from another state"]
    if not found and entry.key != key.key:
        return ["the options of the cell, or the variables that it reads, are others"]
    return found


def _diff(old: str, new: str) -> list[str]:
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0))[2:]
    return ["    " + line for line in lines if not line.startswith("@@")]


def sheet(entry: Entry) -> str:
    """Write everything about a result: code, inputs, versions."""
    attrs = entry.attrs
    lines = [f"{listed(attrs['variables'])} · {units.format_size(entry.nbytes)} · {ago(entry.age)}"]
    lines[0] += f" · took {spent(attrs['seconds'])}" + (f" · cell {entry.name}" if entry.name else "")
    if attrs.get("accepted"):
        lines.append(f"made by an earlier version of the code, accepted {attrs['accepted']}")
    lines += ["", *("    " + line for line in attrs["source"].strip("\n").splitlines()), ""]
    inputs = [f"{name} = {text}" for name, text in attrs.get("inputs", {}).items()]
    code = _under("code of ", attrs["parts"])
    versions = [
        f"{name} {attrs['parts']['version of ' + name]}" for name in _under("version of ", attrs["parts"])
    ]
    files = _under("file ", attrs["parts"])
    about = (("reads", inputs), ("calls", code), ("files", files), ("uses", versions))
    lines += [f"{head}  {', '.join(found)}" for head, found in about if found]
    return "\n".join(lines)


def _under(prefix: str, parts: Mapping[str, str]) -> list[str]:
    names = (part.removeprefix(prefix) for part in parts if part.startswith(prefix))
    return [name.removeprefix("__main__.") for name in names if f"{prefix}{name}" != CODE]
