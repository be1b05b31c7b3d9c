"""The sink of the Flink jobs: absolute values into the online store, then how far they reach.

A batch of aggregated rows becomes merge calls; when all of them are answered, the positions that came with
the batch are published. Rows arrive in the order in which the grouping emitted them, and an event's position
leaves the source behind its other rows (`features.sql`), so a published position never runs ahead of the
state: everything before it was answered by the store in this or an earlier batch. With several subtasks
each writes its own lane and the watermark is the least of the lanes.

Nothing here is lost on a crash: Flink repeats from its checkpoint, merging takes the maximum.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from features.library import Keys, watermark_field
from features.sql import FIRST_SECTION, Lanes
from stream import block
from stream.link import Address, Link, Patience, Place, command

WATERMARK: Final = """
local life, wall, lanes = ARGV[1], ARGV[2], tonumber(ARGV[3])
local function publish(field, offset, time)
  local known = redis.call('HGET', KEYS[1], field)
  if known then
    local at, reached = string.match(known, '^(%S+) (%d+)')
    if at == life and tonumber(reached) > tonumber(offset) then return end
  end
  redis.call('HSET', KEYS[1], field, table.concat({life, offset, time, wall}, ' '))
end
for i = 4, #ARGV, 4 do
  local field, lane, offset, time = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if lanes == 1 then
    publish(field, offset, time)
  else
    redis.call('HSET', KEYS[2], field .. '/' .. lane, table.concat({life, lanes, offset, time}, ' '))
    local least, its_time = nil, nil
    for j = 0, lanes - 1 do
      local known = redis.call('HGET', KEYS[2], field .. '/' .. j)
      local at, of, reached, when
      if known then at, of, reached, when = string.match(known, '^(%S+) (%d+) (%d+) (%d+)$') end
      if at ~= life or tonumber(of) ~= lanes then least = nil break end
      if not least or tonumber(reached) < tonumber(least) then least, its_time = reached, when end
    end
    if least then publish(field, least, its_time) end
  end
end
return (#ARGV - 3) / 4
"""


class LanesCrossed(Exception):
    """One subtask got the position rows of two lanes: its routing is not what was computed. A bug; stop."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What a sink needs to know; plain values that travel to the workers.

    `generation`: the store's generation that this run of the job feeds; positions are published under it.
    `topics`: Kafka topic by code. `library`: text of the function library.
    """

    plan: block.Plan
    tenant: str
    fingerprint: str
    generation: str
    topics: Mapping[int, str]
    library: str
    place: Place
    lanes: Lanes = field(default_factory=Lanes)
    patience: Patience = field(default_factory=Patience)


class Sink:
    """Writes batches. `wall` and `monotonic` are clocks in seconds."""

    def __init__(
        self,
        spec: Spec,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._spec = spec
        self._wall = wall
        self._link = Link(spec.place, spec.library, spec.patience, monotonic, sleep)
        self._keys = Keys(spec.tenant, spec.fingerprint)
        self._lane: int | None = None

    def write(self, code: Any, ids: Sequence[str], key: Any, slots: Any) -> None:
        """Store one batch: `code` [n], `ids` n strings, `key` [n], `slots` [n, columns], int64.

        Returns when the store has answered everything. Raises `StoreLost`, `StoreRefused`, `LanesCrossed`.
        """
        code = np.asarray(code, dtype=np.int64)
        key = np.asarray(key, dtype=np.int64)
        of_entity = np.flatnonzero(code >= FIRST_SECTION)
        if len(of_entity):
            who = ids if len(of_entity) == len(code) else [ids[i] for i in of_entity.tolist()]
            rows = block.Rows(code[of_entity], block.words(who), key[of_entity], slots[of_entity])
            call = block.arrange(self._spec.plan, rows)
            self._link.settle(lambda: self._blocks(call))
        positions = np.flatnonzero(code < FIRST_SECTION)
        if len(positions):
            first = self._spec.plan.position
            newest = {
                (int(code[i]), int(key[i]), ids[i]): slots[i, first : first + 2] for i in positions.tolist()
            }
            self._publish({at: (int(offset), int(time_ms)) for at, (offset, time_ms) in newest.items()})

    def _blocks(self, call: block.Call) -> list[tuple[Address, bytes, int]]:
        nodes = self._link.nodes
        if len(nodes) == 1:
            data, count = block.encode(self._spec.plan, call)
            return [(nodes[0], data, count)] if count else []
        owner = np.asarray(self._link.owners())[block.slots(self._spec.plan, call)]
        parts = []
        for index, node in enumerate(nodes):
            data, count = block.encode(self._spec.plan, block.share(call, owner == index))
            if count:
                parts.append((node, data, count))
        return parts

    def _publish(self, positions: Mapping[tuple[int, int, str], tuple[int, int]]) -> None:
        arguments: list[str | int] = []
        for (code, partition, lane_id), (offset, time_ms) in positions.items():
            name = watermark_field(self._spec.topics[code], partition)
            arguments += [name, self._lane_of(partition, lane_id), offset, time_ms]
        head = command(
            "EVAL", WATERMARK, 2, self._keys.watermark, lanes_key(self._spec.tenant),
            self._spec.generation, int(self._wall() * 1000), self._spec.lanes.count, *arguments,
        )  # fmt: skip
        slot = block.slot(self._keys.watermark)
        self._link.settle(lambda: [(self._link.owner(slot), head, 1)])

    def _lane_of(self, partition: int, lane_id: str) -> int:
        ids = self._spec.lanes.ids
        lane = ids[partition].index(lane_id) if ids else 0
        if self._lane is not None and self._lane != lane:
            raise LanesCrossed(f"subtask of lane {self._lane} got a position of lane {lane}")
        self._lane = lane
        return lane

    def close(self) -> None:
        """Release connections."""
        self._link.close()


def lanes_key(tenant: str) -> str:
    """Hash of the positions of single lanes, in the slot of the watermark."""
    return f"{{{tenant}:meta}}:lanes"
