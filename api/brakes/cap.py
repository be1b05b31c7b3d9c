"""How much is too much: caps on the declines of one rule, a limit on the share of all declines. Pure.

Counts are kept per slot of ten seconds. A window runs from the slot of `now - within` to that of `now`, both
included: it is at most one slot longer than it says.

    ... |--s0--|--s1--|--s2--|--s3--| now in s3, within = 2 slots
               ^ now - within          counted: s1, s2, s3

A counter's name carries the *epoch* of its brake, which every trip and every reset raises: what was counted
before plays no part afterwards, without anything being set to zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from api.rules.rule import Rule

SLOT_MS: Final = 10_000
WITHIN_MS_MIN: Final = 60_000
WITHIN_MS_MAX: Final = 86_400_000
GUARD: Final = "guard:decline_rate"
"""Name of the global brake; a rule's id has no colon."""
DECLINE_RATE: Final = "decline_rate"
"""What records and answers call its mode."""


@dataclass(frozen=True, slots=True)
class Cap:
    """At most so many declines of one rule within a time."""

    declines: int
    within_ms: int


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Above `enter_percent` declines of at least `decisions_min` decisions `within_ms` the service is
    guarded; below `leave_percent`, and not before another `within_ms`, it is itself again."""

    enter_percent: float = 50.0
    leave_percent: float = 25.0
    decisions_min: int = 1_000
    within_ms: int = 300_000


@dataclass(frozen=True, slots=True)
class Limits:
    """`cap`: of rules that declare none. `None`: no limit."""

    cap: Cap | None = Cap(5_000, 3_600_000)
    rate: RateLimit | None = RateLimit()

    def cap_of(self, rule: Rule) -> Cap | None:
        """The cap of a rule; only what declines has one."""
        if rule.action != "decline":
            return None
        if rule.declines_max is not None:
            within_ms = rule.declines_within_ms
            return Cap(rule.declines_max, within_ms or (self.cap or Cap(1, WITHIN_MS_MAX)).within_ms)
        return self.cap

    @property
    def longest_ms(self) -> int:
        """Counts older than this are of no use to anybody."""
        return WITHIN_MS_MAX


LIMITS: Final = Limits()
UNLIMITED: Final = Limits(None, None)


def slot_of(at_ms: int) -> int:
    """The slot of an instant."""
    return at_ms // SLOT_MS


def total(counts: Mapping[int, int], within_ms: int, now_ms: int) -> int:
    """Sum of a counter's slots in the window. A slot ahead of now (another host's clock) counts."""
    oldest = slot_of(now_ms - within_ms)
    return sum(n for slot, n in counts.items() if slot >= oldest)


def counter(name: str, epoch: int, what: str = "") -> str:
    """Name of a counter of a brake in one epoch."""
    return f"{name}{'/' if what else ''}{what}@{epoch}"


def guarded_next(
    limit: RateLimit, *, guarded: bool, since_ms: int, decisions: int, declines: int, now_ms: int
) -> bool:
    """Whether the service is guarded from now on. `since_ms`: of the last change; `decisions`, `declines`: of
    the window, those counted since the last change only."""
    if not guarded:
        enough = decisions >= limit.decisions_min
        return enough and declines * 100 > limit.enter_percent * decisions
    if now_ms - since_ms < limit.within_ms:
        return True
    return decisions > 0 and declines * 100 >= limit.leave_percent * decisions
