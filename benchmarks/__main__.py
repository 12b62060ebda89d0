"""Run the benchmarks and print one table."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks import acquiring, caching, cells, items, recording, ring, storing
from benchmarks.harness import HEAD

GROUPS = {
    "stores": storing.benches,
    "items": items.benches,
    "cache": caching.benches,
    "cells": cells.benches,
    "ring": ring.benches,
    "acquire": acquiring.benches,
    "record": recording.benches,
}
PACKAGES = ("numpy", "h5py", "zarr", "pyarrow", "xarray", "pandas", "joblib")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "groups", nargs="*", metavar="GROUP", help=f"some of {', '.join(GROUPS)}; all by default"
    )
    parser.add_argument("--quick", action="store_true", help="small amounts, two rounds: shows that it runs")
    parser.add_argument("--rounds", type=int, help="rounds that count; 7 by default")
    parser.add_argument("--folder", type=Path, help="on which disk to work; the temporary folder by default")
    arguments = parser.parse_args()
    if unknown := set(arguments.groups) - GROUPS.keys():
        parser.error(f"there is no group {sorted(unknown)[0]!r}; there are {', '.join(GROUPS)}")
    rounds = arguments.rounds or (2 if arguments.quick else 7)
    print(f"{rounds} rounds on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before, ", end="")
    print(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES))
    print(f"\n{HEAD}")
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=arguments.folder) as folder:
        for name in arguments.groups or GROUPS:
            for bench in GROUPS[name](quick=arguments.quick):
                bench.run(Path(folder), rounds)
                print("\n".join(bench.rows()), flush=True)
    after = f"load {os.getloadavg()[0]:.1f} after"
    print(f"\n{after}; 'ours is' is the median over the rounds of their time / our time.")


if __name__ == "__main__":
    main()
