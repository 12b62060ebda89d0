"""Completion of what stands behind ``%%cache`` and ``%cache``."""

from __future__ import annotations

import glob
from typing import Any

from datastore_lab.notebook.caching.grammar import COMMANDS, LONG, OPTIONS, SUFFIXES
from datastore_lab.store import Store


def install(shell: Any) -> None:
    """Register the completer with the shell."""
    for magic in ("%%cache", "%cache"):
        shell.set_hook("complete_command", complete, str_key=magic)


def complete(shell: Any, event: Any) -> list[str]:
    """Give what may stand at the cursor: options, commands, stores, variables.

    Parameters
    ----------
    shell : IPython.core.interactiveshell.InteractiveShell
    event : object
        With the attributes ``line`` and ``symbol``, as IPython's completer gives it.
    """
    symbol: str = event.symbol
    before = event.line[: len(event.line) - len(symbol)] if event.line.endswith(symbol) else event.line
    if "\n" in event.line:  # (below the first line the cell is Python)
        return []
    if symbol.startswith("-"):
        known = [*OPTIONS, *OPTIONS.values(), *LONG]
        return [option for option in known if option.startswith(symbol)]
    last = before.split()[-1] if before.split() else ""
    if last == "--file":
        return sorted(glob.glob(f"{symbol}*"))  # noqa: PTH207 (as typed)
    found = [name for name in shell.user_ns if not name.startswith("_") and name not in shell.user_ns_hidden]
    words = [*found, *_stores()]
    if last == "--store":
        words = [*_stores(), *(name for name in found if isinstance(shell.user_ns[name], Store))]
    elif last == "%cache":
        words += COMMANDS
    return sorted(word for word in words if word.startswith(symbol))


def _stores() -> list[str]:
    return [path for suffix in SUFFIXES for path in glob.glob(f"*{suffix}")]  # noqa: PTH207 (as typed)
