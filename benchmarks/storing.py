"""Stores against h5py, zarr-python and numpy by hand, with fsync on both sides."""

from __future__ import annotations

import os
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


def ours(suffix: str, items: dict[str, np.ndarray]):
    def write(place: Path) -> None:
        with open_store(place / f"ours{suffix}") as store, store.transaction():
            for name, array in items.items():
                store[name] = array

    return write


def by_hand_hdf5(items: dict[str, np.ndarray]):
    def write(place: Path) -> None:
        with h5py.File(place / "peer.h5", "w") as file:
            for name, array in items.items():
                file[name] = array
        sync(place / "peer.h5")

    return write


def hdf5_reopening(items: dict[str, np.ndarray]):
    def write(place: Path) -> None:
        for name, array in items.items():
            with h5py.File(place / "peer.h5", "a") as file:
                file[name] = array
        sync(place / "peer.h5")

    return write


def by_hand_zarr(items: dict[str, np.ndarray]):
    def write(place: Path) -> None:
        group = zarr.open_group(place / "peer.zarr", mode="w")
        for name, array in items.items():
            group.create_array(name, data=array)
        sync(place / "peer.zarr")

    return write


def by_hand_numpy(items: dict[str, np.ndarray]):
    def write(place: Path) -> None:
        for name, array in items.items():
            np.save(place / f"{name}.npy", array)
            sync(place / f"{name}.npy")

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


class Reading(Bench):
    """A bench whose files are made once."""

    def __init__(self, engine: str, array: np.ndarray) -> None:
        super().__init__(f"read {array.nbytes / 1e6:.0f} MB, {engine}", {}, array.nbytes / 1e6, "MB")
        self._engine, self._array = engine, array

    def run(self, folder: Path, rounds: int) -> None:
        home = folder / f"files-{self._engine}"
        home.mkdir()
        self.contestants = reading(home, self._array)[self._engine]
        super().run(folder, rounds)


def benches(*, quick: bool) -> list[Bench]:
    rng = np.random.default_rng(0)
    big = rng.standard_normal(2_000_000 if quick else 12_500_000)
    count = 200 if quick else 2_000
    small = {f"item{number}": rng.standard_normal(128) for number in range(count)}
    touch, size = big.nbytes, big.nbytes / 1e6

    def bulk(suffix: str, peer: str, by_hand) -> Bench:
        contestants = {
            "datastore_lab": ours(suffix, {"a": big}),
            peer: by_hand({"a": big}),
            "np.save + fsync": by_hand_numpy({"a": big}),
            "write + fsync (limit)": raw_write(big),
        }
        return Bench(f"write {size:.0f} MB, {suffix[1:]}", contestants, size, "MB", touch)

    return [
        bulk(".h5", "h5py + fsync", by_hand_hdf5),
        bulk(".zarr", "zarr-python + fsync", by_hand_zarr),
        Reading("hdf5", big),
        Reading("zarr", big),
        Bench(
            f"write {count} x 1 KB in one commit, h5",
            {
                "datastore_lab": ours(".h5", small),
                "h5py, one file": by_hand_hdf5(small),
                "h5py, reopening": hdf5_reopening(small),
            },
            count,
            "items",
        ),
        Bench(
            f"write {count} x 1 KB in one commit, zarr",
            {
                "datastore_lab": ours(".zarr", small),
                "zarr-python": by_hand_zarr(small),
                "np.save + fsync": by_hand_numpy(small),
            },
            count,
            "items",
        ),
    ]
