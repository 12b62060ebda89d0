"""Where a run was made: computer, versions, program, and the state of its source code."""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

_PACKAGES = ("datastore-lab", "numpy", "h5py", "zarr", "pyarrow")
_PATIENCE = 5.0


def versions() -> dict[str, str]:
    """Give the versions of Python and of what is loaded here."""
    loaded = {
        name: importlib.metadata.version(name)
        for name in _PACKAGES
        if name == "datastore-lab" or name in sys.modules
    }
    return {"python": platform.python_version(), **loaded}


def program() -> dict[str, str]:
    """Say what runs and who runs it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # in a container there may be no name for the number
        user = ""
    return {"name": Path(sys.argv[0]).name if sys.argv else "", "user": user, "folder": str(Path.cwd())}


def git_state(folder: str | os.PathLike[str] | None = None) -> dict[str, Any] | None:
    """Say at which commit the code in a folder is, and whether it was changed since; None outside of git.

    Returns
    -------
    dict or None
        ``{"commit": text, or None before the first one, "branch": text, or None if none is checked out,
        "changed": the number of files that git follows and that differ from the commit}``.
    """
    command = shutil.which("git")
    if command is None:
        return None
    arguments = [command, "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(  # noqa: S603 (the arguments are ours)
            arguments,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return _parsed(done.stdout) if done.returncode == 0 else None


def _parsed(status: str) -> dict[str, Any]:
    """Read what git says; see its manual, porcelain format version 2."""
    heads = dict(line[2:].split(" ", 1) for line in status.splitlines() if line.startswith("# branch."))
    commit, branch = heads.get("branch.oid"), heads.get("branch.head")
    return {
        "commit": None if commit in {None, "(initial)"} else commit,
        "branch": None if branch in {None, "(detached)"} else branch,
        "changed": sum(not line.startswith("#") for line in status.splitlines()),
    }
