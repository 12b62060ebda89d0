"""Copying a store from place to place, as a user asks for it."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from datastore_lab.records import Problem
from datastore_lab.store.mapping import Store
from datastore_lab.store.moving.comparing import compare
from datastore_lab.store.moving.copying import Existing, copy_records
from datastore_lab.store.moving.plan import make_plan, same_place
from datastore_lab.store.moving.report import CopyReport, Progress, Watch
from datastore_lab.store.opening import open_store


def copy_store(
    source: Store | str | os.PathLike[str],
    target: Store | str | os.PathLike[str],
    *,
    overwrite: bool = False,
    skip_damaged: bool = False,
    progress: Watch | None = None,
    verify: bool = True,
) -> CopyReport:
    """Copy everything in a store, or in a group of one, into another, whatever their formats.

    Records, attributes of groups and of the root, and empty groups. Small records go in batches, a commit
    each; records of more than 32 MB in blocks, under the reserved name ``lab_copying`` until they are whole.
    Interrupted at any moment, also by a power cut, the same call goes on where it stopped.

    Parameters
    ----------
    source, target : Store or path
        A path is opened for the time of the copy, a new target by its suffix. A group of a store is a Store:
        ``store.group("run 7")``.
    overwrite : bool, default False
        Replace records of the target that are not the same. Without it they are kept, and reported.
    skip_damaged : bool, default False
        Leave out what can't be read, and report it, rather than stop.
    progress : callable, optional
        Called with a `Progress` again and again.
    verify : bool, default True
        Read both sides again at the end and compare every bit.

    Returns
    -------
    CopyReport
        ``complete`` says whether all is in the target now.

    Raises
    ------
    Corrupt, Foreign
        If an item can't be read. What was copied before stays, and is passed over the next time.
    NotStorable
        If the target only takes streams (Arrow and other files that are only appended to), before anything
        is written, naming what it can't hold.
    ReadOnly, BadKey, EngineError, Locked
        As the places turn out.

    Notes
    -----
    An engine that keeps no arrays in its root gets those of the source's root, as files of other programs
    have them, in the group ``root``. Memory is bounded by some blocks of 32 MB; records that can't be
    appended row by row go through a file in the temporary folder, and only arrays of text of variable
    length through memory. In a file that is only appended to a stream is there when all of it is; one that
    was interrupted is begun anew by the next copy.

    Examples
    --------
    >>> lab, archive = open_store("memory://"), open_store("memory://")
    >>> lab["run/gain"] = 2.5
    >>> copy_store(lab, archive.group("2026")).copied
    1
    >>> archive["2026/run/gain"]
    2.5
    """
    if not isinstance(source, Store):
        open_store(source, "r").close()  # so that no target is made for a source that is not there
    with contextlib.ExitStack() as opened:
        there = _opened(target, "a", opened)  # first: a source in the same file then shares its engine
        here = _opened(source, "r", opened)
        existing = Existing.COMPARE if overwrite else Existing.KEEP
        return copy(here, there, existing, skip_damaged=skip_damaged, watch=progress, verify=verify)


def check_source(source: Store, *, skip_damaged: bool = False, progress: Watch | None = None) -> None:
    """Look at everything that is to be copied, before there is a target; raises what `copy_store` would."""
    with open_store("memory://") as nowhere:
        make_plan(source, nowhere, skip_damaged=skip_damaged, watch=progress or _silent)


def _opened(place: Any, mode: str, opened: contextlib.ExitStack) -> Store:
    if isinstance(place, Store):
        return place
    return opened.enter_context(open_store(place, mode))


def copy(
    source: Store,
    target: Store,
    existing: Existing,
    *,
    skip_damaged: bool = False,
    watch: Watch | None = None,
    verify: bool = True,
) -> CopyReport:
    """Copy a store into another, and compare them; see `copy_store`."""
    watch = watch or _silent
    revision = source.revision()
    plan = make_plan(source, target, skip_damaged=skip_damaged, watch=watch)
    done = copy_records(source, target, plan, existing, skip_damaged=skip_damaged, watch=watch)
    problems: list[Problem] = []
    if verify:
        unread = {problem.key for problem in plan.skipped if problem.name is None}
        problems += compare(source, target, plan, done.same | unread, watch)
    if not same_place(source, target):
        problems += _changed(source, revision)
    nbytes = sum(item.nbytes for item in done.written)
    found = tuple(plan.skipped), tuple(problems)
    return CopyReport(len(done.written), len(done.kept), nbytes, *found, plan.root, verify)


def _silent(_progress: Progress) -> None:
    """Tell nobody."""


def _changed(source: Store, revision: int) -> list[Problem]:
    if source.revision() == revision:
        return []
    what = (
        "the source was changed while it was copied: what came last may be missing, or be from before; "
        "copy again with overwrite (--overwrite), which passes over what is the same"
    )
    return [Problem((), None, what)]
