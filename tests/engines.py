"""Every engine, once, for the tests that go over all of them: add a line here, and it is held against all."""

import os
from typing import Any, NamedTuple

from datastore_lab.registry import ENGINES


class Case(NamedTuple):
    """One engine under test.

    Attributes
    ----------
    engine : str
        Name in the registry.
    name : str
        File name of a store.
    whole : bool
        Whether records can be written, moved and deleted, or only appended and read.
    tree : bool
        Whether a store is a folder.
    """

    engine: str
    name: str
    whole: bool = True
    tree: bool = False

    @property
    def label(self) -> str:
        """The name of the format, for people."""
        return ENGINES.load(self.engine).traits.label

    def open(self, path: str | os.PathLike[str], mode: str = "a", **options: Any) -> Any:
        """Open a store of this engine at a path."""
        return ENGINES.load(self.engine)(str(path), mode, **options)


FILES = [
    Case("hdf5", "store.h5"),
    Case("zarr", "store.zarr", tree=True),
    Case("parquet-folder", "store.parquets", tree=True),
    Case("sqlite", "store.sqlite"),
    Case("arrow", "run.arrow", whole=False),
    Case("parquet", "run.parquet", whole=False),
    Case("csv", "run.csv", whole=False),
    Case("trials", "experiment.trials", whole=False, tree=True),
]
"""The engines that keep files."""

WHOLE = [case for case in FILES if case.whole]
