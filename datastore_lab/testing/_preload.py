"""Imported by the process that children are forked from, so that each of them has the engines at once."""

import contextlib

from datastore_lab.errors import MissingExtra
from datastore_lab.registry import ENGINES

for _name in ENGINES.builtin():
    with contextlib.suppress(MissingExtra):  # what is not installed can't be tested either
        ENGINES.load(_name)
