"""Runs one step of every trap in this process and prints what came out, as JSON."""

from __future__ import annotations

import importlib
import json
import sys
import textwrap
import warnings
from pathlib import Path

from cache_trap_suite import TRAPS

from datastore_lab import open_store
from datastore_lab.cache import Cached, CacheWarning, cached, sources

PRELUDE = "import numpy as np\nimport pandas as pd\nfrom prelude import C, cached, store\n"


def run(store, number: int, folder: Path) -> dict[str, tuple[str, list[int]]]:
    """Run the programs of one step; gives for each trap the value as text and the hits and misses."""
    results = {}
    for index, (name, steps) in enumerate(TRAPS.items()):
        if number < len(steps):
            results[name] = _run_one(
                store.group(f"trap {index}"), steps[number], folder / f"{index}-{number}"
            )
    return results


def _run_one(store, step, folder: Path) -> tuple[str, list[int]]:
    made: list[Cached] = []

    class Prelude(type(sys)):
        pass

    prelude = Prelude("prelude")
    prelude.store = store
    prelude.C = lambda function: made.append(cached(store)(function)) or made[-1]
    prelude.cached = lambda *a, **k: lambda function: made.append(cached(*a, **k)(function)) or made[-1]
    _write(folder, {"job": PRELUDE + step.program, **(step.modules or {})})
    places = [str(folder), *map(str, folder.glob("site-packages"))]
    sys.path[:0] = places
    sys.modules["prelude"] = prelude
    importlib.invalidate_caches()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)  # of what traps are made of
            job = importlib.import_module("job")
            value = eval(step.call, vars(job))  # (the calls are written in cache_traps.py and beside it)
    except Exception as error:
        value = error
    finally:
        sys.path[:] = [place for place in sys.path if place not in places]
        _forget(folder)
    counts = [sum(function._core.counts[kind] for function in made) for kind in ("hits", "misses")]
    return repr(value), counts


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / (name if name.endswith("METADATA") else f"{name}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def _forget(folder: Path) -> None:
    sources._distribution.cache_clear()  # (another version of a library may come next)
    for name, module in list(sys.modules.items()):
        if name == "prelude" or str(getattr(module, "__file__", None)).startswith(f"{folder}/"):
            del sys.modules[name]


if __name__ == "__main__":
    url, number, folder = sys.argv[1:]
    with open_store(url, durability="process") as opened:
        print(json.dumps(run(opened, int(number), Path(folder))))
