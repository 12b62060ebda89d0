"""The command that looks into no store: ``tour``."""

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
