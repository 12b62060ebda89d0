"""Bundles: archives that say of each of their files how large it is and what its SHA-256 is."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datastore_lab import media
from datastore_lab.bundles.packing import Account, Member, Written, write_zip
from datastore_lab.bundles.places import whole_folder
from datastore_lab.bundles.unpacking import members, opened, read_zip
from datastore_lab.errors import BadKey, Corrupt, Foreign, Newer

if TYPE_CHECKING:
    from datastore_lab.store.moving.report import Watch

MANIFEST = "manifest.json"
_VERSION = 1
_LONGEST = 64 << 20


class Bundle:
    """The files of a bundle in a folder, all of them as the manifest says.

    Use it in a ``with`` block: a folder that was made for it is removed at the end.

    Attributes
    ----------
    folder : Path
    names : tuple of str
        Of the files, with slashes.
    about : dict
        What was noted in the manifest.
    """

    def __init__(
        self, folder: Path, manifest: Mapping[str, Any], release: Callable[[], None] | None = None
    ) -> None:
        self.folder = folder
        self.names: tuple[str, ...] = tuple(one["name"] for one in manifest["files"])
        self.about: dict[str, Any] = dict(manifest["about"])
        self._release = release

    def path(self, name: str) -> Path:
        """Say where a file of the bundle is.

        Raises
        ------
        BadKey
            If it has none of this name.
        """
        if name not in self.names:
            raise BadKey(f"the bundle has no {name!r}; there are {', '.join(self.names)}", key=name)
        return self.folder / name

    def close(self) -> None:
        """Remove the folder if it was made for this bundle; may be called twice."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def write_bundle(
    outfile: str | os.PathLike[str],
    files: Mapping[str, str | os.PathLike[str]],
    *,
    about: Mapping[str, Any] | None = None,
    progress: Watch | None = None,
) -> Path:
    """Pack files into one archive with a manifest: complete, read again and compared, or not at all.

    Parameters
    ----------
    outfile : path-like
        Replaced if it is there.
    files : mapping of str to path-like
        Names in the bundle, with slashes, to places.
    about : mapping of str to JSON value, optional
        Noted in the manifest.
    progress : callable, optional
        Called with a `Progress` again and again.

    Returns
    -------
    Path
        `outfile`.

    Raises
    ------
    NotFound, Foreign, EngineError, Locked

    Examples
    --------
    >>> folder = tempfile.TemporaryDirectory()
    >>> place = Path(folder.name)
    >>> _ = (place / "notes.txt").write_text("as planned")
    >>> packed = write_bundle(place / "out.zip", {"notes.txt": place / "notes.txt"}, about={"run": 7})
    >>> with open_bundle(packed) as bundle:
    ...     bundle.path("notes.txt").read_text(), bundle.about
    ('as planned', {'run': 7})
    >>> folder.cleanup()
    """
    note = dict(about or {})
    media.check_json(note)
    chosen = [Member(name, Path(path)) for name, path in sorted(files.items())]
    for member in chosen:
        if member.name == MANIFEST or _leads_elsewhere(member.name):
            raise BadKey(f"{member.name!r} can't be the name of a file in a bundle", key=member.name)
        if member.path is not None and not member.path.is_file():
            raise BadKey(f"there is no file {str(member.path)!r}", key=str(member.path))
    size = sum(member.path.stat().st_size for member in chosen if member.path is not None)
    write_zip(Path(outfile), chosen, Account(progress, len(chosen), size), last=partial(_manifest, note))
    return Path(outfile)


def _leads_elsewhere(name: str) -> bool:
    parts = name.split("/")
    return (
        "\\" in name or ":" in parts[0] or not all(part.strip(".") and part.isprintable() for part in parts)
    )


def _manifest(about: Mapping[str, Any], written: list[Written]) -> tuple[str, bytes]:
    files = [{"name": one.name, "size": one.size, "sha256": one.sha256} for one in written]
    content = {"lab_bundle": _VERSION, "about": about, "files": files}
    return MANIFEST, media.to_json(content, indent=1).encode()


def open_bundle(
    path: str | os.PathLike[str],
    into: str | os.PathLike[str] | None = None,
    *,
    progress: Watch | None = None,
) -> Bundle:
    """Unpack a bundle, and give its files only when each of them is as the manifest says.

    Parameters
    ----------
    path : path-like
    into : path-like, optional
        A folder that is not there yet, or is empty. Without it the files lie in a temporary folder until the
        bundle is closed.
    progress : callable, optional
        Called with a `Progress` again and again.

    Raises
    ------
    NotFound
        If there is no such file.
    Foreign
        If it is no bundle, or one that must not be unpacked: with names that lead elsewhere, links, names
        that are there twice, or sizes out of all proportion.
    Newer
        If a later version of this package made it.
    Corrupt
        If a file is missing, is not in the manifest, or is not as it was packed.
    AlreadyExists
        If there is something at `into`.
    """
    source = Path(path)
    with opened(source) as archive:
        infos = members(archive, source)
        manifest = _read_manifest(archive, infos, source)
    if into is not None:
        with whole_folder(Path(into)) as folder:
            _take(source, infos, manifest, folder, progress)
        return Bundle(Path(into), manifest)
    temporary = tempfile.TemporaryDirectory(prefix="datastore-lab-")
    try:
        _take(source, infos, manifest, Path(temporary.name), progress)
    except BaseException:
        temporary.cleanup()
        raise
    return Bundle(Path(temporary.name), manifest, temporary.cleanup)


def _read_manifest(archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo], path: Path) -> dict[str, Any]:
    info = next((one for one in infos if one.filename == MANIFEST), None)
    if info is None or info.file_size > _LONGEST:
        raise Foreign(f"{str(path)!r} is no bundle: it has no {MANIFEST!r}", key=str(path))
    try:
        content = media.from_json(archive.read(info))
        version, about = content["lab_bundle"], dict(content["about"])
        files = [
            {"name": str(one["name"]), "size": int(one["size"]), "sha256": str(one["sha256"])}
            for one in content["files"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise Foreign(
            f"{str(path)!r} is no bundle: {MANIFEST!r} says something else", key=str(path)
        ) from error
    if version != _VERSION:
        raise Newer(f"{str(path)!r} is a bundle of version {version}; install a newer version", key=str(path))
    return {"about": about, "files": files}


def _take(
    path: Path,
    infos: list[zipfile.ZipInfo],
    manifest: Mapping[str, Any],
    folder: Path,
    progress: Watch | None,
) -> None:
    """Unpack what the manifest names, and compare."""
    expected = {one["name"]: (one["size"], one["sha256"]) for one in manifest["files"]}
    there = {info.filename: info.file_size for info in infos if info.filename != MANIFEST}
    if len(expected) != len(manifest["files"]) or there != {name: one[0] for name, one in expected.items()}:
        odd = sorted(
            name for name in {*there, *expected} if there.get(name, -1) != expected.get(name, (-2,))[0]
        )
        raise Corrupt(f"{str(path)!r} does not hold what its manifest says: {odd[:5]}", key=str(path))
    sums = {name: hashlib.sha256() for name in expected}
    wanted = [(info, info.filename) for info in infos if info.filename in expected]
    read_zip(path, wanted, folder, progress, lambda name, chunk: sums[name].update(chunk))
    for name, (_size, digest) in expected.items():
        if sums[name].hexdigest() != digest:
            raise Corrupt(f"{name!r} in {str(path)!r} is not what its manifest says", key=str(path))
