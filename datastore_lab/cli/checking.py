"""Keeping a store well: ``verify``, ``repair`` and ``compact``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from datastore_lab.cli.progress import Bar, bar, following_reads
from datastore_lab.cli.words import as_json, count, in_memory, parse_key, printable, shown
from datastore_lab.errors import EngineError, LabError

if TYPE_CHECKING:
    from datastore_lab.records import Problem, Repair
    from datastore_lab.store import Store


def verify(arguments: argparse.Namespace) -> int:
    """Read everything; problems are printed as they are found."""
    from datastore_lab.cli.places import size_on_disk
    from datastore_lab.store import open_store

    key = parse_key(arguments.key)
    with open_store(arguments.path, "r") as store, bar(shown=not arguments.quiet) as made:
        items = sum(1 for _ in store.keys_below(key))
        total = size_on_disk(store.url) if made.shown and not key else None
        made.begin("verifying", total)
        with following_reads(made, total):
            problems = _print_problems(store, key, made, as_lines=not arguments.json)
    if arguments.json:
        print(as_json({"items": items, "problems": problems}))
    elif not arguments.quiet:
        print(f"{count(items, 'item')}, {count(problems, 'problem')}")
    return 1 if problems else 0


def _print_problems(store: Store, key: tuple[str, ...], made: Bar, *, as_lines: bool) -> int:
    from datastore_lab.store.checking import problems as found

    problems = 0
    for problem in found(store.engine, (*store.prefix, *key)):
        problems += 1
        made.say(described(problem) if as_lines else as_json({**problem._asdict(), "key": list(problem.key)}))
    return problems


def described(found: Problem | Repair) -> str:
    """Write a problem on one line."""
    name = f", array {found.name}" if found.name else ""
    place = shown(found.key) if found.key else "the store"
    return f"{place}{printable(name)}: {printable(found.what)}"


def repair(arguments: argparse.Namespace) -> int:
    """Mend what can be mended, and say what was done."""
    from datastore_lab.store import open_store
    from datastore_lab.store.checking import repairs

    if arguments.dry_run:
        return _would_repair(arguments)
    if arguments.accept and not arguments.yes:
        _confirm(arguments.path)
    with open_store(arguments.path, "r+") as store:
        key = (*store.prefix, *parse_key(arguments.key))
        found = repairs(store.engine, key, accept=arguments.accept)
        mended, left = 0, 0
        for step in found:
            print(f"{'mended' if step.mended else 'not mended'}: {described(step)}")
            mended, left = mended + step.mended, left + (not step.mended)
    print(f"{mended:,} mended, {left:,} not mended")
    if left:
        _advise(arguments.path)
    return 1 if left else 0


def recover(arguments: argparse.Namespace) -> int:
    """Bring back to order what a stopped program left, and say what was done."""
    from datastore_lab.store.recovering import recover as bring_back

    found = bring_back(arguments.path)
    for line in found.done:
        print(f"done: {printable(line)}")
    for line in found.lost:
        print(f"lost: {printable(line)}")
    if found.kept is not None:
        print(f"the file as it was found is kept as {printable(found.kept)}")
    if not found.done and not found.lost:
        print("nothing had to be done")
    return 1 if found.lost else 0


def _would_repair(arguments: argparse.Namespace) -> int:
    from datastore_lab.store import open_store
    from datastore_lab.store.checking import problems as found

    with open_store(arguments.path, "r") as store:
        problems = 0
        for problem in found(store.engine, (*store.prefix, *parse_key(arguments.key))):
            print(described(problem))
            problems += 1
    print(f"{count(problems, 'problem')}; nothing was changed")
    return 1 if problems else 0


def _advise(path: str) -> None:
    print(
        "what can be read can be copied to a new place: "
        f"datastore-lab copy --skip-damaged {printable(path)} NEW"
    )


def _confirm(path: str) -> None:
    """Ask whether what was changed is to be taken as it is.

    Raises
    ------
    EngineError
        If the answer is no, or nobody can be asked.
    """
    if not sys.stdin.isatty():
        raise EngineError(
            f"--accept takes what is not as it was written in {path!r} as right from now on; if that is what "
            "you want, add --yes",
            key=path,
        )
    print(
        f"What can be read in {printable(repr(path))}, but is not as it was written, is taken as right from "
        "now on: damage can no longer be told from changes."
    )
    if input("Go on? [y/N] ").strip().lower() not in {"y", "yes"}:
        raise EngineError("nothing was changed", key=path)


def compact(arguments: argparse.Namespace) -> int:
    """Give back space."""
    from datastore_lab.store import open_store
    from datastore_lab.units import format_size

    with open_store(arguments.path, "r+") as store:
        if arguments.above is not None and (unused := _unused(store)) <= arguments.above:
            return _tell(arguments, f"about {unused:.0%} of {printable(store.url)} is unused: left as it is")
        return _tell(arguments, f"{format_size(store.compact())} given back")


def _tell(arguments: argparse.Namespace, line: str) -> int:
    if not arguments.quiet:
        print(line)
    return 0


def _unused(store: Store) -> float:
    """Estimate the share of a store that no array takes up; of compressed ones too low."""
    from datastore_lab.cli.places import size_on_disk

    size = size_on_disk(store.url)
    if not size:
        raise EngineError(f"the size of {store.url} is not known: leave out --above", key=store.url)
    used = 0
    for key in store.keys_below():
        try:
            used += in_memory(store.stat(key))
        except LabError:  # what is damaged takes up space as well; how much is not known
            continue
    return max(0.0, 1 - used / size)


def share(text: str) -> float:
    """Read a share: ``30%`` or ``0.3``.

    Examples
    --------
    >>> share("30%"), share("0.3")
    (0.3, 0.3)
    """
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no share, such as 30%") from error
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} does not lie between 0% and 100%")
    return number
