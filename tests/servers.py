"""The databases that the tests speak to: those on 127.0.0.1, or private ones started for a test."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from datastore_lab.engines.sql.tables import metadata

POSTGRESQL = "postgresql"
MARIADB = "mariadb"
SERVERS = (POSTGRESQL, MARIADB)
_DEFAULT = {
    POSTGRESQL: "postgresql+psycopg://postgres@127.0.0.1:5432/test",
    MARIADB: "mariadb+pymysql://root@127.0.0.1:3306/test",
}
_reachable: dict[str, str | None] = {}


def server(name: str) -> str:
    """Give the URL of a server that answers; without one the test is skipped, but in CI it fails."""
    url = os.environ.get(f"LAB_{name.upper()}_URL", _DEFAULT[name])
    if name not in _reachable:
        _reachable[name] = _why_not(url)
    if (why := _reachable[name]) is None:
        return url
    message = f"no {name} server answers: {why}; start one, or name it in LAB_{name.upper()}_URL"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def _why_not(url: str) -> str | None:
    engine = sa.create_engine(url, connect_args={"connect_timeout": 5})
    try:
        with engine.connect():
            return None
    except sa.exc.SQLAlchemyError as error:
        return " ".join(str(error.orig or error).split())[:200]
    finally:
        engine.dispose()


def new_store(url: str) -> str:
    """Give the address of a store of its own in a server's database."""
    own = sa.make_url(url).update_query_dict({"lab": f"t{secrets.token_hex(8)}"})
    return own.render_as_string(hide_password=False)


def remove_store(url: str) -> None:
    """Delete all rows of a store."""
    address = sa.make_url(url)
    engine = sa.create_engine(address.difference_update_query(["lab"]))
    with engine.begin() as connection:
        if sa.inspect(connection).has_table("lab_store"):
            tables = metadata.tables
            own = sa.select(tables["lab_store"].c.id).where(
                tables["lab_store"].c.name == address.query["lab"]
            )
            number = connection.execute(own).scalar()
            for name, column in [("lab_part", "store"), ("lab_node", "store"), ("lab_store", "id")]:
                connection.execute(sa.delete(tables[name]).where(tables[name].c[column] == number))
    engine.dispose()


@contextlib.contextmanager
def place(name: str, folder: Path) -> Iterator[str]:
    """Give the address of a new store: a SQLite file in a folder, or one on a server, which is removed."""
    if name not in SERVERS:
        yield str(folder / "lab.sqlite")
        return
    url = new_store(server(name))
    yield url
    remove_store(url)


# -- private servers -----------------------------------------------------------------------------------


class Private:
    """A server of one's own in a temporary folder, to be killed.

    Attributes
    ----------
    url : str
        Of its database, once it runs.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = _free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"lab-{name}-", dir="/var/tmp"))
        self.data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _unprivileged(name)
        for place in (self.folder, self.data):
            place.mkdir(exist_ok=True)
            if self._user:
                shutil.chown(place, self._user)
        if name == POSTGRESQL:
            self.url = f"postgresql+psycopg://lab@127.0.0.1:{self.port}/postgres"
            self._run(self._binary("initdb"), "-D", self.data, "-U", "lab", "-A", "trust", "-E", "UTF8")
        else:
            self.url = f"mariadb+pymysql://lab@127.0.0.1:{self.port}/test"
            self._run(
                self._binary("mariadb-install-db"),
                "--no-defaults",
                f"--datadir={self.data}",
                "--auth-root-authentication-method=normal",
                *([f"--user={self._user}"] if self._user else []),
            )
            (self.folder / "init.sql").write_text(
                "CREATE DATABASE IF NOT EXISTS test; CREATE USER IF NOT EXISTS lab@'127.0.0.1';"
                "CREATE USER IF NOT EXISTS lab@localhost; GRANT ALL ON *.* TO lab@'127.0.0.1';"
                "GRANT ALL ON *.* TO lab@localhost;\n"
            )
            (self.folder / "init.sql").chmod(0o644)

    def start(self) -> None:
        """Start it and wait until it answers."""
        if self.name == POSTGRESQL:
            command = [self._binary("postgres"), "-D", self.data, "-p", str(self.port)]
            command += ["-k", self.folder, "-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=8MB"]
        else:
            command = [self._binary("mariadbd"), "--no-defaults", f"--datadir={self.data}"]
            command += [f"--port={self.port}", "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=32M"]
            command += ["--innodb-log-file-size=8M", "--skip-performance-schema"]
            command += [f"--socket={self.folder}/socket", f"--init-file={self.folder}/init.sql"]
            command += [f"--pid-file={self.folder}/pid"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*map(str, command)], stdout=log, stderr=log, cwd=self.folder, user=self._user
            )
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + 60
        while (why := _why_not(self.url)) is not None:
            assert self._process is not None
            if time.monotonic() > end or self._process.poll() is not None:
                log = (self.folder / "log").read_text(errors="replace")[-2000:]
                pytest.fail(f"{self.name} does not start: {why}\n{log}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once, as a power cut ends it for its clients: no shutdown, nothing flushed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT if self.name == POSTGRESQL else signal.SIGKILL)
        self._process.wait(60)

    def remove(self) -> None:
        """Stop it and delete its folder."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, *command: object) -> None:
        done = subprocess.run(
            [*map(str, command)],
            capture_output=True,
            text=True,
            cwd=self.folder,
            user=self._user,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _binary(self, name: str) -> str:
        places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/sbin")]
        for place in places:
            if (place / name).exists():
                return str(place / name)
        found = shutil.which(name)
        if found is None:
            _missing(name)
        return str(found)


@contextlib.contextmanager
def private(name: str):
    """Give a running server of one's own."""
    own = Private(name)
    try:
        own.start()
        yield own
    finally:
        own.remove()


def _missing(name: str) -> None:
    message = f"{name} is not installed; Debian's packages are postgresql and mariadb-server"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def _unprivileged(name: str) -> str | None:
    """Give the user to run a server as: neither of them runs as root."""
    if os.geteuid() != 0:
        return None
    for user in ("postgres" if name == POSTGRESQL else "mysql", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(user).pw_name
    return None


def _free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return int(own.getsockname()[1])
