"""Where data comes from and where it goes while it is recorded: blocks, devices and writers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.records.values import Stat


class Block(NamedTuple):
    """Consecutive samples of one device.

    Attributes
    ----------
    first : int
        Sequence number of the first sample; a jump tells how many were lost before it.
    time : ndarray of int64, shape (n,)
        UTC by the host's clock, in ns since 1970, one per sample.
    data : mapping of str to ndarray, shapes (n, ...)
        Axis 0 is the sample.
    device_time : ndarray of int64, shape (n,), optional
        The device's own clock in ns, where it has one.
    """

    first: int
    time: NDArray[Any]
    data: Mapping[str, NDArray[Any]]
    device_time: NDArray[Any] | None = None


class Device(Protocol):
    """A source of blocks. A new driver is these four methods and a name.

    ``describe()`` gives a `Stat` of kind ``"stream"`` whose shapes have 0 on axis 0 and whose meta holds
    ``rate`` (samples per second or None) and ``units`` (``{array: unit}``), for example::

        Stat("stream", {"adc": ArrayInfo("<f8", (0, 16), ("time", "channel"), 0, None)},
             {"rate": 1000.0, "units": {"adc": "V"}})

    A device that comes to an end may have a property ``finished``, true once its last block was read: a run
    then goes on without it.
    """

    name: str

    def describe(self) -> Stat:
        """Say what the blocks will hold. May be called before `start`."""
        ...

    def start(self) -> None:
        """Begin to sample."""
        ...

    def read(self, timeout: float) -> Block | None:
        """Wait at most `timeout` seconds for the next block; None if there is none yet."""
        ...

    def stop(self) -> None:
        """End sampling and release the hardware; may be called twice."""
        ...


@runtime_checkable
class Writer(Protocol):
    """A sink of blocks and of the documents of bluesky's event model."""

    def consume_document(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a start, descriptor, event, event_page or stop document."""
        ...

    def write(self, stream: str, block: Block) -> None:
        """Take a block of a stream that was described before."""
        ...

    def flush(self) -> None:
        """Make everything taken so far durable."""
        ...

    def close(self) -> None:
        """Flush and release the files; may be called twice."""
        ...
