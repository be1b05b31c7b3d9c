"""Brakes that were pulled: a rule dropped to shadow, or the whole service in its guarded mode."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

FORGOTTEN_AFTER_MS: Final = 2 * 86_400_000
"""Counters live a day: an epoch that is older than two can begin anew."""
UNTIL_RESET_MS: Final = 2**62


@dataclass(frozen=True, slots=True)
class Trip:
    """The last thing that happened to a brake. `name`: a rule's id or the global guard; `epoch`: sequence of
    the step; `until_ms`: the rule counts again from then on, at most `at_ms` after a reset."""

    name: str
    epoch: int
    at_ms: int
    until_ms: int
    why: str

    def holds(self, now_ms: int) -> bool:
        """Whether the brake is pulled."""
        return now_ms < self.until_ms


def joined(trips: Sequence[Trip], last: Trip) -> list[Trip]:
    """The trips with the latest of one brake; what is over for long is forgotten."""
    kept = [t for t in trips if t.name != last.name]
    kept = [t for t in kept if max(t.at_ms, t.until_ms) + FORGOTTEN_AFTER_MS > last.at_ms]
    return [*kept, last]


def released(trip: Trip, epoch: int, at_ms: int, why: str) -> Trip:
    """The same brake, released."""
    return replace(trip, epoch=epoch, at_ms=at_ms, until_ms=at_ms, why=why)
