"""RESP over a socket: pipelined commands, time limits, errors that say what to do.

A round trip costs about a microsecond per command here, where a general client costs tens.

    StoreUnavailable    no connection, no answer in time, out of memory, loading, read-only replica
    FunctionMissing     the server has no such function: load the library, send the command again
    Redirected          a cluster node says that another one serves the slot
    StoreMisused        everything else: a bug or a wrong configuration
"""

import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

import hiredis

from features.store import StoreMisused, StoreUnavailable
from features.watch import Watch

Word = bytes | str | int
Command = tuple[Word, ...]
Packed = bytes
"""A command as it goes over the wire."""
Reply = bytes | int | None | list["Reply"]
READ_BYTES: Final = 262_144
SEND_BYTES: Final = 4_194_304
PAUSE_S: Final = 0.05
# Error codes after which the same command may succeed, with nothing wrong on our side.
_PASSING: Final = frozenset(
    {"OOM", "LOADING", "READONLY", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "MISCONF"}
)
_NOTHING: Final = object()
# The stub of hiredis allows commands of one word only.
_pack_words: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]


def _pack(command: Command | Packed) -> bytes:
    return command if isinstance(command, bytes) else _pack_words(command)


class FunctionMissing(StoreUnavailable):
    """The server does not have the function: load the library and repeat."""


class Redirected(StoreUnavailable):
    """Another node serves the slot; `ask`: only for this command, not yet for good."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        kind, slot, address = text.split(" ")[:3]
        self.ask = kind == "ASK"
        self.slot = int(slot)
        self.address = address


Answer = Reply | StoreUnavailable | StoreMisused


@dataclass(slots=True)
class Owed:
    """The replies to one `post`, as far as they have been read; `lost`: the rest will not come."""

    count: int
    answers: list[Answer] = field(default_factory=list)
    lost: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether all of them have been read."""
        return len(self.answers) == self.count


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: a unix socket's path, or a host and port."""

    path: str = ""
    host: str = ""
    port: int = 6379
    password: str = ""
    database: int = 0

    @classmethod
    def parse(cls, url: str) -> "Address":
        """`unix:///path` or `redis://[:password@]host[:port][/database]`. Raises `StoreMisused`."""
        parts = urlsplit(url)
        password = unquote(parts.password or "")
        if parts.scheme == "unix" and parts.path:
            return cls(path=unquote(parts.path), password=password)
        if parts.scheme in ("redis", "cluster") and parts.hostname:
            database = parts.path.strip("/")
            if database and not database.isdigit():
                raise StoreMisused(f"{url}: the database is a number, not {database!r}")
            return cls("", parts.hostname, parts.port or 6379, password, int(database or 0))
        raise StoreMisused(f"store URL {url!r}: use unix:///path, redis://host:port or cluster://host:port")

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def fault(text: str) -> StoreUnavailable | StoreMisused:
    """The error that a server's error reply stands for."""
    code = text.split(" ", 1)[0]
    if code in ("MOVED", "ASK"):
        return Redirected(text)
    if "Function not found" in text:
        return FunctionMissing(text)
    if code in _PASSING or "max number of clients" in text:
        return StoreUnavailable(text)
    return StoreMisused(text)


class Connection:
    """One connection, opened when needed and again after a failure. Not for several threads.

    `connect_s`: limit of opening it, `greet` included, which is called with the new connection before
    any other command. `read_s`: limit of a round trip that brings none of its own. After a time-out the
    server is left alone for a moment, and for `hold_s` where it was the opening that timed out: not every
    caller has to wait for it. `watch`: by which an event loop hears of what comes.
    """

    def __init__(
        self,
        address: Address,
        *,
        connect_s: float = 0.5,
        read_s: float = 1.0,
        hold_s: float = 1.0,
        greet: Callable[["Connection"], None] | None = None,
        watch: Watch | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        self._connect_s = connect_s
        self._read_s = read_s
        self._hold_s = hold_s
        self._greet = greet
        self._watch = watch
        self._monotonic = monotonic
        self._socket: socket.socket | None = None
        self._opening_until_s: float | None = None
        self._held_until_s = 0.0
        self._reader = _reader()
        self._owed: deque[Owed] = deque()
        self._held: list[bytes] = []
        self._bytes = bytearray(READ_BYTES)

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._socket is not None

    def call(self, *words: Word) -> Reply:
        """One command. Raises what its reply stands for."""
        answer = self.pipeline([words])[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def pipeline(self, commands: Sequence[Command | Packed], limit_s: float | None = None) -> list[Answer]:
        """Send all, then read all replies; an error reply is returned in its place.

        Raises `StoreUnavailable` when the server is not there or slow: what it did is then unknown.
        """
        return self.settle(self.post(commands), limit_s)

    def post(self, commands: Sequence[Command | Packed], *, later: bool = False) -> Owed:
        """Send all and wait for nothing; `settle` gives the replies. Raises `StoreUnavailable`.

        `later`: they go with whatever is sent next, or by `flush`, or when their replies are asked for, so
        that they cost neither side a message of their own.
        """
        # Whether the server is still there is asked when something is sent.
        sock = self._socket if later and self._socket is not None else self._ready()
        self._held += map(_pack, commands)
        owed = Owed(len(commands))
        if commands:
            self._owed.append(owed)
        if not later:
            self._send(sock)
        return owed

    def flush(self) -> None:
        """Send what was posted for later. Raises `StoreUnavailable`: those replies will not come."""
        if self._held:
            self._send(self._ready())

    def _send(self, sock: socket.socket) -> None:
        held, self._held = memoryview(b"".join(self._held)), []
        until_s = self._monotonic() + self._read_s
        try:
            while held:
                try:
                    held = held[sock.send(held) :]
                except BlockingIOError:
                    self._wait(sock, select.POLLOUT, until_s)
        except OSError as error:
            self.close()
            raise StoreUnavailable(f"{self.address}: {error}") from error

    def settle(self, owed: Owed, limit_s: float | None = None) -> list[Answer]:
        """The replies to what was posted, within the limit; those to what was posted before are read first.

        Raises `StoreUnavailable`, also where the connection was lost meanwhile.
        """
        until_s = self._opening_until_s or self._monotonic() + (self._read_s if limit_s is None else limit_s)
        if not owed.lost and not owed.is_complete:
            self.flush()
            if self._watch is not None and self._owed[0] is not owed:
                self._watch.ring()
        try:
            while not owed.is_complete and not owed.lost:
                self._read(until_s)
        except (OSError, hiredis.ProtocolError) as error:
            self.close()
            if isinstance(error, TimeoutError):
                self._held_until_s = self._monotonic() + PAUSE_S
            raise StoreUnavailable(f"{self.address}: {error}") from error
        if owed.lost:
            raise StoreUnavailable(f"{self.address}: the connection was lost before its replies")
        return owed.answers

    def gather(self) -> None:
        """Take in what has come, and wait for nothing: a server that cannot get rid of its replies stands
        still."""
        sock = self._socket
        if self._watch is not None:
            self._watch.heard()
        if sock is None:
            return
        try:
            with suppress(BlockingIOError):
                count = READ_BYTES
                while count == READ_BYTES:
                    count = sock.recv_into(self._bytes)
                    self._feed(count)
            self._take()
        except (OSError, hiredis.ProtocolError):
            self.close()

    def _read(self, until_s: float) -> None:
        """All replies that are here, or more bytes. Raises `OSError`."""
        if self._take():
            return
        sock = self._socket
        if sock is None:
            raise OSError("not connected")
        try:
            count = sock.recv_into(self._bytes)
        except BlockingIOError:
            self._wait(sock, select.POLLIN, until_s)
            return
        self._feed(count)

    def _take(self) -> bool:
        """The replies that are here as a whole, for whoever waits longest; whether there were any."""
        next_reply, owed, taken = self._reader.gets, self._owed, False
        while owed:
            answers, count = owed[0].answers, owed[0].count
            while len(answers) < count:
                answer = next_reply()
                if answer is _NOTHING:
                    return taken
                answers.append(answer)
                taken = True
            owed.popleft()
        return taken

    def _feed(self, count: int) -> None:
        if not count:
            raise OSError("the server closed the connection")
        # The stub of hiredis allows text and bytes only.
        self._reader.feed(self._bytes, 0, count)  # type: ignore[arg-type]

    def _wait(self, sock: socket.socket, event: int, until_s: float) -> None:
        """Until something can be read or written. Raises `TimeoutError`."""
        poll = select.poll()
        poll.register(sock, event)
        if not poll.poll(max(0.0, until_s - self._monotonic()) * 1_000):
            raise TimeoutError("timed out")

    def close(self) -> None:
        """Drop the connection; the next command opens another one."""
        self._held = []
        while self._owed:
            self._owed.popleft().lost = True
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ready(self) -> socket.socket:
        """The open connection; a new one if the server has closed it meanwhile (it was restarted)."""
        if self._socket is not None:
            try:
                if self._socket.recv(1, socket.MSG_PEEK) and self._owed:
                    return self._socket
            except BlockingIOError:
                return self._socket
            except OSError:
                pass
            self.close()
        return self._open()

    def _open(self) -> socket.socket:
        now_s = self._monotonic()
        if now_s < self._held_until_s:
            raise StoreUnavailable(f"{self.address}: did not answer a moment ago")
        until_s = now_s + self._connect_s
        try:
            self._socket = sock = self._connect()
        except OSError as error:
            self._hold(until_s)
            raise StoreUnavailable(f"{self.address}: {error}") from error
        self._reader = _reader()
        if self._watch is not None:
            self._watch.add(sock)
        self._opening_until_s = until_s
        try:
            if self.address.password:
                self.call("AUTH", self.address.password)
            if self.address.database:
                self.call("SELECT", self.address.database)
            if self._greet is not None:
                self._greet(self)
        except (StoreUnavailable, StoreMisused):
            self.close()
            self._hold(until_s)
            raise
        finally:
            self._opening_until_s = None
        return sock

    def _hold(self, until_s: float) -> None:
        """Leave the server alone if it took all the time that there was; a refusal is quick."""
        now_s = self._monotonic()
        if now_s >= until_s:
            self._held_until_s = now_s + self._hold_s

    def _connect(self) -> socket.socket:
        if not self.address.path:
            sock = socket.create_connection((self.address.host, self.address.port), self._connect_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            return sock
        sock = socket.socket(socket.AF_UNIX)
        # As much as the system allows: who sends a batch does not wait for the server to work it off.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        sock.settimeout(self._connect_s)
        try:
            sock.connect(self.address.path)
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        return sock


def _reader() -> hiredis.Reader:
    return hiredis.Reader(replyError=fault, notEnoughData=_NOTHING)
