"""The command line: look into stores, check and move them, compare formats, take the tour."""

from __future__ import annotations

from datastore_lab.cli.main import main
from datastore_lab.cli.parser import make_parser
from datastore_lab.cli.words import printable

__all__ = ["main", "make_parser", "printable"]
