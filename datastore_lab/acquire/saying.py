"""What a run is asked for, as TOML that `read_config` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from datastore_lab.acquire.config import RunConfig, read_config

_DELETE = chr(0x7F)


def write_config(config: RunConfig) -> str:
    """Write what a run is asked for as TOML: the tables ``[storage]`` and ``[ring_buffer]``.

    Parameters
    ----------
    config : RunConfig
        Sizes in bytes, durations in seconds, as `read_config` gives it.

    Returns
    -------
    str
        `read_config` of it gives `config` again.

    Raises
    ------
    ValueError
        If no such file says this, such as files of names that have nothing to do with each other.

    Examples
    --------
    >>> config = read_config({
    ...     "storage": {"format": "both", "output_path": "data/run", "flush_interval_ms": 500},
    ...     "ring_buffer": {"size_mb": 500},
    ... })
    >>> print(write_config(config))
    [storage]
    output_path = "data/run.h5"
    format = "both"
    flush_interval = 0.5
    <BLANKLINE>
    [ring_buffer]
    nbytes = 500000000
    <BLANKLINE>
    """
    storage = {**_places(config), **config.options}
    if config.flush_interval is not None:
        storage["flush_interval"] = config.flush_interval
    ring = dict(config.ring or {})
    if config.overflow is not None:
        ring["overflow"] = config.overflow
    tables = {"storage": storage, "ring_buffer": ring}
    if read_config(tables) != config:
        raise ValueError(f"no TOML file says {config}; read_config gives what one says")
    return "\n".join(_table(name, table) for name, table in tables.items() if table)


def _places(config: RunConfig) -> dict[str, Any]:
    """Say which files are written: by the path of one, and that there are both."""
    if not config.to:
        return {}
    return {"output_path": config.to[0], **({"format": "both"} if len(config.to) > 1 else {})}


def _table(name: str, values: Mapping[str, Any]) -> str:
    return f"[{name}]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in values.items())


def _value(value: Any) -> str:
    """Write a value; the texts of JSON are texts of TOML, but for one character."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace(_DELETE, "\\u007f")
