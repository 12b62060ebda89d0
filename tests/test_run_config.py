"""What a run is asked for, as TOML and back."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datastore_lab.acquire import read_config, write_config
from datastore_lab.acquire.config import RunConfig

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=8)
STORAGE = st.fixed_dictionaries(
    {},
    optional={
        "output_path": NAMES.filter(lambda name: "." not in name),
        "compression": st.sampled_from(["none", "gzip", "LZ4"]),
        "compression_level": st.integers(-5, 22),
        "chunk_size": st.integers(1, 10**12),
        "flush_interval_ms": st.floats(0.001, 1e9),
    },
)
RING = st.fixed_dictionaries(
    {},
    optional={
        "size_mb": st.integers(1, 10**6),
        "path": NAMES,
        "overflow": st.sampled_from(["block", "grow", "drop_oldest"]),
    },
)


@settings(max_examples=60, deadline=None)
@given(STORAGE, RING, st.sampled_from([None, "hdf5", "zarr", "arrow", "both"]))
def test_what_is_read_is_written_so_that_it_reads_the_same(storage, ring, kind):
    if kind is not None and "output_path" in storage:
        storage = {**storage, "format": kind}
    config = read_config({"storage": storage, "ring_buffer": ring})
    assert read_config(tomllib.loads(write_config(config))) == config


def test_the_keys_of_the_guide_come_back_in_bytes_and_seconds(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        "[storage]\nformat = 'hdf5'\noutput_path = 'experiment_data.h5'\ncompression = 'gzip'\n"
        "compression_level = 5\nchunk_size = 1024\nflush_interval_ms = 1000\n[ring_buffer]\nsize_mb = 500\n"
    )
    assert write_config(read_config(path)) == (
        '[storage]\noutput_path = "experiment_data.h5"\ncompression = "gzip"\ncompression_level = 5\n'
        "chunk_size = 1024\nflush_interval = 1.0\n\n[ring_buffer]\nnbytes = 500000000\n"
    )


def test_of_nothing_nothing_is_written():
    assert write_config(read_config({})) == ""


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(["a.h5", "b.arrow"], None, None, None, {}),
        RunConfig(["a.h5", "a.arrow", "a.csv"], None, None, None, {}),
        RunConfig(["a.h5"], {"nbytes": 1.5}, None, None, {}),
        RunConfig(["a.h5"], None, "forget", None, {}),
        RunConfig(["a.h5"], None, None, None, {"colour": 3}),
    ],
)
def test_what_no_file_says_is_refused(config):
    with pytest.raises(ValueError, match=r"no TOML|no key|none|whole|policy"):
        write_config(config)
