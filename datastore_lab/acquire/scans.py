"""Scans: a loop over a grid of settings that ends as one labelled array per quantity.

While a scan goes on, its points are rows of a stream below its name, ``scan/part-0001``, so that a crash
costs the point that was being measured and no other. An interrupted scan goes on in ``part-0002``. When all
points are there, the labelled arrays take the place of the parts, in one commit.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import units
from datastore_lab.acquire import gathering
from datastore_lab.acquire.axes import Axes, Index
from datastore_lab.errors import EngineError, StreamError
from datastore_lab.store import Store, open_store

if TYPE_CHECKING:
    import xarray

    from datastore_lab.keys import Key
    from datastore_lab.records import Appender, Stat

ON_ERROR = ("raise", "skip", "retry")
_FLUSH = 0.5
"""At most so many seconds of points wait to be made durable."""


class Point:
    """One point of a scan: the value along each axis, as attributes and as items.

    Attributes
    ----------
    index : tuple of int
        Where it lies in the grid.
    values : dict
        The values by axis.
    """

    def __init__(self, scan: Scan, index: Index) -> None:
        self._scan, self.index = scan, index
        self.values = scan.axes.at(index)
        self.saved = False

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("values", {}):
            return self.values[name]
        raise AttributeError(f"{name!r} is no axis of the scan; it has {', '.join(self.values)}")

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def __repr__(self) -> str:
        return f"<Point {', '.join(f'{name}={value}' for name, value in self.values.items())}>"

    def save(self, **quantities: Any) -> None:
        """Keep what was measured here: numbers and arrays, the same names and shapes at every point."""
        self._scan._save(self, quantities)


class Scan:
    """A loop over a grid; made by `grid`."""

    def __init__(
        self,
        store: Store,
        name: str,
        axes: Axes,
        *,
        owned: bool,
        snake: bool,
        settle: float | Mapping[str, float],
        movers: Mapping[str, Any],
        dims: Mapping[str, tuple[str, ...]],
        attributes: Mapping[str, Any],
        progress: bool,
    ) -> None:
        if not store.engine.traits.hierarchical:
            raise EngineError(
                f"a scan can't be kept in {store.url}, whose items can't be replaced; use HDF5 or Zarr",
                key=name,
            )
        self.store, self.name, self.axes = store, name, axes
        self._owned, self._snake, self._settle, self._progress = owned, snake, settle, progress
        self._movers = {axis: _mover(axis, given, axes) for axis, given in movers.items()}
        self._dims, self._attributes = dict(dims), dict(attributes)
        self._spec: Stat | None
        self._appender: Appender | None = None
        self._flushed = 0.0
        self._where: dict[str, Any] = {}
        self.done, self._spec = gathering.found(store, name, axes)
        self.errors: list[tuple[Point, Exception]] = []

    def __len__(self) -> int:
        return len(self.axes)

    def __repr__(self) -> str:
        shape = " x ".join(
            f"{name}: {size}" for name, size in zip(self.axes.names, self.axes.shape, strict=True)
        )
        done = f"{len(self.done):,} of {len(self):,} points done"
        return f"<Scan {self.name!r} in {self.store.url}, {shape}; {done}>"

    @property
    def missing(self) -> int:
        """Number of points that have no data yet."""
        return len(self) - len(self.done)

    # -- the loop -----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Point]:
        """Yield the points that are still to be measured, with everything moved there and settled."""
        with self._writing(), self._bar() as bar:
            for index in self.axes.order(snake=self._snake):
                if index in self.done:
                    continue
                point = Point(self, index)
                self._move(point)
                yield point
                bar.update(1)
        if not self.missing:
            self._finish()

    def run(
        self, measure: Callable[..., Mapping[str, Any]], *, on_error: str = "raise", retries: int = 2
    ) -> xarray.Dataset | None:
        """Measure every point that is still missing.

        Parameters
        ----------
        measure : callable
            Called with the values by axis, as in ``measure(wavelength=500.0, position=0)``; gives what was
            measured, by name.
        on_error : {"raise", "skip", "retry"}
            What an exception at a point does: end the scan, which can then be gone on with; leave the point
            out; or try it `retries` times more, and then end.
        retries : int, default 2

        Returns
        -------
        xarray.Dataset or None
            The labelled arrays; None as long as points are missing. Those are listed in `errors`.
        """
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error {on_error!r} is not one of {', '.join(ON_ERROR)}")
        attempts = 1 + (retries if on_error == "retry" else 0)
        for point in self:
            self._measure(point, measure, attempts, skip=on_error == "skip")
        return None if self.missing else self.store[self.name]

    def _measure(
        self, point: Point, measure: Callable[..., Mapping[str, Any]], attempts: int, *, skip: bool
    ) -> None:
        for attempt in range(attempts):
            try:
                point.save(**measure(**point.values))
            except Exception as error:
                self.errors.append((point, error))
                if skip:
                    return
                if attempt == attempts - 1:
                    error.add_note(
                        f"at {point!r} of the scan {self.name!r}; call it again to go on from there"
                    )
                    raise
                self._where.clear()  # whatever failed may have moved something
                self._move(point)
            else:
                return

    def _move(self, point: Point) -> None:
        """Bring everything that has to move to a point, and let it settle."""
        moved = [name for name in self._movers if self._where.get(name, self) != point[name]]
        for wait in [self._movers[name](point[name]) for name in moved]:
            if wait is not None:
                wait()
        self._where.update({name: point[name] for name in moved})
        changed = moved if self._movers else list(point.values)
        time.sleep(max((_seconds(self._settle, name) for name in changed), default=0.0))

    # -- what is kept -------------------------------------------------------------------------------

    def _save(self, point: Point, quantities: Mapping[str, Any]) -> None:
        if point.saved:
            raise StreamError(f"{point!r} was saved already; give all quantities at once")
        arrays = {name: np.asarray(value) for name, value in quantities.items()}
        if self._spec is None:
            self._spec = gathering.spec_of(arrays, self.axes, self._dims, self._attributes)
        row = gathering.row_of(self._spec, arrays, point.index, self.axes)
        if self._appender is None:
            self._appender = self.store.append(self._part(), self._spec)
        self._appender.extend(row)
        point.saved = True
        self.done.add(point.index)
        if time.monotonic() - self._flushed > _FLUSH:
            self._appender.flush()
            self._flushed = time.monotonic()

    def _part(self) -> Key:
        used = sum(1 for _ in gathering.parts(self.store, self.name))
        return (self.name, f"part-{used + 1:04d}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Make durable what was saved, however the loop ends."""
        try:
            yield
        finally:
            appender, self._appender = self._appender, None
            if appender is not None and not self.store.closed:  # closing the store has written what waited
                appender.close({})

    def _bar(self) -> Any:
        from tqdm.auto import tqdm

        return tqdm(
            total=len(self), initial=len(self.done), desc=self.name, unit="point", disable=not self._progress
        )

    def _finish(self) -> None:
        """Put the labelled arrays in the place of the parts, in one commit."""
        with gathering.gathered(self.store, self.name, self.axes) as dataset, self.store.transaction():
            self.store[self.name] = dataset
            for part in list(gathering.parts(self.store, self.name)):
                self.store.delete(part)

    def partial(self) -> xarray.Dataset:
        """Give what is there so far: NaN or zero where a point is missing, and ``done`` that says where."""
        with gathering.gathered(self.store, self.name, self.axes) as dataset:
            return dataset.copy(deep=True)

    def close(self) -> None:
        """Close the store, if the scan opened it; may be called twice."""
        if self._owned:
            self.store.close()

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- bluesky ------------------------------------------------------------------------------------

    def consume_document(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take the documents of a bluesky plan whose events carry the axes by name, and quantities beside.

        ``RE(plan, scan.consume_document)``, where ``plan`` is ``bluesky.plans.grid_scan`` of the same grid.
        """
        if name == "event":
            self._event(doc["data"])
        elif name == "event_page":
            for values in zip(*doc["data"].values(), strict=True):
                self._event(dict(zip(doc["data"], values, strict=True)))
        elif name == "stop":
            with self._writing():
                pass
            if not self.missing:
                self._finish()

    def _event(self, data: Mapping[str, Any]) -> None:
        if lacking := [name for name in self.axes.names if name not in data]:
            raise StreamError(
                f"an event lacks {', '.join(lacking)}, an axis of the scan; it has {', '.join(data)}"
            )
        index = self.axes.nearest(data)
        if index not in self.done:
            quantities = {key: value for key, value in data.items() if key not in self.axes.names}
            Point(self, index).save(**quantities)


def grid(
    axes: Mapping[str, Any] | None = None,
    /,
    *,
    to: str | os.PathLike[str] | Store,
    name: str = "scan",
    snake: bool = False,
    settle: float | str | Mapping[str, float | str] = 0.0,
    movers: Mapping[str, Any] | None = None,
    dims: Mapping[str, tuple[str, ...]] | None = None,
    metadata: Mapping[str, Any] | None = None,
    progress: bool = True,
    **more: Any,
) -> Scan:
    """Loop over a grid of settings, and keep one labelled array per quantity.

    Parameters
    ----------
    axes : mapping of str to sequence, optional
        Values along each axis, the slowest first; they can be given as keywords too.
    to : path or Store
        Where the scan is kept; an engine that appends, such as HDF5 or Zarr.
    name : str, default "scan"
        Its key there. An unfinished scan of that name over the same axes is gone on with.
    snake : bool, default False
        Turn round at the end of each row instead of jumping back.
    settle : float, duration, or mapping of these by axis
        How long to wait after a move, in seconds or as "50 ms".
    movers : mapping of str to callable or movable device, optional
        What to call with the new value whenever it changes along an axis; a bluesky device is ``set`` and
        waited for. All that move at one point move at the same time.
    dims : mapping of str to tuple of str, optional
        Names of the dimensions of a quantity at one point, such as ``{"image": ("y", "x")}``.
    metadata : mapping, optional
        Attributes of the scan, JSON. ``{"units": {"wavelength": "nm"}}`` gives axes and quantities units.
    progress : bool, default True
        Show a progress bar.

    Returns
    -------
    Scan
        To loop over, or to `Scan.run`.

    Raises
    ------
    AlreadyExists
        If there is a finished scan of that name, or one over other axes.
    StreamError
        For axes that make no grid.
    EngineError
        If the store only takes streams, as Arrow, Parquet and CSV files do.

    Examples
    --------
    >>> store = open_store("memory://")
    >>> for point in grid(wavelength=[500, 510], position=[0, 1, 2], to=store, progress=False):
    ...     point.save(power=point.wavelength + point.position)
    >>> store["scan"].power.sel(wavelength=510).values
    array([510, 511, 512])
    """
    owned = not isinstance(to, Store)
    store = open_store(to, "a") if not isinstance(to, Store) else to
    try:
        return Scan(
            store,
            name,
            Axes({**(axes or {}), **more}),
            owned=owned,
            snake=snake,
            settle=_settling(settle),
            movers=movers or {},
            dims=dims or {},
            attributes=metadata or {},
            progress=progress,
        )
    except BaseException:
        if owned:
            store.close()
        raise


def _settling(given: Any) -> float | dict[str, float]:
    if isinstance(given, Mapping):
        return {name: units.parse_duration(value) for name, value in given.items()}
    return units.parse_duration(given)


def _seconds(settle: float | Mapping[str, float], name: str) -> float:
    return settle.get(name, 0.0) if isinstance(settle, Mapping) else settle


def _mover(axis: str, given: Any, axes: Axes) -> Callable[[Any], Callable[[], Any] | None]:
    """Give what begins a move, and gives what waits for its end if that is not there when it returns."""
    if axis not in axes.names:
        raise StreamError(f"{axis!r} is no axis of the scan, so nothing can move along it")
    if not callable(given) and not hasattr(given, "set"):
        raise StreamError(
            f"what moves along {axis!r} has to be a function or a movable device, not {given!r}"
        )

    def begin(value: Any) -> Callable[[], Any] | None:
        status = given.set(value) if hasattr(given, "set") else given(value)
        return getattr(status, "wait", None)

    return begin
