"""How long to wait and how many connections to hold."""

from dataclasses import dataclass

import httpx


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one client. Times in seconds, per attempt; `connections_max` requests are under way at once."""

    connect_s: float = 2.0
    answer_s: float = 10.0
    pool_s: float = 10.0
    connections_max: int = 64
    idle_s: float = 60.0

    @property
    def timeout(self) -> httpx.Timeout:
        """For httpx."""
        return httpx.Timeout(self.answer_s, connect=self.connect_s, pool=self.pool_s)

    @property
    def pool(self) -> httpx.Limits:
        """For httpx. Idle connections are kept for less long than the service keeps them."""
        return httpx.Limits(
            max_connections=self.connections_max,
            max_keepalive_connections=self.connections_max,
            keepalive_expiry=self.idle_s,
        )
