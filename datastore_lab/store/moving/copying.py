"""Copying records: small ones in batches of one commit each, large ones in blocks of bounded memory."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, Protocol, TypeVar, runtime_checkable

from datastore_lab import dtypes
from datastore_lab.errors import EngineError, LabError, NotFound, ReadOnly
from datastore_lab.keys import Key, show
from datastore_lab.records import (
    GROUP,
    Appender,
    Appends,
    ArrayInfo,
    Problem,
    Record,
    Stat,
    default_dims,
)
from datastore_lab.store.moving import unfinished
from datastore_lab.store.moving.blocks import BLOCK, parts, rows_within
from datastore_lab.store.moving.comparing import differences
from datastore_lab.store.moving.plan import (
    REFUSED,
    TEMPORARY,
    UNFINISHED,
    Item,
    Plan,
    no_stream,
    own_attributes,
    size_of,
)
from datastore_lab.store.moving.report import Progress, Watch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.store.mapping import Store

P = ParamSpec("P")
T = TypeVar("T")

_BATCH_ITEMS = 1000


class Existing(Enum):
    """What is done about a record that is in the target already."""

    KEEP = "keep it"
    REPLACE = "replace it"
    COMPARE = "replace it if it is not the same"


class Copied(NamedTuple):
    """What was done: the items that were written, those that stayed, and those known to be the same."""

    written: list[Item]
    kept: list[Item]
    same: set[Key]


def copy_records(
    source: Store, target: Store, plan: Plan, existing: Existing, *, skip_damaged: bool, watch: Watch
) -> Copied:
    """Copy what a plan says; what was committed before an error stays, and is passed over the next time.

    Nothing is read from the source while the target is held, so that two threads that copy to and fro do not
    wait for each other.
    """
    copier = _Copier(source, target, plan, existing, skip_damaged=skip_damaged, watch=watch)
    copier.run()
    return copier.done


class _Copier:
    def __init__(
        self,
        source: Store,
        target: Store,
        plan: Plan,
        existing: Existing,
        *,
        skip_damaged: bool,
        watch: Watch,
    ) -> None:
        self.source, self.target, self.plan, self.existing = source, target, plan, existing
        self.skip_damaged, self.watch = skip_damaged, watch
        self.done = Copied([], [], set())
        self._batch: list[tuple[Item, Record, bool]] = []
        self._waiting = 0
        self._own = secrets.token_hex(8)
        self._passed = self._nbytes = 0

    def run(self) -> None:
        unfinished.drop(self.target)
        try:
            for item in self.plan.items:
                self._tell()
                self._take(item)
                self._passed += 1
                self._nbytes += item.nbytes
            self._commit()
            self._copy_groups()
        except BaseException as error:
            with contextlib.suppress(LabError):  # the first error matters; the next copy drops it as well
                unfinished.drop(self.target, self._own)  # not that of another copy, which still runs
            passed = len(self.done.written) + len(self.done.kept)
            error.add_note(
                f"{passed:,} of {len(self.plan.items):,} items are in {self.target.url}; copy again to go on"
            )
            raise
        self._tell()

    def _tell(self) -> None:
        items = len(self.plan.items)
        self.watch(Progress("copying", self._passed, items, self._nbytes, self.plan.nbytes))

    # -- items --------------------------------------------------------------------------------------

    def _take(self, item: Item) -> None:
        replaces = _holds_record(self.target, item.target)
        if replaces and self._stays(item):
            self.done.kept.append(item)
            return
        try:
            if item.nbytes > BLOCK:
                self._commit()
                self._copy_large(item, _reading(self.source.stat, item.key))
            else:
                self._put_in_batch(item, _reading(self.source.record, item.key), replaces=replaces)
        except _Unreadable as error:
            if not self.skip_damaged:
                raise error.cause from error
            unfinished.drop(self.target)
            self.plan.skipped.append(Problem(item.key, None, str(error)))

    def _stays(self, item: Item) -> bool:
        if self.existing is Existing.REPLACE:
            return False
        if self.existing is Existing.KEEP:
            return True
        if any(differences(self.source, self.target, item)):
            if self.plan.append_only:
                raise ReadOnly(
                    f"{show(item.target)!r} in {self.target.url} is not as in the source, and can't be "
                    "replaced there; remove its file, or copy to another place",
                    key=item.target,
                )
            return False
        self.done.same.add(item.key)
        return True

    # -- small ones ---------------------------------------------------------------------------------

    def _put_in_batch(self, item: Item, record: Record, *, replaces: bool) -> None:
        self._batch.append((item, record, replaces))
        self._waiting += sum(array.nbytes for array in record.arrays.values())
        if self._waiting > BLOCK or len(self._batch) >= _BATCH_ITEMS:
            self._commit()

    def _commit(self) -> None:
        if not self._batch:
            return
        with self.target.transaction():
            for item, record, replaces in self._batch:
                self._put(item, record, replaces=replaces)
        self.done.written.extend(item for item, _record, _replaces in self._batch)
        self._batch, self._waiting = [], 0

    def _put(self, item: Item, record: Record, *, replaces: bool) -> None:
        stat = _described(record)
        grows = self.plan.append_only or (
            record.kind == "stream" and isinstance(self.target.engine, Appends) and no_stream(stat) is None
        )
        if not grows or (replaces and any(self.target.children(item.target))):  # which have to stay
            self.target.write(item.target, _storable(record))
            return
        if replaces:
            self.target.delete(item.target)
        with _to_its_end(self._begin(item.target, stat)) as appender:
            appender.extend(record.arrays)
            appender.close({})

    # -- large ones ---------------------------------------------------------------------------------

    def _copy_large(self, item: Item, stat: Stat) -> None:
        if no_stream(stat) is None and isinstance(self.target.engine, Appends) and _row(stat) <= BLOCK:
            self._stream(item, stat)
        else:
            self._spool(item, stat)
        self.done.written.append(item)

    def _stream(self, item: Item, stat: Stat) -> None:
        """Append block by block under a reserved name, and move the whole item to its place."""
        if self.plan.append_only:
            with _to_its_end(self._begin(item.target, stat)) as appender:
                self._fill(item, stat, appender)
                appender.close({})
            return
        place = unfinished.free_place(self.target, item.target)
        marked = stat._replace(meta={**stat.meta, UNFINISHED: self._own})
        self._fill(item, stat, appender := self._begin(place, marked))
        appender.close({})
        unfinished.put_in_place(self.target, place, item.target, self._own)

    def _begin(self, key: Key, stat: Stat) -> Appender:
        engine: Any = self.target.engine  # not the store, which would write the rows of what was given up
        append = engine.append_whole if self.plan.append_only else engine.append
        return append(self.target._full(key), _empty(stat))  # type: ignore[no-any-return]

    def _fill(self, item: Item, stat: Stat, appender: Appender) -> None:
        length = next(iter(stat.arrays.values())).shape[0]
        chunk = max(info.chunks[0] if info.chunks else 1 for info in stat.arrays.values())
        step = rows_within(_row(stat), BLOCK, chunk)
        for start in range(0, length, step):
            rows = (slice(start, min(start + step, length)),)
            appender.extend({name: self._read(item, name, rows) for name in stat.arrays})
            appender.flush()
            self._nbytes += (rows[0].stop - start) * _row(stat)
            self._tell()
        self._nbytes -= length * _row(stat)  # counted once more with the whole item

    def _spool(self, item: Item, stat: Stat) -> None:
        """Write what can't be appended from files that are mapped into memory, rather than from memory."""
        with tempfile.TemporaryDirectory(prefix="datastore-lab-", ignore_cleanup_errors=True) as folder:
            try:
                arrays = {
                    name: self._mapped(item, name, info, Path(folder) / str(number))
                    for number, (name, info) in enumerate(stat.arrays.items())
                }
            except OSError as error:
                if isinstance(error, LabError):
                    raise
                raise EngineError(
                    f"{show(item.key)!r} is too large for memory and for the temporary folder {folder!r}: "
                    f"{error.strerror}; set TMPDIR to a folder with {size_of(stat)} bytes",
                    key=item.key,
                ) from error
            dims = {name: info.dims for name, info in stat.arrays.items()}
            self.target.write(item.target, _storable(Record(stat.kind, arrays, stat.meta, dims)))
            arrays.clear()

    def _mapped(self, item: Item, name: str, info: ArrayInfo, path: Path) -> NDArray[Any]:
        import numpy as np

        dtype = dtypes.parse(info.dtype)
        if info.nbytes <= BLOCK or dtype.hasobject or info.dtype == dtypes.STRING:
            return self._read(item, name, ())
        whole = np.memmap(path, dtype, "w+", shape=info.shape)
        for part in parts(info):
            whole[part] = self._read(item, name, part)
        return whole

    def _read(self, item: Item, name: str, part: tuple[slice, ...]) -> NDArray[Any]:
        return _reading(self.source.engine.read, self.source._full(item.key), name, part)

    # -- groups -------------------------------------------------------------------------------------

    def _copy_groups(self) -> None:
        if self.plan.append_only:
            return
        found = {key: own_attributes(self.source.stat(key)) for key in self.plan.groups}
        with self.target.transaction():
            for key, attrs in found.items():
                self._put_group(key, attrs)

    def _put_group(self, key: Key, attrs: dict[str, Any]) -> None:
        if key not in self.target:
            make_group(self.target, key)
        here = self.target.stat(key)
        if here.kind != GROUP:
            return  # those of a record came with it
        kept = {} if self.existing is not Existing.KEEP else here.meta
        if new := {name: value for name, value in attrs.items() if name not in kept}:
            self.target.update(key, new)


@contextlib.contextmanager
def _to_its_end(appender: Appender) -> Iterator[Appender]:
    """Let nothing be seen of a stream that does not get to its end, where only whole ones may be."""
    try:
        yield appender
    except BaseException:
        if isinstance(appender, _Abandons):
            appender.abandon()
        raise


@runtime_checkable
class _Abandons(Protocol):
    def abandon(self) -> None: ...


class _Unreadable(Exception):
    """The source could not be read: an error of its own, since the target may fail in the same ways."""

    def __init__(self, cause: LabError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _reading(read: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    try:
        return read(*args, **options)
    except LabError as error:
        raise _Unreadable(error) from error


def _holds_record(target: Store, key: Key) -> bool:
    try:
        return target.stat(key).kind != GROUP
    except NotFound:
        return False


def make_group(target: Store, key: Key) -> None:
    """Make a node without a record; engines only make those that are needed for one."""
    with target.transaction():
        target.write((*key, TEMPORARY), Record("value", {}, {}, {}))
        target.delete((*key, TEMPORARY))


def _described(record: Record) -> Stat:
    infos = {
        name: ArrayInfo(dtypes.name(array.dtype), array.shape, record.dims[name], array.nbytes, None)
        for name, array in record.arrays.items()
    }
    return Stat(record.kind, infos, record.meta)


def _empty(stat: Stat) -> Stat:
    """Describe a record as it begins to grow."""
    empty = {
        name: info._replace(shape=(0, *info.shape[1:]), nbytes=0, chunks=None)
        for name, info in stat.arrays.items()
    }
    return Stat(stat.kind, empty, _kept(stat.meta))


def _kept(meta: Any) -> dict[str, Any]:
    return {name: value for name, value in meta.items() if name != REFUSED}


def _storable(record: Record) -> Record:
    """Leave out dimension names that nobody gave: a medium would keep them as if they had been."""
    dims = {
        name: own for name, own in record.dims.items() if own != default_dims(name, record.arrays[name].ndim)
    }
    return record._replace(meta=_kept(record.meta), dims=dims)


def _row(stat: Stat) -> int:
    """Give the bytes of one row of all arrays."""
    length = next((info.shape[0] for info in stat.arrays.values()), 0)
    return size_of(stat) // max(1, length)
