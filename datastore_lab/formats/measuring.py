"""Writing a user's own data in every format on this computer, to see what each is good for."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datastore_lab.errors import EngineError, LabError
from datastore_lab.formats.measured import About, Measurement, Measurements
from datastore_lab.formats.samples import Sample, as_sample
from datastore_lab.formats.traits import format_names, format_traits
from datastore_lab.interrupts import Uninterrupted
from datastore_lab.registry import SUFFIXES
from datastore_lab.units import format_size, parse_size

_LEAVE = 0.05  # of the disk, which other programs need
_PLAIN = "plain file"
_PACKED = ("hdf5", "zarr")
_VARIANTS = {"hdf5": ("hdf5+gzip", "hdf5+lz4")}


class Step(NamedTuple):
    """How far `measure` is: which format it writes now, and how many of all steps are done."""

    label: str
    done: int
    of: int


def measure(
    sample: Any,
    *,
    rate: float | str | None = None,
    duration: float | str | None = None,
    formats: str | Sequence[str] = (),
    folder: str | os.PathLike[str] = ".",
    most: int | str = "64 MB",
    repeats: int = 5,
    progress: bool | Callable[[Step], None] = True,
) -> Measurements:
    """Write data in every format, read it again, and say how long that took and how large it is.

    The formats take turns, so that whatever else the computer does meets all of them; medians count. What is
    written lies in a folder of its own, which is removed at the end, also after Ctrl-C.

    Parameters
    ----------
    sample : array, mapping of str to array, or DataFrame
        Data as it is to be recorded, axis 0 being the sample. Noise can't be compressed: take real data.
    rate, duration : optional
        Of the recording to come, as for `recommend`: what is too slow for it is said.
    formats : str or sequence of str, optional
        Only these; else all that grow and lie in files. HDF5 and Zarr also compressed in some way:
        ``"hdf5+gzip"``.
    folder : path-like, default ``"."``
        On the disk that is to be measured.
    most : int or str, default ``"64 MB"``
        Of larger data, so many bytes from its beginning are taken.
    repeats : int, default 5
        Rounds.
    progress : bool or callable, default True
        Show a bar; or call this with a `Step` before each.

    Returns
    -------
    Measurements
        A table; its `recommend` ranks the formats for this data.

    Raises
    ------
    EngineError
        Before anything is written, if the disk has not the room.
    NotStorable
        If the sample is nothing that a stream holds.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> noise = np.random.default_rng(1).normal(100, 3, (50, 64, 64)).astype("u1")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = measure(noise, rate="100 fps", formats=["zarr", "arrow"], folder=folder, progress=False)
    >>> found["zarr"].size < found["arrow"].size
    True
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats}: at least one round is needed")
    piece = as_sample(sample, parse_size(most))
    names = _names(formats)
    check_room(Path(folder), piece.room)
    with _scratch(folder) as scratch, _shown(progress) as show:
        found = _rounds(piece, names, scratch, repeats, show)
    return Measurements(
        [found[name] for name in names], found[_PLAIN], About(_asked(piece, sample), rate, duration)
    )


def check_room(folder: Path, room: int) -> None:
    """Refuse to begin what could fill the disk.

    Raises
    ------
    EngineError
    """
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        raise EngineError(
            f"the folder {str(folder)!r} can't be measured: {error}", key=str(folder)
        ) from error
    left = usage.free - int(_LEAVE * usage.total)
    if left < room:
        raise EngineError(
            f"the disk of {str(folder)!r} has {format_size(usage.free)} free, of which "
            f"{format_size(_LEAVE * usage.total)} are left to others, and this may take {format_size(room)}: "
            "take a smaller sample (most=), or another folder",
            key=str(folder),
        )


def _names(formats: str | Sequence[str]) -> list[str]:
    asked = [formats] if isinstance(formats, str) else list(formats)
    suffixes = set(SUFFIXES.values())
    able = [name for name in format_names() if name in suffixes and format_traits(name).appends]
    for name in asked:
        base, plus, _ = name.partition("+")
        format_traits(base)  # says which there are
        if base not in able:
            raise EngineError(
                f"{name!r} can't be measured: it does not lie in files that grow; {', '.join(able)} do",
                key=name,
            )
        if plus and base not in _PACKED:
            raise EngineError(f"{name!r} can't be measured: {base} packs in its own way", key=name)
    return asked or [one for name in able for one in (name, *_VARIANTS.get(name, ()))]


def _asked(piece: Sample, sample: Any) -> Any:
    """Give `recommend` what it understands: the array, or the description of several."""
    if len(piece.arrays) == 1:
        (array,) = piece.arrays.values()
        return (array.dtype, (0, *array.shape[1:])) if array.dtype.kind != "T" else piece.spec
    return piece.spec


@contextlib.contextmanager
def _scratch(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Make a folder and remove it, whatever happens."""
    try:
        path = Path(tempfile.mkdtemp(prefix=".measure-", dir=folder))
    except OSError as error:
        raise EngineError(f"nothing can be written in {str(folder)!r}: {error}", key=str(folder)) from error
    try:
        yield path
    finally:
        with Uninterrupted():
            shutil.rmtree(path)


def _rounds(
    piece: Sample, names: list[str], scratch: Path, repeats: int, show: Callable[[Step], None]
) -> dict[str, Measurement]:
    """Measure each format once per round."""
    times: dict[str, list[tuple[float, float, int]]] = {name: [] for name in [_PLAIN, *names]}
    problems: dict[str, str] = {}
    for number in range(repeats * len(times)):
        name = list(times)[number % len(times)]
        show(Step(_label(name), number, repeats * len(times)))
        check_room(scratch, piece.room)
        if name not in problems:
            try:
                times[name].append(_measure_once(name, piece, scratch))
            except LabError as error:
                problems[name] = str(error)
            finally:
                with Uninterrupted():
                    _clear(scratch)
    show(Step("", repeats * len(times), repeats * len(times)))
    return {name: _median(name, piece.nbytes, times[name], problems.get(name)) for name in times}


def _label(name: str) -> str:
    if name == _PLAIN:
        return name
    base, _, compression = name.partition("+")
    return f"{format_traits(base).label}{', ' if compression else ''}{compression}"


def _median(
    name: str, nbytes: int, times: list[tuple[float, float, int]], problem: str | None
) -> Measurement:
    if problem is not None:
        return Measurement(name, _label(name), nbytes, problem=problem)
    write, read, size = (statistics.median(column) for column in zip(*times, strict=True))
    return Measurement(name, _label(name), nbytes, round(size), write, read)


def _measure_once(name: str, piece: Sample, scratch: Path) -> tuple[float, float, int]:
    base, _, compression = name.partition("+")
    suffix = next((suffix for suffix, engine in SUFFIXES.items() if engine == base), "")
    path = scratch / f"sample{suffix}"
    begun = time.perf_counter()
    if name == _PLAIN:
        _write_plain(path, piece)
    else:
        _write(path, piece, compression)
    written = time.perf_counter()
    (_read_plain if name == _PLAIN else _read)(path, piece)
    done = time.perf_counter()
    return written - begun, done - written, _size(scratch)


def _write(path: Path, piece: Sample, compression: str) -> None:
    from datastore_lab.store import open_store

    with open_store(path, "x") as store:
        appender = store.append("stream", piece.packed(compression))
        for block in piece.blocks():
            appender.extend(block)
        appender.close({})


def _read(path: Path, piece: Sample) -> None:
    from datastore_lab.store import open_store

    with open_store(path, "r") as store:
        found = store.record("stream").arrays
    if any(found[name].shape != array.shape for name, array in piece.arrays.items()):
        raise EngineError(f"{str(path)!r} does not hold what was written", key=str(path))


def _write_plain(path: Path, piece: Sample) -> None:
    try:
        with path.open("wb") as file:
            for block in piece.blocks():
                for rows in block.values():
                    file.write(_plain(rows))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise EngineError(f"{str(path)!r} can't be written: {error}", key=str(path)) from error


def _plain(rows: Any) -> Any:
    import numpy as np

    return "\0".join(rows.tolist()).encode() if rows.dtype.kind == "T" else rows.reshape(-1).view(np.uint8)


def _read_plain(path: Path, _piece: Sample) -> None:
    path.read_bytes()


def _size(scratch: Path) -> int:
    return sum(entry.stat().st_size for entry in scratch.rglob("*") if entry.is_file())


def _clear(scratch: Path) -> None:
    for entry in scratch.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextlib.contextmanager
def _shown(progress: bool | Callable[[Step], None]) -> Iterator[Callable[[Step], None]]:
    """Give what is called with each step: a bar, the caller's own function, or nothing."""
    if callable(progress):
        yield progress
        return
    from tqdm.auto import tqdm

    with tqdm(total=0, desc="measuring", unit=" steps", leave=False, disable=not progress) as bar:

        def show(step: Step) -> None:
            bar.total = step.of
            bar.set_postfix_str(step.label, refresh=False)
            bar.update(step.done - bar.n)

        yield show
