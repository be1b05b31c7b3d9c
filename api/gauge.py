"""How fresh the online state is: the store's generation and how far Flink has come, asked now and then."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from api.decide import Freshness, FreshnessState
from features.store import OnlineStore, Positions, StoreUnavailable

# What is older than so many intervals says nothing of now.
OLD: Final = 5


@dataclass(slots=True)
class FreshnessGauge:
    """Asks the store at most every `every_ms`; in between, answers from what it knows.

    A generation that differs from the one in Flink's positions means that state was lost and is being
    rebuilt. Lag: how long before the last decision Flink published a position; without traffic there is
    nothing to lag behind.
    """

    store: OnlineStore
    stale_after_ms: int
    every_ms: int = 100
    generation: str = ""
    _asked_ms: int = 0
    _known_ms: int = 0
    _last_decision_ms: int = 0
    _flink: Positions = field(default_factory=dict)
    _generations: set[str] = field(default_factory=set)
    _rebuilding: bool = False

    def refresh(self, now_ms: int) -> None:
        """Ask again if the answer is old. Raises `StoreUnavailable`."""
        if now_ms - self._asked_ms < self.every_ms:
            return
        self._rebuilding, self._flink = self.store.rebuilding(), self.store.watermark()
        self.note_generation()
        self._asked_ms = self._known_ms = now_ms

    def follow(self, now_ms: int) -> None:
        """`refresh` without a round trip of its own: what is asked goes with what is sent next, and is known
        with the batch after. Where too little has followed lately, it waits. Raises `StoreUnavailable`."""
        with suppress(StoreUnavailable):
            if (found := self.store.inquired()) is not None:
                self._rebuilding, self._flink = found
                self._known_ms = self._asked_ms
        if now_ms - self._known_ms >= OLD * self.every_ms:
            self._asked_ms = 0
            self.refresh(now_ms)
        elif now_ms - self._asked_ms >= self.every_ms:
            self.store.inquire()
            self._asked_ms = now_ms

    def note_generation(self) -> None:
        """Remember which life of the store the last call saw. Raises `StoreUnavailable`."""
        generation = self.store.generation()
        if generation != self.generation:
            self.generation = generation
            self._generations.add(generation)
            self.forget()

    def forget(self) -> None:
        """The connection was lost: whatever is known may be of another store."""
        self._asked_ms = self._known_ms = 0

    def decided(self, now_ms: int) -> None:
        """Something was decided, which Flink has yet to see."""
        self._last_decision_ms = now_ms

    def read(self) -> Freshness:
        """Freshness as known now."""
        own = [position for position in self._flink.values() if position[0] == self.generation]
        lag_ms = None
        if own:
            lag_ms = max(0, self._last_decision_ms - max(position[3] for position in own))
        return Freshness(self._state(bool(own), lag_ms), self.generation, lag_ms)

    def _state(self, reported: bool, lag_ms: int | None) -> FreshnessState:
        if self._rebuilding:
            return "rebuilding"
        if not reported and (self._flink or len(self._generations) > 1):
            return "rebuilding"
        if lag_ms is not None and lag_ms > self.stale_after_ms:
            return "stale"
        return "fresh"


def try_refresh(gauge: FreshnessGauge, now_ms: int) -> bool:
    """`refresh`, answering whether the store is there."""
    try:
        gauge.refresh(now_ms)
    except StoreUnavailable:
        gauge.forget()
        return False
    return True
