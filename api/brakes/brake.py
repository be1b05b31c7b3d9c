"""What a deciding process knows of its brakes: its own counts, those of the others, what is pulled.

The loop that decides asks and counts here, without any I/O; a patrol (patrol.py) beside it exchanges the
counts and takes the steps. A rule that reaches its cap by what this process knows is held from the next
decision on, also within a batch; nobody waits for the step to be written.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from api.brakes.cap import DECLINE_RATE, GUARD, Limits, counter, slot_of, total
from api.decide import Decision
from api.outcome import Outcome
from api.rules.rule import RuleSet
from api.rules.trips import Trip

_NONE: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Reached:
    """A cap that was reached here; the step is not written yet. `epoch`: of the brake when it was reached."""

    epoch: int
    at_ms: int
    until_ms: int
    why: str


class Brake:
    """The brakes of one process. `others`: what the others counted in the windows, by counter, as of the last
    exchange."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.others: Mapping[str, int] = {}
        self.trips: Mapping[str, Trip] = {}
        self.reached: dict[str, Reached] = {}
        self._own: dict[str, dict[int, int]] = {}
        self._decisions = counter(GUARD, 0, "decisions")
        self._slot = 0
        self._lock = threading.Lock()

    def adopt(self, trips: Mapping[str, Trip]) -> None:
        """What happened to the brakes, as it is written."""
        self.trips = trips
        self._decisions = counter(GUARD, self.epoch(GUARD), "decisions")
        self.reached = {n: r for n, r in self.reached.items() if self.epoch(n) <= r.epoch}

    def epoch(self, name: str) -> int:
        """The epoch of a brake."""
        trip = self.trips.get(name)
        return 0 if trip is None else trip.epoch

    def tripped(self, now_ms: int) -> frozenset[str]:
        """Rules that are dropped to shadow."""
        if not self.trips and not self.reached:
            return _NONE
        written = {name for name, trip in self.trips.items() if trip.holds(now_ms)}
        return frozenset(written | self.reached.keys()) - {GUARD}

    def guard(self, now_ms: int) -> str | None:
        """The mode in which nothing is declined, while it lasts."""
        trip = self.trips.get(GUARD)
        return DECLINE_RATE if trip is not None and trip.holds(now_ms) else None

    def begin(self, decisions: int, now_ms: int) -> str | None:
        """A batch is about to be decided; the mode in which."""
        if self.limits.rate is not None:
            self._count(self._decisions, now_ms, decisions)
        return self.guard(now_ms)

    def note(self, decision: Decision, rules: RuleSet, now_ms: int) -> bool:
        """Count a decision that asked for a decline; whether one of its rules has reached its cap by that."""
        if self.limits.rate is not None:
            self._count(counter(GUARD, self.epoch(GUARD), "declines"), now_ms, 1)
        if decision.winner.outcome is not Outcome.DECLINE:
            return False
        before = len(self.reached)
        for result in decision.rules:
            rule = rules.rule(result.id) if result.counts else None
            cap = None if rule is None else self.limits.cap_of(rule)
            if cap is None:
                continue
            epoch = self.epoch(result.id)
            name = counter(result.id, epoch)
            self._count(name, now_ms, 1)
            declines = total(self._own[name], cap.within_ms, now_ms) + self.others.get(name, 0)
            if declines >= cap.declines and result.id not in self.reached:
                self.reached[result.id] = Reached(
                    epoch, now_ms, now_ms + cap.within_ms, why(declines, cap.declines, cap.within_ms)
                )
        return len(self.reached) > before

    def counts(self) -> dict[str, dict[int, int]]:
        """This process' counts, by counter and slot; may be called by another thread."""
        with self._lock:
            return {name: dict(slots) for name, slots in self._own.items()}

    def _count(self, name: str, now_ms: int, by: int) -> None:
        slot = slot_of(now_ms)
        with self._lock:
            if slot > self._slot:
                self._slot = slot
                self._forget(slot_of(now_ms - self.limits.longest_ms))
            slots = self._own.setdefault(name, {})
            slots[slot] = slots.get(slot, 0) + by

    def _forget(self, before: int) -> None:
        for name, slots in list(self._own.items()):
            for slot in [slot for slot in slots if slot < before]:
                del slots[slot]
            if not slots:
                del self._own[name]


def why(declines: int, declines_max: int, within_ms: int) -> str:
    """The words of a trip."""
    return f"{declines} declines within {within_ms // 1_000} s, at most {declines_max}"
