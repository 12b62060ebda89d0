"""Many small items: written in one commit, loaded one by one, and the first page of a large store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import zarr

from benchmarks.harness import Bench
from benchmarks.storing import Made, ours, sync
from datastore_lab import open_store

PAGE = 200
SUFFIXES = {"h5": ".h5", "sqlite": ".sqlite", "zarr": ".zarr", "parquet folder": ".parquets"}


def hdf5_reopening(items: dict[str, np.ndarray], *, durable: bool):
    def write(place: Path) -> None:
        path = place / "peer.h5"
        for name, array in items.items():
            with h5py.File(path, "a") as file:
                file[name] = array
            if durable:
                sync(path)

    return write


def zarr_reopening(items: dict[str, np.ndarray], *, durable: bool):
    def write(place: Path) -> None:
        path = place / "peer.zarr"
        zarr.open_group(path, mode="w")
        for name, array in items.items():
            zarr.open_group(path, mode="a").create_array(name, data=array)
            if durable:
                sync(path / name)

    return write


def numpy_files(items: dict[str, np.ndarray]):
    def write(place: Path) -> None:
        for name, array in items.items():
            np.save(place / f"{name}.npy", array)
            sync(place / f"{name}.npy")

    return write


def writing(kind: str, items: dict[str, np.ndarray]) -> Bench:
    peers: dict[str, Callable[[Path], object]] = {
        "h5py, reopening, fsync each": hdf5_reopening(items, durable=True),
        "h5py, reopening": hdf5_reopening(items, durable=False),
    }
    if kind == "zarr":
        peers = {
            "zarr-python, reopening, fsync each": zarr_reopening(items, durable=True),
            "zarr-python, reopening": zarr_reopening(items, durable=False),
        }
    if kind == "parquet folder":
        peers = {"np.save + fsync": numpy_files(items)}
    contestants = {"datastore_lab": ours(SUFFIXES[kind], items), **peers}
    return Bench(f"write {len(items)} x 1 KB in one commit, {kind}", contestants, len(items), "items")


def loading(kind: str, items: dict[str, np.ndarray]) -> Bench:
    def make(home: Path) -> dict[str, Callable[[Path], object]]:
        ours(SUFFIXES[kind], items)(home)
        path, peer = home / f"ours{SUFFIXES[kind]}", home / ("peer.zarr" if kind == "zarr" else "peer.h5")
        if kind == "zarr":
            group = zarr.open_group(peer, mode="w")
            for name, array in items.items():
                group.create_array(name, data=array)
        else:
            with h5py.File(peer, "w") as file:
                for name, array in items.items():
                    file[name] = array

        def from_store(_place: Path) -> None:
            with open_store(path, "r") as store:
                for name in items:
                    store[name]

        def reopening(_place: Path) -> None:
            for name in items:
                if kind == "zarr":
                    zarr.open_group(peer, mode="r")[name][...]
                else:
                    with h5py.File(peer) as file:
                        file[name][()]

        label = "zarr-python, reopening" if kind == "zarr" else "h5py, reopening"
        return {"datastore_lab": from_store, label: reopening}

    return Made(f"load {len(items)} x 1 KB one by one, {kind}", make, len(items), "items")


def first_page(names: list[str], url: Callable[[str, Path], str], *, described: bool) -> Bench:
    """Look at a store that has just been opened: what a browser does first."""

    def make(home: Path) -> dict[str, Callable[[Path], object]]:
        return {name: page(url(name, home)) for name in names}

    def page(place: str) -> Callable[[Path], object]:
        with open_store(place) as store, store.transaction():
            for number in range(10_000):
                store[f"item{number:05}"] = np.full(2, number)

        def look(_place: Path) -> float:
            with open_store(place, "r") as store:
                start = time.perf_counter()
                store.stat(())
                found = list(islice(store.children(), PAGE))
                if described:
                    found = [store.stat((name,)) for name in found]
                seconds = time.perf_counter() - start
            assert len(found) == PAGE
            return seconds

        return look

    what = "described" if described else "by name"
    return Made(f"root and first {PAGE} of 10,000 items, {what}", make, 1, "pages")


def where(name: str, home: Path) -> str:
    servers = {
        "postgresql": os.environ.get("LAB_POSTGRESQL_URL"),
        "mariadb": os.environ.get("LAB_MARIADB_URL"),
    }
    return servers.get(name) or str(home / f"page{SUFFIXES[name]}")


def benches(*, quick: bool) -> list[Bench]:
    rng = np.random.default_rng(0)
    count = 200 if quick else 10_000
    items = {f"item{number}": rng.standard_normal(128) for number in range(count)}
    fewer = dict(islice(items.items(), 200 if quick else 2_000))
    amounts = {"h5": items, "sqlite": items, "zarr": fewer, "parquet folder": fewer}
    servers = [name for name in ("postgresql", "mariadb") if os.environ.get(f"LAB_{name.upper()}_URL")]
    return [
        *(writing(kind, some) for kind, some in amounts.items()),
        *(loading(kind, some) for kind, some in amounts.items()),
        first_page([*SUFFIXES, *servers], where, described=False),
        first_page([*SUFFIXES, *servers], where, described=True),
    ]
