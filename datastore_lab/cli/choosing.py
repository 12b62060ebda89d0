"""Choosing a format, and text for those who need it: ``formats`` and ``export``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datastore_lab.cli.progress import Bar, bar
from datastore_lab.cli.words import as_json, count, printable, shown, split_place
from datastore_lab.errors import EngineError, NotStorable

if TYPE_CHECKING:
    import argparse

    from datastore_lab.formats import Measurements, Recommendation, Recommendations
    from datastore_lab.formats.measuring import Step
    from datastore_lab.keys import Key
    from datastore_lab.store import Store

_SAMPLE = 64_000_000
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


def formats(arguments: argparse.Namespace) -> int:
    """Print the table of formats; or recommend one; or measure them before."""
    from datastore_lab.formats import format_table

    measured = _measured(arguments) if arguments.measure else None
    if measured is not None and not arguments.json:
        print(printable_lines(repr(measured)), end="\n\n")
    if measured is None and not _asked(arguments):
        print(format_table())
        return 0
    _print_answers(_recommended(arguments, measured), measured, as_lines=not arguments.json)
    return 0


def _asked(arguments: argparse.Namespace) -> bool:
    names = ("kind", "dimensions", "rate", "duration", "reader", "cloud", "compression", "safety")
    return any(getattr(arguments, name) for name in names)


def _recommended(arguments: argparse.Namespace, measured: Measurements | None) -> Recommendations:
    from datastore_lab.formats import recommend

    readers, wishes = arguments.reader or (), (arguments.cloud, arguments.compression, arguments.safety)
    try:
        if measured is not None:
            return measured.recommend(
                readers=readers, cloud=wishes[0], compression=wishes[1], safety=wishes[2]
            )
        return recommend(
            kind=arguments.kind,
            dimensions=arguments.dimensions,
            rate=arguments.rate,
            duration=arguments.duration,
            readers=readers,
            cloud=wishes[0],
            compression=wishes[1],
            safety=wishes[2],
        )
    except ValueError as error:
        raise EngineError(str(error)) from error


def _print_answers(answers: Recommendations, measured: Measurements | None, *, as_lines: bool) -> None:
    if as_lines:
        print(printable_lines(repr(answers)))
        return
    for answer in answers:
        print(as_json(_answer(answer, measured)))


def _answer(answer: Recommendation, measured: Measurements | None) -> dict[str, Any]:
    found = [measured.get(name) for name in answer.formats] if measured is not None else []
    figures = [one._asdict() for one in found if one is not None]
    made = {
        name: list(value) if isinstance(value, tuple) else value for name, value in answer._asdict().items()
    }
    return {**made, "measured": figures} if figures else made


def printable_lines(text: str) -> str:
    """Escape what would steer the terminal in each of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def _measured(arguments: argparse.Namespace) -> Measurements:
    """Measure the formats with an item of a store."""
    from datastore_lab.formats import measure
    from datastore_lab.store import open_store

    place, key = split_place(arguments.measure)
    with open_store(place, "r") as store:
        sample = _sample(store, key)
    with bar(shown=not arguments.quiet) as made:
        try:
            return measure(
                sample,
                rate=arguments.rate,
                duration=arguments.duration,
                folder=arguments.folder,
                repeats=arguments.repeats,
                progress=_Steps(made),
            )
        except ValueError as error:
            raise EngineError(str(error)) from error


class _Steps:
    """Moves a bar by the steps of `measure`."""

    def __init__(self, made: Bar) -> None:
        self._bar, self._begun = made, False

    def __call__(self, step: Step) -> None:
        if not self._begun:
            self._bar.begin("measuring", step.of, unit=" steps")
        self._begun = True
        self._bar.reach(step.done, step.label)


def _sample(store: Store, key: Key) -> dict[str, Any]:
    """Read the beginning of an item: of those of its arrays that are as long as its longest."""
    arrays = {name: info for name, info in store.stat(key).arrays.items() if info.shape}
    longest = max((info.shape[0] for info in arrays.values()), default=0)
    taken = {name: info for name, info in arrays.items() if info.shape[0] == longest > 0}
    if not taken:
        raise NotStorable(f"{shown(key) or 'the root'} holds no arrays that could be measured; name an item")
    each = sum(info.nbytes for info in taken.values()) // longest
    rows = slice(0, max(1, _SAMPLE // max(1, each)))
    return {name: store.engine.read((*store.prefix, *key), name, (rows,)) for name in taken}


def export(arguments: argparse.Namespace) -> int:
    """Write tables as CSV."""
    from datastore_lab.formats.exporting import exportable
    from datastore_lab.store import open_store

    place, key = split_place(arguments.source)
    target = Path(arguments.target)
    with open_store(place, "r") as store, bar(shown=not arguments.quiet) as made:
        if target.suffix.lower() in {".csv", ".txt"}:
            _export(arguments, store, _only(store, key), target, made)
            return 0
        tables, others = exportable(store.group(key) if key else store)
        _check_target(target, tables)
        for found in tables:
            _export(arguments, store, (*key, *found), target / f"{_file_name((*key, *found))}.csv", made)
    for found, why in others:
        print(f"left out: {shown(found)}: {printable(why)}")
    if not arguments.quiet:
        print(f"{count(len(tables), 'table')} written to {printable(str(target))}")
    return 1 if others or not tables else 0


def _only(store: Store, key: Key) -> Key:
    """Give the one item that is meant: that of the key, or the only table below it."""
    from datastore_lab.formats.exporting import exportable

    if key and store.stat(key).kind != "group":
        return key
    tables, _others = exportable(store.group(key) if key else store)
    if len(tables) == 1:
        return (*key, *tables[0])
    raise NotStorable(
        f"{printable(store.url)} has {count(len(tables), 'table')}: name one as PATH::KEY, or give a folder "
        "as the target, for all of them",
        key=store.url,
    )


def _check_target(target: Path, tables: list[Key]) -> None:
    names = [_file_name(key).casefold() for key in tables]
    for key, name in zip(tables, names, strict=True):
        if names.count(name) > 1:
            raise EngineError(
                f"{shown(key)} and another item would have the same file name; export them one by one",
                key=key,
            )
    if target.exists() and not target.is_dir():
        raise EngineError(
            f"{str(target)!r} is not a folder; a table is written to a .csv file", key=str(target)
        )
    target.mkdir(parents=True, exist_ok=True)


def _file_name(key: Key) -> str:
    return _UNSAFE.sub("_", ".".join(key))[:200].strip(". ") or "root"


def _export(arguments: argparse.Namespace, store: Store, key: Key, target: Path, made: Bar) -> None:
    from datastore_lab.formats import export_csv

    made.begin(shown(key) or "root", None, unit=" rows")
    export_csv(
        store,
        target,
        key,
        metadata=arguments.metadata,
        overwrite=arguments.overwrite,
        progress=lambda done, _rows: made.reach(done),
    )
