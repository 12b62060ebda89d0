"""A small table of text that shows itself in a terminal, a notebook and a document."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple


class Grid(NamedTuple):
    """Rows of text under a header.

    Attributes
    ----------
    header : sequence of str
    rows : sequence of sequence of str
        Each as long as the header.

    Examples
    --------
    >>> print(Grid(("name", "size"), [("a", "1 kB")]).to_markdown())
    | name | size |
    |---|---|
    | a | 1 kB |
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __repr__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        padded = (
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )
        return "\n".join(padded)

    def _repr_html_(self) -> str:
        body = "".join(_row(row, "td") for row in self.rows)
        return f"<table><thead>{_row(self.header, 'th')}</thead><tbody>{body}</tbody></table>"

    def to_markdown(self) -> str:
        """Write the table for a Markdown document."""
        rule = "|---" * len(self.header) + "|"
        return "\n".join([_line(self.header), rule, *map(_line, self.rows)])


def _row(texts: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts) + "</tr>"


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"
