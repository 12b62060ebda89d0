"""Ways in which code reaches what it does not name; the cache can't follow them and refuses."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from datastore_lab.errors import NotStorable

if TYPE_CHECKING:
    from datastore_lab.cache.names import Chains

BUILTINS = {"eval", "exec", "globals", "__import__"}

ATTRIBUTES = {"__globals__", "__builtins__", "__subclasses__", "f_globals", "f_locals", "f_back"}
"""Attributes through which code reaches what it does not name."""

_FUNCTIONS = {
    *(f"builtins.{name}" for name in BUILTINS),
    "importlib.import_module",
    "importlib.__import__",
    "importlib._bootstrap.__import__",
    "sys._getframe",
    "sys._current_frames",
    "inspect.currentframe",
    "inspect.stack",
    "gc.get_objects",
    "gc.get_referrers",
    "runpy.run_path",
    "runpy.run_module",
    "pandas.eval",
    "pandas.core.computation.eval.eval",
    "numexpr.evaluate",
    "numexpr.necompiler.evaluate",
}
"""Functions that reach anything by a name that is not in the code, or by text."""

_TABLES = {"sys.modules", "builtins.__dict__"}


def refusal(owner: str, what: str, name: str) -> NotStorable:
    """Give the error for code that uses one of these.

    Parameters
    ----------
    owner : str
        Whose code it is.
    what : str
        What it uses.
    name : str
        What `ignore_kwargs` knows it by.
    """
    return NotStorable(
        f"{owner} uses {what}, so the cache can't tell what it reads; name it in the code, or leave {name!r} "
        "out with ignore_kwargs if results do not depend on that",
        key=name,
    )


def check(obj: Any, label: str, path: str) -> None:
    """Refuse a function that reads by names the code does not show, and the table of all modules.

    Parameters
    ----------
    obj : object
    label : str
        Module and qualified name.
    path : str
        What the code calls it.

    Raises
    ------
    NotStorable
    """
    if label in _FUNCTIONS or obj is sys.modules:
        raise refusal("the code", path if obj is sys.modules else f"{label}()", path.rpartition(".")[2])


def check_members(module: str, chains: Chains, path: str) -> None:
    """Refuse what code takes from a module of Python or of a library, as ``sys.modules``.

    Raises
    ------
    NotStorable
    """
    for chain in sorted(chains):
        full = ".".join([module, *chain[:1]])
        if full in _FUNCTIONS or full in _TABLES:
            raise refusal("the code", full, path.rpartition(".")[2])
