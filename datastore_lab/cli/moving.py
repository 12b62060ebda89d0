"""Moving stores: ``copy`` and ``convert``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from datastore_lab.cli.checking import described
from datastore_lab.cli.progress import bar
from datastore_lab.cli.words import count, printable, shown, split_place
from datastore_lab.errors import AlreadyExists, EngineError

if TYPE_CHECKING:
    import argparse

    from datastore_lab.store import Store
    from datastore_lab.store.moving import CopyReport


def copy(arguments: argparse.Namespace) -> int:
    """Copy a store or a group into another."""
    target, below = split_place(arguments.target)
    _refuse_memory(target)
    with _source(arguments) as source:  # before a target is made for it
        source.stat()
    with _opened(target, "a") as store:
        return _copy(arguments, store.group(below) if below else store, overwrite=arguments.overwrite)


def convert(arguments: argparse.Namespace) -> int:
    """Copy a store to a new one; what can't be copied is found out before the new one is made."""
    _refuse_memory(arguments.target)
    _look(arguments)
    try:
        with _opened(arguments.target, "a" if arguments.resume else "x") as store:
            return _copy(arguments, store)
    except AlreadyExists as error:
        error.add_note("to go on with a conversion that was interrupted, add --resume")
        raise


def _look(arguments: argparse.Namespace) -> None:
    from datastore_lab.store.moving import check_source

    with _source(arguments) as source, bar(shown=not arguments.quiet) as made:
        check_source(source, skip_damaged=arguments.skip_damaged, progress=made.watch)


def _refuse_memory(target: str) -> None:
    if target.startswith("memory:"):
        raise EngineError(
            f"a copy to {target!r} would be gone when this command ends; give a file or a database",
            key=target,
        )


@contextlib.contextmanager
def _source(arguments: argparse.Namespace) -> Iterator[Store]:
    place, below = split_place(arguments.source)
    with _opened(place, "r") as store:
        yield store.group(below) if below else store


@contextlib.contextmanager
def _opened(place: str, mode: str) -> Iterator[Store]:
    from datastore_lab.store import open_store

    with open_store(place, mode) as store:
        yield store


def _copy(arguments: argparse.Namespace, target: Store, *, overwrite: bool = False) -> int:
    from datastore_lab.store.moving import copy_store

    with _source(arguments) as source, bar(shown=not arguments.quiet) as made:
        report = copy_store(
            source,
            target,
            overwrite=overwrite,
            skip_damaged=arguments.skip_damaged,
            progress=made.watch,
            verify=not arguments.no_verify,
        )
    for problem in report.skipped:
        print(f"left out: {described(problem)}")
    for problem in report.problems:
        print(f"problem: {described(problem)}")
    if not arguments.quiet:
        print(_summary(report))
    return 0 if report.complete else 1


def _summary(report: CopyReport) -> str:
    from datastore_lab.units import format_size

    parts = [f"{count(report.copied, 'item')} copied ({format_size(report.nbytes)})"]
    parts += [f"{report.kept:,} already there"] if report.kept else []
    parts += [f"the arrays of the root are in {shown(report.root)}"] if report.root else []
    parts += [f"{len(report.skipped):,} left out"] if report.skipped else []
    if report.problems:
        parts.append(count(len(report.problems), "problem"))
    elif report.verified:
        parts.append("compared: the same on both sides")
    return printable("; ".join(parts))
