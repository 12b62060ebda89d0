"""What a copy says while it runs, and when it is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from datastore_lab.keys import Key
    from datastore_lab.records import Problem


class Progress(NamedTuple):
    """How far a copy is.

    Attributes
    ----------
    phase : {"looking", "copying", "verifying"}
    items, of_items : int
        Records that are done, and all; while looking, as many as were found.
    nbytes, of_nbytes : int
        The same in bytes of array data in memory.
    """

    phase: str
    items: int
    of_items: int
    nbytes: int
    of_nbytes: int


Watch: TypeAlias = Callable[[Progress], None]


class CopyReport(NamedTuple):
    """What a copy did.

    Attributes
    ----------
    copied : int
        Records that were written.
    kept : int
        Records that were there already and stayed as they are.
    nbytes : int
        Bytes of array data that were written, as they are in memory.
    skipped : tuple of Problem
        What could not be read, and was left out.
    problems : tuple of Problem
        What is not the same on both sides, or changed in the source meanwhile.
    root : Key or None
        Where the arrays of the source's root went, if they could not stay in the root.
    verified : bool
        Whether both sides were read again and compared.
    """

    copied: int
    kept: int
    nbytes: int
    skipped: tuple[Problem, ...]
    problems: tuple[Problem, ...]
    root: Key | None
    verified: bool

    @property
    def complete(self) -> bool:
        """Whether the target now holds all of the source, as far as was looked."""
        return not self.skipped and not self.problems
