"""Imported by the process that children are forked from, so that each of them has the engines at once."""

import contextlib
import os

# Arrow's own pool reserves about 1 GB of address space with its first allocation: under a limit on memory,
# as of `datastore_lab.testing.mutation.Sandbox`, nothing would be left for what is really asked for.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

from datastore_lab.errors import MissingExtra
from datastore_lab.registry import ENGINES

with contextlib.suppress(ImportError):  # what judges a case has often been written for it
    import pytest  # noqa: F401

for _name in ENGINES.builtin():
    with contextlib.suppress(MissingExtra):  # what is not installed can't be tested either
        ENGINES.load(_name)
