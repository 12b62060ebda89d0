"""Instruments on GPIB, USB, LAN and serial lines through PyVISA: asked once per sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from datastore_lab import units as of
from datastore_lab.acquire.devices.extras import need
from datastore_lab.acquire.devices.layout import VALUE, Fields, check_rate, describe_stream
from datastore_lab.acquire.devices.source import SourceDevice, poll
from datastore_lab.acquire.devices.texts import MOST_BYTES, parse_answer
from datastore_lab.errors import DeviceFailed

if TYPE_CHECKING:
    from datastore_lab.acquire.devices.feed import Feed
    from datastore_lab.records import Stat


def from_visa(
    address: str,
    queries: str | Mapping[str, str],
    rate: float | str,
    *,
    name: str = "visa",
    fields: Fields | None = None,
    units: Mapping[str, str] | str | None = None,
    setup: Sequence[str] = (),
    backend: str = "",
    timeout: float | str = 1.0,
    termination: str = "\n",
    most: int | str = MOST_BYTES,
) -> SourceDevice:
    r"""Make a device of an instrument that answers queries.

    Parameters
    ----------
    address : str
        VISA resource, such as ``"TCPIP::192.168.0.7::INSTR"``.
    queries : str or mapping of str to str
        What it is asked per sample, such as ``"MEAS:VOLT?"``; several by the names of their arrays.
    rate : float or str
        Samples per second.
    name : str, default "visa"
        Name of the stream.
    fields : mapping of str to dtype or (dtype, shape), optional
        What the answers hold: one float64 each by default; a list of n numbers is ``("float64", (n,))``,
        text is ``str``.
    units : mapping of str to str, or str, optional
        Units by array, or one for all of them.
    setup : sequence of str, optional
        Commands that are sent at the start.
    backend : str, optional
        VISA library, as `pyvisa.ResourceManager` takes it; ``"@py"`` needs no vendor's library.
    timeout : float or str, default 1
        Seconds that an answer may take.
    termination : str, default "\\n"
        End of commands and answers.
    most : int or str, default 1 MB
        Longest answer in bytes.

    Returns
    -------
    SourceDevice

    Raises
    ------
    MissingExtra
        If PyVISA is not installed.

    Examples
    --------
    >>> dmm = from_visa("TCPIP::192.168.0.7::INSTR", "MEAS:VOLT?", rate=10, name="dmm", units="V")
    >>> dmm.describe().arrays["value"].dtype
    '<f8'
    """
    pyvisa = need("pyvisa", "visa")
    asked = {VALUE: queries} if isinstance(queries, str) else dict(queries)
    pace = check_rate(rate)
    if pace is None:
        raise ValueError("an instrument that is asked needs a rate, such as rate=10")
    spec = describe_stream(
        {array: (fields or {}).get(array, "float64") for array in asked},
        rate=pace,
        units=units,
        device=address,
        meta={"queries": asked},
    )
    instrument = _Instrument(name, spec, asked, of.parse_size(most), of.parse_duration(timeout))

    @contextmanager
    def connect(feed: Feed) -> Iterator[None]:
        session = pyvisa.ResourceManager(backend).open_resource(address, **instrument.options(termination))
        try:
            for command in setup:
                session.write(command)
            feed.put(
                instrument.take(session), number=0
            )  # an instrument that does not answer can't be started
            feed.run(lambda feed: poll(feed, lambda n: feed.put(instrument.take(session), number=n), pace, 1))
            yield
        finally:
            session.close()

    advice = "check its address, cable and power, and that no other program uses it"
    return SourceDevice(name, spec, connect, advice=advice)


class _Instrument:
    """What is asked, and how long and how large an answer may be."""

    def __init__(self, name: str, spec: Stat, asked: Mapping[str, str], limit: int, timeout: float) -> None:
        self._name, self._spec, self._asked, self._limit = name, spec, asked, limit
        self._milliseconds = max(1, round(1000 * timeout))

    def options(self, termination: str) -> dict[str, Any]:
        return {
            "open_timeout": self._milliseconds,
            "timeout": self._milliseconds,
            "read_termination": termination,
            "write_termination": termination,
        }

    def take(self, session: Any) -> dict[str, Any]:
        return {array: self._ask(session, array, query) for array, query in self._asked.items()}

    def _ask(self, session: Any, array: str, query: str) -> Any:
        session.write(query)
        answer = session.read_bytes(self._limit + 1, break_on_termchar=True)
        if len(answer) > self._limit:
            raise DeviceFailed(
                f"the device {self._name!r} failed: the answer to {query!r} has more than {self._limit} "
                "bytes; ask for less, or give most=",
                key=self._name,
            )
        try:
            return parse_answer(answer.decode("utf-8", "replace"), self._spec.arrays[array])
        except ValueError as error:
            raise DeviceFailed(
                f"the device {self._name!r} failed: what it answered to {query!r} was not expected: {error}"
                "; check the query and its fields",
                key=self._name,
            ) from error
