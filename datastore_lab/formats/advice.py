"""Which format to record in, with the reasons in words."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from datastore_lab.formats.question import Question, ask
from datastore_lab.formats.traits import format_names, format_traits, has_writer
from datastore_lab.formats.verdict import Verdict, verdict
from datastore_lab.units import format_duration, format_size

if TYPE_CHECKING:
    from datastore_lab.formats.measured import Measurements
    from datastore_lab.records import Traits

FAST = 1000.0
"""Samples per second above which a time series belongs into Arrow."""

_SAFE_PAIR = ("hdf5", "arrow")
_LEFT = "style='text-align:left'"


class Recommendation(NamedTuple):
    """One answer: a format, or several to write at once.

    Attributes
    ----------
    rank : int
        1 is the best.
    formats : tuple of str
        Names that a run and `open_store` understand.
    label : str
        For people.
    reasons, objections : tuple of str
        What speaks for it and against it, as sentences.
    available : bool
        Whether this version writes all of the formats.
    """

    rank: int
    formats: tuple[str, ...]
    label: str
    reasons: tuple[str, ...]
    objections: tuple[str, ...]
    available: bool

    def __repr__(self) -> str:
        lines = [f"{self.rank}. {self.label}"]
        lines += [f"   + {reason}" for reason in self.reasons]
        lines += [f"   - {objection}" for objection in self.objections]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return str(Recommendations([self])._repr_html_())


class Recommendations(Sequence[Recommendation]):
    """Answers, the best first; shows itself as text and as HTML."""

    def __init__(self, answers: Iterable[Recommendation]) -> None:
        self._answers = tuple(answers)

    @overload
    def __getitem__(self, index: int) -> Recommendation: ...
    @overload
    def __getitem__(self, index: slice) -> Recommendations: ...
    def __getitem__(self, index: int | slice) -> Recommendation | Recommendations:
        """Give an answer, or some of them."""
        return Recommendations(self._answers[index]) if isinstance(index, slice) else self._answers[index]

    def __len__(self) -> int:
        return len(self._answers)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self._answers))

    def _repr_html_(self) -> str:
        rows = "".join(_html_row(answer) for answer in self._answers)
        head = (
            "<tr>"
            + "".join(f"<th {_LEFT}>{text}</th>" for text in ("", "Format", "For", "Against"))
            + "</tr>"
        )
        return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def recommend(
    data: Any = None,
    *,
    kind: str | None = None,
    dimensions: int | Sequence[str] | None = None,
    rate: float | str | None = None,
    duration: float | str | None = None,
    readers: str | Sequence[str] = (),
    cloud: bool = False,
    compression: bool = False,
    safety: bool = False,
    measured: Measurements | None = None,
) -> Recommendations:
    """Recommend a format for a recording.

    What is not said is taken from `data`, as far as it tells.

    Parameters
    ----------
    data : array, (dtype, shape) or device, optional
        The data as a whole, axis 0 being the sample, or the device that will give it.
    kind : {"images", "series", "nested"}, optional
        Images only; time series and scalars; or nested data of four and more dimensions. Also understood:
        video, frames, camera; time series, scalars, table; scan.
    dimensions : int or sequence of str, optional
        How many axes, the sample's included, or their names.
    rate : number or str, optional
        Samples per second or text such as ``"10 kHz"`` or ``"400 MB/s"``.
    duration : number or str, optional
        Seconds or text such as ``"2 h"``.
    readers : str or sequence of str, optional
        Programs that must open the file, such as ``"MATLAB"``, ``"Excel"`` or ``"xarray"``.
    cloud, compression, safety : bool, default False
        It will lie in object storage; it must be small; it must survive the loss of one file.
    measured : Measurements, optional
        What `measure` found on this computer.

    Returns
    -------
    Recommendations
        The best first. A format comes first if it can hold the data at all, then if all `readers` open
        it, then, where it was measured, if it is fast enough, and small if that is wanted; then as the
        decision tree of the guide says.

    Raises
    ------
    ValueError
        If an answer is not understood; the message names it.

    Examples
    --------
    >>> recommend(kind="series", rate="10 kHz")[0].formats
    ('arrow',)
    >>> recommend(kind="images", cloud=True)[0].formats
    ('zarr',)
    """
    question = ask(
        data,
        kind=kind,
        dimensions=dimensions,
        rate=rate,
        duration=duration,
        readers=readers,
        wishes=(cloud, compression, safety),
    )
    chosen = dict(_tree(question))
    names = [*chosen, *((name,) for name in format_names() if (name,) not in chosen)]
    judged = [
        (_judge(formats, question, chosen.get(formats), verdict(formats, question, measured)), place)
        for place, formats in enumerate(names)
    ]
    ordered = sorted(
        judged, key=lambda item: (*item[0].hurdles, item[1] if item[0].chosen else 99, item[0].points)
    )
    return Recommendations(item.answer(rank) for rank, (item, _) in enumerate(ordered, start=1))


def _tree(question: Question) -> Iterator[tuple[tuple[str, ...], str]]:
    """Walk the decision tree of the guide; yields what it says, the first choice first."""
    if question.safety:
        yield _SAFE_PAIR, "two files in two formats at once: if one is lost, the other holds everything"
    if question.kind == "series":
        yield from _series(question)
    elif question.cloud:
        yield ("zarr",), "in object storage each chunk is an object of its own, read by itself"
        yield ("hdf5",), "one file with everything, to be uploaded when it is complete"
    elif question.kind == "images":
        yield ("hdf5",), "images with their settings and other devices in one local file"
        yield ("zarr",), "images in chunks of their own, which several programs read at once"
    else:
        yield ("hdf5",), "nested data of many dimensions in one local file"
        yield ("zarr",), "nested data in chunks of their own, which several programs read at once"


def _series(question: Question) -> Iterator[tuple[tuple[str, ...], str]]:
    csv = ("csv",), "a simple table that everybody and every spreadsheet opens"
    if question.rate is not None and question.rate > FAST:
        yield ("arrow",), f"above {FAST / 1000:g} kHz appending without encoding is what keeps up"
    elif question.simple:
        yield csv
    yield ("parquet",), "small columns that analysis programs read one by one, for post-processing"
    if not question.simple:
        yield csv


class _Judged(NamedTuple):
    formats: tuple[str, ...]
    label: str
    chosen: str | None
    reasons: tuple[str, ...]
    objections: tuple[str, ...]
    hurdles: tuple[int, ...]

    @property
    def points(self) -> int:
        return len(self.objections) - len(self.reasons)

    def answer(self, rank: int) -> Recommendation:
        available = all(map(has_writer, self.formats))
        return Recommendation(rank, self.formats, self.label, self.reasons, self.objections, available)


def _judge(formats: tuple[str, ...], question: Question, chosen: str | None, verdict: Verdict) -> _Judged:
    traits = [format_traits(name) for name in formats]
    remarks = [*verdict.remarks, *_remarks(traits, question)]
    if not verdict.sized:
        remarks += _size_remarks(traits, question)
    reasons = [text for good, text in remarks if good]
    objections = [text for good, text in remarks if not good]
    missing = [name for name in formats if not has_writer(name)]
    objections += [f"writer: not in this version ({name})" for name in missing]
    label = " and ".join(one.label for one in traits)
    hurdles = (
        int(question.dimensions > 2 and not any(one.n_dimensional for one in traits)),
        sum(not _opens(traits, reader) for reader in question.readers),
        verdict.hurdle,
    )
    first = (chosen,) if chosen else ()
    return _Judged(formats, label, chosen, (*first, *reasons), tuple(objections), hurdles)


def _remarks(traits: list[Traits], question: Question) -> Iterator[tuple[bool, str]]:
    """Hold the wishes against the traits; of several formats one that fulfils a wish is enough."""
    for wanted, able, good, bad in _wishes(traits, question):
        if wanted:
            yield able, good if able else bad
    for reader in question.readers:
        opens = _opens(traits, reader)
        yield opens, f"{reader} {'opens' if opens else 'is not known to open'} it"


def _wishes(traits: list[Traits], question: Question) -> Iterator[tuple[bool, bool, str, str]]:
    def some(trait: str) -> bool:
        return any(getattr(one, trait) for one in traits)

    yield (
        question.dimensions > 2,
        some("n_dimensional"),
        f"holds arrays of {question.dimensions} dimensions as they are",
        f"holds flat tables only, not {question.dimensions} dimensions",
    )
    yield question.kind == "nested", some("hierarchical"), "nests groups in groups", "has no groups"
    yield (
        question.compression,
        some("compresses"),
        "a format that can compress",
        "a format without compression",
    )
    yield question.cloud, some("cloud"), "fit for object storage", "read from object storage only as a whole"
    yield (
        question.rate is not None,
        some("appends"),
        "grows while it is recorded",
        "is written when all is there",
    )
    yield question.safety and len(traits) == 1, False, "", "a single copy"


def _size_remarks(traits: list[Traits], question: Question) -> Iterator[tuple[bool, str]]:
    if question.nbytes is None or question.duration is None:
        return
    took = f"{format_duration(question.duration)} takes {format_size(question.nbytes * len(traits))}"
    if all(one.compresses for one in traits):
        yield True, f"{took} uncompressed"
    elif any(one.self_describing for one in traits):
        yield not question.compression, f"{took} on disk"
    else:
        yield False, f"{took} in binary, and several times that as text"


def _opens(traits: list[Traits], reader: str) -> bool:
    """Compare with the whole name of a program and with its first word: zarr means zarr-python too."""
    known = (name.casefold() for one in traits for name in one.opens_in)
    return any(reader.casefold() in {name, re.split(r"[\s.-]", name)[0]} for name in known)


def _html_row(answer: Recommendation) -> str:
    cells = [
        f"{answer.rank}",
        html.escape(answer.label),
        _html_list(answer.reasons),
        _html_list(answer.objections),
    ]
    return "<tr>" + "".join(f"<td {_LEFT}>{cell}</td>" for cell in cells) + "</tr>"


def _html_list(texts: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in texts) + "</ul>"
