"""The generators of random numbers that a whole process shares, ``random`` and ``numpy.random``.

A cell reads and moves them without naming a variable. What came out of a seeded one belongs to the state
that it was in; and the cells that follow continue from the state in which the cell left it. Whether
``numpy.random`` has been seeded can be told; ``random`` counts as seeded.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from datastore_lab.cache.walk import digest


class State(NamedTuple):
    """The state of one generator, and whether it hangs on a seed."""

    value: Any
    seeded: bool


def now() -> dict[str, State]:
    """Give the states of the generators, by the name of their module."""
    state: Any = np.random.get_state(legacy=False)  # noqa: NPY002 (the very one that is meant)
    key = state["state"]
    plain = {**state, "state": {**key, "key": key["key"].tolist()}} if "key" in key else state
    shared: Any = np.random
    seeded = shared.get_bit_generator().seed_seq is None
    return {"random": State(random.getstate(), True), "numpy.random": State(plain, seeded)}


def moved(before: Mapping[str, State], after: Mapping[str, State], *, seeds: bool) -> dict[str, Any]:
    """Describe what a cell did to the generators.

    Parameters
    ----------
    before, after : mapping of str to State
    seeds : bool
        Whether the cell seeds them itself, so that the state before does not matter.

    Returns
    -------
    dict
        For each one that was moved and hangs on a seed: ``from`` (digest, or None) and ``to`` (the state).
    """
    return {
        name: {
            "from": digest(before[name].value) if before[name].seeded and not seeds else None,
            "to": state.value,
        }
        for name, state in after.items()
        if state.seeded and state.value != before[name].value
    }


def other(moves: Mapping[str, Any]) -> str | None:
    """Name a generator that is not in the state from which a result was made; None if there is none."""
    states = now() if moves else {}
    for name, move in moves.items():
        if move["from"] is not None and move["from"] != digest(states[name].value):
            return name
    return None


def move(moves: Mapping[str, Any]) -> None:
    """Put the generators into the state in which a cell left them."""
    for name, found in moves.items():
        if name == "random":
            version, state, gauss = found["to"]
            random.setstate((version, tuple(state), gauss))
        else:
            np.random.seed(0)  # noqa: NPY002 (marks it as seeded, which a state alone does not)
            np.random.set_state(found["to"])  # noqa: NPY002
