"""PostgreSQL for tests: Debian's server on a free port, with a password, run by a user that is not root."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from cordon.stack.part import Part
from cordon.stack.port import HOST
from cordon.stack.probe import Said

USER, PASSWORD = "cordon", "a-word-of-the-tests"
# Debian's package makes it; initdb and the server refuse to be root.
ACCOUNT = "postgres"
SETTINGS = {"listen_addresses": HOST, "fsync": "off", "max_connections": "60", "shared_buffers": "32MB"}


class NoPostgres(Exception):
    """The server's programs are not installed (Debian: postgresql)."""


@dataclass(frozen=True, slots=True)
class Postgres:
    """One server. `directory` belongs to the account that runs it."""

    directory: Path
    port: int

    def initialise(self) -> None:
        """Makes the data directory. Raises `NoPostgres`."""
        word = self.directory / "password"
        word.write_text(PASSWORD)
        if os.getuid() == 0:
            for path in (self.directory, word):
                shutil.chown(path, ACCOUNT)
        subprocess.run(
            [*_as_account(), program("initdb"), "-D", str(self.data), "-U", USER, "--pwfile", str(word),
             "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
            check=True, capture_output=True, cwd="/",
        )  # fmt: skip

    @property
    def data(self) -> Path:
        """Where the databases lie."""
        return self.directory / "data"

    def part(self) -> Part:
        """The part of a stack."""
        options = {**SETTINGS, "port": str(self.port), "unix_socket_directories": str(self.directory)}
        arguments = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        return Part(
            name="postgres",
            command=(*_as_account(), program("postgres"), "-D", str(self.data), *arguments),
            probe=Said("database system is ready to accept connections"),
            directory=Path("/"),
            address=self.url("postgres"),
        )

    def url(self, database: str) -> str:
        """Address of a database."""
        return f"postgresql://{USER}:{PASSWORD}@{HOST}:{self.port}/{database}"


@dataclass(frozen=True, slots=True)
class RunningPostgres:
    """One server for the whole session; every test takes databases of its own."""

    server: Postgres
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def database(self) -> str:
        """Address of a new, empty database."""
        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self.server.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.server.url(name)


def program(name: str) -> str:
    """A program of the newest server that is installed. Raises `NoPostgres`."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: float(p.parts[4]))
    where = str(found[-1]) if found else shutil.which(name)
    if where is None:
        raise NoPostgres(f"{name} is missing: install PostgreSQL (Debian: postgresql)")
    return where


def _as_account() -> tuple[str, ...]:
    if os.getuid() != 0:
        return ()
    return ("setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups", "--")
