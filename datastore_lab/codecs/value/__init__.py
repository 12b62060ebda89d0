"""Plain Python values: None, numbers, text, bytes, dates, containers of these, enums and dataclasses.

What is plain becomes readable JSON under ``lab_codec``; what JSON lacks becomes a mapping with one key that
begins with ``$`` and names the type; long regular lists of numbers, long bytes, and arrays, tables and
other objects inside become arrays of the record, named by their path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datastore_lab.codecs.value.reading import read
from datastore_lab.codecs.value.writing import Written
from datastore_lab.records import CODEC_STATE, Record


class ValueCodec:
    """Stores plain Python values so that exactly the same types come back.

    Subclasses of the built-in containers are refused rather than flattened, except those of
    `collections`, named tuples, enums and dataclasses whose classes are loaded when the item is read.

    Parameters
    ----------
    encode, decode : callable
        Turn any other object into a record and back.

    Examples
    --------
    >>> codec = ValueCodec(None, None)
    >>> record = codec.encode({"rate": 1000.0, "channels": (0, 3)})
    >>> record.meta["lab_codec"]["value"]
    {'rate': 1000.0, 'channels': {'$tuple': [0, 3]}}
    >>> codec.decode(record)
    {'rate': 1000.0, 'channels': (0, 3)}
    """

    kind = "value"

    def __init__(
        self, encode: Callable[[Any], Record] | None = None, decode: Callable[[Record], Any] | None = None
    ) -> None:
        self._encode = encode
        self._decode = decode

    def encode(self, obj: Any) -> Record:
        """Give the record of a value.

        Raises
        ------
        NotStorable
            Naming the path inside the value of what can't be stored, such as ``value['a'][3]``.
        """
        written = Written(obj, self._encode)
        return Record(self.kind, written.arrays, {CODEC_STATE: written.state}, written.dims)

    def decode(self, record: Record) -> Any:
        """Give back the value.

        Raises
        ------
        Untrusted
            If it holds an enum, a dataclass or a named tuple whose class is not loaded.
        Corrupt
            If the record is not what `encode` gives.
        """
        return read(record, self._decode)
