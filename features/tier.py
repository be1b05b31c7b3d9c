"""Tiers of tiles and the windows that are composed of them.

A window of `W` at a transaction with event time `t` and delay `D` covers `[start, end)`::

    q     = the largest tier with q <= W / 6, else the minute
    start = floor((t - D - W) / q) * q
    end   = the end of the minute tile that holds t - D

    day window    |== day tiles ==|= hour tiles =|= minute tiles =|
                  start    start of the day   start of the hour   end

All times are epoch milliseconds, UTC. Nothing here reads a clock.
"""

from dataclasses import dataclass
from typing import Final

SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Tier:
    """One width of tiles; `index` is its place in `TIERS` and in stored state."""

    name: str
    length_ms: int
    index: int

    def tile(self, time_ms: int) -> int:
        """Number of the tile that holds `time_ms`, counted from the epoch."""
        return time_ms // self.length_ms


TIERS: Final = (Tier("minute", MINUTE, 0), Tier("hour", HOUR, 1), Tier("day", DAY, 2))


def resolution(window_ms: int) -> Tier:
    """The largest tier of at most a sixth of the window, else the minute."""
    return next((tier for tier in reversed(TIERS) if tier.length_ms * 6 <= window_ms), TIERS[0])


def bounds(time_ms: int, window_ms: int, delay_ms: int = 0) -> tuple[int, int]:
    """`[start, end)` of the window in epoch milliseconds."""
    step_ms = resolution(window_ms).length_ms
    start_ms = (time_ms - delay_ms - window_ms) // step_ms * step_ms
    end_ms = (time_ms - delay_ms) // MINUTE * MINUTE + MINUTE
    return start_ms, end_ms


def pieces(time_ms: int, window_ms: int, delay_ms: int = 0) -> list[tuple[Tier, int, int]]:
    """The window as `(tier, first tile, tile after the last)`, from old to new, without overlap."""
    start_ms, end_ms = bounds(time_ms, window_ms, delay_ms)
    found = []
    at_ms = start_ms
    for tier in reversed(TIERS[: resolution(window_ms).index + 1]):
        stop_ms = end_ms if tier.index == 0 else (time_ms - delay_ms) // tier.length_ms * tier.length_ms
        if stop_ms > at_ms:
            found.append((tier, at_ms // tier.length_ms, stop_ms // tier.length_ms))
            at_ms = stop_ms
    return found


def reach_ms(tier: Tier, window_ms: int, delay_ms: int = 0) -> int | None:
    """How far back from `t` a window may need tiles of `tier`; `None` if it never does.

    Finer tiers than the window's own are needed only inside the newest tile of the next coarser one.
    """
    own = resolution(window_ms)
    if tier.index > own.index:
        return None
    if tier is own:
        return delay_ms + window_ms + tier.length_ms
    return delay_ms + TIERS[tier.index + 1].length_ms


def duration(ms: int) -> str:
    """Short name of a duration: `1h`, `7d`, `90m`, `45s`."""
    for unit, length_ms in (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND)):
        if ms % length_ms == 0:
            return f"{ms // length_ms}{unit}"
    return f"{ms}ms"
