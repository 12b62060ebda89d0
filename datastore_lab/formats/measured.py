"""What was measured: how fast this computer writes and reads some data in each format, and how small."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from datastore_lab.formats.grid import Grid
from datastore_lab.units import format_size

if TYPE_CHECKING:
    from datastore_lab.formats.advice import Recommendations


class Measurement(NamedTuple):
    """One format, measured.

    Attributes
    ----------
    format, label : str
        Its name, and that for people.
    nbytes : int
        Bytes of the data in memory.
    size : int
        Bytes of the files.
    write_seconds, read_seconds : float
        Medians: to open, write and close, so that all is on the disk; and to read all of it again, from the
        memory that the system keeps files in.
    problem : str or None
        Why it could not be measured; the figures are 0 then.
    """

    format: str
    label: str
    nbytes: int
    size: int = 0
    write_seconds: float = 0.0
    read_seconds: float = 0.0
    problem: str | None = None

    @property
    def write_rate(self) -> float:
        """Bytes of data per second that were written."""
        return self.nbytes / self.write_seconds if self.write_seconds else 0.0

    @property
    def read_rate(self) -> float:
        """Bytes of data per second that were read."""
        return self.nbytes / self.read_seconds if self.read_seconds else 0.0

    @property
    def share(self) -> float:
        """Size of the files as a share of that in memory."""
        return self.size / self.nbytes if self.nbytes else 0.0

    def row(self) -> tuple[str, ...]:
        """Give the figures as text, for a table."""
        if self.problem is not None:
            return (self.label, "", "", "", "", "", self.problem)
        seconds = (f"{self.write_seconds:.3g} s", f"{self.read_seconds:.3g} s")
        rates = (f"{format_size(self.write_rate)}/s", f"{format_size(self.read_rate)}/s")
        return (self.label, format_size(self.size), f"{self.share:.0%}", *seconds, *rates)


class About(NamedTuple):
    """What is known of the data that was measured, as `recommend` takes it."""

    data: Any
    rate: float | str | None = None
    duration: float | str | None = None


class Measurements(Sequence[Measurement]):
    """Measured formats; shows itself as a table in text and HTML.

    Parameters
    ----------
    found : iterable of Measurement
    plain : Measurement
        The same bytes in a plain file: what the disk can do.
    about : About
        What is known of the data.
    """

    def __init__(self, found: Iterable[Measurement], plain: Measurement, about: About) -> None:
        self._found, self.plain, self._about = tuple(found), plain, about

    @overload
    def __getitem__(self, index: int | str) -> Measurement: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Measurement, ...]: ...
    def __getitem__(self, index: int | str | slice) -> Measurement | tuple[Measurement, ...]:
        """Give one by its number or the name of its format."""
        if not isinstance(index, str):
            return self._found[index]
        found = self.get(index)
        if found is None:
            raise KeyError(f"{index!r} was not measured, only {', '.join(one.format for one in self)}")
        return found

    def get(self, name: str) -> Measurement | None:
        """Give one by the name of its format; None if it was not measured."""
        return next((one for one in self if one.format == name), None)

    def variants(self, name: str) -> list[Measurement]:
        """Give what was measured of a format, as it is and compressed in some way."""
        return [one for one in self if one.format.partition("+")[0] == name]

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self._found)

    def recommend(
        self,
        *,
        readers: str | Sequence[str] = (),
        cloud: bool = False,
        compression: bool = False,
        safety: bool = False,
    ) -> Recommendations:
        """Recommend a format for this data on this computer.

        Parameters
        ----------
        readers, cloud, compression, safety
            As for `datastore_lab.recommend`; the data, its rate and its duration are known from `measure`.
        """
        from datastore_lab.formats.advice import recommend

        return recommend(
            self._about.data,
            rate=self._about.rate,
            duration=self._about.duration,
            readers=readers,
            cloud=cloud,
            compression=compression,
            safety=safety,
            measured=self,
        )

    def table(self) -> Grid:
        """Give the figures as a table, the plain file first."""
        header = ("Format", "Size", "of raw", "Write", "Read", "Written", "Read again")
        return Grid(header, [one.row() for one in (self.plain, *self)])

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()
