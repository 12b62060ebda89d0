"""Dimension names under which all arrays of one record fit into one xarray dataset."""

from __future__ import annotations

from collections.abc import Mapping

from datastore_lab.records import default_dims


def consistent_dims(
    shapes: Mapping[str, tuple[int, ...]], dims: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Give an array dimensions of its own where its names do not fit those of the others.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Of all arrays of the record.
    dims : mapping of str to tuple of str
        Their names where they have any.

    Examples
    --------
    >>> consistent_dims({"a": (3,), "b": (4, 4)}, {"a": ("n",), "b": ("n", "n")})
    {'a': ('n',), 'b': ('b_0', 'b_1')}
    """
    wanted = {name: tuple(dims.get(name) or default_dims(name, len(shape))) for name, shape in shapes.items()}
    sizes = {name: shape[0] for name, shape in shapes.items() if wanted[name] == (name,)}
    found = {}
    for name, shape in shapes.items():
        chosen, own = wanted[name], default_dims(name, len(shape))
        while not _fits(name, chosen, shape, sizes, shapes):
            chosen, own = own, tuple(f"{dim}~" for dim in own)
        sizes.update(zip(chosen, shape, strict=True))
        found[name] = chosen
    return found


def _fits(
    name: str,
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    sizes: Mapping[str, int],
    arrays: Mapping[str, object],
) -> bool:
    """Whether sizes agree, no name comes twice, and none is that of an array that is no coordinate."""
    return len(set(dims)) == len(dims) and all(
        sizes.get(dim, size) == size and (dims == (name,) or dim not in arrays or dim in sizes)
        for dim, size in zip(dims, shape, strict=True)
    )
