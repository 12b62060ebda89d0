"""Objects that say themselves how they are stored: the storage protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datastore_lab.errors import NotStorable, Untrusted
from datastore_lab.nesting import Packer, class_name, find_class, unpack
from datastore_lab.records import CODEC_STATE, Record


class ObjectCodec:
    """Stores an object through its own ``storage_prepare`` and ``storage_retrieve``.

    ``storage_prepare(self)`` gives an array (or None) and something that JSON holds;
    ``storage_retrieve(cls, array, json)``, a class method, gives the object back. Tuples and other plain
    Python values in the second part keep their type. A file only names the class; it must be loaded in the
    session that reads it.

    Parameters
    ----------
    encode, decode : callable
        Turn any other object into a record and back.
    """

    kind = "object"

    def __init__(self, encode: Callable[[Any], Record], decode: Callable[[Record], Any]) -> None:
        self._encode = encode
        self._decode = decode

    def encode(self, obj: Any) -> Record:
        """Give the record of an object that has the storage protocol.

        Raises
        ------
        NotStorable
            If its class can't be found again by name, or if what it prepared can't be stored.
        """
        name = class_name(type(obj))
        prepared = obj.storage_prepare()
        if not isinstance(prepared, tuple) or len(prepared) != 2:
            raise NotStorable(
                f"{name}.storage_prepare() must give (array, json), not {prepared!r:.80}", key=name
            )
        packer = Packer()
        state: dict[str, Any] = {"class": name}
        for part, place, value in zip(("array", "json"), ("data", "json"), prepared, strict=True):
            if value is not None:
                state[part] = packer.embed(self._part(name, part, value), place)
        return Record(self.kind, packer.arrays, {CODEC_STATE: state}, packer.dims)

    def decode(self, record: Record) -> Any:
        """Give back the object.

        Raises
        ------
        Untrusted
            If its class is not loaded, or has no storage protocol.
        """
        state = record.meta[CODEC_STATE]
        cls = find_class(state["class"])
        if not callable(getattr(cls, "storage_prepare", None)) or not callable(
            getattr(cls, "storage_retrieve", None)
        ):
            raise Untrusted(
                f"the class {state['class']} of this session has no storage_prepare and storage_retrieve; "
                "load the version that the item was stored with",
                key=state["class"],
            )
        parts = [state.get(part) for part in ("array", "json")]
        array, json = (None if part is None else self._decode(unpack(part, record.arrays)) for part in parts)
        return cls.storage_retrieve(array, json)  # type: ignore[attr-defined]

    def _part(self, name: str, part: str, value: Any) -> Record:
        try:
            return self._encode(value)
        except NotStorable as error:
            raise NotStorable(
                f"the {part} that {name}.storage_prepare() gave: {error.message}", key=name
            ) from error
