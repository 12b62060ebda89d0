"""What instruments answer in text: numbers, and nothing that is run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes

if TYPE_CHECKING:
    from datastore_lab.records import ArrayInfo, Stat

MOST_BYTES = 1_000_000
"""Longest answer, line or message that is accepted where nothing else was said."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|nan|inf(inity)?)", re.ASCII | re.I)


def parse_number(text: str) -> float | int:
    r"""Read one number, as instruments write them.

    Raises
    ------
    ValueError
        If it is none; spaces around it are allowed, underscores and other digits are not.

    Examples
    --------
    >>> parse_number(" +1.25E-3\n"), parse_number("7")
    (0.00125, 7)
    """
    stripped = text.strip()
    if len(stripped) > 400 or not _NUMBER.fullmatch(stripped):
        raise ValueError(f"{_short(text)} is no number")
    return int(stripped) if stripped.lstrip("+-").isdigit() else float(stripped)


def parse_answer(text: str, info: ArrayInfo, separator: str = ",") -> Any:
    """Read an answer as what was described: text, a number, or as many numbers as its shape holds.

    Raises
    ------
    ValueError
        If it is something else.

    Examples
    --------
    >>> from datastore_lab.records import ArrayInfo
    >>> parse_answer("1.5, 2.5", ArrayInfo("<f8", (0, 2), ("time", "x"), 0, None))
    array([1.5, 2.5])
    """
    return _values([text] if info.shape[1:] == () else split(text, separator), info)


def parse_line(text: str, spec: Stat, separator: str) -> Mapping[str, Any]:
    """Read a line of values, one after the other, as the arrays of a stream.

    Raises
    ------
    ValueError
        If there are more or fewer values than were described.
    """
    sizes = {name: math.prod(info.shape[1:]) for name, info in spec.arrays.items()}
    parts = split(text, separator)
    if len(parts) != sum(sizes.values()):
        raise ValueError(f"{_short(text)} holds {len(parts)} values, not {sum(sizes.values())}")
    row, start = {}, 0
    for name, info in spec.arrays.items():
        row[name] = _values(parts[start : start + sizes[name]], info)
        start += sizes[name]
    return row


def split(text: str, separator: str) -> list[str]:
    """Split an answer; a separator of blanks stands for any number of them.

    Examples
    --------
    >>> split("1; 2;3", ";"), split(" 1  2 ", " ")
    (['1', ' 2', '3'], ['1', '2'])
    """
    return text.strip().split(separator) if separator.strip() else text.split()


def _values(parts: list[str], info: ArrayInfo) -> Any:
    shape = info.shape[1:]
    if len(parts) != math.prod(shape):
        raise ValueError(f"{_short(', '.join(parts))} holds {len(parts)} values, not {math.prod(shape)}")
    values = [part.strip() if info.dtype == dtypes.STRING else _typed(part, info) for part in parts]
    return values[0] if shape == () else np.reshape(np.array(values), shape)


def _typed(text: str, info: ArrayInfo) -> Any:
    number = parse_number(text)
    return bool(number) if info.dtype == "|b1" and number in {0, 1} else number


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")
