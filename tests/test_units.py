"""Sizes, durations and rates: what is read, what is refused, and what is written."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore_lab import units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 B", 0),
        ("500 MB", 500_000_000),
        ("500MB", 500_000_000),
        (" 1.5 kB ", 1500),
        ("1 KB", 1000),
        ("1 KiB", 1024),
        ("2 GiB", 2 * 1024**3),
        ("1_000 bytes", 1000),
        ("1e3 MB", 10**9),
        (".5 TB", 500_000_000_000),
        ("0.1234 kB", 124),
        ("9 PB", 9 * 10**15),
    ],
)
def test_sizes(text, expected):
    result = units.parse_size(text)
    assert result == expected
    assert type(result) is int


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "MB",
        "500",
        "500 mb",
        "500 Mb",
        "5 s",
        "-1 MB",
        "1e999 MB",
        "nan MB",
        "1 MB/s",
        "1,5 MB",
        "1 M B",
        "٣ MB",
    ],
)
def test_text_that_is_no_size_is_named(bad):
    with pytest.raises(ValueError, match="is not a size") as caught:
        units.parse_size(bad)
    assert repr(bad) in str(caught.value)


@pytest.mark.parametrize(
    "parse", [units.parse_size, units.parse_duration, units.parse_rate, units.parse_frequency]
)
@pytest.mark.parametrize("bad", [True, None, -1, math.nan, math.inf, 1j, b"5 s", [5]])
def test_values_that_are_no_quantity_are_refused(parse, bad):
    with pytest.raises(ValueError, match="is not a"):
        parse(bad)


def test_fractions_of_a_byte_are_refused_as_numbers():
    with pytest.raises(ValueError, match="bytes are whole"):
        units.parse_size(1.5)
    assert units.parse_size(2.0) == 2
    assert units.parse_size(np.int32(7)) == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 s", 5),
        ("250 ms", 0.25),
        ("10 µs", 1e-5),
        ("10 μs", 1e-5),
        ("2 hours", 7200),
        ("3 min", 180),
        ("1 d", 86400),
    ],
)
def test_durations(text, expected):
    assert units.parse_duration(text) == expected


@pytest.mark.parametrize("bad", ["5", "5 m", "5 MB", "5 S", "soon", "1 h 30 min"])
def test_text_that_is_no_duration_is_named(bad):
    with pytest.raises(ValueError, match="is not a duration") as caught:
        units.parse_duration(bad)
    assert repr(bad) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"), [("400 MB/s", 4e8), ("1 MiB / s", 2**20), ("6 GB/min", 1e8), ("9 B/ms", 9000)]
)
def test_data_rates(text, expected):
    assert units.parse_rate(text) == expected


@pytest.mark.parametrize("bad", ["400 MB", "400 Mb/s", "10 kHz", "5 s", "MB/s", "1 MB/s/s"])
def test_text_that_is_no_data_rate_is_named(bad):
    with pytest.raises(ValueError, match="is not a data rate") as caught:
        units.parse_rate(bad)
    assert repr(bad) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10 kHz", 1e4), ("30 fps", 30), ("2.5 MS/s", 2.5e6), ("7 samples/s", 7), ("1 GHz", 1e9)],
)
def test_sampling_rates(text, expected):
    assert units.parse_frequency(text) == expected


@pytest.mark.parametrize("bad", ["10", "10 khz", "400 MB/s", "10 s"])
def test_text_that_is_no_sampling_rate_is_named(bad):
    with pytest.raises(ValueError, match="is not a sampling rate"):
        units.parse_frequency(bad)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_999, "1 MB"), (-1500, "-1.5 kB"), (1.2e18, "1200 PB")],
)
def test_sizes_as_text(size, expected):
    assert units.format_size(size) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (2e-9, "2 ns"),
        (0.25, "250 ms"),
        (59.99, "1 min"),
        (60, "1 min"),
        (3599.9, "1 h"),
        (-90, "-1 min 30 s"),
    ],
)
def test_durations_as_text(seconds, expected):
    assert units.format_duration(seconds) == expected


@pytest.mark.parametrize("write", [units.format_size, units.format_duration])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_not_written(write, bad):
    with pytest.raises(ValueError, match="can't be written"):
        write(bad)


@given(st.integers(0, 10**18), st.booleans())
def test_a_written_size_is_read_back_to_three_digits(size, binary):
    again = units.parse_size(units.format_size(size, binary=binary))
    assert math.isclose(again, size, rel_tol=6e-3, abs_tol=1)


@given(st.text(max_size=20))
def test_any_text_is_a_size_or_a_value_error_that_names_it(text):
    try:
        size = units.parse_size(text)
    except ValueError as error:
        size, message = 0, str(error)
    else:
        message = repr(text)
    assert size >= 0
    assert repr(text) in message
