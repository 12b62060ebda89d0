"""Stores against h5py, zarr-python and numpy by hand, with fsync on both sides."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import zarr

from benchmarks.harness import Bench
from datastore_lab import open_store


def sync(path: Path) -> None:
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def ours(suffix: str, items: dict[str, np.ndarray], durability: str = "disk"):
    def write(place: Path) -> None:
        with open_store(place / f"ours{suffix}", durability=durability) as store, store.transaction():
            for name, array in items.items():
                store[name] = array

    return write


def by_hand_hdf5(array: np.ndarray, *, durable: bool = True):
    def write(place: Path) -> None:
        with h5py.File(place / "peer.h5", "w") as file:
            file["a"] = array
        if durable:
            sync(place / "peer.h5")

    return write


def by_hand_zarr(array: np.ndarray, *, durable: bool = True):
    def write(place: Path) -> None:
        zarr.open_group(place / "peer.zarr", mode="w").create_array("a", data=array)
        if durable:
            sync(place / "peer.zarr")

    return write


def by_hand_numpy(array: np.ndarray, *, durable: bool = True):
    def write(place: Path) -> None:
        np.save(place / "peer.npy", array)
        if durable:
            sync(place / "peer.npy")

    return write


def raw_write(array: np.ndarray):
    def write(place: Path) -> None:
        with (place / "raw").open("wb") as file:
            file.write(array.data)
            os.fsync(file.fileno())

    return write


def reading(folder: Path, array: np.ndarray) -> dict:
    """Reads of the same array from files made once, which stay in the page cache."""
    with open_store(folder / "ours.h5") as store:
        store["a"] = array
    with open_store(folder / "ours.zarr") as store:
        store["a"] = array
    with h5py.File(folder / "peer.h5", "w") as file:
        file["a"] = array
    zarr.open_group(folder / "peer.zarr", mode="w").create_array("a", data=array)
    np.save(folder / "peer.npy", array)

    def from_store(name: str):
        def read(_place: Path) -> None:
            with open_store(folder / name, "r") as store:
                store["a"]

        return read

    def from_hdf5(_place: Path) -> None:
        with h5py.File(folder / "peer.h5") as file:
            file["a"][()]

    return {
        "hdf5": {
            "datastore_lab": from_store("ours.h5"),
            "h5py": from_hdf5,
            "np.load (limit)": lambda _p: np.load(folder / "peer.npy"),
        },
        "zarr": {
            "datastore_lab": from_store("ours.zarr"),
            "zarr-python": lambda _p: zarr.open_group(folder / "peer.zarr", mode="r")["a"][...],
            "np.load (limit)": lambda _p: np.load(folder / "peer.npy"),
        },
    }


class Made(Bench):
    """A bench whose files are made once, before the first round.

    Parameters
    ----------
    make : callable
        Takes a folder and gives the contestants.
    """

    def __init__(self, name: str, make: Callable[[Path], dict], amount: float, unit: str) -> None:
        super().__init__(name, {}, amount, unit)
        self._make = make

    def run(self, folder: Path, rounds: int) -> None:
        home = folder / f"files of {self.name}".replace("/", " ")
        home.mkdir()
        self.contestants = self._make(home)
        super().run(folder, rounds)


def bulk(suffix: str, array: np.ndarray, peer: str, by_hand, durability: str) -> Bench:
    durable = durability == "disk"
    extra = " + fsync" if durable else ""
    contestants = {
        "datastore_lab": ours(suffix, {"a": array}, durability),
        f"{peer}{extra}": by_hand(array, durable=durable),
        f"np.save{extra}": by_hand_numpy(array, durable=durable),
    }
    if suffix == ".zarr":
        contestants[f"h5py{extra}"] = by_hand_hdf5(array, durable=durable)
    if durable:
        contestants["write + fsync (limit)"] = raw_write(array)
    size = array.nbytes / 1e6
    name = f"write {size:.0f} MB, {suffix[1:]}{'' if durable else ', no fsync'}"
    return Bench(name, contestants, size, "MB", array.nbytes)


def benches(*, quick: bool) -> list[Bench]:
    big = np.random.default_rng(0).standard_normal(2_000_000 if quick else 12_500_000)
    peers = {".h5": ("h5py", by_hand_hdf5), ".zarr": ("zarr-python", by_hand_zarr)}
    return [
        *(bulk(suffix, big, *peer, "disk") for suffix, peer in peers.items()),
        *(bulk(suffix, big, *peer, "process") for suffix, peer in peers.items()),
        *(
            Made(
                f"read {big.nbytes / 1e6:.0f} MB, {engine}",
                lambda home, engine=engine: reading(home, big)[engine],
                big.nbytes / 1e6,
                "MB",
            )
            for engine in ("hdf5", "zarr")
        ),
    ]
