"""Runs one step of every trap with joblib or marimo in this process, and prints what came out, as JSON.

Nothing of datastore_lab is imported here: the peers have an environment of their own. Whether a result was
computed is told by what is new in the folder of the cache.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import cache_cell_traps
import cache_trap_suite
import cache_traps

NOT_OFFERED = "not offered"


class NotOffered(Exception):
    """The peer has nothing of the kind."""


def main() -> None:
    peer, kind, number, folder = sys.argv[1:]
    run = {"functions": functions, "cells": cells}[kind]
    print(json.dumps(dict(run(peer, int(number), Path(folder)))))


def functions(peer: str, number: int, folder: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """Run the programs of one step."""
    run = {"joblib": joblib_function, "marimo": marimo_function}[peer]
    for index, (name, steps) in enumerate(cache_trap_suite.TRAPS.items()):
        if number < len(steps):
            place = folder / f"functions-{index}"
            yield name, watched(place, run, steps[number], place, f"step_{index}_{number}")


def cells(peer: str, number: int, folder: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """Run the cells of one session; joblib has none."""
    run = {"joblib": no_cells, "marimo": marimo_cell}[peer]
    for index, (name, sessions) in enumerate(cache_cell_traps.SESSIONS.items()):
        if number < len(sessions):
            place = folder / f"cells-{index}"
            yield name, watched(place, run, sessions[number], place, f"cell_{index}_{number}")


def watched(place: Path, run: Callable[..., object], *arguments: object) -> tuple[str, str]:
    """Give the value as text, and whether something was computed."""
    (place / "cache").mkdir(parents=True, exist_ok=True)
    before = snapshot(place / "cache")
    try:
        value = repr(run(*arguments))
    except NotOffered:
        return "", NOT_OFFERED
    except BaseException as error:
        if "name '_' is not defined" in str(error):  # (the last value shown is IPython's)
            return "", NOT_OFFERED
        return repr(error)[:200], "error"
    return value, "miss" if snapshot(place / "cache") - before else "hit"


def snapshot(folder: Path) -> set[tuple[str, int]]:
    """Name the results in a folder, with their times."""
    files = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    return {(str(file), file.stat().st_mtime_ns) for file in files if file.suffix in {".pkl", ".pickle"}}


def no_cells(_session: object, _place: Path, _name: str) -> object:
    """Say that the peer knows functions only."""
    raise NotOffered


# -- joblib -------------------------------------------------------------------------------------------


def joblib_function(step: cache_traps.Step, place: Path, name: str) -> object:
    """Run a program with joblib's Memory in the place of ours."""
    if "_core" in step.call:
        raise NotOffered
    import joblib

    memory = joblib.Memory(place / "cache", verbose=0)

    def cached(
        _store: object, ignore_kwargs: object = None, *, version: object = None, **other: object
    ) -> object:
        if version is not None or other:
            raise NotOffered
        ignore = [ignore_kwargs] if isinstance(ignore_kwargs, str) else list(ignore_kwargs or ())
        return memory.cache(ignore=ignore)

    prelude = types.ModuleType("prelude")
    prelude.C, prelude.cached, prelude.store = memory.cache, cached, None
    lines = "import numpy as np\nimport pandas as pd\nfrom prelude import C, cached, store\n"
    # the file has one name in all steps, as that of a user would: joblib keeps functions apart by it
    with Beside(place / "text", {"job": lines + step.program, **(step.modules or {})}):
        sys.modules["prelude"] = prelude
        job = importlib.import_module("job")
        return eval(step.call, vars(job))


# -- marimo -------------------------------------------------------------------------------------------


def marimo_function(step: cache_traps.Step, place: Path, name: str) -> object:
    """Run a program as a cell of a notebook, with marimo's persistent_cache in the place of ours."""
    if "cached(" in step.program or "_core" in step.call:
        raise NotOffered
    make = f"mo.persistent_cache(save_path={str(place / 'cache')!r})"
    program = step.program.replace("@C\n", f"@{make}\n").replace("C(", f"{make}(")
    cell = f"{program}\nthe_result = {step.call}\n"
    return marimo_app([cell], place, name, step.modules or {})


def marimo_cell(session: cache_cell_traps.Session, place: Path, name: str) -> object:
    """Run a cell inside marimo's persistent_cache."""
    from_shell = ("get_ipython", "%%", "%time", "!echo", "lab_store", "await ")
    if session.options or any(word in session.cell + session.before for word in from_shell):
        raise NotOffered
    head = f"with mo.persistent_cache('trap', save_path={str(place / 'cache')!r}):\n"
    body = head + textwrap.indent(session.cell, "    ")
    last = f"{body}\nthe_result = {session.after}\n"
    try:
        return marimo_app([session.before, last], place, name, {})
    except Exception as error:
        if "MultipleDefinition" not in repr(error) and "UnparsableError" not in repr(error):
            raise
    # a variable may be assigned in one cell only: then all of it becomes one cell
    return marimo_app([f"{session.before}\n{last}"], place, f"{name}_one", {})


def marimo_app(cells: list[str], place: Path, name: str, beside: dict[str, str]) -> object:
    """Write a notebook, run it, and give its variable ``the_result``."""
    head = "import marimo\n\napp = marimo.App()\n\n"
    imports = "import marimo as mo\nimport numpy as np\nimport pandas as pd"
    text = head + "".join(
        f"@app.cell\ndef _():\n{textwrap.indent(cell, '    ')}\n    return\n\n" for cell in [imports, *cells]
    )
    with Beside(place / "text", {name: text, **beside}):
        app = importlib.import_module(name).app
        _, defined = app.run()
        return defined["the_result"]


class Beside:
    """Write modules into a folder, and make them importable for a while."""

    def __init__(self, folder: Path, texts: dict[str, str]) -> None:
        self.folder, self.texts = folder, texts
        self.places: list[str] = []

    def __enter__(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for name, text in self.texts.items():
            path = self.folder / (name if name.endswith("METADATA") else f"{name}.py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        self.places = [str(self.folder), *map(str, self.folder.glob("site-packages"))]
        sys.path[:0] = self.places
        importlib.invalidate_caches()

    def __exit__(self, *_exc: object) -> None:
        sys.path[:] = [place for place in sys.path if place not in self.places]
        for name, module in list(sys.modules.items()):
            if name == "prelude" or str(getattr(module, "__file__", None)).startswith(f"{self.folder}/"):
                del sys.modules[name]


if __name__ == "__main__":
    main()
