"""The keeper's link to the online store: single commands to a server, or to a node of a Redis Cluster.

What can go wrong, and what the caller does about it:

* `StoreBusy`      the store cannot answer now: ask again later
* `StoreRefused`   a bug or a wrong configuration: fail
"""

import socket
from binascii import crc_hqx
from dataclasses import dataclass
from typing import Final, NoReturn
from urllib.parse import unquote, urlsplit

Reply = bytes | int | None | list["Reply"]
_RETRY: Final = (
    b"LOADING",
    b"MASTERDOWN",
    b"CLUSTERDOWN",
    b"TRYAGAIN",
    b"READONLY",
    b"OOM",
    b"BUSY",
    b"ASK",
    b"MOVED",
)
SLOTS: Final = 16_384


class StoreBusy(Exception):
    """The store cannot answer now."""


class StoreRefused(Exception):
    """The store refused a command for a reason that a retry does not change."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is. `path`: of a unix socket, empty for TCP."""

    host: str = "127.0.0.1"
    port: int = 6379
    path: str = ""
    username: str = ""
    password: str = ""
    database: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the store is: one server, or a cluster that `seeds` belong to."""

    seeds: tuple[Address, ...]
    cluster: bool = False


def parse_place(url: str, cluster: bool = False) -> Place:
    """`redis://[user:password@]host[:port][/db]`, `unix://[user:password@]/path` or `cluster://host:port,…`.

    `cluster`: whether a `redis://` address belongs to a cluster. Raises `ValueError`.
    """
    parts = urlsplit(url)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme == "unix":
        return Place((Address(path=unquote(parts.path), username=user, password=password),))
    if parts.scheme not in ("redis", "cluster"):
        raise ValueError("store address: write redis://HOST:PORT/DB, unix:///PATH or cluster://HOST:PORT,…")
    database = int(parts.path.strip("/") or 0)
    hosts = [h.rpartition(":") for h in parts.netloc.rpartition("@")[2].split(",")]
    nodes = [(h, int(p)) if colon else (p, 6379) for h, colon, p in hosts]
    seeds = tuple(Address(h, p, "", user, password, database) for h, p in nodes)
    return Place(seeds, cluster or parts.scheme == "cluster")


def command(*arguments: str | bytes | int) -> bytes:
    """One command in RESP."""
    encoded = [a if isinstance(a, bytes) else str(a).encode() for a in arguments]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in encoded)


class Connection:
    """One blocking connection. Raises `StoreBusy` when it breaks."""

    def __init__(self, address: Address, answer_s: float) -> None:
        try:
            if address.path:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._socket.settimeout(answer_s)
                self._socket.connect(address.path)
            else:
                self._socket = socket.create_connection((address.host, address.port), answer_s)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise StoreBusy(f"{address.path or f'{address.host}:{address.port}'}: {error}") from error
        self._replies = self._socket.makefile("rb")
        if address.password:
            self.ask("AUTH", *([address.username] if address.username else []), address.password)
        if address.database:
            self.ask("SELECT", address.database)

    def ask(self, *arguments: str | bytes | int) -> Reply:
        """One command and its reply. Raises `StoreBusy`, `StoreRefused`."""
        try:
            self._socket.sendall(command(*arguments))
            return self._read()
        except OSError as error:
            raise StoreBusy(str(error)) from error

    def _read(self) -> Reply:
        line = self._replies.readline()
        if not line.endswith(b"\r\n"):
            raise StoreBusy("connection closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"-":
            _raise(line)
        length = int(rest)
        if length < 0:
            return None
        if kind == b"*":
            return [self._read() for _ in range(length)]
        return self._replies.read(length + 2)[:-2]

    def close(self) -> None:
        """Release the socket."""
        self._replies.close()
        self._socket.close()


def _raise(line: bytes) -> NoReturn:
    message = line.strip().removeprefix(b"-")
    text = message.decode(errors="replace")
    if message.startswith(_RETRY):
        raise StoreBusy(text)
    raise StoreRefused(text)


def slot(key: str) -> int:
    """Redis Cluster's slot of a key with a hash tag."""
    return crc_hqx(key[key.index("{") + 1 : key.index("}")].encode(), 0) % SLOTS


def slot_owners(seed: Address, answer: Reply) -> list[Address]:
    """The primary of every slot in a reply to CLUSTER SLOTS. Raises `StoreBusy` while a slot has none."""
    owners: list[Address | None] = [None] * SLOTS
    for entry in answer if isinstance(answer, list) else []:
        match entry:
            case [int(first), int(last), [bytes(host), int(port), *_], *_]:
                node = Address(host.decode() or seed.host, port, "", seed.username, seed.password)
                owners[first : last + 1] = [node] * (last + 1 - first)
    known = [node for node in owners if node is not None]
    if len(known) < SLOTS:
        raise StoreBusy(f"{SLOTS - len(known)} slots have no owner")
    return known
