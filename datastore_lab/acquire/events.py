"""Blocks as the event pages of bluesky's event model, for whoever takes documents only."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from datastore_lab.acquire import documents

if TYPE_CHECKING:
    from datastore_lab.records import Block

Consumer = Callable[[str, Mapping[str, Any]], object]
"""Takes the name of a document and the document, as the callbacks of bluesky do."""


class DocumentSink:
    """A writer that passes everything on as documents: start, descriptor, event_page, stop.

    Parameters
    ----------
    consumer : callable
        Such as a callback of bluesky, or the ``consume_document`` of something else.

    Examples
    --------
    >>> import numpy as np
    >>> from datastore_lab.records import Block
    >>> sink = DocumentSink(lambda name, doc: print(name, doc.get("data")))
    >>> sink.consume_document("descriptor", {"uid": "d", "name": "daq"})
    descriptor None
    >>> sink.write("daq", Block(7, np.array([10**9, 2 * 10**9]), {"x": np.array([1.0, 2.0])}))
    event_page {'x': [1.0, 2.0]}
    """

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._descriptors: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def consume_document(self, name: str, doc: Mapping[str, Any]) -> None:
        """Pass a document on."""
        if name == "descriptor":
            self._descriptors[doc["name"]] = doc["uid"]
            self._counts[doc["name"]] = 0
        self._consumer(name, doc)

    def write(self, stream: str, block: Block) -> None:
        """Pass a block on as a page of events, one per sample, numbered from 1."""
        if stream not in self._descriptors:
            raise documents.unknown_stream(stream, list(self._descriptors))
        count, before = len(block.time), self._counts[stream]
        times = (block.time / 1e9).tolist()
        self._counts[stream] = before + count
        page = {
            "descriptor": self._descriptors[stream],
            "uid": [str(uuid.uuid4()) for _ in range(count)],
            "seq_num": list(range(before + 1, before + count + 1)),
            "time": times,
            "data": {name: rows.tolist() for name, rows in block.data.items()},
            "timestamps": dict.fromkeys(block.data, times),
            "filled": {},
        }
        self._consumer("event_page", page)

    def flush(self) -> None:
        """Do nothing: what was passed on is the consumer's."""

    def close(self) -> None:
        """Do nothing: what was passed on is the consumer's."""
