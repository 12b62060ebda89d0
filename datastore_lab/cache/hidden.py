"""What a result may depend on that no key can hold: the clock, the environment, files, chance.

The functions that a key covers are searched for reads of these, once for each state of the code, when a
result is about to be kept; and after a run the arguments are held against what they were.
"""

from __future__ import annotations

import builtins
import datetime as dt
import dis
import io
import os
import random
import sys
import time
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from datastore_lab.cache.guards import MISSING, cell_value
from datastore_lab.cache.hashing import immutable
from datastore_lab.cache.walk import content, digest
from datastore_lab.errors import LabError

_CLOCK = "the clock"
_ENVIRONMENT = "the environment"
_FILES = "files"
_CHANCE = "random numbers without a seed"
_NETWORK = "the network"
_TYPED = "what is typed"

_WAYS = {
    _CLOCK: "pass the time as an argument, or give results an age with ttl=",
    _ENVIRONMENT: "pass the value as an argument",
    _FILES: "pass the content, or a version= that changes with it, as an argument",
    _NETWORK: "pass what was received as an argument, or give results an age with ttl=",
    _TYPED: "pass it as an argument",
    _CHANCE: "pass a seed, and make a generator of it: numpy.random.default_rng(seed)",
}

_TIMES = (
    "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "localtime", "gmtime",
    "ctime",
)  # fmt: skip
_METHODS = {"now": _CLOCK, "utcnow": _CLOCK, "today": _CLOCK}
_FILE_METHODS = {"read_text", "read_bytes", "iterdir", "rglob"}
_READERS = {
    "numpy": {"load", "loadtxt", "genfromtxt", "fromfile", "memmap"},
    "pandas": {
        "read_csv", "read_excel", "read_feather", "read_hdf", "read_json", "read_parquet", "read_sql",
        "read_table",
    },
    "xarray": {"open_dataset", "load_dataset", "open_dataarray", "open_datatree", "open_zarr"},
    "h5py": {"File"},
    "glob": {"glob", "iglob"},
    "datastore_lab": {"open_store"},
}  # fmt: skip
_FETCHERS = {
    "urllib": {"urlopen", "urlretrieve"},
    "requests": {"get", "post", "put", "head", "request"},
    "httpx": {"get", "post", "put", "head", "request", "stream"},
    "socket": {"create_connection"},
}
_DICE = {"uuid": {"uuid1", "uuid4"}, "secrets": {"choice", "randbelow", "token_bytes", "token_hex"}}
_BY_NAME = ((_FILES, _READERS), (_NETWORK, _FETCHERS), (_CHANCE, _DICE))
_SEEDS = {"seed", "setstate", "set_state"}
_CALLS = {"CALL", "CALL_KW"}


def reads(named: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield what functions read that no key can hold: the function, what kind of thing, and by which name.

    Parameters
    ----------
    named : mapping of str to object
        Functions by label.
    """
    found = [
        (label, kind, name)
        for label, function in named.items()
        if isinstance(function, types.FunctionType)
        for kind, name in _of_function(function)
    ]
    seeded = {name.partition(".")[0] for _, kind, name in found if kind == "seeds"}
    for label, kind, name in found:
        if kind != "seeds" and not (kind == _CHANCE and name.partition(".")[0] in seeded):
            yield label, kind, name


def advice(kind: str) -> str:
    """Say what to do about it."""
    return _WAYS[kind]


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, str]]:
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    space = {**function.__globals__, **{name: cell_value(cell) for name, cell in cells.items()}}
    for code in _codes(function.__code__):
        for chain, bare in _chains(code):
            if (kind := _kind(chain, space, bare=bare)) is not None:
                yield kind, _told(chain, space)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for item in code.co_consts:
        if isinstance(item, types.CodeType):
            yield from _codes(item)


def _chains(code: types.CodeType) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield the names that code loads with the attributes that follow, and whether it is called bare."""
    skipped = {"EXTENDED_ARG", "PRECALL", "PUSH_NULL", "CACHE"}
    steps = [step for step in dis.get_instructions(code) if step.opname not in skipped]
    for number, step in enumerate(steps):
        if step.opname not in {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF"}:
            if step.opname in {"LOAD_ATTR", "LOAD_METHOD"} and step.argval in _FILE_METHODS:
                yield ("", str(step.argval)), False
            continue
        chain = [str(step.argval)]
        rest = number + 1
        while rest < len(steps) and steps[rest].opname in {"LOAD_ATTR", "LOAD_METHOD"}:
            chain.append(str(steps[rest].argval))
            rest += 1
        after = steps[rest] if rest < len(steps) else None
        yield tuple(chain), after is not None and after.opname in _CALLS and after.arg == 0


def _kind(chain: tuple[str, ...], space: Mapping[str, Any], *, bare: bool) -> str | None:
    if not chain[0]:
        return _FILES
    objects = _resolved(chain, space)
    for number, obj in enumerate(objects):
        if (kind := _kind_of(obj, chain[number + 1 :], bare=bare)) is not None:
            return kind
    return None


def _resolved(chain: tuple[str, ...], space: Mapping[str, Any]) -> list[Any]:
    """Give what a name and its attributes stand for, as far as they are modules and classes."""
    obj = space.get(chain[0], getattr(builtins, chain[0], MISSING))
    found = [] if obj is MISSING else [obj]
    for name in chain[1:]:
        if not found or not isinstance(found[-1], (types.ModuleType, type)):
            break
        inner = getattr(found[-1], name, MISSING)
        if inner is MISSING:
            break
        found.append(inner)
    return found


def _kind_of(obj: Any, rest: tuple[str, ...], *, bare: bool) -> str | None:
    if any(obj is getattr(time, name) for name in _TIMES):
        return _CLOCK
    if isinstance(obj, type) and issubclass(obj, dt.date) and rest:
        return _METHODS.get(rest[0])
    if obj is os.environ or obj is os.getenv:
        return _ENVIRONMENT
    if obj is builtins.open or obj is io.open or obj is os.listdir:
        return _FILES
    if obj is builtins.input:
        return _TYPED
    return _chance(obj, bare=bare) or _by_name(obj)


def _chance(obj: Any, *, bare: bool) -> str | None:
    owner = getattr(obj, "__self__", None)
    numpy = sys.modules.get("numpy.random")
    shared = [random._inst] + ([numpy.mtrand._rand] if numpy else [])
    if owner is not None and any(owner is one for one in shared):
        return "seeds" if obj.__name__ in _SEEDS else _CHANCE
    if numpy is not None and any(obj is getattr(numpy, name) for name in ("seed", "set_state")):
        return "seeds"
    is_fresh = numpy is not None and obj is numpy.default_rng
    return _CHANCE if is_fresh and bare else None


def _by_name(obj: Any) -> str | None:
    package = str(getattr(obj, "__module__", None) or "").partition(".")[0]
    name = getattr(obj, "__name__", None)
    return next((kind for kind, known in _BY_NAME if name in known.get(package, ())), None)


def _told(chain: tuple[str, ...], space: Mapping[str, Any]) -> str:
    """Name what is read in full, whatever it is called where it is used."""
    if not chain[0]:
        return chain[1]
    obj = space.get(chain[0])
    first = obj.__name__ if isinstance(obj, types.ModuleType) else chain[0]
    owner = getattr(obj, "__self__", None)
    module = type(owner).__module__ if owner is not None else ""
    return ".".join([module, *chain] if module in {"random", "numpy.random.mtrand"} else [first, *chain[1:]])


class Changes(NamedTuple):
    """Arguments that are no longer what they were before a call.

    Attributes
    ----------
    mutated : list of str
        Changed in place.
    filled : dict of str to str
        Digests of those of which only cached properties have been filled.
    """

    mutated: list[str]
    filled: dict[str, str]


def changes(bound: Mapping[str, Any], before: Mapping[str, str], bare: Mapping[str, str]) -> Changes:
    """Compare the arguments of a call with what they were.

    Parameters
    ----------
    bound : mapping
        The arguments after the call.
    before : mapping
        Their digests before it.
    bare : mapping
        Digests without cached properties of those arguments of which some had been filled already.
    """
    found = Changes([], {})
    for name, known in before.items():
        if immutable(bound[name]):
            continue
        try:
            now = digest(bound[name], name)
            if now == known:
                continue
            if content(bound[name], name, bare=True).digest == bare.get(name, known):
                found.filled[name] = now
                continue
        except LabError:  # (it can't be told any more, so it is something else now)
            pass
        found.mutated.append(name)
    return found
