"""From blocks and documents into a `Store`, in the layout that the same `Store` reads."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes
from datastore_lab.acquire import documents
from datastore_lab.acquire.storage import USUAL, Storage
from datastore_lab.errors import AlreadyExists, StreamError
from datastore_lab.integrity import CHECKSUMS, RowSum
from datastore_lab.keys import Key, show
from datastore_lab.records import ARRAY_ATTRIBUTES, ArrayInfo, Block, Stat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.store import Store

_STAGED_ROWS = 8192
_TIME = ArrayInfo("<M8[ns]", (0,), ("time",), 0, None)
_NUMBER = ArrayInfo("<i8", (0,), ("time",), 0, None)


class _Stream:
    """One growing record, and the events that wait to be written to it."""

    def __init__(
        self,
        store: Store,
        key: Key,
        descriptor: Mapping[str, Any],
        run: Mapping[str, Any],
        storage: Storage,
    ) -> None:
        self.store, self.key, self.descriptor, self.run = store, key, descriptor, run
        self.storage = storage
        self.spec: Stat | None = None
        self.appender: Any = None
        self.rows: list[Mapping[str, Any]] = []
        self.stamps: list[tuple[int, int]] = []  # time in ns, sequence number
        self.sums: dict[str, RowSum] = {}
        self.open(None)

    def open(self, sample: Mapping[str, Any] | None) -> None:
        """Begin the record, as soon as its layout is known."""
        self.spec = documents.spec_of(self.descriptor, sample)
        if self.spec is None:
            return
        arrays = {"time": _TIME, "sequence": _NUMBER}
        if self.spec.meta.get("device_time"):
            arrays["device_time"] = _NUMBER
        units = {name: {"units": unit} for name, unit in self.spec.meta["units"].items()}
        meta = {**self.spec.meta, "run": self.run, ARRAY_ATTRIBUTES: units}
        infos = {**arrays, **self.spec.arrays}
        spec = Stat("stream", {name: self.storage.applied(info) for name, info in infos.items()}, meta)
        self.appender = self.store.append(self.key, spec)
        self.sums = {name: RowSum(dtypes.parse(info.dtype)) for name, info in spec.arrays.items()}

    def _extend(self, rows: Mapping[str, NDArray[Any]]) -> None:
        """Write rows, and sum them up: the sums are the same in all files of a run."""
        sums, self.sums = self.sums, {}
        self.appender.extend(rows)  # after an error it is not certain which rows are there: then no sums
        for name, one in sums.items():
            one.add(rows[name])
        self.sums = sums

    def write(self, block: Block) -> None:
        """Write a block, after the events that wait."""
        self.write_rows()
        count = len(block.time)
        rows = {
            "time": block.time.view("M8[ns]"),
            "sequence": np.arange(block.first, block.first + count, dtype=np.int64),
            **block.data,
        }
        if block.device_time is not None:
            rows["device_time"] = block.device_time
        self._extend(rows)

    def stage(self, data: Mapping[str, Any], seconds: float, number: int) -> None:
        """Keep one event until there are enough of them: a write per event costs a thousand times more."""
        if missing := self.descriptor["data_keys"].keys() ^ data.keys():
            raise StreamError(f"an event of {show(self.key)!r} lacks, or has too many: {sorted(missing)}")
        if self.appender is None:
            self.open(data)
        if self.spec is None:
            raise StreamError(f"an event of {show(self.key)!r} does not show the layout of its data: {data}")
        # each is checked now: one that does not fit must not take those before it along
        row = {name: self._fit(name, data[name], info) for name, info in self.spec.arrays.items()}
        stamp = self._stamp(seconds, number)
        self.rows.append(row)
        self.stamps.append(stamp)
        if len(self.rows) >= _STAGED_ROWS:
            self.write_rows()

    def write_rows(self) -> None:
        """Write the events that wait."""
        if not self.rows or self.spec is None:
            return
        rows, self.rows = self.rows, []
        stamps, self.stamps = np.array(self.stamps, dtype=np.int64), []
        columns = {
            name: np.array([row[name] for row in rows], dtypes.parse(info.dtype))
            for name, info in self.spec.arrays.items()
        }
        self._extend({"time": stamps[:, 0].copy().view("M8[ns]"), "sequence": stamps[:, 1], **columns})

    def _stamp(self, seconds: float, number: int) -> tuple[int, int]:
        try:
            stamp = documents.nanoseconds(seconds), operator.index(number)
            np.array(stamp, dtype=np.int64)
        except (TypeError, ValueError, OverflowError) as error:
            raise StreamError(
                f"an event of {show(self.key)!r} has the time {seconds!r} and the number {number!r}: {error}"
            ) from error
        return stamp

    def _fit(self, name: str, value: Any, info: ArrayInfo) -> NDArray[Any]:
        try:
            return documents.fit(value, dtypes.parse(info.dtype), info.shape[1:])
        except (TypeError, ValueError, OverflowError) as error:
            raise StreamError(f"{name!r} of an event of {show(self.key)!r} does not fit: {error}") from error

    def close(self, meta: Mapping[str, Any]) -> None:
        """Write what waits, and end the record; one that had no event to show its layout is left out."""
        self.write_rows()
        if self.appender is not None:
            self.appender.close({**meta, CHECKSUMS: {name: one.text() for name, one in self.sums.items()}})


class StoreWriter:
    """Writes streams as growing records of a `Store`, each under its own name.

    A record has the arrays ``time`` (datetime64[ns], UTC), ``sequence`` (int64) and those of the device, all
    along the dimension ``time``, with units as attributes; what the run and the device say of themselves is
    in its attributes, and at the end how the run ended and which samples are missing.

    The documents of several runs may follow one another: the first run's streams lie at the top, those of
    the next below ``run-0002``.

    Parameters
    ----------
    store : Store, or function that opens one
        On an engine that appends; a function is called when the store is first needed.
    owned : bool, default False
        Close the store with the writer.
    storage : Storage, optional
        How the arrays are to be kept, where that is not left to the engine.

    Examples
    --------
    >>> from datastore_lab import open_store
    >>> store = open_store("memory://")
    >>> writer = StoreWriter(store)
    >>> writer.consume_document("start", {"uid": "a", "time": 0.0})
    >>> key = {"x": {"source": "sim", "dtype": "number", "shape": []}}
    >>> writer.consume_document("descriptor", {"uid": "b", "name": "primary", "data_keys": key})
    >>> event = {"descriptor": "b", "seq_num": 1, "time": 1.0, "data": {"x": 0.5}}
    >>> writer.consume_document("event", event)
    >>> writer.consume_document("stop", {"uid": "c", "time": 2.0, "exit_status": "success"})
    >>> store.record("primary").arrays["x"]
    array([0.5])
    """

    def __init__(
        self, store: Store | Callable[[], Store], *, owned: bool = False, storage: Storage = USUAL
    ) -> None:
        self._store = store
        self._storage = storage
        self._owned = owned
        self._runs = 0
        self._start: dict[str, Any] = {}
        self._streams: dict[str, _Stream] = {}
        self._described: dict[str, str] = {}  # uid of a descriptor: name of its stream
        self._closed = False

    def __repr__(self) -> str:
        streams = ", ".join(self._streams) or "no stream yet"
        url = "a store that is not open yet" if callable(self._store) else self._store.url
        return f"<{type(self).__name__} to {url}: {streams}>"

    @property
    def store(self) -> Store:
        """Where the streams are written."""
        if callable(self._store):
            self._store = self._store()
        return self._store

    def check(self, names: list[str]) -> None:
        """Refuse, before anything is written, streams that the store has already.

        Raises
        ------
        AlreadyExists
        """
        for name in names:
            if (name,) in self.store:
                raise AlreadyExists(
                    f"{self.store.url} has a record {name!r} already, and runs never overwrite: "
                    "choose another file, such as run_name('run_{version}.h5'), or another group",
                    key=name,
                )

    def consume_document(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document of the event model; kinds that carry no data of their own are ignored.

        Raises
        ------
        StreamError
            For an event without its descriptor, or one that does not fit it.
        """
        handlers = {
            "start": self._begin,
            "descriptor": self._describe,
            "event": self._event,
            "event_page": self._page,
            "stop": self._end,
        }
        if name in handlers:
            handlers[name](doc)

    def write(self, stream: str, block: Block) -> None:
        """Take a block of a stream that a descriptor announced."""
        if stream not in self._streams:
            raise documents.unknown_stream(stream, list(self._streams))
        self._streams[stream].write(block)

    def flush(self) -> None:
        """Make everything taken so far durable."""
        for stream in self._streams.values():
            stream.write_rows()
            if stream.appender is not None:
                stream.appender.flush()

    def close(self) -> None:
        """End all records; a run that did not stop is marked as aborted."""
        if self._closed:
            return
        self._closed = True
        try:
            self._end_all({"exit_status": "abort", "reason": "the writer was closed before the run stopped"})
        finally:
            if self._owned and not callable(self._store):
                self._store.close()

    def _begin(self, doc: Mapping[str, Any]) -> None:
        self._end_all({"exit_status": "abort", "reason": "the next run started before this one stopped"})
        self._runs += 1
        self._start = documents.plain(doc, "start")

    def _describe(self, doc: Mapping[str, Any]) -> None:
        stream = doc["name"]
        self._described[doc["uid"]] = stream
        if stream not in self._streams:  # a later descriptor of a stream states a new configuration only
            prefix: Key = () if self._runs < 2 else (f"run-{self._runs:04d}",)
            self._streams[stream] = _Stream(self.store, (*prefix, stream), doc, self._start, self._storage)

    def _event(self, doc: Mapping[str, Any]) -> None:
        self._of(doc).stage(doc["data"], doc["time"], doc["seq_num"])

    def _page(self, doc: Mapping[str, Any]) -> None:
        stream, names = self._of(doc), list(doc["data"])
        rows = zip(doc["time"], doc["seq_num"], *doc["data"].values(), strict=True)
        for seconds, number, *values in rows:
            stream.stage(dict(zip(names, values, strict=True)), seconds, number)

    def _end(self, doc: Mapping[str, Any]) -> None:
        self._end_all(doc)

    def _end_all(self, doc: Mapping[str, Any]) -> None:
        """End every record, also after one of them failed; the first error is raised."""
        ledgers = doc.get("ledger", {})
        streams, self._streams = self._streams, {}
        self._described.clear()
        errors: list[Exception] = []
        for name, stream in streams.items():
            status = {key: doc[key] for key in ("exit_status", "reason") if key in doc}
            meta = {**status, **ledgers.get(name, {}), "stop_time": doc.get("time")}
            try:
                stream.close(documents.plain(meta, "stop"))
            except Exception as error:
                errors.append(error)
        if errors:
            for other in errors[1:]:
                errors[0].add_note(f"and then: {other}")
            raise errors[0]

    def _of(self, doc: Mapping[str, Any]) -> _Stream:
        name = self._described.get(doc["descriptor"])
        if name is None:
            raise documents.unknown_stream(doc["descriptor"], list(self._described))
        return self._streams[name]
