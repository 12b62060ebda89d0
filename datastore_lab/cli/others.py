"""The commands that look into no store: ``formats`` and ``tour``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def tour(arguments: argparse.Namespace) -> int:
    """Open the tour, or execute it."""
    from datastore_lab import tour

    if arguments.headless:
        return tour.execute(arguments.folder)
    return tour.open_in_lab(arguments.folder, browser=not arguments.no_browser)


def formats(_arguments: argparse.Namespace) -> int:
    """Print the table of formats."""
    from datastore_lab.formats import format_table

    print(format_table())
    return 0
