"""What a saved notebook shows without a kernel: HTML without any script."""

from __future__ import annotations

from html import escape
from typing import Any

ROWS = 50
"""Rows of a tree that are kept in the notebook at most."""

_CELL = "padding:1px 12px 1px 0;text-align:left;font-weight:normal;vertical-align:top"
_DIM = "opacity:.7"


def tree_html(label: str, badges: list[str], total: int, rows: list[dict[str, Any]]) -> str:
    """Show the first rows of a tree.

    Parameters
    ----------
    label : str
    badges : list of str
        Short facts beside the label, such as "read only".
    total : int
        Rows that there are.
    rows : list of dict
        As `Source.page` gives them.

    Examples
    --------
    >>> "&lt;b&gt;" in tree_html("memory://", [], 1, [{"name": "<b>", "kind": "array"}])
    True
    """
    marks = "".join(f' <span style="{_DIM}">{escape(badge)}</span>' for badge in badges)
    body = "".join(_tree_row(row) for row in rows[:ROWS])
    left = total - min(len(rows), ROWS)
    more = f'<tr><td colspan="5" style="{_CELL};{_DIM}">… {left:,} more</td></tr>' if left > 0 else ""
    empty = f'<tr><td style="{_CELL};{_DIM}">nothing stored yet</td></tr>' if not total else ""
    items = f'<span style="{_DIM}">{count(total, "item")}</span>'
    return _framed(f"<strong>{escape(label)}</strong>{marks} {items}", body + more + empty)


def _tree_row(row: dict[str, Any]) -> str:
    facts = [row.get("error")] if row.get("error") else [row.get(name) for name in ("type", "shape", "size")]
    cells = "".join(f'<td style="{_CELL}">{escape(str(fact or ""))}</td>' for fact in facts)
    name = f'<th scope="row" style="{_CELL}">{escape(row["name"])}</th>'
    return f'<tr>{name}<td style="{_CELL};{_DIM}">{escape(row["kind"])}</td>{cells}</tr>'


def panel_html(title: str, status: dict[str, Any]) -> str:
    """Show the state and the totals of a run.

    Parameters
    ----------
    title : str
    status : dict
        As `datastore_lab.notebook.status.summary` gives it.
    """
    head = "".join(
        f'<th scope="col" style="{_CELL};{_DIM}">{name}</th>' for name in ("stream", "samples", "lost")
    )
    body = "".join(
        f'<tr><th scope="row" style="{_CELL}">{escape(row["name"])}</th>'
        f'<td style="{_CELL}">{row["produced"]:,}</td><td style="{_CELL}">{row["lost"]:,}</td></tr>'
        for row in status["streams"]
    )
    error = f'<div role="alert">{escape(status["error"])}</div>' if status.get("error") else ""
    heading = f"<strong>{escape(title)}</strong> {escape(status['state'])}, {status['elapsed']:.1f} s{error}"
    return _framed(heading, f"<tr>{head}</tr>{body}")


def _framed(heading: str, rows: str) -> str:
    table = f'<table style="border-collapse:collapse;margin:4px 0">{rows}</table>'
    return f"<div><div>{heading}</div>{table}</div>"


def count(number: int, noun: str) -> str:
    """Give a number with its noun.

    Examples
    --------
    >>> count(1, "item"), count(1200, "item")
    ('1 item', '1,200 items')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
