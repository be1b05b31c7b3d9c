"""Several partitions, one order: messages are taken by event time while a backlog is caught up.

    partition 0   09:00 09:05 10:00 ...        Read one after the other, the second partition's events
    partition 1   09:01 09:04 09:59 ...        would all be late once the first one's had been seen.

A partition that has been read to its end is waited for no longer: at the head of the stream nothing is held.
"""

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush


@dataclass(slots=True)
class Aligner[P: Hashable, M]:
    """Buffers per partition. `ahead_max`: messages of one partition that may wait for the others."""

    ahead_max: int
    _queues: dict[P, deque[tuple[int, M]]] = field(default_factory=dict)
    _ended: set[P] = field(default_factory=set)

    def assign(self, partitions: Iterable[P]) -> None:
        """Partitions to wait for; nothing is known of them yet."""
        for partition in partitions:
            self._queues.setdefault(partition, deque())

    def revoke(self, partitions: Iterable[P]) -> None:
        """Forget partitions with all that waits of them; whoever gets them reads it again."""
        for partition in partitions:
            self._queues.pop(partition, None)
            self._ended.discard(partition)

    def put(self, partition: P, time_ms: int, message: M) -> None:
        """One message of a partition, in its order; `time_ms` orders it among the others."""
        self._queues.setdefault(partition, deque()).append((time_ms, message))
        self._ended.discard(partition)

    def end(self, partition: P) -> None:
        """The partition has been read to its end."""
        self._ended.add(partition)

    def take(self, limit: int, *, impatient: bool = False) -> list[M]:
        """At most `limit` messages by event time, each partition in its own order.

        Stops where a partition that was not read to its end has no message here, unless `impatient`.
        """
        partitions = list(self._queues)
        heads: list[tuple[int, int]] = []
        for place, partition in enumerate(partitions):
            if queue := self._queues[partition]:
                heappush(heads, (queue[0][0], place))
            elif partition not in self._ended and not impatient:
                return []
        taken: list[M] = []
        while heads and len(taken) < limit:
            _, place = heappop(heads)
            queue = self._queues[partitions[place]]
            taken.append(queue.popleft()[1])
            if queue:
                heappush(heads, (queue[0][0], place))
            elif partitions[place] not in self._ended and not impatient:
                break
        return taken

    def full(self) -> set[P]:
        """Partitions of which no more should be read now."""
        return {partition for partition, queue in self._queues.items() if len(queue) >= self.ahead_max}

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())
