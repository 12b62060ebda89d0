"""Runs one step of every trap in this process and prints what came out, as JSON."""

from __future__ import annotations

import importlib
import json
import sys
import textwrap
import warnings
from pathlib import Path

from cache_traps import TRAPS

from datastore_lab import open_store
from datastore_lab.cache import Cached, CacheWarning, cached

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
    folder.mkdir(parents=True)
    for name, text in {"job": PRELUDE + step.program, **(step.modules or {})}.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    sys.path.insert(0, str(folder))
    sys.modules["prelude"] = prelude
    importlib.invalidate_caches()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)  # of what traps are made of
            job = importlib.import_module("job")
            value = eval(step.call, vars(job))  # the calls are written in cache_traps.py
    except Exception as error:
        value = error
    finally:
        sys.path.remove(str(folder))
        for name in ("job", "prelude", *(step.modules or {})):
            sys.modules.pop(name, None)
    counts = [sum(function.stats()[kind] for function in made) for kind in ("hits", "misses")]
    return repr(value), counts


if __name__ == "__main__":
    url, number, folder = sys.argv[1:]
    with open_store(url) as opened:
        print(json.dumps(run(opened, int(number), Path(folder))))
