"""Circuit breakers: after a failure a part is left alone for a while, then asked once."""

from dataclasses import dataclass


@dataclass(slots=True)
class Breaker:
    """Closed until `failed`; then open for `rest_ms`, doubling up to `rest_ms_max` while it keeps failing."""

    rest_ms: int = 250
    rest_ms_max: int = 2_000
    _until_ms: int = 0
    _next_ms: int = 0

    def allows(self, now_ms: int) -> bool:
        """Whether the part may be asked now."""
        return now_ms >= self._until_ms

    @property
    def is_open(self) -> bool:
        """Whether the last answer was a failure."""
        return self._next_ms > 0

    def failed(self, now_ms: int) -> None:
        """The part gave no answer."""
        rest_ms = self._next_ms or self.rest_ms
        self._until_ms = now_ms + rest_ms
        self._next_ms = min(rest_ms * 2, self.rest_ms_max)

    def worked(self) -> None:
        """The part answered."""
        self._until_ms = 0
        self._next_ms = 0
