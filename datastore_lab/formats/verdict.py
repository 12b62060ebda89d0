"""What measurements say for and against a format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from datastore_lab.units import format_duration, format_size

if TYPE_CHECKING:
    from datastore_lab.formats.measured import Measurement, Measurements
    from datastore_lab.formats.question import Question

MARGIN = 1.5
"""How much faster than the stream a writer has to be: the disk is not always as free as it is now."""

_NEARLY = 1.1  # times the smallest is as good as the smallest


class Verdict(NamedTuple):
    """What was measured of one answer.

    Attributes
    ----------
    remarks : tuple of (bool, str)
        For or against, and why.
    hurdle : int
        0 for what is fast and small enough, more puts it back.
    sized : bool
        Whether the remarks say how large it is.
    """

    remarks: tuple[tuple[bool, str], ...] = ()
    hurdle: int = 0
    sized: bool = False


def verdict(formats: tuple[str, ...], question: Question, measured: Measurements | None) -> Verdict:
    """Judge a format, or several that are written at once, by what was measured."""
    if measured is None or not all(map(measured.variants, formats)):
        return Verdict()
    found = [_chosen(measured.variants(name), question) for name in formats]
    problems = tuple((False, one.problem) for one in found if one.problem is not None)
    if problems:
        return Verdict(problems, hurdle=3)
    both = _together(found)
    slow = question.data_rate is not None and both.write_rate < MARGIN * question.data_rate
    least = min(one.share for one in _quick(measured, question)) * len(found)
    large = question.compression and both.share > _NEARLY * least
    remarks = tuple(_speed(both, question, slow=slow)) + tuple(_size(both, question, large=large))
    return Verdict(remarks, 2 * slow + large, sized=True)


def _chosen(variants: list[Measurement], question: Question) -> Measurement:
    """Choose, of a format as it is and compressed, the smallest that is fast enough, if that is wanted."""
    if not question.compression or all(one.problem is not None for one in variants):
        return variants[0]
    return min(_quick(variants, question), key=lambda one: one.share)


def _quick(several: Iterable[Measurement], question: Question) -> list[Measurement]:
    """Give those that are fast enough, or all that could be measured if none is."""
    whole = [one for one in several if one.problem is None]
    needed = MARGIN * (question.data_rate or 0)
    return [one for one in whole if one.write_rate >= needed] or whole


def _together(found: list[Measurement]) -> Measurement:
    """Add up what is written one after another; the format is how it is compressed."""
    return found[0]._replace(
        format=" and ".join(one.format.partition("+")[2] for one in found if "+" in one.format),
        size=sum(one.size for one in found),
        write_seconds=sum(one.write_seconds for one in found),
        read_seconds=min(one.read_seconds for one in found),
    )


def _speed(both: Measurement, question: Question, *, slow: bool) -> Iterator[tuple[bool, str]]:
    how = f"compressed by {both.format}, " if both.format else ""
    speed = f"{how}writes {format_size(both.write_rate)}/s on this computer"
    if question.data_rate is None:
        yield True, speed
        return
    needed = f"{format_size(question.data_rate)}/s of the stream"
    if slow:
        yield False, f"{speed}, which is less than {MARGIN:g} times the {needed}: too slow"
    else:
        yield True, f"{speed}, {both.write_rate / max(question.data_rate, 1):.3g} times the {needed}"


def _size(both: Measurement, question: Question, *, large: bool) -> Iterator[tuple[bool, str]]:
    size = f"takes {both.share:.0%} of the size in memory"
    if question.nbytes is not None and question.duration is not None:
        whole = format_size(question.nbytes * both.share)
        size += f", {whole} for {format_duration(question.duration)}"
    yield not large and both.share < _NEARLY, size
