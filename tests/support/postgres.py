"""A PostgreSQL server of the distribution's packages, in a folder of its own, on a Unix socket alone.

How to use (the session fixture `postgres` of `tests/conftest.py` gives a running one):

    url = postgres.new_database()       # an empty database, as the node's `node.database`
    with postgres.away(): ...           # the server is gone meanwhile, as after a crash
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from support.peers import wait_until

USER = "prima"
SETTINGS = {"listen_addresses": "", "fsync": "off", "max_connections": "100"}


def binaries() -> Path:
    """The newest installed version's programs; skips the test where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.skip("PostgreSQL is not installed (apt install postgresql)")
    return found[-1].parent


class PostgresServer:
    """Runs from construction to `close`."""

    def __init__(self) -> None:
        self._programs = binaries()
        # Not pytest's folder: the server's user may not enter it, and a socket's path must be short.
        self._folder = Path(tempfile.mkdtemp(prefix="prima-pg-"))
        self._user = _unprivileged()
        self._numbers = itertools.count(1)
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        setup = ["initdb", "--pgdata=data", f"--username={USER}", "--auth=trust", "--encoding=UTF8", "--no-sync"]
        self._popen([*setup, "--locale=C.UTF-8"]).communicate()
        self._server = self._start()

    def new_database(self) -> str:
        """An empty database's SQLAlchemy URL."""
        name = f"registry{next(self._numbers)}"
        with psycopg.connect(self._conninfo(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://{USER}@/{name}?host={self._folder}"

    @contextmanager
    def away(self) -> Iterator[None]:
        """Without a server while the block lasts; connections end as in a crash."""
        self._stop(signal.SIGQUIT)
        try:
            yield
        finally:
            self._server = self._start()

    def close(self) -> None:
        """Stop the server and remove everything."""
        self._stop(signal.SIGQUIT)
        shutil.rmtree(self._folder)

    def _start(self) -> subprocess.Popen[bytes]:
        settings = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        server = self._popen(["postgres", "-D", "data", "-k", str(self._folder), *settings])
        wait_until(lambda: server.poll() is not None or self._answers(), "PostgreSQL answers")
        assert server.poll() is None, (self._folder / "log").read_text()
        return server

    def _stop(self, how: signal.Signals) -> None:
        self._server.send_signal(how)
        self._server.wait()

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._conninfo()).close()
        except psycopg.OperationalError:
            return False
        return True

    def _conninfo(self) -> str:
        return f"host={self._folder} user={USER} dbname=postgres"

    def _popen(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [str(self._programs / command[0]), *command[1:]],
                cwd=self._folder,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user,
                group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
                extra_groups=None if self._user is None else [],
            )


def _unprivileged() -> str | None:
    """Whom the server must run as: PostgreSQL refuses root. None: as we are."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
