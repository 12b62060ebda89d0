"""Libraries of instruments, loaded when an adapter is made, and named where they are missing."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from datastore_lab.errors import MissingExtra


def need(module: str, extra: str) -> Any:
    """Import a library that an extra of this package brings.

    Raises
    ------
    MissingExtra
        With the command that installs it.
    """
    try:
        with warnings.catch_warnings():
            # modules made by SWIG abort the interpreter where their own deprecations are made errors
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the library is there, and lacks something itself
        raise MissingExtra(
            f"this device needs the package {error.name!r}: pip install 'datastore-lab[{extra}]'", key=module
        ) from error
