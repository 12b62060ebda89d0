"""A Zarr hierarchy in an object store: every file is an object, every change of an object is atomic."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import obstore
from obstore import exceptions

from datastore_lab import integrity
from datastore_lab.engines.zarr import chunks as chunking
from datastore_lab.engines.zarr.documents import Documents
from datastore_lab.engines.zarr.meta import (
    ARRAYS,
    LARGEST,
    METADATA,
    REVISION,
    changed,
    escape,
    full_name,
    group_json,
    parse,
)
from datastore_lab.engines.zarr.plan import RecordPlan, check_meta, plan_record
from datastore_lab.engines.zarr.seals import KIND, VERSION
from datastore_lab.errors import EngineError, LabError, ReadOnly
from datastore_lab.records import refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from obstore.store import ObjectStore

    from datastore_lab.engines.zarr.places import Parts
    from datastore_lab.engines.zarr.tree import Tree
    from datastore_lab.keys import Key
    from datastore_lab.records import Record

_ATTEMPTS = 30


class ObjectPlace:
    """The objects below a prefix of an object store, as files in folders.

    Parameters
    ----------
    store : obstore store
        Its prefix is the root.
    root : str
        Address of the root, for messages.
    """

    def __init__(self, store: ObjectStore, root: str) -> None:
        self.store = store
        self.root = root

    def get(self, parts: Parts, limit: int | None = None) -> bytes | None:
        with network(self.root):
            try:
                found = obstore.get(self.store, "/".join(parts))
                size = found.meta["size"]
                if limit is not None and size > limit:
                    raise EngineError(
                        f"{self.where(parts)!r} has {size:,} bytes, more than are read", key=parts
                    )
                return bytes(found.bytes())
            except FileNotFoundError:
                return None
            except ValueError:  # a name that no object can have
                return None

    def put(self, parts: Parts, *buffers: Any) -> None:
        """Write an object, instead of one that is there."""
        content = b"".join(bytes(buffer) for buffer in buffers)
        with network(self.root):
            obstore.put(self.store, "/".join(parts), content)

    def exchange(self, parts: Parts, make: Callable[[bytes], bytes]) -> None:
        """Replace an object by what is made of it, once more if somebody else has replaced it meanwhile."""
        path = "/".join(parts)
        with network(self.root):
            for _ in range(_ATTEMPTS):
                found = obstore.get(self.store, path)
                tag = found.meta["e_tag"] or ""
                try:
                    obstore.put(self.store, path, make(bytes(found.bytes())), mode={"e_tag": tag})
                except exceptions.PreconditionError:
                    continue
                return
        raise EngineError(f"{self.where(parts)!r} is changed by too many at once; try again", key=self.root)

    def names(self, parts: Parts) -> Iterator[str]:
        with network(self.root):
            found = obstore.list_with_delimiter(self.store, "/".join(parts) or None)
        paths = [*found["common_prefixes"], *(item["path"] for item in found["objects"])]
        return (path.rpartition("/")[2] for path in paths)

    def below(self, parts: Parts) -> list[str]:
        """List the paths of all objects in a folder, and in the folders in it."""
        with network(self.root):
            return [
                item["path"] for part in obstore.list(self.store, "/".join(parts) or None) for item in part
            ]

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects."""
        with network(self.root):
            for at in range(0, len(paths), 1000):
                obstore.delete(self.store, list(paths[at : at + 1000]))

    def choose(self, parts: Parts, names: Sequence[str]) -> str | None:
        if len(names) == 1:  # there are no folders: whether it is one, its metadata tell
            return names[0]
        return next((name for name in names if self.get((*parts, name, METADATA)) is not None), None)

    def where(self, parts: Parts) -> str:
        return "/".join([self.root, *parts])

    def identity(self, parts: Parts) -> object:
        return self.where(parts)

    def mark(self, parts: Parts) -> object | None:
        return None

    def stored(self, parts: Parts) -> int:
        with network(self.root):
            found = obstore.list_with_delimiter(self.store, "/".join(parts))
        return sum(item["size"] for item in found["objects"])

    def zarr_store(self, parts: Parts) -> Any:
        from zarr.storage import ObjectStore, StorePath

        return StorePath(ObjectStore(self.store, read_only=True), "/".join(parts))


class ObjectChanges(Documents):
    """Everything that a writer does to an object store: data first, what makes it visible last."""

    tree: Tree[ObjectPlace]

    def put_file(self, parts: Parts, *buffers: Any) -> None:
        self.tree.place.put(parts, *buffers)

    def remove(self, parts: Parts) -> None:
        self.tree.place.delete(["/".join(parts)])

    def start(self) -> None:
        """Empty the root, or make it; what makes it a store goes first, and comes last."""
        left = self.tree.place.below(())
        self.tree.place.delete([path for path in left if path == METADATA])
        self.tree.place.delete([path for path in left if path != METADATA])
        self.put_file((METADATA,), group_json({VERSION: integrity.LAYOUT, REVISION: time.time_ns()}))

    def plan(self, key: Key, record: Record) -> Callable[[], None]:
        """Check a record before anything is written; gives what writes it."""
        refusals.refuse_root(key, self.tree.root)
        plan = plan_record(key, record)
        self.tree.check_names(key, plan.names)
        missing = [depth for depth in range(1, len(key)) if self.tree.find(key[:depth]) is None]
        above = self.tree.node(key[: missing[0] - 1] if missing else key[:-1])
        parts = (*above.parts, *map(escape, key[len(above.key) :]))
        found = None if missing else self.tree.locate(key)
        return lambda: self._write(key, found or parts, missing, plan)

    def _write(self, key: Key, parts: Parts, missing: list[int], plan: RecordPlan) -> None:
        left = set() if missing else self._own_objects(parts)
        digests = {}
        for name, array in plan.arrays.items():
            folder = (*parts, escape(name))
            digests[name] = chunking.encode(array, plan.docs[name], self._putter(folder, left))
        attributes = {**full_name(key[-1]), KIND: plan.kind, ARRAYS: digests, **plan.meta}
        self.put_file((*parts, METADATA), group_json(attributes))
        for depth in reversed(missing):
            self.put_file((*parts[:depth], METADATA), group_json(full_name(key[depth - 1])))
        self.tree.place.delete(sorted(left))

    def _putter(self, folder: Parts, left: set[str]) -> Callable[..., None]:
        def put(name: str, *buffers: Any) -> None:
            self.put_file((*folder, name), *buffers)
            left.discard("/".join((*folder, name)))

        return put

    def _own_objects(self, parts: Parts) -> set[str]:
        """List the objects of a record that is there, those of its children left out."""
        names = [name for name in self.tree.place.names(parts) if name != METADATA]
        arrays = [name for name in names if self.tree.child_name(parts, name) is None]
        return {path for name in arrays for path in self.tree.place.below((*parts, name))}

    def plan_update(self, key: Key, meta: Mapping[str, Any]) -> Callable[[], None]:
        """Check new attributes before anything is written; gives what writes them."""
        check_meta(meta)
        self.tree.node(key)
        return lambda: self.update(key, meta)

    def plan_delete(self, key: Key) -> Callable[[], None]:
        """Find what is to go; gives what deletes it, first what makes it visible."""
        refusals.refuse_root(key, self.tree.root)
        parts = self.parts_to_delete(key)
        first = "/".join((*parts, METADATA))

        def delete() -> None:
            paths = self.tree.place.below(parts)
            self.tree.place.delete([first])
            self.tree.place.delete([path for path in paths if path != first])

        return delete

    def count(self) -> None:
        """Let the revision grow, which stands in the root."""
        self.tree.place.exchange((METADATA,), _counted)

    def revision(self) -> int:
        """Give the revision."""
        doc = parse(self.tree.place.get((METADATA,), LARGEST) or b"", self.tree.place.where((METADATA,)))
        found = doc["attributes"].get(REVISION, 0)
        return found if isinstance(found, int) else 0


def _counted(raw: bytes) -> bytes:
    doc: Mapping[str, Any] = parse(raw, METADATA)
    before = doc["attributes"].get(REVISION, 0)
    number = max(time.time_ns(), before + 1 if isinstance(before, int) else 0)
    return changed(doc, {**doc["attributes"], REVISION: number})


@contextmanager
def network(root: str) -> Iterator[None]:
    """Turn errors of the network and of the service into ours."""
    try:
        yield
    except (LabError, FileNotFoundError):
        raise
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise ReadOnly(f"{root!r}: access was denied ({_first_line(error)})", key=root) from error
    except (exceptions.BaseError, OSError) as error:
        raise EngineError(f"{root!r}: the object store refused ({_first_line(error)})", key=root) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
