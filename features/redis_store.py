"""The online store on one Valkey or Redis node: one pipelined round trip per batch of arrivals.

The functions are loaded when a connection opens, and again when the server has lost them. Which server
this is and whether it kept its data is the *generation*: a token stored beside the data and the server's
run id. It is read at each connect, and the token again in every batch, after the arrivals: what a batch
saw belongs to the generation that `generation()` names afterwards, or to one before it.

Claims that may be open are noted in a sorted set before they are taken. Whoever answers one strikes it
off with its next batch; `open_claims` looks at the claims themselves and tidies up what was left.
"""

import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from features.catalogue import Catalogue
from features.cluster_store import ClusterStore
from features.command import Commands, observed
from features.library import generation, parse_watermark
from features.node import (
    Limits,
    check_fitness,
    found_claim,
    load,
    open_claims,
    pairs,
    patience_s,
    replies_of,
    run_id,
    token,
)
from features.resp import (
    Address,
    Answer,
    Command,
    Connection,
    FunctionMissing,
    Owed,
    Packed,
    Reply,
)
from features.state import Assertion
from features.store import Arrival, Claim, Observed, OnlineStore, Positions, StoreUnavailable
from features.watch import watch


def connect(
    url: str,
    catalogue: Catalogue,
    tenant: str,
    limits: Limits | None = None,
    new_token: Callable[[], str] = lambda: secrets.token_hex(8),
    commands: Callable[[Catalogue, str, int], Commands] = Commands,
) -> OnlineStore:
    """The store at `unix:///path`, `redis://host:port/db` or `cluster://host:port,host:port`.

    One store per thread. Nothing is sent yet: whether the server is there, and fit, shows at the first
    call. `new_token` names the generation of an empty store. `commands`: how a single node's
    are made. Raises `StoreMisused` for another URL.
    """
    if url.startswith("cluster://"):
        return ClusterStore(addresses(url), catalogue, tenant, limits or Limits(), new_token)
    limits = limits or Limits()
    made = commands(catalogue, tenant, limits.takeover_ms)
    return RedisStore(Address.parse(url), catalogue, made, limits, new_token)


def addresses(url: str) -> tuple[Address, ...]:
    """Nodes of a cluster's URL; a password stands before the first. Raises `StoreMisused`."""
    scheme, _, rest = url.partition("://")
    first, *others = rest.rstrip("/").split(",")
    credentials, at, _ = first.rpartition("@")
    nodes = [first, *(credentials + at + other for other in others)]
    return tuple(Address.parse(f"{scheme}://{node}") for node in nodes)


@dataclass(frozen=True, slots=True)
class _Flight:
    """Arrivals whose replies nobody has read: all commands that were sent, how many precede theirs, and until
    when to wait."""

    sent: Sequence[Command | Packed]
    before: int
    owed: Owed
    until_s: float


class RedisStore:
    """`OnlineStore` on one node. Not for several threads."""

    def __init__(
        self,
        address: Address,
        catalogue: Catalogue,
        commands: Commands,
        limits: Limits,
        new_token: Callable[[], str],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._commands = commands
        self._catalogue = catalogue
        self._new_token = new_token
        self._token: bytes | None = None
        self._generation = ""
        self._answered: list[str] = []
        self._posted: list[tuple[list[str], Owed]] = []
        self._departed: deque[_Flight] = deque()
        self._inquiry: Owed | None = None
        self._monotonic = monotonic
        self._watch = watch()
        self.descriptor = None if self._watch is None else self._watch.descriptor
        self._connection = Connection(
            address, connect_s=limits.connect_s, read_s=limits.read_s, greet=self._greet, watch=self._watch
        )

    def arrive(self, arrivals: Sequence[Arrival], *, now_ms: int, deadline_ms: int) -> list[Observed]:
        """See `OnlineStore.arrive`: one round trip, each arrival atomic."""
        return self._landed(self._depart(arrivals, now_ms, deadline_ms))

    def depart(self, arrivals: Sequence[Arrival], *, now_ms: int, deadline_ms: int) -> None:
        """See `OnlineStore.depart`."""
        self._departed.append(self._depart(arrivals, now_ms, deadline_ms))

    def landed(self) -> bool:
        """See `OnlineStore.landed`."""
        self._connection.gather()
        if not self._departed:
            return True
        first = self._departed[0]
        return first.owed.lost or first.owed.is_complete or self._monotonic() > first.until_s

    def land(self) -> list[Observed]:
        """See `OnlineStore.land`."""
        return self._landed(self._departed.popleft())

    def _depart(self, arrivals: Sequence[Arrival], now_ms: int, deadline_ms: int) -> _Flight:
        until_s = self._monotonic() + patience_s(now_ms, deadline_ms)
        if not arrivals:
            return _Flight([], 0, Owed(0), until_s)
        commands = self._commands
        before = [commands.index(arrivals, now_ms)]
        if self._answered:
            before.insert(0, commands.forget(self._answered))
            self._answered = []
        last: Command = ("GET", commands.keys.generation)
        sent = [*before, *commands.arrivals(arrivals, now_ms, deadline_ms), last]
        return _Flight(sent, len(before), self._connection.post(sent), until_s)

    def _landed(self, flight: _Flight) -> list[Observed]:
        left_s = max(0.0, flight.until_s - self._monotonic())
        replies = self._repaired(flight.sent, self._connection.settle(flight.owed, left_s), left_s)
        if replies and replies[-1] != self._token:
            self._token = None
        return [observed(reply) for reply in replies[flight.before : -1]]

    def complete(self, answers: Sequence[tuple[str, bytes, bytes]]) -> list[bool]:
        """See `OnlineStore.complete`."""
        replies = self._ask(self._commands.answers(answers))
        return self._completed([key for key, _, _ in answers], replies)

    def post(self, answers: Sequence[tuple[str, bytes, bytes]]) -> None:
        """See `OnlineStore.post`."""
        owed = self._connection.post(self._commands.answers(answers), later=True)
        self._posted.append(([key for key, _, _ in answers], owed))

    def flush(self) -> None:
        """See `OnlineStore.flush`."""
        self._connection.flush()

    def posted(self, *, wait: bool = False) -> list[bool]:
        """See `OnlineStore.posted`."""
        waiting, self._posted = self._posted, []
        done: list[bool] = []
        for number, (keys, owed) in enumerate(waiting):
            if not (wait or owed.lost or owed.is_complete):
                self._posted = waiting[number:]
                break
            done += self._completed(keys, replies_of(self._connection.settle(owed)))
        return done

    def _completed(self, keys: Sequence[str], replies: Sequence[Reply]) -> list[bool]:
        done = [reply == 1 for reply in replies]
        self._answered += [key for key, mine in zip(keys, done, strict=True) if mine]
        return done

    def claim(self, key: str) -> Claim | None:
        """See `OnlineStore.claim`."""
        return self.claims([key])[0]

    def claims(self, keys: Sequence[str]) -> list[Claim | None]:
        """See `OnlineStore.claims`."""
        replies = self._ask([("GET", self._commands.keys.claim(key)) for key in keys]) if keys else []
        return [found_claim(reply) for reply in replies]

    def open_claims(self, older_than_ms: int, limit: int) -> list[tuple[str, Claim]]:
        """See `OnlineStore.open_claims`."""
        return open_claims(self._ask, self._commands, older_than_ms, limit)

    def read(self, entity: str, pseudonyms: Sequence[str]) -> list[bytes | None]:
        """See `OnlineStore.read`."""
        replies = self._ask([("GET", self._commands.keys.state(entity, p)) for p in pseudonyms])
        return [reply if isinstance(reply, bytes) else None for reply in replies]

    def merge(self, entity: str, assertions: Sequence[tuple[str, Assertion]]) -> None:
        """See `OnlineStore.merge`."""
        self._ask([self._commands.merge(entity, p, asserted) for p, asserted in assertions])

    def delete(self, entity: str, pseudonyms: Sequence[str]) -> int:
        """See `OnlineStore.delete`."""
        replies = self._ask([("DEL", self._commands.keys.state(entity, p)) for p in pseudonyms])
        return sum(reply == 1 for reply in replies)

    def generation(self) -> str:
        """See `OnlineStore.generation`: that of the last round trip, asked for anew after a failure."""
        if not self._connection.is_open:
            self._ask([("PING",)])
        elif self._token is None:
            self._identify(self._connection)
        return self._generation

    def rebuilding(self) -> bool:
        """See `OnlineStore.rebuilding`."""
        return self._ask([("EXISTS", self._commands.keys.rebuilding)])[0] == 1

    def watermark(self) -> Positions:
        """See `OnlineStore.watermark`."""
        return parse_watermark(pairs(self._ask([("HGETALL", self._commands.keys.watermark)])[0]))

    def inquire(self) -> None:
        """See `OnlineStore.inquire`."""
        keys = self._commands.keys
        asked: list[Command] = [("EXISTS", keys.rebuilding), ("HGETALL", keys.watermark)]
        self._inquiry = self._connection.post(asked, later=True)

    def inquired(self) -> tuple[bool, Positions] | None:
        """See `OnlineStore.inquired`."""
        owed = self._inquiry
        if owed is None or not (owed.lost or owed.is_complete):
            return None
        self._inquiry = None
        rebuilding, watermark = replies_of(self._connection.settle(owed))
        return rebuilding == 1, parse_watermark(pairs(watermark))

    def close(self) -> None:
        """Strike answered claims off, if the server is there, and close the connection."""
        with suppress(StoreUnavailable):
            if self._posted:
                self.posted(wait=True)
            if self._answered and self._connection.is_open:
                self._connection.pipeline([self._commands.forget(self._answered)])
        self._connection.close()
        if self._watch is not None:
            self._watch.close()

    def _ask(self, commands: Sequence[Command | Packed], limit_s: float | None = None) -> list[Reply]:
        """Replies. Raises the first error."""
        return self._repaired(commands, self._connection.pipeline(commands, limit_s), limit_s)

    def _repaired(
        self, commands: Sequence[Command | Packed], answers: list[Answer], limit_s: float | None
    ) -> list[Reply]:
        """The replies; functions that the server lost are loaded and called again. Raises the first error."""
        lost = [i for i, answer in enumerate(answers) if isinstance(answer, FunctionMissing)]
        if lost:
            load(self._connection, self._catalogue)
            again = self._connection.pipeline([commands[i] for i in lost], limit_s)
            for i, answer in zip(lost, again, strict=True):
                answers[i] = answer
        return replies_of(answers)

    def _greet(self, connection: Connection) -> None:
        check_fitness(connection)
        load(connection, self._catalogue)
        self._identify(connection)

    def _identify(self, connection: Connection) -> None:
        self._token = token(connection, self._commands.keys.generation, self._new_token)
        self._generation = generation(self._token.decode(), run_id(connection))
