"""Commands of the online store as words, and what their replies mean. No connection here."""

from collections.abc import Sequence
from typing import Final, cast

from features.catalogue import Catalogue
from features.claim import CLAIM_LIFETIME_S, Origins
from features.library import (
    STATUS,
    Keys,
    function_name,
    pack_arrival,
    pack_assertion,
)
from features.resp import Command, Packed, Reply, Word
from features.state import Assertion
from features.store import Arrival, Observed, Status, StoreMisused, Target

TAKEN: Final = (Status.NEW, Status.RECOVERED)


class Commands:
    """Commands for one catalogue and tenant. `takeover_ms`: age at which an open claim is taken over."""

    def __init__(self, catalogue: Catalogue, tenant: str, takeover_ms: int) -> None:
        self.keys = Keys(tenant, catalogue.state_fingerprint)
        self.takeover_ms = takeover_ms
        self.origins = Origins()
        # Both ends of an entity's keys: what stands before the pseudonym, and after it.
        self.ends = {name: self.keys.state(name, "\0").split("\0") for name in catalogue.entities}
        self._layouts = catalogue.layouts
        self._merges = {name: function_name(catalogue, "merge", name) for name in catalogue.entities}
        self.arrive_name = function_name(catalogue, "arrive")
        self._claim = function_name(catalogue, "claim")
        self._observe = function_name(catalogue, "observe")
        self.complete_name = function_name(catalogue, "complete")
        self._release = function_name(catalogue, "release")
        self._unindex = function_name(catalogue, "unindex")

    def arrive(self, arrival: Arrival, now_ms: int, deadline_ms: int) -> Command:
        """Claim and observe all targets at once: a single node only."""
        targets = b"".join([target.packed for target in arrival.targets])
        argument = pack_arrival(arrival, targets, now_ms, deadline_ms, self.takeover_ms)
        claim = self.origins.opened(arrival, now_ms)
        ends = self.ends
        keys = [pseudonym.join(ends[entity]) for entity, pseudonym, _ in arrival.targets]
        return (
            "FCALL",
            self.arrive_name,
            1 + len(keys),
            self.keys.claim(arrival.key),
            *keys,
            argument,
            claim,
        )

    def arrivals(
        self, arrivals: Sequence[Arrival], now_ms: int, deadline_ms: int
    ) -> Sequence[Command | Packed]:
        """`arrive` of each."""
        return [self.arrive(arrival, now_ms, deadline_ms) for arrival in arrivals]

    def answers(self, answers: Sequence[tuple[str, bytes, bytes]]) -> Sequence[Command | Packed]:
        """`complete` of each."""
        return [self.complete(*answer) for answer in answers]

    def claim(self, arrival: Arrival, now_ms: int, deadline_ms: int) -> Command:
        """Claim only."""
        argument = pack_arrival(arrival, b"", now_ms, deadline_ms, self.takeover_ms)
        claim = self.origins.opened(arrival, now_ms)
        return ("FCALL", self._claim, 1, self.keys.claim(arrival.key), argument, claim)

    def observe(self, target: Target, observe: bool, deadline_ms: int) -> Command:
        """One target of a claimed arrival."""
        argument = deadline_ms.to_bytes(8, "little") + bytes((observe,)) + target.packed
        return ("FCALL", self._observe, 1, self.keys.state(target.entity, target.pseudonym), argument)

    def complete(self, key: str, owner: bytes, answer: bytes) -> Command:
        """Answer an own claim."""
        claim = self.origins.answered(key, owner, answer)
        return ("FCALL", self.complete_name, 1, self.keys.claim(key), CLAIM_LIFETIME_S, claim)

    def release(self, key: str, owner: bytes) -> Command:
        """Give up an own claim that was not answered."""
        return ("FCALL", self._release, 1, self.keys.claim(key), owner)

    def merge(self, entity: str, pseudonym: str, asserted: Assertion) -> Command:
        """Join absolute values into one state."""
        rows = pack_assertion(self._layouts[entity], asserted)
        return ("FCALL", self._merges[entity], 1, self.keys.state(entity, pseudonym), rows)

    def index(self, arrivals: Sequence[Arrival], now_ms: int) -> Command:
        """Note claims as possibly open, before they are taken."""
        words: list[Word] = ["ZADD", self.keys.open_claims]
        for arrival in arrivals:
            words += (now_ms, arrival.key)
        return tuple(words)

    def unindex(self, noted: Sequence[tuple[bytes, bytes]]) -> Command:
        """Forget `(key, score)` unless it was noted again since."""
        return ("FCALL", self._unindex, 1, self.keys.open_claims, *(word for pair in noted for word in pair))

    def forget(self, keys: Sequence[str]) -> Command:
        """Forget claims that were answered."""
        return ("ZREM", self.keys.open_claims, *keys)


def observed(reply: Reply) -> Observed:
    """The reply of `arrive`: `[status]`, `[replay, answer]` or `[status, number, state, number, state...]`.

    Raises `StoreMisused` for anything else.
    """
    if isinstance(reply, list) and reply and isinstance(code := reply[0], int):
        if len(reply) == 1:
            return Observed(STATUS[code])
        if len(reply) % 2:
            return gathered(STATUS[code], reply[1::2], reply[2::2])
        if code == 3 and len(reply) == 2 and isinstance(answer := reply[1], bytes):
            return Observed(Status.REPLAY, answer)
    raise StoreMisused(f"unexpected reply to an arrival: {reply!r}")


def gathered(status: Status, numbers: Sequence[Reply], states: Sequence[Reply]) -> Observed:
    """A taken claim with its targets; a negative running number says that the event was counted before."""
    counted = cast(tuple[int, ...], tuple(numbers))
    before = cast(tuple[bytes | None, ...], tuple(states))
    if min(counted, default=0) >= 0:
        return Observed(status, None, before, counted, (False,) * len(counted))
    return Observed(status, None, before, tuple(map(abs, counted)), tuple(n < 0 for n in counted))
