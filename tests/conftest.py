"""How many faults are tried, and the table of what was."""

import tempfile
from pathlib import Path

import pytest

SHARES = {"tenth": 0.1, "all": 1.0}


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

    def table(self) -> str:
        lines = ["| where | fault | cases | unreadable, lost or phantom |", "|---|---|---:|---:|"]
        return "\n".join(
            lines + [f"| {where} | {what} | {cases:,} | 0 |" for where, what, cases in self.rows]
        )


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


def pytest_terminal_summary(terminalreporter, config):
    ledger = config.stash[LEDGER]
    if not ledger.rows:
        return
    terminalreporter.section("faults")
    terminalreporter.line(ledger.table())
    if path := config.getoption("--faults-table"):
        path.write_text(f"{HEAD.format(share=config.getoption('--faults'))}\n{ledger.table()}\n")


HEAD = """# Faults tried

Written by `pytest -m slow --faults {share} --faults-table docs/faults.md`. A *crash state* is what a disk may
hold after a crash: the files after any of the changes of a run of 100 operations, with the last write torn
at several places, or with what was not yet synced missing. Each state is opened, compared with what had
been acknowledged, and read by the format's own library. A case that fails fails the test, so that this
table is not written; the last column is therefore 0 in every row.
"""
