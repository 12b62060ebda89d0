"""Saved workspaces: one HDF5 file that holds everything, and a JSON file beside it for people."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datastore_lab import media
from datastore_lab.errors import EngineError, Foreign, Locked, NotFound, ReadOnly
from datastore_lab.store import Store, open_store
from datastore_lab.store.sharing import users

if TYPE_CHECKING:
    from datastore_lab.workspace.analysis import AnalysisWorkspace

LAZY_ABOVE = 1_000_000_000
"""Size in bytes above which a loaded workspace stays on disk."""


def pair(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Give the two files of a saved workspace, with or without the suffix in `path`."""
    base = Path(path)
    if base.suffix in {".h5", ".json"}:
        base = base.with_suffix("")
    return base.with_name(f"{base.name}.h5"), base.with_name(f"{base.name}.json")


def save(workspace: AnalysisWorkspace, path: str | os.PathLike[str]) -> None:
    """Write the pair; see `AnalysisWorkspace.save`."""
    target, sidecar = pair(path)
    if not target.parent.is_dir():
        raise EngineError(f"can't save to {str(target)!r}: the folder {str(target.parent)!r} is missing")
    header = {
        "workspace_id": workspace.workspace_id,
        "name": workspace.name,
        "created_at": workspace.created_at,
    }
    text = media.to_json({**header, "items": _listing(workspace)}, indent=2)
    try:
        if not _is_own_file(workspace.backing, target):
            _replace(workspace.backing, header, target)
        with media.atomic_file(sidecar) as file:
            file.write(text.encode())
    except PermissionError as error:
        raise ReadOnly(f"can't save to {str(target)!r}: {error.strerror}", key=str(target)) from error


def _is_own_file(backing: Store, target: Path) -> bool:
    """Whether the workspace lives in the file it is saved to; refuse a file that is another's.

    Raises
    ------
    Foreign
        If there is a file that is no workspace.
    Locked
        If the file is open for writing elsewhere, so that what is written there would be lost.
    """
    if not target.exists():
        return False
    with open_store(target, "r+") as there:
        if there.engine is backing.engine and backing.prefix == ():
            return True
        if "workspace_id" not in there.attrs() and (len(there) or there.attrs()):
            raise Foreign(f"{str(target)!r} holds something else than a workspace; save under another name")
        if users(there.engine) > 1:
            raise Locked(f"{str(target)!r} is open in this session; close it, or save under another name")
    return False


def _replace(source: Store, header: dict[str, Any], target: Path) -> None:
    draft = target.with_name(f".{target.stem[:60]}-{secrets.token_hex(4)}.h5")
    try:
        _write(source, header, draft)
        draft.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
    media.sync_folder(target.parent)


def _write(source: Store, header: dict[str, Any], draft: Path) -> None:
    with open_store(draft, "x") as store:
        if () in source:
            store.merge_from(source)
        store.update((), header)


def _listing(workspace: AnalysisWorkspace) -> dict[str, Any]:
    return {namespace: dict(items) for namespace, items in workspace.describe().items()}


@contextlib.contextmanager
def saved_store(path: str | os.PathLike[str]) -> Iterator[Store]:
    """Open the HDF5 file of a saved workspace for reading."""
    target, _sidecar = pair(path)
    try:
        with open_store(target, "r") as store:
            if "workspace_id" not in store.attrs():
                raise Foreign(
                    f"{str(target)!r} is an HDF5 file, but no saved workspace: open it with open_store"
                )
            yield store
    except NotFound as error:
        if target.exists():
            raise
        raise EngineError(f"there is no saved workspace at {str(target)!r}", key=str(target)) from error


def load(cls: type[AnalysisWorkspace], path: str | os.PathLike[str]) -> AnalysisWorkspace:
    """Open a pair; see `AnalysisWorkspace.load`."""
    from datastore_lab.workspace.lazily import LazyAnalysisWorkspace

    with saved_store(path) as saved:
        header = saved.attrs()
        target, _sidecar = pair(path)
        made = LazyAnalysisWorkspace if target.stat().st_size > LAZY_ABOVE else cls
        workspace = made()
        with workspace.backing.transaction():
            workspace.backing.merge_from(saved)
            workspace.adopt(header)
        return workspace
