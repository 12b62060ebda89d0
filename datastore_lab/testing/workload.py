"""Work on a store that can be repeated: the same changes in the same order, on every engine.

What a store holds after each step is known from doing the same in memory, so that what is left after a
crash can be held against it.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab.engines.memory import MemoryEngine
from datastore_lab.errors import NotFound
from datastore_lab.records import ArrayInfo, Record, Stat
from datastore_lab.store.reading import read_record

if TYPE_CHECKING:
    from datastore_lab.keys import Key
    from datastore_lab.records import Appender


def snapshot(engine: Any) -> dict[Key, Any]:
    """Give everything that a store holds, for comparison with ``==``."""
    state = {}
    for key in engine.keys():  # noqa: SIM118 (an engine is no mapping)
        found = read_record(engine, key)
        content = {name: (str(a.dtype), a.shape, a.tolist()) for name, a in sorted(found.arrays.items())}
        state[key] = (found.kind, content, repr(sorted(found.meta.items())))
    return state


class Workload:
    """A repeatable mixture of all changes that a store offers; the same on every engine that starts empty.

    Parameters
    ----------
    engine : Engine
    seed : int
    """

    def __init__(self, engine: Any, seed: int) -> None:
        self.engine = engine
        self._choice = random.Random(seed)  # noqa: S311 (repeatable work)
        self._streams: dict[Key, Appender] = {}
        self._number = 0

    def step(self) -> None:
        """Do one change, committed when it returns."""
        self._number += 1
        keys = sorted(key for key in self.engine.keys() if key[0] != "streams")  # noqa: SIM118
        names = ["write", "write", "grow", "grow", "several", "fail"]
        names += ["replace", "update", "move", "delete", "swap"] if len(keys) > 2 else []
        names += ["delete"] * 6 if len(keys) > 12 else []  # a store that is looked at thousands of times
        getattr(self, f"_{self._choice.choice(names)}")(keys)

    def _record(self) -> Record:
        length = self._choice.randrange(0, 6)
        arrays: Mapping[str, Any] = {
            "data": np.full(length, self._number, "i4"),
            "text": np.array([f"t{self._number}"] * length, np.dtypes.StringDType()),
        }
        return Record(
            "array", dict(list(arrays.items())[: self._choice.randrange(1, 3)]), {"n": self._number}, {}
        )

    def _new_key(self) -> Key:
        return (f"k{self._number}",) if self._choice.random() < 0.5 else ("deep", f"k{self._number}")

    def _write(self, _keys: list[Key]) -> None:
        self.engine.write(self._new_key(), self._record())

    def _replace(self, keys: list[Key]) -> None:
        self.engine.write(self._choice.choice(keys), self._record())

    def _update(self, keys: list[Key]) -> None:
        self.engine.update(self._choice.choice(keys), {"note": self._number})

    def _move(self, keys: list[Key]) -> None:
        self.engine.move(self._choice.choice(keys), ("moved", f"k{self._number}"))

    def _delete(self, keys: list[Key]) -> None:
        self.engine.delete(self._choice.choice(keys))

    def _swap(self, keys: list[Key]) -> None:
        one, two = self._choice.sample(keys, 2)
        with self.engine.transaction():
            self.engine.move(one, ("aside",))
            self.engine.move(two, one)
            self.engine.move(("aside",), two)
            self.engine.update(one, {"swapped": self._number})

    def _several(self, keys: list[Key]) -> None:
        with self.engine.transaction():
            self._write(keys)
            self._grow(keys)
            self.engine.write(("several", f"k{self._number}"), self._record())
            if keys:
                self.engine.delete(self._choice.choice(keys))

    def _fail(self, keys: list[Key]) -> None:
        with contextlib.suppress(NotFound), self.engine.transaction():
            self._write(keys)
            self.engine.delete(("nothing", "here"))

    def _grow(self, _keys: list[Key]) -> None:
        key = ("streams", f"s{self._number // 25}")
        if key not in self._streams:
            info = {"x": ArrayInfo("<f8", (0, 2), ("time", "channel"), 0, (4, 2))}
            info["n"] = ArrayInfo("T", (0,), ("time",), 0, (3,))
            self._streams[key] = self.engine.append(key, Stat("stream", info, {"rate": None}))
            return
        if self._choice.random() < 0.1:
            self._streams.pop(key).close({"end": self._number})
            self._streams[key] = _Ended()
            return
        rows = self._choice.randrange(1, 6)
        x = np.full((rows, 2), float(self._number))
        self._streams[key].extend(
            {"x": x, "n": np.array([str(self._number)] * rows, np.dtypes.StringDType())}
        )
        self._streams[key].flush()


class _Ended:
    """Stands for a stream that was closed: takes rows and drops them."""

    def extend(self, block: Mapping[str, Any]) -> None:
        """Drop rows."""

    def flush(self) -> None:
        """Do nothing."""

    def close(self, meta: Mapping[str, Any]) -> None:
        """Do nothing."""


class Rows:
    """Streams that grow, one after the other: all that an engine for appending takes.

    Parameters
    ----------
    engine : Engine
    seed : int
    """

    def __init__(self, engine: Any, seed: int) -> None:
        self.engine = engine
        self._choice = random.Random(seed)  # noqa: S311 (repeatable work)
        self._stream: Any = None
        self._number = 0
        self._rows = 0

    def step(self) -> None:
        """Begin a stream, add rows to it or end it; durable when it returns."""
        self._number += 1
        if self._stream is None:
            info = ArrayInfo("<i8", (0,), ("time",), 0, None)
            spec = Stat("stream", {"time": info, "x": info._replace(dtype="<f8")}, {"rate": 10.0})
            self._stream = self.engine.append((f"s{self._number}",), spec)
        elif self._choice.random() < 0.1:
            self._stream.close({"end": self._number})
            self._stream = None
        else:
            self._extend()

    def _extend(self) -> None:
        count = self._choice.choice([1, 3, 200])
        time = np.arange(self._rows, self._rows + count)
        self._rows += count
        self._stream.extend({"time": time, "x": time / 8})
        self._stream.flush()


def values(engine: Any) -> dict[Key, Any]:
    """Give the rows that a store holds, for comparison with ``==``; without types and attributes."""
    return {
        key: {name: engine.read(key, name).tolist() for name in engine.stat(key).arrays}
        for key in engine.keys()  # noqa: SIM118 (an engine is no mapping)
    }


def expected(work: type[Workload] | type[Rows], seed: int, steps: int, last: int = 2**62) -> list[Any]:
    """Give what a store holds after each of the last steps of some work, from the empty store on.

    Parameters
    ----------
    work : type
    seed : int
    steps : int
        How many steps to do.
    last : int
        After how many of them to look.
    """
    engine = MemoryEngine()
    look, running, found = snapshot if work is Workload else values, work(engine, seed), []
    for number in range(steps + 1):
        if number:
            running.step()
        if number > steps - last:
            found.append(look(engine))
    return found
