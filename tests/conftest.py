"""How many faults are tried, and the table of what was."""

import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import pytest

pytest.register_assert_rewrite("copies")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell; some tests interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARES = {"tenth": 0.1, "all": 1.0}
TABLE = ["| where | fault | cases | unreadable, lost, phantom or silently wrong |", "|---|---|---:|---:|"]


def pytest_addoption(parser):
    group = parser.getgroup("faults")
    group.addoption(
        "--faults", choices=SHARES, default="tenth", help="which part of the faults the slow tests try"
    )
    group.addoption("--faults-table", type=Path, help="write the table of the faults tried to this file")
    group.addoption("--types-table", action="store_true", help="write the tables of docs/types.md")


class Faults:
    """The share of an enumeration that is to be tried, and a ledger of what was.

    Attributes
    ----------
    share : float
        Part of the enumerated states, chosen by a seed.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.rows: list[tuple[str, str, int]] = []

    def times(self, whole: int) -> int:
        """Give the number of repetitions where `whole` is all of them."""
        return max(1, round(whole * self.share))

    def tried(self, where: str, what: str, cases: int) -> None:
        """Note that so many cases were tried, all of which held what was promised."""
        self.rows.append((where, what, cases))

    def table(self, before: str = "") -> str:
        """Write the table; what another table holds and was not tried this time stays as it was."""
        lines = {_fault(line): line for line in before.splitlines() if line.endswith("| 0 |")}
        lines |= {_fault(line): line for line in (f"| {a} | {b} | {n:,} | 0 |" for a, b, n in self.rows)}
        return "\n".join([*TABLE, *(lines[fault] for fault in sorted(lines))])


def _fault(line: str) -> tuple[str, str]:
    """Name the fault of a line of the table, whatever the counts in it."""
    _, where, what, *_ = line.split("|")
    return where.strip(), re.sub(r"[\d,]+", "", what).strip()


@pytest.fixture
def scratch(tmp_path):
    """A folder in memory where there is one: thousands of small files are made and removed."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


LEDGER = pytest.StashKey[Faults]()


def pytest_configure(config):
    config.stash[LEDGER] = Faults(SHARES[config.getoption("--faults")])


@pytest.fixture(scope="session")
def faults(pytestconfig) -> Faults:
    return pytestconfig.stash[LEDGER]


@pytest.fixture
def small_blocks(monkeypatch):
    """Make items of some hundred bytes large ones for a copy."""
    from datastore_lab.store.moving import blocks, copying

    monkeypatch.setattr(blocks, "BLOCK", 256)
    for function in (blocks.parts, blocks.rows_within):
        monkeypatch.setattr(function, "__defaults__", (256, *(function.__defaults__ or ())[1:]))
    monkeypatch.setattr(copying, "BLOCK", 256)


NOTHING_MISSING = os.environ.get("CI") == "true" and sys.platform == "linux"
PARTIAL = "in this run"
"""What the reason of a skip ends with if it comes from the choice of tests, and not from the machine."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Let nothing be left out in CI for want of a program, a right or a server."""
    report = yield
    if NOTHING_MISSING and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not reason.endswith(PARTIAL):
            report.outcome, report.longrepr = "failed", f"in CI nothing is left out, but here: {reason}"
    return report


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    ledger = config.stash[LEDGER]
    if not ledger.rows:
        return
    terminalreporter.section("faults")
    terminalreporter.line(ledger.table())
    path = config.getoption("--faults-table")
    if path and exitstatus == 0:  # the row of a fault that came back must not stay as it was
        before = path.read_text() if path.exists() else ""
        path.write_text(f"{HEAD.format(share=config.getoption('--faults'))}\n{ledger.table(before)}\n")


HEAD = """# Faults tried

Written by `pytest -m slow --faults {share} --faults-table docs/faults.md`. A run in which
a case fails writes nothing; the last column is therefore 0 in every row. A run of some of the tests replaces
their rows only. Where bits were flipped or
files were changed, an error of this package that says so is the right answer, and a wrong value none.

- *Crash states*: what a disk may hold after a crash. All system calls of a run of 200 changes are taken down;
  after each of them the files are rebuilt as they would be had the process died, had the last write been cut
  short, and had the power failed with what was not synced missing in whole or in part. Each state is opened
  for reading and for writing and compared with what had been acknowledged.
- *kill -9*: a writer is killed at a random moment, and the store compared with what had been acknowledged.
- *Calls refused*: the system makes one of the first 200 calls that write, sync or rename fail, or it and all
  that follow. The store is as it was before, goes on working when there is room again, and verifies clean.
- *A disk that*: small disks of their own that fill up, turn read-only or are taken away under an open store.
- *Changes at once*: what processes or threads did together equals what one does alone, in the order of a log
  that is part of every change, while readers see nothing torn.
- *One flipped bit*: every item is what it was or raises an error, nothing is missing or new, and `verify`
  reports whatever could not be read.
- *Repair*: afterwards whatever could be read before can still be read, and is the same.
- *Mutated files*: flipped, zeroed, doubled, cut and spliced bytes, extreme numbers, other JSON, and links
  that lead out, read by a process that may take 1 GB more: no crash, no other error than ours, nothing
  opened outside the store.
- *Sequences*: any order of changes, reopenings and crashes, held against a plain mapping.
"""
