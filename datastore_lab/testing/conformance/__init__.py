"""Suites of tests that every engine passes, as classes to inherit from in a test module.

An engine of one's own is held against the memory engine by a few lines in a test module::

    class TestMyEngine(FileEngineConformance):
        name = "store.my"

        @staticmethod
        def open(path, mode):
            return MyEngine(path, mode)

`EngineConformance` is for any engine that can be changed, `FileEngineConformance` adds what holds for those
that leave files behind, `AppendOnlyConformance` is for formats that can only be read and appended to.
"""

from __future__ import annotations

from datastore_lab.testing.conformance.append_only import AppendOnlyConformance
from datastore_lab.testing.conformance.basics import Basics
from datastore_lab.testing.conformance.changes import Changes
from datastore_lab.testing.conformance.closing import Closing
from datastore_lab.testing.conformance.files import Files
from datastore_lab.testing.conformance.interrupts import Interrupts
from datastore_lab.testing.conformance.objects import ObjectStoreConformance
from datastore_lab.testing.conformance.refusals import Refusals
from datastore_lab.testing.conformance.rows import Rows
from datastore_lab.testing.conformance.streams import Streams
from datastore_lab.testing.conformance.whole import Whole


class EngineConformance(Basics, Changes, Refusals, Streams, Rows, Whole, Closing, Interrupts):
    """What every engine does that can be changed."""


class FileEngineConformance(EngineConformance, Files):
    """What every engine does that keeps its records in files."""


__all__ = ["AppendOnlyConformance", "EngineConformance", "FileEngineConformance", "ObjectStoreConformance"]
