"""What a crash can leave of recorded changes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datastore_lab.testing.crash.disks import Event


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
