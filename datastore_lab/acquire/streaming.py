"""Writing the channels of a card, block by block, into one or several files."""

from __future__ import annotations

import atexit
import glob
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import units
from datastore_lab.acquire import documents
from datastore_lab.acquire.channels import ChannelConfig, CompressionType, StorageFormat
from datastore_lab.acquire.options import share_out
from datastore_lab.acquire.sampled import Sampled
from datastore_lab.acquire.storage import as_storage
from datastore_lab.acquire.store_writer import StoreWriter
from datastore_lab.errors import StreamError
from datastore_lab.records import Block
from datastore_lab.registry import SUFFIXES, WRITERS

if TYPE_CHECKING:
    from numpy.typing import NDArray


class StreamWriter:
    """Writes the samples of a card's channels, sampled together, into files of one or several formats.

    Each channel is an array of its own, under its name; ``time`` (UTC) and ``sequence`` go along. All formats
    hold the same, with the same checksum per array. What was flushed is readable by other processes, and
    survives a power cut. As a context manager it ends the recording, and marks it as failed after an error.

    Parameters
    ----------
    output_path : path-like
        Its suffix is replaced by that of each format.
    channels : sequence of ChannelConfig
    sample_rate : float or str
        Samples per second of each channel; also text such as ``"100 kS/s"``.
    storage_format : StorageFormat, str, or sequence of them, default ``StorageFormat.HDF5``
    compression : CompressionType or str, default ``CompressionType.NONE``
    compression_level : int, optional
    chunk_size : int, optional
        Samples that lie together in the files.
    flush_interval : float or str, default 1
        Seconds after which samples are on the disk at the latest.
    metadata : mapping of str to JSON value, optional
        Written into every file.
    dtype : dtype, default ``"<f8"``
        Of the samples in the files.
    name : str, default ``"daq"``
        Of the stream.

    Raises
    ------
    AlreadyExists
        If one of the files has such a stream already; then none was made or changed.
    ValueError
        For channels, rates or sizes that make no sense, or a compression that none of the formats has.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> from datastore_lab import open_store
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = pathlib.Path(folder.name) / "data.h5"
    >>> channels = [ChannelConfig(0, "AI0", -10.0, 10.0), ChannelConfig(1, "AI1", 0.0, 5.0)]
    >>> with StreamWriter(path, channels, "100 kS/s", storage_format=StorageFormat.BOTH) as writer:
    ...     writer.write(np.zeros((1000, 2)))
    >>> sorted(file.name for file in pathlib.Path(folder.name).iterdir())
    ['data.daq.arrow', 'data.h5']
    >>> with open_store(path, "r") as store:
    ...     store.stat("daq").arrays["AI1"].shape
    (1000,)
    >>> folder.cleanup()
    """

    def __init__(
        self,
        output_path: str | os.PathLike[str],
        channels: Sequence[ChannelConfig],
        sample_rate: float | str,
        *,
        storage_format: StorageFormat | str | Sequence[StorageFormat | str] = StorageFormat.HDF5,
        compression: CompressionType | str = CompressionType.NONE,
        compression_level: int | None = None,
        chunk_size: int | None = None,
        flush_interval: float | str = 1.0,
        metadata: Mapping[str, Any] | None = None,
        dtype: Any = "<f8",
        name: str = "daq",
    ) -> None:
        kind = CompressionType(compression).value
        options = {"chunk_size": chunk_size, "compression": kind, "compression_level": compression_level}
        as_storage(chunk_size, kind, compression_level)  # refused before files are made
        rate = units.parse_frequency(sample_rate)
        self._interval = units.parse_duration(flush_interval)
        self._name, self._sampled = name, Sampled(channels, rate, np.dtype(dtype), name)
        self._start = documents.start_document(metadata or {}, [name], {"sample_rate": rate, **options})
        self._next = self._written = 0
        self._gaps: list[list[int]] = []
        self._lock = threading.RLock()
        self._error: BaseException | None = None
        self.paths = _paths(output_path, storage_format)
        self._writers = self._open(options)
        self._closing = threading.Event()
        self._flusher = threading.Thread(target=self._flush_often, name=f"flush {name}", daemon=True)
        self._flusher.start()
        atexit.register(self.close)  # (a daemon thread would be cut off in the middle of a file)

    def __repr__(self) -> str:
        places = ", ".join(map(str, self.paths))
        return f"<StreamWriter of {len(self._sampled.limits)} channels to {places}: {self._written} samples>"

    # -- samples ----------------------------------------------------------------------------------------

    def write(
        self, samples: Any, *, first: int | None = None, time: NDArray[Any] | int | None = None
    ) -> None:
        """Write a block of samples.

        Parameters
        ----------
        samples : array_like, shape (n, channels), or mapping of channel name to array_like, shape (n,)
            In the order of the channels; of a single channel also of shape (n,).
        first : int, optional
            Number of the first sample, as the card counts; a jump is noted in the files as a gap. Else it
            follows the block before.
        time : int or ndarray of int64 or datetime64, optional
            UTC, of the first sample or of each: ns since 1970. Else it is counted by the rate, from the
            moment of the first block.

        Raises
        ------
        NotStorable
            If a sample is a value that the declared type can't hold.
        StreamError
            For samples that are none of these channels, a number that was given before, or if a file can't be
            written, which ends the recording.
        """
        with self._lock:
            self._check_open()
            data = self._sampled.columns(samples)
            count = len(next(iter(data.values())))
            start = self._next if first is None else first
            if start < self._next:
                raise StreamError(f"the sample {start} of {self._name!r} comes after {self._next - 1}")
            block = Block(start, self._sampled.times(start, count, time), data)
            self._each(lambda writer: writer.write(self._name, block))
            if start > self._next:
                self._gaps.append([self._next, start - 1])
            self._next, self._written = start + count, self._written + count
            self._sampled.count_limits(data)

    # -- files ------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Make everything written so far durable, and visible to others."""
        with self._lock:
            self._check_open()
            self._each(StoreWriter.flush)

    def close(self, error: BaseException | None = None) -> None:
        """End the recording; may be called twice.

        Parameters
        ----------
        error : BaseException, optional
            Why it ended early; noted in the files.
        """
        self._closing.set()
        if threading.current_thread() is not self._flusher:
            self._flusher.join()
        atexit.unregister(self.close)
        with self._lock:
            writers, self._writers = self._writers, {}
            ledger = {"written": self._written, "gaps": self._gaps, "at_limits": self._sampled.limits}
            stop = documents.stop_document(self._start, error or self._error, {self._name: ledger})
            failed = [found for one in writers.values() for found in _ended(one, stop)]
        if failed:
            raise StreamError(f"closing the stream {self._name!r} failed: {failed[0]}") from failed[0]

    def __enter__(self) -> StreamWriter:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        self.close(error)

    def _open(self, options: Mapping[str, Any]) -> dict[Path, StoreWriter]:
        """Open all files; those that are there first, so that nothing is made beside a name that is taken."""
        paths = sorted(self.paths, key=lambda path: not _is_there(path))
        makers = [WRITERS.load(SUFFIXES[path.suffix.lower()]) for path in paths]
        told = {name: value for name, value in options.items() if value is not None}
        shares = share_out(told, [(str(path), make) for path, make in zip(paths, makers, strict=True)])
        opened: dict[Path, StoreWriter] = {}
        try:
            for path, make, share in zip(paths, makers, shares, strict=True):
                opened[path] = make(path, **share)
                opened[path].check([self._name])
            descriptor = documents.descriptor_document(self._name, self._sampled.spec, self._start)
            for writer in opened.values():
                writer.consume_document("start", self._start)
                writer.consume_document("descriptor", descriptor)
        except BaseException:
            for writer in opened.values():
                writer.close()
            raise
        return opened

    def _each(self, step: Callable[[StoreWriter], None]) -> None:
        """Do something with every file; the first that fails ends the recording in all of them."""
        for path, writer in self._writers.items():
            try:
                step(writer)
            except Exception as error:
                self._error = StreamError(f"writing the stream {self._name!r} failed at {path}: {error}")
                raise self._error from error

    def _flush_often(self) -> None:
        while not self._closing.wait(self._interval):
            with self._lock:
                if self._error is not None or not self._writers:
                    return
                try:
                    self._each(StoreWriter.flush)
                except StreamError:  # it is kept, and raised by the next call
                    return

    def _check_open(self) -> None:
        if self._error is not None:
            raise self._error
        if not self._writers:
            raise StreamError(f"the stream {self._name!r} is closed")


def _ended(writer: StoreWriter, stop: Mapping[str, Any]) -> Iterator[Exception]:
    """Say in a file how the recording ended, and close it; yields what goes wrong."""
    try:
        writer.consume_document("stop", stop)
    except Exception as error:
        yield error
    try:
        writer.close()
    except Exception as error:
        yield error


def _is_there(path: Path) -> bool:
    """Tell whether there may be streams in a file, or in one of those that share its name."""
    return path.exists() or any(path.parent.glob(f"{glob.escape(path.stem)}.*{glob.escape(path.suffix)}"))


def _paths(
    output_path: str | os.PathLike[str], storage_format: StorageFormat | str | Sequence[StorageFormat | str]
) -> tuple[Path, ...]:
    several = [storage_format] if isinstance(storage_format, (str, StorageFormat)) else list(storage_format)
    ends = dict.fromkeys(end for one in several for end in StorageFormat(one).suffixes)
    if not ends:
        raise ValueError("a stream is written in one format at least")
    place = Path(output_path)
    own = SUFFIXES.get(place.suffix.lower())
    base = place.name.removesuffix(place.suffix) if own else place.name
    return tuple(place if SUFFIXES[end] == own else place.with_name(base + end) for end in ends)
