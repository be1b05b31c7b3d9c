"""The online store in memory: the reference that every other implementation must equal."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from features.layout import Layout
from features.library import unpack_target
from features.state import Assertion, State
from features.store import Arrival, Claim, Observed, Positions, Status

TAKEOVER_MS = 5_000


@dataclass(slots=True)
class MemoryStore:
    """`OnlineStore` in a dictionary. `clock` is the store's own wall clock in milliseconds."""

    layouts: Mapping[str, Layout]
    clock: Callable[[], int]
    takeover_ms: int = TAKEOVER_MS
    descriptor: int | None = field(default=None, init=False)
    _states: dict[tuple[str, str], bytes] = field(default_factory=dict, init=False)
    _claims: dict[str, Claim] = field(default_factory=dict, init=False)
    _posted: list[bool] = field(default_factory=list, init=False)
    _departed: deque[list[Observed]] = field(default_factory=deque, init=False)
    _asked: bool = field(default=False, init=False)

    def arrive(self, arrivals: Sequence[Arrival], *, now_ms: int, deadline_ms: int) -> list[Observed]:
        """See `OnlineStore.arrive`."""
        return [self._arrive(a, now_ms, deadline_ms) for a in arrivals]

    def _arrive(self, arrival: Arrival, now_ms: int, deadline_ms: int) -> Observed:
        if self.clock() > deadline_ms:
            return Observed(Status.EXPIRED)
        held = self._claims.get(arrival.key)
        if held is not None:
            if held.content != arrival.content:
                return Observed(Status.CONFLICT)
            if held.answer is not None:
                return Observed(Status.REPLAY, held.answer)
            if now_ms - held.claimed_ms < self.takeover_ms:
                return Observed(Status.PENDING)
        self._claims[arrival.key] = Claim(arrival.content, arrival.owner, now_ms, None, arrival.payload)
        states, numbers, repeated = [], [], []
        for target in arrival.targets:
            before = self._states.get((target.entity, target.pseudonym))
            state = State.decode(self.layouts[target.entity], before)
            seen = unpack_target(self.layouts[target.entity], target.packed)
            counted = arrival.observe and state.observe(seen)
            if counted:
                self._states[target.entity, target.pseudonym] = state.encode()
            states.append(before)
            numbers.append(state.n if arrival.observe else 0)
            repeated.append(arrival.observe and not counted)
        status = Status.NEW if held is None else Status.RECOVERED
        return Observed(status, None, tuple(states), tuple(numbers), tuple(repeated))

    def depart(self, arrivals: Sequence[Arrival], *, now_ms: int, deadline_ms: int) -> None:
        """See `OnlineStore.depart`."""
        self._departed.append(self.arrive(arrivals, now_ms=now_ms, deadline_ms=deadline_ms))

    def landed(self) -> bool:
        """See `OnlineStore.landed`."""
        return True

    def land(self) -> list[Observed]:
        """See `OnlineStore.land`."""
        return self._departed.popleft()

    def complete(self, answers: Sequence[tuple[str, bytes, bytes]]) -> list[bool]:
        """See `OnlineStore.complete`."""
        done = []
        for key, owner, answer in answers:
            held = self._claims.get(key)
            mine = held is not None and held.owner == owner
            if held is not None and mine:
                self._claims[key] = replace(held, answer=answer, payload=None)
            done.append(mine)
        return done

    def post(self, answers: Sequence[tuple[str, bytes, bytes]]) -> None:
        """See `OnlineStore.post`."""
        self._posted += self.complete(answers)

    def flush(self) -> None:
        """See `OnlineStore.flush`: everything was sent."""

    def posted(self, *, wait: bool = False) -> list[bool]:
        """See `OnlineStore.posted`."""
        found, self._posted = self._posted, []
        return found

    def claim(self, key: str) -> Claim | None:
        """See `OnlineStore.claim`."""
        return self._claims.get(key)

    def claims(self, keys: Sequence[str]) -> list[Claim | None]:
        """See `OnlineStore.claims`."""
        return [self._claims.get(key) for key in keys]

    def open_claims(self, older_than_ms: int, limit: int) -> list[tuple[str, Claim]]:
        """See `OnlineStore.open_claims`."""
        found = [(k, c) for k, c in self._claims.items() if c.answer is None and c.claimed_ms < older_than_ms]
        return sorted(found, key=lambda item: item[1].claimed_ms)[:limit]

    def read(self, entity: str, pseudonyms: Sequence[str]) -> list[bytes | None]:
        """See `OnlineStore.read`."""
        return [self._states.get((entity, p)) for p in pseudonyms]

    def merge(self, entity: str, assertions: Sequence[tuple[str, Assertion]]) -> None:
        """See `OnlineStore.merge`."""
        for pseudonym, asserted in assertions:
            state = State.decode(self.layouts[entity], self._states.get((entity, pseudonym)))
            state.merge(asserted)
            self._states[entity, pseudonym] = state.encode()

    def delete(self, entity: str, pseudonyms: Sequence[str]) -> int:
        """See `OnlineStore.delete`."""
        return sum(self._states.pop((entity, p), None) is not None for p in pseudonyms)

    def generation(self) -> str:
        """See `OnlineStore.generation`."""
        return "memory"

    def rebuilding(self) -> bool:
        """See `OnlineStore.rebuilding`."""
        return False

    def watermark(self) -> Positions:
        """See `OnlineStore.watermark`."""
        return {}

    def inquire(self) -> None:
        """See `OnlineStore.inquire`."""
        self._asked = True

    def inquired(self) -> tuple[bool, Positions] | None:
        """See `OnlineStore.inquired`."""
        asked, self._asked = self._asked, False
        return (self.rebuilding(), self.watermark()) if asked else None

    def close(self) -> None:
        """Nothing to release."""
