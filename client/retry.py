"""When to try again. Everything that this client sends may be sent twice: ids make it count once."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

RETRIED: Final = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Retry:
    """Attempts altogether, and the waits between them in seconds, doubling from `base_s` to `wait_s_max`.

    A service that asks for more patience than `retry_after_s_max` is not waited for.
    """

    attempts: int = 5
    base_s: float = 0.05
    wait_s_max: float = 5.0
    retry_after_s_max: float = 30.0

    def wait_s(self, attempt: int, retry_after_s: float | None, random: float) -> float | None:
        """Seconds to wait after the failed `attempt` (from 1); `None`: give up. `random`: from 0 to 1.

        Full jitter, on top of what the service asked for: callers that failed together do not come together.
        """
        if attempt >= self.attempts:
            return None
        if retry_after_s is not None and retry_after_s > self.retry_after_s_max:
            return None
        backoff_s = min(self.wait_s_max, self.base_s * 2.0 ** min(attempt - 1, 30))
        return (retry_after_s or 0.0) + backoff_s * random


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The header `Retry-After`, lower-case keys, where it is a number of seconds."""
    value = headers.get("retry-after", "").strip()
    return float(value) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) else None
