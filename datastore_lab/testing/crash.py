"""Every state in which a crash can leave the disk, from one recorded run.

`RecordingDisk` notes each call that changes a disk. `states` replays the notes and yields what a crash
could leave behind after each of them: everything that was asked for (the process died), the last write cut
short, and what was not synced yet lost in whole or in part (the power failed). `operations` makes a run to
record and `digest` says what an engine holds, so that each state can be held against what was promised.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datastore_lab import media
from datastore_lab.engines.hdf5.disk import Disk
from datastore_lab.records import ArrayInfo, Record, Stat


class Event(NamedTuple):
    """One call that changed the disk, or a mark.

    Attributes
    ----------
    kind : str
        ``write``, ``truncate``, ``sync``, ``sync folder``, ``create``, ``replace``, ``unlink`` or ``mark``.
    name : str
        The file's name; what has happened, for a mark.
    at : int
        Offset of a write, new length of a truncation, number of a mark.
    data : bytes
        What was written; the new name, for a replacement.
    """

    kind: str
    name: str
    at: int = 0
    data: bytes = b""


class RecordingDisk(Disk):
    """A disk that notes every change in `events`, for files in one folder."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._names: dict[int, str] = {}

    def mark(self, name: str, number: int) -> None:
        """Note that something has happened, such as the return of an operation."""
        self.events.append(Event("mark", name, number))

    def open(self, path: str, flags: int) -> int:
        """Note the creation of a file."""
        new = bool(flags & os.O_CREAT) and not Path(path).exists()
        handle = super().open(path, flags)
        self._names[handle] = Path(path).name
        if new:
            self.events.append(Event("create", Path(path).name))
        elif flags & os.O_TRUNC:
            self.events.append(Event("truncate", Path(path).name, 0))
        return handle

    def write(self, handle: int, view: memoryview, at: int) -> None:
        """Note a write."""
        self.events.append(Event("write", self._names[handle], at, bytes(view)))
        super().write(handle, view, at)

    def truncate(self, handle: int, size: int) -> None:
        """Note a new length."""
        self.events.append(Event("truncate", self._names[handle], size))
        super().truncate(handle, size)

    def sync(self, handle: int) -> None:
        """Note a barrier."""
        super().sync(handle)
        self.events.append(Event("sync", self._names[handle]))

    def sync_folder(self, path: str) -> None:
        """Note a barrier for names."""
        super().sync_folder(path)
        self.events.append(Event("sync folder", ""))

    def replace(self, source: str, target: str) -> None:
        """Note a new name."""
        self.events.append(Event("replace", Path(source).name, 0, Path(target).name.encode()))
        for handle, name in self._names.items():
            if name == Path(source).name:
                self._names[handle] = Path(target).name
        super().replace(source, target)

    def unlink(self, path: str) -> None:
        """Note a removal."""
        if Path(path).exists():
            self.events.append(Event("unlink", Path(path).name))
        super().unlink(path)


class _File:
    """One file: what is certainly on the disk, and what was asked for since."""

    def __init__(self) -> None:
        self.durable = bytearray()
        self.pending: list[Event] = []

    def sync(self) -> None:
        for event in self.pending:
            _apply(self.durable, event)
        self.pending.clear()

    def content(self, keep: Callable[[int], bool]) -> bytes:
        content = bytearray(self.durable)
        for index, event in enumerate(self.pending):
            if keep(index):
                _apply(content, event)
        return bytes(content)


def _apply(content: bytearray, event: Event) -> None:
    if event.kind == "write":
        if len(content) < event.at:
            content.extend(bytes(event.at - len(content)))
        content[event.at : event.at + len(event.data)] = event.data
    elif event.at < len(content):
        del content[event.at :]
    else:
        content.extend(bytes(event.at - len(content)))


class State(NamedTuple):
    """What a crash could leave.

    Attributes
    ----------
    after : int
        How many events had happened.
    how : str
        What the crash did, for the message of a failure.
    files : dict of str to bytes
    marks : dict of str to int
        Number of the last mark of each name.
    """

    after: int
    how: str
    files: dict[str, bytes]
    marks: dict[str, int]


class _Model:
    """The disk as it may be after some events."""

    def __init__(self) -> None:
        self.names: dict[str, _File] = {}
        self.durable_names: dict[str, _File] = {}
        self.marks: dict[str, int] = {}

    def take(self, event: Event) -> None:
        if event.kind in {"write", "truncate"}:
            self.names[event.name].pending.append(event)
        elif event.kind == "sync":
            if event.name in self.names:
                self.names[event.name].sync()
        elif event.kind == "create":
            self.names[event.name] = _File()
        elif event.kind == "replace":
            self.names[event.data.decode()] = self.names.pop(event.name)
        elif event.kind == "unlink":
            del self.names[event.name]
        elif event.kind == "sync folder":
            self.durable_names = dict(self.names)
        else:
            self.marks[event.name] = event.at

    def files(self, keep: Callable[[str, int], bool], *, durable: bool = False) -> dict[str, bytes]:
        names = self.durable_names if durable else self.names
        return {name: file.content(lambda index, at=name: keep(at, index)) for name, file in names.items()}  # type: ignore[misc]


def states(events: list[Event], seed: int = 0, share: float = 1.0) -> Iterator[State]:
    """Yield what a crash can leave, after each event and in several ways, without repetitions.

    Parameters
    ----------
    events : list of Event
    seed : int, optional
        For the choice of writes that survive, and of states if not all are wanted.
    share : float, optional
        How many of the states to yield, chosen at random.
    """
    model, chance = _Model(), random.Random(seed)  # noqa: S311 (a reproducible choice, no secret)
    seen: set[bytes] = set()
    for after, event in enumerate(events):
        torn = _torn(model, event)
        model.take(event)
        for how, files in (*torn, *_lost(model, chance.randrange(2**32))):
            if chance.random() < share:
                state = State(after + 1, how, files(), dict(model.marks))
                mark = _mark(state)
                if mark not in seen:
                    seen.add(mark)
                    yield state


def _mark(state: State) -> bytes:
    """Tell states apart that differ in their files or in what was promised."""
    mark = hashlib.blake2b(repr((sorted(state.marks.items()), sorted(state.files))).encode())
    for name in sorted(state.files):
        mark.update(hashlib.blake2b(state.files[name]).digest())
    return mark.digest()


_Variant = tuple[str, Callable[[], dict[str, bytes]]]


def _torn(model: _Model, event: Event) -> list[_Variant]:
    """Cut a write short at its first byte, in the middle, at a sector and before its last byte."""
    length = len(event.data)
    cuts = {1, length // 2, length // 512 * 512, length - 1} - {0, length} if event.kind == "write" else set()

    def cut_at(cut: int) -> Callable[[], dict[str, bytes]]:
        def files() -> dict[str, bytes]:
            pending = model.names[event.name].pending
            whole, pending[-1] = pending[-1], event._replace(data=event.data[:cut])
            found = model.files(lambda *_: True)
            pending[-1] = whole
            return found

        return files

    return [(f"write cut at {cut} of {length}", cut_at(cut)) for cut in sorted(cuts)]


def _is(kept: str, name: str, _index: int) -> bool:
    return name == kept


def _lost(model: _Model, seed: int) -> Iterator[_Variant]:
    chance = random.Random(seed)  # noqa: S311 (a reproducible choice, no secret)
    yield "the process died", lambda: model.files(lambda *_: True)
    if not any(file.pending for file in model.names.values()) and model.names == model.durable_names:
        return
    yield "nothing unsynced survived", lambda: model.files(lambda *_: False, durable=True)
    yield "names were lost", lambda: model.files(lambda *_: True, durable=True)
    for kept in model.names:
        yield f"only {kept} survived", partial(model.files, partial(_is, kept))
    yield "some writes survived", lambda: model.files(lambda *_: chance.random() < 0.5)


def put(files: dict[str, bytes], folder: Path) -> None:
    """Make a folder hold just these files."""
    for old in folder.iterdir():
        old.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def digest(engine: Any) -> dict[Any, Any]:
    """Say all that an engine holds, in a form that can be compared."""
    found = {}
    for key in list(engine.keys()):
        stat = engine.stat(key)
        arrays = {
            name: (info.dtype, info.shape, info.dims, media.checksum(engine.read(key, name)))
            for name, info in stat.arrays.items()
        }
        found[key] = (stat.kind, arrays, media.to_json(stat.meta, sort=True))
    return found


def operations(count: int = 100, seed: int = 0) -> list[Callable[[Any, dict[str, Any]], None]]:
    """Make a run: writes, replacements, updates, moves, deletions, transactions, growing records.

    Each operation takes an engine and a dictionary in which the run keeps its open streams; run on two
    engines, it does the same to both.
    """
    chance = random.Random(seed)  # noqa: S311 (a reproducible choice, no secret)
    keys: list[tuple[str, ...]] = []
    made: list[Callable[[Any, dict[str, Any]], None]] = []
    while len(made) < count:
        kind = chance.choices(["write", "update", "move", "delete", "rows", "several"], [5, 2, 1, 1, 3, 1])[0]
        if kind == "rows":
            made.append(_rows(f"stream {chance.randrange(2)}", chance.randrange(1, 400)))
        elif kind == "several":
            made.append(_several([_write(_pick(keys, chance), chance.randrange(2**16)) for _ in range(3)]))
        elif kind == "write" or len(keys) < 3:
            made.append(_write(_pick(keys, chance), chance.randrange(2**16)))
        else:
            made.append(_change(kind, keys, chance))
    return made


def _pick(keys: list[tuple[str, ...]], chance: random.Random) -> tuple[str, ...]:
    key = (f"group {chance.randrange(3)}", f"item {chance.randrange(4)}")
    if key not in keys:
        keys.append(key)
    return key


def _write(key: tuple[str, ...], seed: int) -> Callable[[Any, dict[str, Any]], None]:
    noise = np.random.default_rng(seed)
    shape = (int(noise.integers(0, 60)), int(noise.integers(1, 20)))
    arrays = {"data": noise.integers(0, 9, shape), "label": np.array([f"µ{seed}"])}
    record = Record("array", arrays, {"seed": seed, "note": "n" * (seed % 700)}, {"data": ("row", "column")})
    return lambda engine, _: engine.write(key, record)


def _change(
    kind: str, keys: list[tuple[str, ...]], chance: random.Random
) -> Callable[[Any, dict[str, Any]], None]:
    key, number = chance.choice(keys), chance.randrange(10**6)
    if kind == "update":
        return lambda engine, _: engine.update(key, {"number": number, "list": [number] * (number % 50)})
    keys.remove(key)
    if kind == "delete":
        return lambda engine, _: engine.delete(key)
    target = ("moved", f"item {number}")
    keys.append(target)
    return lambda engine, _: engine.move(key, target)


def _several(
    steps: list[Callable[[Any, dict[str, Any]], None]],
) -> Callable[[Any, dict[str, Any]], None]:
    def run(engine: Any, streams: dict[str, Any]) -> None:
        with engine.transaction():
            for step in steps:
                step(engine, streams)

    return run


def _rows(name: str, count: int) -> Callable[[Any, dict[str, Any]], None]:
    arrays = {
        "time": ArrayInfo("<i8", (0,), ("time",), 0, None),
        "adc": ArrayInfo("<f4", (0, 3), ("time", "channel"), 0, None),
    }

    def run(engine: Any, streams: dict[str, Any]) -> None:
        if name not in streams:
            streams[name] = engine.append((name,), Stat("stream", arrays, {"rate": 100.0}))
            return
        rows = np.arange(count)
        streams[name].extend({"time": rows, "adc": np.repeat(rows[:, None], 3, 1).astype("f4")})
        streams[name].flush()

    return run


class FailingDisk(Disk):
    """A disk that refuses one of its changes, and all later ones if asked to.

    Parameters
    ----------
    at : int
        Which change to refuse, counted from 0 since `arm`.
    code : int
        The number of the error, such as ``errno.ENOSPC``.
    forever : bool
        Whether later changes fail too.
    """

    def __init__(self, at: int, code: int, *, forever: bool) -> None:
        self._at, self._code, self._forever = at, code, forever
        self._count: int | None = None

    @property
    def failed(self) -> bool:
        """Whether a change was refused."""
        return self._count is not None and self._count > self._at

    def arm(self, *, on: bool = True) -> None:
        """Begin to count, or stop failing."""
        self._count = 0 if on else None

    def write(self, handle: int, view: memoryview, at: int) -> None:
        """Write, or fail halfway."""
        self._refuse(lambda: super(FailingDisk, self).write(handle, view[: len(view) // 2], at))
        super().write(handle, view, at)

    def truncate(self, handle: int, size: int) -> None:
        """Set the length, or fail."""
        self._refuse()
        super().truncate(handle, size)

    def sync(self, handle: int) -> None:
        """Sync, or fail."""
        self._refuse()
        super().sync(handle)

    def _refuse(self, half: Callable[[], None] = lambda: None) -> None:
        if self._count is None:
            return
        self._count += 1
        if self._count == self._at + 1 or (self._forever and self.failed):
            half()
            raise OSError(self._code, os.strerror(self._code))
