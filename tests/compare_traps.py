"""Runs all traps with datastore_lab, joblib and marimo, and writes the table of ``docs/traps.md``.

    python tests/compare_traps.py                      # makes an environment for the peers with pip, prints
    python tests/compare_traps.py --python PATH        # uses an environment that has joblib and marimo
    python tests/compare_traps.py --write docs/traps.md

Every step of a trap runs in a process of its own. Nothing is skipped; what a peer does not offer counts
neither as right nor as wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import cache_cell_traps  # noqa: E402
import cache_trap_suite  # noqa: E402
from cache_traps import Step  # noqa: E402

KINDS = {"functions": cache_trap_suite.TRAPS, "cells": cache_cell_traps.SESSIONS}
PEERS = ("joblib", "marimo")
RIGHT, AGAIN, WRONG, FAILS, NONE = "✓", "○", "✗", "!", "–"
MEANING = {
    RIGHT: "right",
    AGAIN: "right, but computed although nothing that matters had changed",
    WRONG: "a wrong value, silently",
    FAILS: "stops with an error where the plain program has none",
    NONE: "not offered",
}


HEAD = """# Traps: where caches go wrong

Each trap is a sequence of programs or of notebook cells, run in processes of their own, with what is right
for each of them: the value, and whether it must be computed or may come from the cache. The traps themselves
are `tests/cache_traps*.py` and `tests/cache_cell_traps.py`; this page is written by
`python tests/compare_traps.py --write docs/traps.md`.

Compared: {compared}.
Functions: `cached`, `joblib.Memory.cache` and `mo.persistent_cache` as decorators.
Cells: `%%cache`, and `with mo.persistent_cache(...)` around the cell, in a notebook of its own; joblib has no
cells. Where a cell can't be kept without the risk of a wrong value, it is right to run it and to say so.
Where a function can't, it is right to refuse it by name; the others do not, and are not judged on these.
"""


class Seen(NamedTuple):
    """What a step gave: its value as text, and whether it was computed."""

    value: str
    outcome: str


def ours(kind: str, number: int, folder: Path) -> dict[str, Seen]:
    """Run one step of all traps with datastore_lab, in one HDF5 file."""
    store = folder / f"{kind}.h5"
    if kind == "cells":
        found = call(sys.executable, "cache_cell_runner.py", str(store), str(number))
        return {name: Seen(value, outcome) for name, (value, outcome) in found.items()}
    place = folder / f"step-{number}"
    found = call(sys.executable, "cache_runner.py", str(store), str(number), str(place))
    return {name: Seen(value, _outcome(value, counts)) for name, (value, counts) in found.items()}


def _outcome(value: str, counts: list[int]) -> str:
    return "refused" if value.startswith("NotStorable(") else "miss" if counts[1] else "hit"


def theirs(python: str, peer: str, kind: str, number: int, folder: Path) -> dict[str, Seen]:
    """Run one step of all traps with a peer."""
    found = call(python, "trap_peers.py", peer, kind, str(number), str(folder))
    return {name: Seen(value, outcome) for name, (value, outcome) in found.items()}


def call(python: str, script: str, *arguments: str) -> dict:
    """Run a runner in a process of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "random",
    }
    command = [python, str(HERE / script), *arguments]
    with tempfile.TemporaryDirectory() as place:
        environment["IPYTHONDIR"] = place
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=3600, check=False
        )
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def judge(steps: list, seen: list[Seen], *, strict: bool) -> str:
    """Give one sign for a trap.

    Parameters
    ----------
    steps : list
        What is right, with ``value`` and ``expected``.
    seen : list of Seen
    strict : bool
        Ours: a result must also not come from the cache where it should be computed.
    """
    both = list(zip(seen, steps, strict=True))
    refusals = [(item, step) for item, step in both if isinstance(step, Step) and step.expected == "refused"]
    if refusals and strict:
        return (
            RIGHT
            if all(item.outcome == "refused" and step.value in item.value for item, step in refusals)
            else WRONG
        )
    if refusals:
        return NONE
    outcomes = [item.outcome for item in seen]
    if "not offered" in outcomes:
        return NONE
    if "error" in outcomes:
        return FAILS
    if any(item.value != repr(step.value) for item, step in both):
        return WRONG
    if any(item.outcome != step.expected and (strict or step.expected == "hit") for item, step in both):
        return AGAIN
    return RIGHT


def compare(python: str, folder: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Give ``{kind: {trap: {who: sign}}}``."""
    table: dict[str, dict[str, dict[str, str]]] = {}
    for kind, traps in KINDS.items():
        seen: dict[str, dict[str, list[Seen]]] = {}
        for number in range(max(map(len, traps.values()))):
            for who in ("datastore_lab", *PEERS):
                place = folder / who
                place.mkdir(exist_ok=True)
                own = who == "datastore_lab"
                found = ours(kind, number, place) if own else theirs(python, who, kind, number, place)
                print(f"{kind}, step {number + 1}, {who}: {len(found)} run", file=sys.stderr)
                for name, item in found.items():
                    seen.setdefault(name, {}).setdefault(who, []).append(item)
        table[kind] = {
            name: {who: judge(steps, seen[name][who], strict=who == "datastore_lab") for who in seen[name]}
            for name, steps in traps.items()
        }
    return table


def page(table: dict[str, dict[str, dict[str, str]]], versions: dict[str, str]) -> str:
    """Write the page: the sums first, then every trap."""
    who = ("datastore_lab", *PEERS)
    compared = ", ".join(f"{name} {number}" for name, number in versions.items())
    lines = [HEAD.format(compared=compared)]
    for kind, traps in table.items():
        counts = {name: Counter(signs[name] for signs in traps.values()) for name in who}
        lines += [f"## {kind.capitalize()}\n", *_row(f"{len(traps)} traps", who), "|---|" + ":-:|" * len(who)]
        for sign, meaning in MEANING.items():
            lines += _row(f"{sign} {meaning}", [str(counts[one][sign]) for one in who])
        lines += ["", *_row("trap", who), "|---|" + ":-:|" * len(who)]
        for name, signs in traps.items():
            lines += _row(name, [signs[one] for one in who])
        lines.append("")
    return "\n".join(lines)


def _row(first: str, others: Iterable[str]) -> list[str]:
    return [f"| {' | '.join([first, *others])} |"]


def environment(folder: Path) -> str:
    """Make an environment with the peers; gives its Python."""
    venv.create(folder, with_pip=True)
    python = str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    packages = ["joblib", "marimo", "numpy", "pandas", "xarray"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", help="an environment that has joblib, marimo, numpy, pandas and xarray")
    parser.add_argument("--write", type=Path, help="where to write the page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = options.python or environment(Path(folder) / "peers")
        code = "from importlib.metadata import version as v; print(v('joblib'), v('marimo'))"
        asked = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
        found = asked.stdout.split()
        versions = {"datastore_lab": version("datastore-lab"), **dict(zip(PEERS, found, strict=True))}
        text = page(compare(python, Path(folder)), versions)
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
