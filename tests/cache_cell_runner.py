"""Runs one session of every cell trap in this process, in a real IPython shell, and prints what came out."""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import sys

from cache_cell_traps import HIT, MISS, REFUSED, SESSIONS
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from datastore_lab import open_store
from datastore_lab.notebook.caching import CacheMagics


def make_shell() -> InteractiveShell:
    """Make a shell without history on disk."""
    InteractiveShell.clear_instance()
    config = Config({"HistoryManager": {"enabled": False}, "InteractiveShell": {"colors": "nocolor"}})
    shell = InteractiveShell.instance(config=config)
    shell.register_magics(CacheMagics)
    return shell


def run(store, number: int) -> dict[str, tuple[str, str]]:
    """Run the sessions of one number; gives the value as text, and what happened."""
    shell = make_shell()
    results = {}
    for index, (name, sessions) in enumerate(SESSIONS.items()):
        if number < len(sessions):
            shell.user_ns.clear()  # (reset() collects garbage each time: 40 ms)
            shell.user_ns.update({"__name__": "__main__", "__builtins__": builtins})
            shell.init_user_ns()
            shell.user_ns["lab_store"] = store.group(f"trap {index}")
            results[name] = _run_one(shell, sessions[number])
    return results


def _run_one(shell: InteractiveShell, session) -> tuple[str, str]:
    shell.run_cell("import numpy as np\nimport pandas as pd").raise_error()
    shell.run_cell(session.before).raise_error()
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        result = shell.run_cell(f"%%cache lab_store {session.options}\n{session.cell}", store_history=True)
    if not result.success:
        return repr(result.error_in_exec), "error"
    value = eval(session.after, shell.user_ns)  # the expressions are written in cache_cell_traps.py
    status = shown.getvalue()
    outcome = (
        HIT if "✓ cached" in status else MISS if "● ran" in status else REFUSED if "✗" in status else status
    )
    return repr(value), outcome


if __name__ == "__main__":
    url, number = sys.argv[1:]
    with open_store(url) as opened:
        print(json.dumps(run(opened, int(number))))
