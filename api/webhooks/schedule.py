"""When a delivery is tried again. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retries:
    """Exponential, with full jitter: the n-th wait lies between 0 and `first_ms * 2**(n - 1)`, at most
    `longest_ms`."""

    attempts_max: int = 12
    first_ms: int = 2_000
    longest_ms: int = 3_600_000

    def next_ms(self, attempts: int, now_ms: int, share: float) -> int | None:
        """When to try again after so many attempts; `None`: never, it is dead. `share`: random, 0 to 1."""
        if attempts >= self.attempts_max:
            return None
        longest = min(self.longest_ms, self.first_ms << min(attempts - 1, 40))
        return now_ms + max(1, round(longest * share))
