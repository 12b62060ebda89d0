"""What a cell reads that its key does not hold, and how to let it count."""

from __future__ import annotations

import ast
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from datastore_lab.cache import hidden

if TYPE_CHECKING:
    from datastore_lab.notebook.caching.grammar import Request

_WAYS = {
    "files": "--file PATH lets their content count",
    "the clock": "--ttl 1h gives results an age",
    "the environment": "-V $NAME lets a value count",
    "the network": "--ttl 1h gives results an age",
    "what is typed": "read it in a cell of its own",
    "random numbers without a seed": "a seed makes them come again",
}

_OWN = "this cell"


def advice(text: str, named: Mapping[str, Any], space: Mapping[str, Any], request: Request) -> str | None:
    """Say what a cell reads beside its variables; None if that is nothing, or if an option deals with it.

    Parameters
    ----------
    text : str
        The cell as Python.
    named : mapping of str to object
        The functions that it calls.
    space : mapping
        The variables.
    request : Request
    """
    aged = request.ttl is not None
    settled = {"files": bool(request.wish.files), "the clock": aged, "the network": aged}
    for label, kind, name in hidden.reads({_OWN: _as_function(text, space), **named}):
        if not settled.get(kind) and not {name, name.rpartition(".")[2]} & {*request.wish.ignore}:
            where = "" if label == _OWN else f" in {label.removeprefix('__main__.')}"
            return f"reads {kind} ({name}{where}): {_WAYS[kind]}"
    return None


def _as_function(text: str, space: Mapping[str, Any]) -> types.FunctionType:
    """Give a cell as a function, to be looked at and never called."""
    code = compile(text, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    plain = {
        name: value for name, value in space.items() if name != "open"
    }  # (IPython puts its own in front)
    return types.FunctionType(code, plain, _OWN)
