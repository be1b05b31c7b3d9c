"""The sink's link to the online store: whole blocks of commands to one server or to a Redis Cluster.

What can go wrong, and what the caller does about it:

* `StoreBusy`      (inside) nothing is known about the block: connect and send it again, it is idempotent
* `StoreLost`      the store stayed away longer than the patience: fail, and start again from a checkpoint
* `StoreRefused`   a bug or a wrong configuration: fail
"""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn
from urllib.parse import unquote, urlsplit

Reply = bytes | int | None | list["Reply"]
_RETRY: Final = (b"LOADING", b"MASTERDOWN", b"CLUSTERDOWN", b"TRYAGAIN", b"READONLY", b"OOM", b"BUSY", b"ASK")
_NO_FUNCTION: Final = b"ERR Function not found"
SLOTS: Final = 16_384


class StoreBusy(Exception):
    """The store cannot answer now."""


class StoreLost(Exception):
    """The store was away for longer than the patience."""


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


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call waits for the store. All in seconds."""

    answer_s: float = 10.0
    lost_after_s: float = 30.0
    first_pause_s: float = 0.05
    longest_pause_s: float = 1.0


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

    def send(self, block: bytes) -> None:
        """Write a block of commands; may block until the server has taken it."""
        try:
            self._socket.sendall(block)
        except OSError as error:
            raise StoreBusy(str(error)) from error

    def settle(self, count: int) -> None:
        """Wait for `count` integer replies; raises what the first error among them means."""
        failed = b""
        try:
            for _ in range(count):
                line = self._replies.readline()
                if line[:1] != b":":
                    failed = failed or line or b"-BUSY connection closed"
                    if not line:
                        break
        except OSError as error:
            raise StoreBusy(str(error)) from error
        if failed:
            _raise(failed)

    def ask(self, *arguments: str | bytes | int) -> Reply:
        """One command and its reply. Raises as `settle`."""
        self.send(command(*arguments))
        try:
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


class FunctionMissing(StoreBusy):
    """The server lost its function library: load it and send again."""


class SlotMoved(StoreBusy):
    """The cluster's map is old: read it and send again."""


def _raise(line: bytes) -> NoReturn:
    message = line.strip().removeprefix(b"-")
    text = message.decode(errors="replace")
    if message.startswith(_NO_FUNCTION):
        raise FunctionMissing(text)
    if message.startswith(b"MOVED"):
        raise SlotMoved(text)
    if message.startswith(_RETRY):
        raise StoreBusy(text)
    raise StoreRefused(text)


class Link:
    """Blocks of idempotent commands, sent until they are answered.

    `library`: text of the function library. `clock`: monotonic seconds.
    """

    def __init__(
        self,
        place: Place,
        library: str,
        patience: Patience,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._place = place
        self._library = library
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._open: dict[Address, Connection] = {}
        self._owners: list[Address] = []

    @property
    def nodes(self) -> list[Address]:
        """Where blocks go: the one server, or the primaries that own slots."""
        return list(dict.fromkeys(self._owners)) if self._place.cluster else [self._place.seeds[0]]

    def owner(self, slot: int) -> Address:
        """The server that owns a slot."""
        return self._owners[slot] if self._place.cluster else self._place.seeds[0]

    def owners(self) -> Sequence[int]:
        """For every slot the index of its server in `nodes`."""
        index = {node: i for i, node in enumerate(self.nodes)}
        return [index[node] for node in self._owners]

    def settle(self, blocks: Callable[[], Sequence[tuple[Address, bytes, int]]]) -> None:
        """Send `(server, block, number of commands)` to all servers and wait for all integer replies.

        `blocks` is called for every attempt, with the cluster's map read. Blocks for at most the
        patience; raises `StoreLost`, `StoreRefused`.
        """
        give_up_at = self._clock() + self._patience.lost_after_s
        pause_s = self._patience.first_pause_s
        while True:
            try:
                self._attempt(blocks)
                return
            except StoreBusy as error:
                self.close()
                if self._clock() >= give_up_at:
                    raise StoreLost(f"no answer for {self._patience.lost_after_s} s: {error}") from error
                if isinstance(error, FunctionMissing):
                    self._load(error)
                self._sleep(pause_s)
                pause_s = min(2 * pause_s, self._patience.longest_pause_s)

    def _attempt(self, blocks: Callable[[], Sequence[tuple[Address, bytes, int]]]) -> None:
        if self._place.cluster and not self._owners:
            self._owners = self._map()
        parts = blocks()
        for node, block, _ in parts:
            self._connection(node).send(block)
        for node, _, count in parts:
            self._connection(node).settle(count)

    def _connection(self, node: Address) -> Connection:
        if node not in self._open:
            self._open[node] = Connection(node, self._patience.answer_s)
        return self._open[node]

    def _load(self, missing: FunctionMissing) -> None:
        try:
            if self._place.cluster and not self._owners:
                self._owners = self._map()
            for node in self.nodes:
                self._connection(node).ask("FUNCTION", "LOAD", "REPLACE", self._library)
        except StoreBusy:
            self.close()  # the next attempt finds out

    def _map(self) -> list[Address]:
        """Owner of every slot, from the first seed that answers. Raises `StoreBusy`."""
        trouble = StoreBusy("no seed")
        for seed in self._place.seeds:
            try:
                return slot_owners(seed, self._connection(seed).ask("CLUSTER", "SLOTS"))
            except StoreBusy as error:
                trouble = error
        raise trouble

    def close(self) -> None:
        """Drop all connections and the cluster's map."""
        for connection in self._open.values():
            connection.close()
        self._open.clear()
        self._owners = []


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
