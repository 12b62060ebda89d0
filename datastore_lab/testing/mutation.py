"""Files that nobody wrote: stores changed at random, and a reader that may not crash, roam or swell.

`mutate` changes the files of a small store in the ways that break parsers; `Sandbox` watches what a reader
opens meanwhile, and how much memory it takes; `roam` asks a store for everything it has.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from datastore_lab.errors import LabError
from datastore_lab.records import ArrayInfo, Record, Stat

if TYPE_CHECKING:
    from datastore_lab.keys import Key

Files = dict[str, bytes]

_EXTREMES = [0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]
_ORDERS: list[Literal["little", "big"]] = ["little", "big"]
_HOSTILE: list[Any] = [
    None, True, -1, 0, 2**31, 2**63, 2**64, -(2**70), 1e308, "", "../../canary", "/etc/passwd", "\0",
    "x" * 70_000, [], {}, [[]], {"a": {}}, [2**62, 2**62], ["a"] * 1000, {"$float": "nan"}, {"$float": []}, "file:///etc/passwd",
]  # fmt: skip


def sow(engine: Any, *, whole: bool) -> None:
    """Fill a store with a little of everything, in as few bytes as can be."""
    if whole:
        arrays: Mapping[str, Any] = {
            "i": np.arange(6).reshape(2, 3),
            "t": np.array(["a", "µV"], np.dtypes.StringDType()),
        }
        engine.write(
            ("a", "b"), Record("array", arrays, {"unit": "V", "list": [1, 2.5, None]}, {"i": ("y", "x")})
        )
        structured = np.zeros(2, [("x", "f8"), ("name", "S4")])
        engine.write(("c",), Record("value", {"s": structured, "u": np.array(["ab"])}, {"n": 1}, {}))
        engine.update((), {"title": "bench"})
    info = ArrayInfo("<i8", (0,), ("time",), 0, None)
    stream = engine.append(
        ("s",), Stat("stream", {"time": info, "x": info._replace(dtype="<f8")}, {"rate": 1.0})
    )
    for first in (0, 40):
        stream.extend({"time": np.arange(first, first + 40), "x": np.ones(40)})
        stream.flush()
    stream.close({"end": 1})


def mutate(files: Files, seed: int) -> Files:
    """Change one to three things in a copy of some files.

    Parameters
    ----------
    files : dict of str to bytes
        By path below the folder of the store.
    seed : int
        Equal seeds make equal changes.
    """
    choice = random.Random(seed)  # noqa: S311 (a repeatable choice)
    changed = dict(files)
    for _ in range(choice.choice([1, 1, 1, 2, 3])):
        name = choice.choice(sorted(changed))
        way = choice.choice(_TEXT_WAYS if _is_text(changed[name]) else _BYTE_WAYS)
        changed[name] = way(changed[name], choice, changed)
    return changed


def _is_text(data: bytes) -> bool:
    return data[:1] in {b"{", b"["} or (data.isascii() and b"\0" not in data and len(data) > 0)


def _spot(data: bytes, choice: random.Random) -> tuple[int, int]:
    start = choice.randrange(len(data) + 1)
    return start, min(len(data), start + choice.choice([1, 2, 4, 8, 16, 64, 512, 4096]))


def _flip(data: bytes, choice: random.Random, _: Files) -> bytes:
    changed = bytearray(data)
    for _turn in range(choice.choice([1, 1, 2, 8]) if data else 0):
        changed[choice.randrange(len(data))] ^= 1 << choice.randrange(8)
    return bytes(changed)


def _zero(data: bytes, choice: random.Random, _: Files) -> bytes:
    start, end = _spot(data, choice)
    return data[:start] + bytes([choice.choice([0, 255])]) * (end - start) + data[end:]


def _double(data: bytes, choice: random.Random, _: Files) -> bytes:
    start, end = _spot(data, choice)
    return data[:end] + data[start:end] * choice.choice([1, 1, 30]) + data[end:]


def _cut(data: bytes, choice: random.Random, _: Files) -> bytes:
    start, end = _spot(data, choice)
    return choice.choice([data[:start], data[start:], data[:start] + data[end:]])


def _splice(data: bytes, choice: random.Random, files: Files) -> bytes:
    other = files[choice.choice(sorted(files))]
    start, end = _spot(other, choice)
    at = choice.randrange(len(data) + 1)
    return data[:at] + other[start:end] + data[at + (end - start if choice.random() < 0.7 else 0) :]


def _extreme(data: bytes, choice: random.Random, _: Files) -> bytes:
    size = choice.choice([1, 2, 4, 8])
    number = int(choice.choice(_EXTREMES) % 256**size).to_bytes(size, choice.choice(_ORDERS))
    at = choice.randrange(len(data) + 1)
    return data[:at] + number + data[at + size :]


def _number(data: bytes, choice: random.Random, _: Files) -> bytes:
    places = list(re.finditer(rb"-?\d+(\.\d+)?", data))
    if not places:
        return data + b"9" * 400
    place = choice.choice(places)
    new = str(choice.choice([*_EXTREMES, -1, "1e999", "9" * 400, "NaN"])).encode()
    return data[: place.start()] + new + data[place.end() :]


def _word(data: bytes, choice: random.Random, _: Files) -> bytes:
    places = list(re.finditer(rb"[A-Za-z_]{2,}", data))
    if not places:
        return data
    place, other = choice.choice(places), choice.choice(places)
    new = choice.choice(
        [other[0], b"../x", b"&a [*a]", b"!!python/object:os.system", b"null", b"\xff\xfe", b""]
    )
    return data[: place.start()] + new + data[place.end() :]


def _structure(data: bytes, choice: random.Random, files: Files) -> bytes:
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):  # (an earlier change nested it)
        return _word(data, choice, files)
    places = list(_places(tree))
    if not places:
        return json.dumps(choice.choice(_HOSTILE)).encode()
    holder, at = choice.choice(places)
    if choice.random() < 0.3:
        del holder[at]
    elif choice.random() < 0.2:
        return (b'{"a":' * 5_000) + data + b"}" * 5_000
    else:
        holder[at] = choice.choice([*_HOSTILE, choice.choice(places)[0]])
    try:
        return json.dumps(tree).encode()
    except ValueError:  # it holds itself now
        return _word(data, choice, files)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for at in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, at
        yield from _places(tree[at])


_BYTE_WAYS = [_flip, _zero, _double, _cut, _splice, _extreme]
_TEXT_WAYS = [*_BYTE_WAYS, _number, _word, _structure, _number, _word, _structure]


def roam(engine: Any, *, parts: bool) -> None:
    """Ask a store for everything; errors of this package are answers, too.

    Parameters
    ----------
    engine : Engine
    parts : bool
        Whether to read parts of the arrays, instead of all of them twice.
    """
    part = (slice(0, 1),) if parts else ()
    nodes: set[Key] = {()}
    for key in _answer(lambda: list(engine.keys()), []):
        nodes |= {key[:depth] for depth in range(len(key) + 1)}
    for key in sorted(nodes):
        _answer(partial(_children, engine, key), [])
        stat = _answer(partial(engine.stat, key), None)
        for name in stat.arrays if stat is not None else ():
            _answer(partial(engine.read, key, name, part), None)
    if not part:
        _answer(lambda: list(engine.verify()), [])


def _children(engine: Any, key: Key) -> list[str]:
    return list(engine.children(key))


def _answer(ask: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return ask()
    except (LabError, IndexError):  # an index may lie outside an array that has fewer axes now
        return otherwise


class Sandbox:
    """Watches this process: which files it opens, and how much memory it may take.

    Parameters
    ----------
    memory : int
        How many bytes it may take beyond what it has now.
    allowed : tuple of str
        Where files may be opened, beside the store: libraries are imported when they are first needed.
    """

    def __init__(self, memory: int, allowed: tuple[str, ...] = ()) -> None:
        self._allowed = (*allowed, *(entry for entry in sys.path if entry), sys.prefix, sys.base_prefix)
        self._root: str | None = None
        self.outside: list[str] = []
        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._root is None or event not in _EVENTS or not arguments:
            return
        path = arguments[0]
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        place = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 (no link is followed yet)
        if event == "open" and arguments[2] & getattr(os, "O_NOFOLLOW", 0):
            folder, name = os.path.split(place)
            place = os.path.join(os.path.realpath(folder), name)  # noqa: PTH118
        else:
            place = os.path.realpath(place)
        if place != self._root and not place.startswith((self._root + os.sep, *self._allowed)):
            self.outside.append(f"{event} {place}")

    @contextmanager
    def watch(self, root: Path) -> Iterator[None]:
        """Note what is opened outside a folder while the block runs."""
        self.outside.clear()
        self._root = os.path.realpath(root)
        try:
            yield
        finally:
            self._root = None


_EVENTS = {
    "open", "os.listdir", "os.scandir", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate",
    "os.link", "os.symlink", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "exec",
}  # fmt: skip
