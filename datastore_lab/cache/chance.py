"""The generators of random numbers that a whole process shares, ``random`` and ``numpy.random``.

A cell reads and moves them without naming a variable. What came out of a seeded one belongs to the state
that it was in; and the cells that follow continue from the state in which the cell left it. Whether
``numpy.random`` has been seeded can be told; ``random`` counts as seeded.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from datastore_lab.cache.walk import digest
from datastore_lab.errors import Corrupt


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


def digests(names: Iterable[str]) -> dict[str, str]:
    """Digest the states of some generators."""
    states = now()
    return {name: digest(states[name].value) for name in names if name in states}


def move(moves: Mapping[str, Any]) -> None:
    """Put the generators into the state in which a cell left them."""
    for name, found in moves.items():
        if name == "random":
            _restore(random, found["to"])
        else:
            np.random.seed(0)  # noqa: NPY002 (marks it as seeded, which a state alone does not)
            np.random.set_state(found["to"])  # noqa: NPY002


def state_of(value: Any) -> dict[str, Any] | None:
    """Describe a generator of random numbers as JSON; None for anything else.

    Examples
    --------
    >>> import numpy as np
    >>> generator_of(state_of(np.random.default_rng(1))).random() == np.random.default_rng(1).random()
    True
    """
    if type(value) is random.Random:
        return {"kind": "Random", "state": value.getstate()}
    if type(value) is np.random.RandomState:
        bits = value._bit_generator
    elif type(value) is np.random.Generator:
        bits = value.bit_generator
    else:
        return None
    if type(bits).__name__ not in _BITS:
        return None
    found = {"kind": type(value).__name__, "bits": type(bits).__name__, "state": _plain(bits.state)}
    if type(value) is np.random.RandomState:
        found["state"] = _plain(value.get_state(legacy=False))
    seed = getattr(bits, "seed_seq", None)
    if type(seed) is np.random.SeedSequence:
        found["seed"] = _plain(seed.state)
    return found


_BITS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


def generator_of(found: Mapping[str, Any]) -> Any:
    """Make the generator that `state_of` has described."""
    if found["kind"] == "Random":
        made = random.Random()  # noqa: S311 (the user's own)
        _restore(made, found["state"])
        return made
    seed = found.get("seed")
    sequence = (
        None if seed is None else np.random.SeedSequence(**{**seed, "spawn_key": tuple(seed["spawn_key"])})
    )
    if found["bits"] not in _BITS:
        raise Corrupt(f"there is no generator {found['bits']!r} of random numbers", key=str(found["bits"]))
    bits = getattr(np.random, found["bits"])(sequence)
    if found["kind"] == "RandomState":
        legacy = np.random.RandomState(bits)
        legacy.set_state(found["state"])
        return legacy
    bits.state = found["state"]
    return np.random.Generator(bits)


def follow(old: Any, new: Any) -> bool:
    """Put a generator into the state of another one of its kind; False if it is none."""
    if type(old) is random.Random:
        old.setstate(new.getstate())
    elif type(old) is np.random.RandomState:
        old.set_state(new.get_state())
    elif type(old) is np.random.Generator and type(old.bit_generator) is type(new.bit_generator):
        old.bit_generator.state = new.bit_generator.state
    else:
        return False
    return True


def _restore(generator: Any, state: Any) -> None:
    version, numbers, gauss = state
    generator.setstate((version, tuple(numbers), gauss))


def _plain(state: Any) -> Any:
    """Give a state as JSON: arrays as lists, numbers of numpy as those of Python."""
    if isinstance(state, Mapping):
        return {name: _plain(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, (np.ndarray, np.generic)) else state
