"""The frame of one Arrow message: what it holds, where its buffers lie, and where its sums stand.

A message is ``FFFFFFFF``, the length of its metadata, the metadata as a flatbuffer, and the body. Only the
few fields that are needed are read here, each within bounds. Format: the Arrow columnar specification,
"Encapsulated message format", and its ``Message.fbs``.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import xxhash

MAGIC = b"ARROW1\0\0"
NEXT = b"\xff\xff\xff\xff"
END = NEXT + bytes(4)
SCHEMA, BATCH = 1, 3
NUMBER, SUM, SUMS, TAIL, META = "lab_batch", "lab_sum", "lab_sums", "lab_tail", "lab_meta"
MARK = 16
"""Bytes of a mark."""

LONGEST = 1 << 24
"""Most bytes of a message's metadata."""


class Head(NamedTuple):
    """A message without its body.

    Attributes
    ----------
    kind : int
        `SCHEMA` or `BATCH`; others are not written here.
    size : int
        Bytes from the beginning of the message to that of its body.
    body : int
        Bytes of the body.
    rows : int
    nulls : int
        Missing values in all columns together.
    buffers : tuple of (int, int)
        Offset within the body, and length.
    compressed : bool
    extra : mapping of str to (int, int)
        Where the values of its custom metadata stand, from the beginning of the message.
    """

    kind: int
    size: int
    body: int
    rows: int
    nulls: int
    buffers: tuple[tuple[int, int], ...]
    compressed: bool
    extra: dict[str, tuple[int, int]]


class Table:
    """A table of a flatbuffer."""

    def __init__(self, raw: bytes | memoryview, at: int) -> None:
        self.raw, self.at = raw, at
        self._vtable = at - self._get("<i", at)
        self._slots = self._get("<H", self._vtable) // 2 - 2

    def _get(self, form: str, at: int) -> int:
        if at < 0:
            raise ValueError("an offset points outside")
        return int(struct.unpack_from(form, self.raw, at)[0])

    def place(self, slot: int) -> int | None:
        offset = self._get("<H", self._vtable + 4 + 2 * slot) if slot < self._slots else 0
        return self.at + offset if offset else None

    def number(self, slot: int, form: str) -> int:
        at = self.place(slot)
        return 0 if at is None else self._get(form, at)

    def target(self, slot: int) -> int | None:
        at = self.place(slot)
        return None if at is None else at + self._get("<I", at)

    def table(self, slot: int) -> Table | None:
        at = self.target(slot)
        return None if at is None else Table(self.raw, at)

    def vector(self, slot: int, width: int) -> tuple[int, int]:
        """Give where the items of a vector begin, and how many they are."""
        at = self.target(slot)
        if at is None:
            return 0, 0
        count = self._get("<I", at)
        if at + 4 + count * width > len(self.raw):
            raise ValueError("a vector ends outside")
        return at + 4, count

    def pairs(self, slot: int) -> dict[str, tuple[int, int]]:
        """Give the keys of a vector of key-value tables, and where their values stand."""
        start, count = self.vector(slot, 4)
        found = {}
        for at in range(start, start + 4 * count, 4):
            pair = Table(self.raw, at + self._get("<I", at))
            (key, length), value = pair.vector(0, 1), pair.vector(1, 1)
            found[bytes(self.raw[key : key + length]).decode()] = (value[0], value[0] + value[1])
        return found

    def structs(self, slot: int) -> tuple[tuple[int, int], ...]:
        """Give a vector of pairs of 64-bit numbers."""
        start, count = self.vector(slot, 16)
        return tuple(struct.iter_unpack("<qq", self.raw[start : start + 16 * count]))


def parse(raw: bytes | memoryview) -> Head | None:
    """Take apart the message that begins with `raw`; None if none does."""
    if len(raw) < 16 or raw[:4] != NEXT:
        return None
    length = struct.unpack_from("<i", raw, 4)[0]
    if not 0 < length <= min(LONGEST, len(raw) - 8):
        return None
    try:
        return _parse(raw[: 8 + length])
    except (struct.error, ValueError, IndexError):
        return None


def table(raw: bytes | memoryview, at: int) -> Table:
    """Give the table of the flatbuffer that begins at a place.

    Raises
    ------
    ValueError, struct.error
        If it is none, here or when it is looked into.
    """
    return Table(raw, at + struct.unpack_from("<I", raw, at)[0])


def _parse(raw: bytes | memoryview) -> Head | None:
    message = table(raw, 8)
    kind, body = message.number(1, "<B"), message.number(3, "<q")
    header = message.table(2)
    if header is None or body < 0:
        return None
    if kind != BATCH:
        return Head(kind, len(raw), body, 0, 0, (), False, {})
    buffers = header.structs(2)
    if any(offset < 0 or length < 0 or offset + length > body for offset, length in buffers):
        return None
    rows, nulls = header.number(0, "<q"), sum(nulls for _length, nulls in header.structs(1))
    compressed = header.place(3) is not None
    return Head(kind, len(raw), body, rows, nulls, buffers, compressed, message.pairs(4))


def length_of(raw: bytes | memoryview) -> int:
    """Give the bytes of a message without its body, from its first eight; 0 if it is none."""
    if len(raw) < 8 or raw[:4] != NEXT:
        return 0
    length: int = struct.unpack_from("<i", raw, 4)[0]
    return 8 + length if 0 < length <= LONGEST else 0


def own_sum(raw: bytes | memoryview, before: bytes, head: Head) -> str:
    """Give the sum over a message without its body, its own sum taken as zeros."""
    start, stop = head.extra[SUM]
    state = xxhash.xxh3_64(before)
    state.update(raw[:start])
    state.update(b"0" * (stop - start))
    state.update(raw[stop : head.size])
    return f"{state.intdigest():016x}"


def value(raw: bytes | memoryview, head: Head, name: str) -> bytes | None:
    """Give one value of the custom metadata."""
    at = head.extra.get(name)
    return None if at is None else bytes(raw[at[0] : at[1]])


def mark(at: int) -> bytes:
    """Give what follows the last batch of a flush: an end for others, and a proof that it was durable."""
    return END + xxhash.xxh3_64_digest(b"lab_flush %d" % at)


def premark(at: int) -> bytes:
    """Give what stands in the place of a mark while that at `at`, which still holds, is written over."""
    return struct.pack("<Q", at) + xxhash.xxh3_64_digest(b"lab_before %d" % at)


def marked(tail: bytes, size: int) -> int | None:
    """Say how far all was acknowledged, by the last bytes of a file; None if they don't tell."""
    if len(tail) != MARK:
        return None
    before = int.from_bytes(tail[:8], "little")
    return size - MARK if tail == mark(size - MARK) else before if tail == premark(before) else None


def marks(raw: bytes, start: int) -> list[int]:
    """Find marks in bytes that begin at the place `start` of a file, a multiple of 8; give their places."""
    words = np.frombuffer(raw, "<u8", len(raw) // 8)
    ends = np.flatnonzero(words == int.from_bytes(END, "little"))
    places = [8 * int(index) for index in ends]
    return [start + at for at in places if raw[at : at + MARK] == mark(start + at)]


def later(raw: bytes, start: int) -> list[int]:
    """Find where messages may begin, in the multiples of 8 bytes from `start` on."""
    words = np.frombuffer(raw, "<u4", (len(raw) - start) // 8 * 2, start).reshape(-1, 2)
    likely = (words[:, 0] == 0xFFFFFFFF) & (words[:, 1] > 0) & (words[:, 1] <= LONGEST)
    return [start + 8 * int(index) for index in np.flatnonzero(likely)]
