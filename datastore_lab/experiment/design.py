"""What is to be done in an experiment: blocks of trials, with attributes and room for arrays."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab.errors import BadKey, NotStorable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray


class Array:
    """Data of a trial that arrives in pieces.

    Parameters
    ----------
    data : array-like, optional
        What is there from the start.
    stack_axis : int, default 1
        Axis along which pieces are joined: 1 for pieces of the shape (channels, samples).

    Examples
    --------
    >>> emg = Array()
    >>> emg.stack([[1, 2], [3, 4]])
    >>> emg.stack([[5], [6]])
    >>> emg.data.tolist()
    [[1, 2, 5], [3, 4, 6]]
    """

    def __init__(self, data: ArrayLike | None = None, stack_axis: int = 1) -> None:
        self.stack_axis = stack_axis
        self._pieces: list[NDArray[Any]] = []
        if data is not None:
            self._pieces.append(np.asarray(data))

    @property
    def data(self) -> NDArray[Any] | None:
        """All pieces as one array; None if there is none."""
        if len(self._pieces) > 1:  # joined when somebody looks: each piece at once would copy all before it
            self._pieces = [np.concatenate(self._pieces, axis=self.stack_axis)]
        return self._pieces[0] if self._pieces else None

    @data.setter
    def data(self, data: ArrayLike | None) -> None:
        self._pieces = [] if data is None else [np.asarray(data)]

    def stack(self, data: ArrayLike) -> None:
        """Add a piece, which is copied: a device may use its memory again.

        Raises
        ------
        NotStorable
            If its shape does not fit to the pieces before, in any other axis than that along which they are
            joined.
        """
        piece = np.array(data)
        axis, first = self.stack_axis, self._pieces[0] if self._pieces else piece
        if not -piece.ndim <= axis < piece.ndim:
            raise NotStorable(
                f"a piece of the shape {piece.shape} has no axis {axis} to be joined along; give the array "
                "another stack_axis"
            )
        if _others(piece, axis) != _others(first, axis):
            raise NotStorable(
                f"a piece of the shape {piece.shape} can't be joined along axis {axis} with one of the shape "
                f"{first.shape}"
            )
        self._pieces.append(piece)

    def clear(self) -> None:
        """Forget all pieces."""
        self._pieces = []

    def __repr__(self) -> str:
        shape = "empty" if self.data is None else f"{self.data.dtype} {self.data.shape}"
        return f"<Array {shape}>"


def _others(piece: NDArray[Any], axis: int) -> tuple[int, ...]:
    lengths = list(piece.shape)
    del lengths[axis]
    return tuple(lengths)


class Trial:
    """One trial: attributes, and arrays by name.

    Parameters
    ----------
    attrs : mapping of str to number, text, time or None
        Copied.

    Attributes
    ----------
    attrs : dict
    arrays : dict of str to Array
    """

    def __init__(self, attrs: Mapping[str, Any] | None = None) -> None:
        self.attrs: dict[str, Any] = dict(attrs or {})
        self.arrays: dict[str, Array] = {}

    def add_array(self, name: str, data: ArrayLike | None = None, stack_axis: int = 1) -> Array:
        """Make room for an array; see `Array`.

        Raises
        ------
        BadKey
            If an attribute has the same name.
        """
        if name in self.attrs:
            raise BadKey(
                f"{name!r} is an attribute of the trial already; give the array another name", key=name
            )
        self.arrays[name] = Array(data, stack_axis)
        return self.arrays[name]

    def __repr__(self) -> str:
        return f"<Trial {self.attrs} with {', '.join(self.arrays) or 'no arrays'}>"


class Block(list[Trial]):
    """A list of trials.

    Parameters
    ----------
    number : int
        Of the block in its design.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def add_trial(self, attrs: Mapping[str, Any] | None = None) -> Trial:
        """Add a trial; its attributes get ``block`` and ``trial``, the numbers of both."""
        trial = Trial({**(attrs or {}), "block": self.number, "trial": len(self)})
        self.append(trial)
        return trial

    def shuffle(self, reset_index: bool = True, seed: int | None = None) -> None:
        """Put the trials into random order.

        Parameters
        ----------
        reset_index : bool, default True
            Number the trials anew, in the new order.
        seed : int, optional
            The same number gives the same order. No other generator of random numbers is touched.

        Examples
        --------
        >>> block = Design().add_block()
        >>> trials = [block.add_trial({"target": n}) for n in range(4)]
        >>> block.shuffle(seed=3)
        >>> sorted(trial.attrs["target"] for trial in block), [trial.attrs["trial"] for trial in block]
        ([0, 1, 2, 3], [0, 1, 2, 3])
        """
        random.Random(seed).shuffle(self)  # noqa: S311 (nobody is to be kept from guessing it)
        if reset_index:
            for number, trial in enumerate(self):
                trial.attrs["trial"] = number


class Design(list[Block]):
    """A list of blocks.

    Examples
    --------
    >>> design = Design()
    >>> trial = design.add_block().add_trial({"target": "left"})
    >>> trial.attrs
    {'target': 'left', 'block': 0, 'trial': 0}
    """

    def add_block(self) -> Block:
        """Add a block."""
        block = Block(len(self))
        self.append(block)
        return block
