"""What every device must do, as functions that need no test runner."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from datastore_lab import dtypes, media

if TYPE_CHECKING:
    from collections.abc import Callable

    from datastore_lab.records import Block, Device, Stat


def check_device(
    device: Device, *, seconds: float = 1.0, patience: float = 5.0, provoke: Callable[[], None] | None = None
) -> list[Block]:
    """Hold a device against the protocol, for real: it is started, read, stopped and started again.

    Parameters
    ----------
    device : Device
        Not started.
    seconds : float, default 1
        How long it is read.
    patience : float, default 5
        Seconds within which it must give its first block.
    provoke : callable, optional
        Makes a device without a rate of its own give something, such as a software trigger; called before
        each read.

    Returns
    -------
    list of Block
        What it gave, for further tests.

    Raises
    ------
    AssertionError
        Saying what is wrong.
    """
    spec = check_description(device)
    blocks: list[Block] = []
    for _ in range(2):
        device.start()
        try:
            blocks = _read(device, spec, seconds, patience, provoke or (lambda: None))
        finally:
            device.stop()
            device.stop()
        began = time.monotonic()
        assert device.read(0.05) is None, f"{device.name} gives blocks after stop()"
        assert time.monotonic() - began < 1.0, f"{device.name}: read(0.05) after stop() took over a second"
    _check_rate(device.name, spec, blocks)
    return blocks


def check_description(device: Device) -> Stat:
    """Check what `describe` says before anything runs."""
    assert isinstance(device.name, str), "a device's name is text"
    assert device.name, "a device's name is not empty"
    spec = device.describe()
    name = device.name
    assert spec.kind == "stream", f"{name} describes kind {spec.kind!r}; it must be 'stream'"
    assert spec == device.describe(), f"{name} describes itself differently the second time"
    assert spec.arrays, f"{name} describes no array"
    for array, info in spec.arrays.items():
        assert array not in {"time", "sequence", "device_time"}, f"{name}: {array!r} is the stream's own name"
        dtypes.parse(info.dtype)
        assert info.shape[0] == 0, f"{name}: the shape of {array!r} must have 0 on axis 0, not {info.shape}"
        assert len(info.dims) == len(info.shape), f"{name}: {array!r} needs one dimension name per axis"
        assert info.dims[0] == "time", f"{name}: the first dimension of {array!r} must be 'time'"
    rate = spec.meta.get("rate", "missing")
    assert rate is None or (isinstance(rate, (int, float)) and rate > 0), f"{name}: meta['rate'] is {rate!r}"
    units = spec.meta.get("units")
    assert isinstance(units, dict), f"{name}: meta['units'] must map arrays to units"
    assert units.keys() <= spec.arrays.keys(), f"{name}: meta['units'] names arrays that are not there"
    media.check_json(spec.meta)
    return spec


def check_block(name: str, spec: Stat, block: Block, expected: int) -> None:
    """Check one block against the description; `expected` is the lowest sequence number it may begin with."""
    count = len(block.time)
    assert count > 0, f"{name} gave an empty block; it should return None"
    assert block.first >= expected, f"{name}: a block begins at {block.first}, {expected} was due"
    assert block.time.dtype == np.int64, f"{name}: time must be int64 ns, not {block.time.dtype}"
    assert block.time.shape == (count,), f"{name}: time has the shape {block.time.shape}"
    assert (np.diff(block.time) >= 0).all(), f"{name}: time runs backwards"
    offset = abs(int(block.time[-1]) - time.time_ns()) / 1e9
    assert offset < 60, f"{name}: time differs from the host's UTC clock by {offset:.0f} s"
    assert (block.device_time is not None) == bool(spec.meta.get("device_time")), (
        f"{name}: device_time must be in every block if meta['device_time'] is true, and in none otherwise"
    )
    assert block.data.keys() == spec.arrays.keys(), f"{name} gave {sorted(block.data)}"
    for array, info in spec.arrays.items():
        rows = block.data[array]
        assert dtypes.name(rows.dtype) == info.dtype, f"{name}: {array!r} is {rows.dtype}, not {info.dtype}"
        assert rows.shape == (count, *info.shape[1:]), f"{name}: {array!r} has the shape {rows.shape}"


def _read(
    device: Device, spec: Stat, seconds: float, patience: float, provoke: Callable[[], None]
) -> list[Block]:
    blocks: list[Block] = []
    copies: list[Block] = []
    expected = 0
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds or (not blocks and passed < patience):
        provoke()
        asked = time.monotonic()
        block = device.read(0.1)
        assert time.monotonic() - asked < 2.0, f"{device.name}: read(0.1) took over two seconds"
        if block is None:
            continue
        check_block(device.name, spec, block, expected)
        expected = block.first + len(block.time)
        blocks.append(block)
        copies.append(block._replace(data={name: rows.copy() for name, rows in block.data.items()}))
    assert blocks, f"{device.name} gave nothing within {patience} s"
    for block, copy in zip(blocks, copies, strict=True):
        for name, rows in block.data.items():
            same = np.array_equal(rows, copy.data[name], equal_nan=rows.dtype.kind in "fc")
            assert same, f"{device.name} reuses the memory of {name!r} that it gave away"
    return blocks


def _check_rate(name: str, spec: Stat, blocks: list[Block]) -> None:
    rate = spec.meta["rate"]
    first, last = blocks[0], blocks[-1]
    samples = last.first + len(last.time) - first.first - 1
    passed = (int(last.time[-1]) - int(first.time[0])) / 1e9
    if rate is not None and samples > 10 and passed > 0:
        measured = samples / passed
        assert 0.7 < measured / rate < 1.4, f"{name} states {rate} samples/s and gives {measured:.4g}"
