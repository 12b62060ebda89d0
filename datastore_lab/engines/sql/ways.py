"""The statements that lead from a node down to one below it."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa

from datastore_lab.engines.sql.parts import AHEAD, Part
from datastore_lab.engines.sql.queries import Query
from datastore_lab.engines.sql.tables import node, part

_NAMES = tuple(node.c.keys())
_COUNT = len(_NAMES)


class Row:
    """A row of a node by the names of its columns.

    Parameters
    ----------
    values : sequence
        Its columns, and those of a part that was read with it.
    """

    def __init__(self, values: Any) -> None:
        self.__dict__.update(zip(_NAMES, values, strict=False))
        if len(values) > _COUNT and values[_COUNT] is not None:
            self.ahead = Part._make(values[_COUNT:])


NUMBERED = Query(
    sa.select(node).where(
        node.c.store == sa.bindparam("store", type_=sa.Integer),
        node.c.id == sa.bindparam("number", type_=sa.BigInteger),
    )
)
"""The row of a node by its number."""


@functools.cache
def way(steps: int, *, ahead: bool = False) -> Query:
    """Give the statement that follows so many names.

    Parameters
    ----------
    steps : int
    ahead : bool, default False
        Read with each node the first part of the array that has the next number, if that is small: of most
        records it is all there is.
    """
    made = _one_step() if steps == 1 else _many_steps(steps)
    if ahead:
        made = _with_part(made)
    return Query(made)


def _one_step() -> Any:
    columns = [sa.literal_column("0", sa.Integer).label("depth"), *node.c]
    return sa.select(*columns).where(
        node.c.store == _named("store"),
        node.c.parent == _named("parent"),
        node.c.hash == _named("hash0"),
        node.c.name == _named("name0"),
    )


def _many_steps(steps: int) -> Any:
    """Go down level by level: left to join all levels at once, a database may begin with any of them."""
    first, step = node.alias("first"), node.alias("step")
    start = sa.select(sa.literal_column("0", sa.Integer).label("depth"), first.c.id).where(
        first.c.store == _named("store"),
        first.c.parent == _named("parent"),
        first.c.hash == _named("hash0"),
        first.c.name == _named("name0"),
    )
    down = start.cte("way", recursive=True)
    deeper = sa.select(down.c.depth + sa.literal_column("1"), step.c.id).where(
        step.c.store == _named("store"),
        step.c.parent == down.c.id,
        step.c.hash == _by_depth(down, "hash", steps),
        step.c.name == _by_depth(down, "name", steps),
    )
    down = down.union_all(deeper)
    columns = [
        sa.case((down.c.depth >= _named("first"), column), else_=None) if column is node.c.record else column
        for column in node.c
    ]
    own = (node.c.store == _named("store")) & (node.c.id == down.c.id)
    found = down.outerjoin(node, own)  # so that a row that only one of two indexes lists is not just missing
    return sa.select(down.c.depth, *columns).select_from(found)


def _with_part(made: Any) -> Any:
    own = (part.c.store == node.c.store) & (part.c.array == node.c.id + sa.literal_column("1"))
    own &= (part.c.number == sa.literal_column("0")) & (part.c.size <= sa.literal_column(str(AHEAD)))
    (start,) = made.get_final_froms()
    return made.add_columns(*part.c).select_from(start.outerjoin(part, own))


def _by_depth(down: Any, name: str, steps: int) -> Any:
    levels = range(steps - 1)
    return sa.case(
        *((down.c.depth == sa.literal_column(str(depth)), _named(f"{name}{depth + 1}")) for depth in levels)
    )


def _named(name: str) -> Any:
    """Give a parameter: bytes for names, else a number."""
    kind = sa.LargeBinary if name.startswith("name") else sa.BigInteger
    return sa.bindparam(name, type_=sa.Integer if name in {"store", "first"} else kind)
