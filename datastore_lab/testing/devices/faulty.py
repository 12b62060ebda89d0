"""A device that fails on purpose."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datastore_lab.records import Block, Device, Stat


class Faulty:
    """A device with faults: it passes on what another device gives, until something goes wrong.

    Parameters
    ----------
    device : Device
    raise_after : int, optional
        Raises an OSError in place of the block after so many.
    silent_after : int, optional
        Gives nothing more after so many blocks.
    drop : mapping of int to int, optional
        Loses so many samples before the block of this index: its sequence numbers jump.
    garbage_after : int, optional
        Gives arrays of another type after so many blocks.
    """

    def __init__(
        self,
        device: Device,
        *,
        raise_after: int | None = None,
        silent_after: int | None = None,
        drop: dict[int, int] | None = None,
        garbage_after: int | None = None,
    ) -> None:
        self.name = device.name
        self.device = device
        self._raise_after, self._silent_after, self._garbage_after = raise_after, silent_after, garbage_after
        self._drop = drop or {}
        self._given = self._jumped = 0

    def describe(self) -> Stat:
        """Say what the device says."""
        return self.device.describe()

    def start(self) -> None:
        """Start the device, with all faults still to come."""
        self._given = self._jumped = 0
        self.device.start()

    def read(self, timeout: float) -> Block | None:
        """Pass on the device's next block, or what has become of it."""
        if self._given == self._silent_after:
            time.sleep(min(timeout, 0.02))
            return None
        block = self.device.read(timeout)
        if block is None:
            return None
        if self._given == self._raise_after:
            raise OSError("the cable was pulled")
        self._jumped += self._drop.get(self._given, 0)
        if self._garbage_after is not None and self._given >= self._garbage_after:
            block = block._replace(data={name: rows.astype("c16") for name, rows in block.data.items()})
        self._given += 1
        return block._replace(first=block.first + self._jumped)

    def stop(self) -> None:
        """Stop the device."""
        self.device.stop()
