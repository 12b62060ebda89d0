"""Running a command, and turning what goes wrong into a line and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from datastore_lab.cli.parser import make_parser
from datastore_lab.cli.words import printable, split_text
from datastore_lab.errors import LabError

if TYPE_CHECKING:
    import argparse


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``datastore-lab``.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process if not given.

    Returns
    -------
    int
        0 if all is well, 1 if problems were found or something was left out, 2 for an error that says what
        to do, 130 if it was interrupted.
    """
    arguments = make_parser().parse_args(argv)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # (a name need not fit the terminal)
    try:
        return _run(arguments)
    except BrokenPipeError:  # `datastore-lab ls x.h5 | head`
        _silence()
        return 0
    except (LabError, OSError) as error:
        if arguments.debug:
            raise
        if not isinstance(error, LabError):
            _silence()
        _complain(error)
        return 2
    except KeyboardInterrupt as error:
        _complain(error)
        return 130  # what a shell says of a program that Ctrl-C ended


def _run(arguments: argparse.Namespace) -> int:
    if getattr(arguments, "key", "") is None:  # as copy takes it
        arguments.path, arguments.key = split_text(arguments.path)
    code = int(arguments.command(arguments))
    print(end="", flush=True)  # what can't be written is to be said here, not while Python ends
    return code


def _complain(error: BaseException) -> None:
    for line in [str(error), *getattr(error, "__notes__", ())]:
        if line:
            print(f"datastore-lab: {printable(line)}", file=sys.stderr)


def _silence() -> None:
    """Let what is still to be written go nowhere, so that it can't fail once more while Python ends."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
