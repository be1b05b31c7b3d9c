"""The online store on a Redis Cluster: the claim, then the observations, in two pipelined round trips.

Each key is its own hash tag, so a transaction's entities live on several nodes and cannot be observed in
one step. What holds nevertheless, and what does not:

* one claim decides who observes; each entity is observed atomically;
* an attempt that ended half-way is taken over, and the ring of recent events of each entity prevents
  counting twice; an entity that saw more than four other events in between is counted twice until the
  state expires;
* an arrival that could not be observed as a whole is `EXPIRED`: its new claim is given up. What had
  been observed of it stays, and is a part of what the log's lane asserts once the decision is logged;
* a moved slot answers with a redirection, before anything is done: the command is sent again, once.

The generation names the primaries' processes and the token: a failover changes it (replication is
asynchronous), a slot that moves between known primaries does not.
"""

import time
from binascii import crc_hqx
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from features.catalogue import Catalogue
from features.command import TAKEN, Commands, gathered, observed
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
from features.resp import Address, Answer, Command, Connection, FunctionMissing, Owed, Redirected, Reply
from features.state import Assertion
from features.store import (
    Arrival,
    Claim,
    Observed,
    Positions,
    Status,
    StoreMisused,
    StoreUnavailable,
)

SLOTS: Final = 16_384
ATTEMPTS: Final = 6
GIVEN_UP: Final = 1_024
RELEASE_S: Final = 0.005


def slot(key: str) -> int:
    """Hash slot of a key: CRC-16/XMODEM of what stands in the first braces (Redis Cluster specification)."""
    start = key.find("{")
    end = key.find("}", start + 1)
    tag = key[start + 1 : end] if start >= 0 and end > start + 1 else key
    return crc_hqx(tag.encode(), 0) % SLOTS


def key_of(command: Command) -> str:
    """The key that decides where a command goes."""
    word = command[3] if command[0] == "FCALL" else command[1]
    return word if isinstance(word, str) else str(word)


class ClusterStore:
    """`OnlineStore` on a cluster. Not for several threads."""

    descriptor: int | None = None

    def __init__(
        self,
        seeds: Sequence[Address],
        catalogue: Catalogue,
        tenant: str,
        limits: Limits,
        new_token: Callable[[], str],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seeds = tuple(seeds)
        self._catalogue = catalogue
        self._limits = limits
        self._commands = Commands(catalogue, tenant, limits.takeover_ms)
        self._new_token = new_token
        self._monotonic = monotonic
        self._nodes: dict[str, Connection] = {}
        self._run_ids: dict[str, str] = {}
        self._owners: list[str] = []
        self._token: bytes | None = None
        self._answered: list[str] = []
        self._posted: list[bool] = []
        self._departed: deque[list[Observed]] = deque()
        self._inquired: tuple[bool, Positions] | None = None
        self._given_up: list[tuple[str, bytes]] = []

    def arrive(self, arrivals: Sequence[Arrival], *, now_ms: int, deadline_ms: int) -> list[Observed]:
        """See `OnlineStore.arrive`. Raises `StoreUnavailable` only if no arrival of the batch got through."""
        if not arrivals:
            return []
        commands = self._commands
        self._release(())
        # Half of the time for the claims: what a node that hangs does not claim keeps nobody else waiting.
        claim_by_ms = deadline_ms - max(0, deadline_ms - now_ms) // 2
        before: list[Command] = [("GET", commands.keys.generation), commands.index(arrivals, now_ms)]
        if self._answered:
            before.append(commands.forget(self._answered))
            self._answered = []
        claims = [commands.claim(a, now_ms, claim_by_ms) for a in arrivals]
        held, noted, *answers = self._round([*before, *claims], patience_s(now_ms, claim_by_ms))
        if held != self._token:
            self._token = None
        answers = answers[len(before) - 2 :]
        taken = [_taken(answer) for answer in answers]
        if isinstance(noted, Exception):
            # Nobody would find a claim that a crash leaves open: nothing may be observed.
            return self._settled(arrivals, taken, [noted] * len(arrivals))
        targets = [(a, t) for a, mine in zip(arrivals, taken, strict=True) if mine for t in a.targets]
        calls = [commands.observe(target, a.observe, deadline_ms) for a, target in targets]
        replies = iter(self._round(calls, patience_s(claim_by_ms, deadline_ms)))
        found: list[Observed | Exception] = []
        for arrival, answer, mine in zip(arrivals, answers, taken, strict=True):
            if mine:
                found.append(_whole(mine, [next(replies) for _ in arrival.targets]))
            else:
                found.append(answer if isinstance(answer, Exception) else observed(answer))
        return self._settled(arrivals, taken, found)

    def depart(self, arrivals: Sequence[Arrival], *, now_ms: int, deadline_ms: int) -> None:
        """See `OnlineStore.depart`; here it waits, since an arrival takes two round trips."""
        self._departed.append(self.arrive(arrivals, now_ms=now_ms, deadline_ms=deadline_ms))

    def landed(self) -> bool:
        """See `OnlineStore.landed`."""
        return True

    def land(self) -> list[Observed]:
        """See `OnlineStore.land`."""
        return self._departed.popleft()

    def _settled(
        self,
        arrivals: Sequence[Arrival],
        taken: Sequence[Status | None],
        found: Sequence[Observed | Exception],
    ) -> list[Observed]:
        """Results of a batch; claims of arrivals that were not observed as a whole are given up."""
        for result in found:
            if isinstance(result, Exception) and not isinstance(result, StoreUnavailable):
                raise result
        lost = [i for i, result in enumerate(found) if isinstance(result, StoreUnavailable)]
        # A claim taken over stays open: an earlier attempt may have observed for it.
        self._release([arrivals[i] for i in lost if taken[i] is not Status.RECOVERED])
        if len(lost) == len(found):
            raise StoreUnavailable(str(found[0]))
        return [Observed(Status.EXPIRED) if isinstance(r, Exception) else r for r in found]

    def _release(self, arrivals: Sequence[Arrival]) -> None:
        """Give up new claims now where their node is connected, the others once it is again."""
        self._given_up = [*self._given_up, *((a.key, a.owner) for a in arrivals)][-GIVEN_UP:]
        if not self._given_up:
            return
        with suppress(StoreUnavailable):
            self._owner(0)
        commands = [self._commands.release(*claim) for claim in self._given_up]
        reachable = [c for c in commands if self._is_connected(slot(key_of(c)))]
        answers = dict(zip(map(key_of, reachable), self._round(reachable, RELEASE_S), strict=True))
        done = {key for key, answer in answers.items() if not isinstance(answer, Exception)}
        self._given_up = [c for c in self._given_up if self._commands.keys.claim(c[0]) not in done]

    def complete(self, answers: Sequence[tuple[str, bytes, bytes]]) -> list[bool]:
        """See `OnlineStore.complete`."""
        replies = self._ask([self._commands.complete(*answer) for answer in answers])
        done = [reply == 1 for reply in replies]
        self._answered += [key for (key, _, _), mine in zip(answers, done, strict=True) if mine]
        return done

    def post(self, answers: Sequence[tuple[str, bytes, bytes]]) -> None:
        """See `OnlineStore.post`; here it waits, since answers go to several nodes."""
        self._posted += self.complete(answers)

    def flush(self) -> None:
        """See `OnlineStore.flush`: everything was sent."""

    def posted(self, *, wait: bool = False) -> list[bool]:
        """See `OnlineStore.posted`."""
        found, self._posted = self._posted, []
        return found

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
        known = self._token
        if known is None or not self._owners or not all(node.is_open for node in self._nodes.values()):
            self._locate()
            known = self._token = self._identify()
        return generation(known.decode(), *self._run_ids.values())

    def rebuilding(self) -> bool:
        """See `OnlineStore.rebuilding`."""
        return self._ask([("EXISTS", self._commands.keys.rebuilding)])[0] == 1

    def inquire(self) -> None:
        """See `OnlineStore.inquire`; here it waits, since the answers lie on several nodes."""
        self._inquired = self.rebuilding(), self.watermark()

    def inquired(self) -> tuple[bool, Positions] | None:
        """See `OnlineStore.inquired`."""
        found, self._inquired = self._inquired, None
        return found

    def watermark(self) -> Positions:
        """See `OnlineStore.watermark`."""
        return parse_watermark(pairs(self._ask([("HGETALL", self._commands.keys.watermark)])[0]))

    def close(self) -> None:
        """Strike answered claims off, where the servers are there, and close the connections."""
        if self._answered and self._owners:
            self._round([self._commands.forget(self._answered)], self._limits.read_s)
        for connection in self._nodes.values():
            connection.close()

    def _ask(self, commands: Sequence[Command]) -> list[Reply]:
        return replies_of(self._round(commands, self._limits.read_s))

    def _round(self, commands: Sequence[Command], limit_s: float) -> list[Answer]:
        """One pipelined round trip to every node concerned; redirected commands are sent again, in order."""
        until = self._monotonic() + limit_s
        answers: list[Answer] = [None] * len(commands)
        waiting = dict.fromkeys(range(len(commands)), "")
        asking: set[int] = set()
        for _ in range(ATTEMPTS):
            if not waiting:
                break
            answers_now = self._once(commands, waiting, asking, until)
            waiting, asking = {}, set()
            for i, answer in answers_now.items():
                answers[i] = answer
                if isinstance(answer, Redirected):
                    waiting[i] = answer.address
                    asking |= {i} if answer.ask else set()
                elif isinstance(answer, FunctionMissing):
                    waiting[i] = ""
            self._repair(answers_now)
        return answers

    def _once(
        self, commands: Sequence[Command], waiting: dict[int, str], asking: set[int], until: float
    ) -> dict[int, Answer]:
        """Send `waiting` (index -> node, or none for the slot's owner); the answers by index."""
        found: dict[int, Answer] = {}
        groups: dict[str, list[int]] = {}
        for i, node in waiting.items():
            try:
                groups.setdefault(node or self._owner(slot(key_of(commands[i]))), []).append(i)
            except StoreUnavailable as error:
                found[i] = error
        sent: dict[str, tuple[list[int], Owed]] = {}
        # Those that are connected first: they do not wait while others are being connected.
        for node, group in sorted(groups.items(), key=lambda item: not self._node(item[0]).is_open):
            words: list[Command] = []
            for i in group:
                words += [("ASKING",), commands[i]] if i in asking else [commands[i]]
            try:
                sent[node] = group, self._node(node).post(words)
            except StoreUnavailable as error:
                found.update(dict.fromkeys(group, error))
        for node, (group, owed) in sent.items():
            left_s = max(0.0, until - self._monotonic())
            try:
                replies = self._node(node).settle(owed, left_s)
            except StoreUnavailable as error:
                found.update(dict.fromkeys(group, error))
                continue
            answers = iter(replies)
            for i in group:
                if i in asking:
                    next(answers)
                found[i] = next(answers)
        return {i: found[i] for i in waiting}

    def _repair(self, answers: dict[int, Answer]) -> None:
        """Before the next attempt or call: learn who owns the slots, load functions that were lost."""
        failures = [a for a in answers.values() if isinstance(a, StoreUnavailable)]
        if any(isinstance(f, FunctionMissing) for f in failures):
            for node in self._nodes.values():
                with suppress(StoreUnavailable):
                    load(node, self._catalogue)
        for failure in failures:
            if isinstance(failure, Redirected) and not failure.ask and self._owners:
                self._owners[failure.slot] = failure.address
        if any(not isinstance(f, Redirected | FunctionMissing) for f in failures):
            self._owners = []

    def _owner(self, number: int) -> str:
        if not self._owners:
            self._locate()
        owner = self._owners[number]
        if not owner:
            raise StoreUnavailable(f"no node serves slot {number}")
        return owner

    def _is_connected(self, number: int) -> bool:
        node = self._nodes.get(self._owners[number]) if self._owners else None
        return node is not None and node.is_open

    def _node(self, name: str) -> Connection:
        if name not in self._nodes:
            host, _, port = name.rpartition(":")
            # A node that does not know its own address leaves the host out.
            host = host or self._seeds[0].host
            address = Address(host=host, port=int(port), password=self._seeds[0].password)
            self._nodes[name] = self._connection(address)
        return self._nodes[name]

    def _connection(self, address: Address) -> Connection:
        limits = self._limits
        return Connection(address, connect_s=limits.connect_s, read_s=limits.read_s, greet=self._greet)

    def _greet(self, connection: Connection) -> None:
        check_fitness(connection)
        load(connection, self._catalogue)
        self._run_ids[str(connection.address)] = run_id(connection)

    def _locate(self) -> None:
        """Ask the known nodes, then the seeds, who owns which slots. Raises `StoreUnavailable`."""
        failure = StoreUnavailable("no node of the cluster")
        connected = (name for name, node in self._nodes.items() if node.is_open)
        for name in dict.fromkeys((*connected, *self._nodes, *map(str, self._seeds))):
            try:
                ranges = self._node(name).call("CLUSTER", "SLOTS")
            except StoreUnavailable as error:
                failure = error
                continue
            self._owners = [""] * SLOTS
            for first, last, owner in _ranges(ranges):
                self._owners[first : last + 1] = [owner] * (last - first + 1)
            self._forget_others(set(filter(None, self._owners)))
            return
        raise failure

    def _forget_others(self, owners: Iterable[str]) -> None:
        for name in set(self._nodes) - set(owners):
            self._nodes.pop(name).close()
            self._run_ids.pop(name, None)

    def _identify(self) -> bytes:
        """The token; connects to every primary, so that its run id is known."""
        key = self._commands.keys.generation
        for name in sorted(set(self._owners)):
            if not self._node(name).is_open:
                self._node(name).call("PING")
        return token(self._node(self._owner(slot(key))), key, self._new_token)


def _taken(answer: Answer) -> Status | None:
    if isinstance(answer, Exception):
        return None
    status = observed(answer).status
    return status if status in TAKEN else None


def _whole(status: Status, replies: Sequence[Answer]) -> Observed | Exception:
    """The arrival's targets together; what is missing of it if one was not observed."""
    numbers: list[Reply] = []
    states: list[Reply] = []
    for reply in replies:
        match reply:
            case [number, state]:
                numbers.append(number)
                states.append(state)
            case None:
                return StoreUnavailable("the deadline passed between the claim and an observation")
            case Exception():
                return reply
            case _:
                return StoreMisused(f"unexpected reply to an observation: {reply!r}")
    return gathered(status, numbers, states)


def _ranges(reply: Reply) -> list[tuple[int, int, str]]:
    """`CLUSTER SLOTS` as `(first, last, address of the primary)`."""
    found = []
    for item in reply if isinstance(reply, list) else []:
        match item:
            case [int(first), int(last), [bytes(host), int(port), *_], *_]:
                found.append((first, last, f"{host.decode()}:{port}"))
            case _:
                raise StoreMisused(f"unexpected reply to CLUSTER SLOTS: {item!r}")
    return found
