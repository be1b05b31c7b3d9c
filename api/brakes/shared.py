"""Counts of all deciding processes, in Redis: approximate, exchanged beside the decision path.

One hash per slot of time, `{tenant:brakes}:SLOT`, with a field per process' life and counter. A process
writes its own absolute counts, so a write that is repeated changes nothing; readers add up. A field of a life
that ended stays until its slot expires. On a cluster all hashes are on one node.
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

import redis
from redis.cluster import ClusterNode, RedisCluster

from api.brakes.cap import SLOT_MS, WITHIN_MS_MAX, slot_of

EXPIRE_S: Final = (WITHIN_MS_MAX + 3_600_000) // 1_000
SLOTS_AT_ONCE: Final = 500
WHOLE_EVERY_MS: Final = 30_000
_WAITS: Final = ("socket_timeout", "socket_connect_timeout")
Counts = Mapping[str, Mapping[int, int]]


class SharedUnavailable(Exception):
    """The counts could not be exchanged: go on with what is known, try again."""


class Shared(Protocol):
    """Where processes meet."""

    def put(self, slot: int, counts: Mapping[str, int]) -> None:
        """Write this life's absolute counts of a slot. Raises `SharedUnavailable`."""

    def read(self, slots: range) -> dict[int, dict[str, int]]:
        """Sums of all other lives, by slot and counter. Raises `SharedUnavailable`."""


class RedisShared:
    """`Shared` on Redis or Valkey, one node or a cluster. `life`: unique among processes."""

    def __init__(self, url: str, tenant: str, life: str, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._prefix = f"{{{tenant}:brakes}}:"
        self._life = life
        self._client: Any = None

    def put(self, slot: int, counts: Mapping[str, int]) -> None:
        """See `Shared.put`."""
        key = f"{self._prefix}{slot}"
        fields = {f"{self._life}|{name}": n for name, n in counts.items()}
        try:
            pipeline = self._connected().pipeline(transaction=False)
            pipeline.hset(key, mapping=fields)
            pipeline.expire(key, EXPIRE_S)
            pipeline.execute()
        except (redis.RedisError, OSError) as error:
            raise SharedUnavailable(str(error)) from error

    def read(self, slots: range) -> dict[int, dict[str, int]]:
        """See `Shared.read`."""
        found: dict[int, dict[str, int]] = {}
        try:
            for first in range(slots.start, slots.stop, SLOTS_AT_ONCE):
                some = range(first, min(first + SLOTS_AT_ONCE, slots.stop))
                pipeline = self._connected().pipeline(transaction=False)
                for slot in some:
                    pipeline.hgetall(f"{self._prefix}{slot}")
                for slot, fields in zip(some, pipeline.execute(), strict=True):
                    found[slot] = self._sums(fields)
        except (redis.RedisError, OSError) as error:
            raise SharedUnavailable(str(error)) from error
        return found

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()

    def _sums(self, fields: Mapping[bytes, bytes]) -> dict[str, int]:
        sums: dict[str, int] = {}
        for field, n in fields.items():
            life, _, name = field.decode().partition("|")
            if life != self._life:
                sums[name] = sums.get(name, 0) + int(n)
        return sums

    def _connected(self) -> Any:
        if self._client is None:
            waits: dict[str, Any] = dict.fromkeys(_WAITS, self._timeout_s)
            scheme, _, rest = self._url.partition("://")
            if scheme == "cluster":
                credentials, _, places = rest.rstrip("/").rpartition("@")
                pairs = [place.rpartition(":") for place in places.split(",")]
                nodes = [ClusterNode(host, int(port)) for host, _, port in pairs]  # type: ignore[no-untyped-call]
                password = credentials.rpartition(":")[2] or None
                self._client = RedisCluster(startup_nodes=nodes, password=password, **waits)
            else:
                self._client = redis.Redis.from_url(self._url, **waits)
        return self._client


class Exchange:
    """Keeps what was read: as a rule only the youngest slots change. What others could not write in time is
    found when everything is read again, every half minute."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._others: dict[int, dict[str, int]] = {}
        self._known = range(0)
        self._whole_ms = 0
        self._put: dict[tuple[int, str], int] = {}

    def turn(self, own: Counts, within_ms: int, now_ms: int) -> None:
        """Write what is new, read what others wrote. Raises `SharedUnavailable`; the next turn makes up for
        it."""
        oldest, newest = slot_of(now_ms - within_ms), slot_of(now_ms + SLOT_MS)
        slots: dict[int, dict[str, int]] = {}
        for name, counts in own.items():
            for slot, n in counts.items():
                if slot >= oldest and (self._put.get((slot, name)) != n or slot >= newest - 2):
                    slots.setdefault(slot, {})[name] = n
        for slot, found in slots.items():
            self._shared.put(slot, found)
            self._put |= {(slot, name): n for name, n in found.items()}
        known = self._known
        first = oldest
        if known and oldest >= known.start and now_ms - self._whole_ms < WHOLE_EVERY_MS:
            # The slot of now, the one before, and one more for clocks that differ.
            first = max(oldest, min(known.stop, newest - 1) - 2)
        else:
            self._whole_ms = now_ms
        self._others |= self._shared.read(range(first, newest + 1))
        self._known = range(oldest, newest + 1)
        self._others = {slot: n for slot, n in self._others.items() if slot >= oldest}
        self._put = {key: n for key, n in self._put.items() if key[0] >= oldest}

    def others(self, name: str) -> dict[int, int]:
        """What the others counted under a name, by slot."""
        return {slot: counts[name] for slot, counts in self._others.items() if name in counts}
