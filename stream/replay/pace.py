"""When each message is due: a pure function of its place in the stream."""

import random
from dataclasses import dataclass, field
from typing import Literal

from stream.replay.injection import Placed


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a replay goes; neither `rate` nor `speed_up`: as fast as the door takes it.

    `rate`: transactions per second, open loop (events and labels go with them). `speed_up`: times event
    time. `arrivals`: evenly spaced, or exponential gaps (a Poisson process) of the same mean.
    """

    rate: float | None = None
    speed_up: float | None = None
    arrivals: Literal["even", "poisson"] = "even"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rate is not None and self.speed_up is not None:
            raise ValueError("give a rate or a speed-up, not both")
        if any(value is not None and value <= 0 for value in (self.rate, self.speed_up)):
            raise ValueError("a rate or speed-up is positive")

    @property
    def limited(self) -> bool:
        """Whether messages have due times at all."""
        return self.rate is not None or self.speed_up is not None


@dataclass(slots=True)
class Timetable:
    """Due times, in seconds after the start, of messages asked for one by one in their order."""

    pace: Pace
    _due_s: float = 0.0
    _origin_ms: int | None = None
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(f"pace-{self.pace.seed}")

    def due_s(self, placed: Placed) -> float:
        """Seconds after the start at which this message should leave; 0.0 if at once."""
        if self.pace.speed_up is not None:
            if self._origin_ms is None:
                self._origin_ms = placed.position_ms
            return (placed.position_ms - self._origin_ms) / 1000 / self.pace.speed_up
        if self.pace.rate is not None and placed.item.kind == "transaction":
            even = self.pace.arrivals == "even"
            self._due_s += 1 / self.pace.rate if even else self._random.expovariate(self.pace.rate)
        return self._due_s
