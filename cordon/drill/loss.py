"""Flink killed, Redis lost: afterwards every stored slot is compared with a plain count of the log.

`flink`   kill -9 of the job manager and task manager, twice. The fast lane is off, so that every slot in the
          store is Flink's: what a restart loses or counts twice has nowhere to hide.
`redis`   kill -9 of the server and its directory deleted. The fast lane is on; decisions go on, degraded;
          the functions are loaded again and the state is rebuilt from the log.
"""

import contextlib
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from cordon.log import Record
from cordon.parity import FLINK, Keeper, Plan, replay_of, source_of
from cordon.pipeline import Pipeline, pipeline
from cordon.recompute import Log, recompute
from cordon.stack.local import Options
from cordon.tiles import Comparison, check, count, happened
from features.parity import compare
from features.store import StoreUnavailable
from stream.replay.pace import Pace
from stream.replay.run import Replay

CATCH_UP_S = 300.0
# The kills must find checkpoints to go on from, with state in them.
CHECKPOINTS_MS = 5_000
DOWN_S = 5.0


@dataclass(slots=True)
class Loss:
    """What a drill found. `recovery_s`: from each kill until Flink had passed everything logged by then."""

    kills: int
    tiles: Comparison
    decisions_during: int
    degraded: dict[str, int]
    recovery_s: list[float]
    vectors: int
    vectors_wrong: int
    missing_decisions: int

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled or wrong, and decisions went on."""
        whole = self.tiles.holds and not self.vectors_wrong and not self.missing_decisions
        return whole and self.vectors > 0 and self.decisions_during > 0

    def as_json(self) -> dict[str, Any]:
        """The last line of the drill."""
        return {
            "kills": self.kills,
            "tiles": self.tiles.tiles,
            "wrong": self.tiles.wrong,
            "surplus": self.tiles.surplus,
            "missing": self.tiles.missing,
            "examples": self.tiles.examples,
            "decisions_during": self.decisions_during,
            "degraded": self.degraded,
            "recovery_s": self.recovery_s,
            "vectors": self.vectors,
            "vectors_wrong": self.vectors_wrong,
            "missing_decisions": self.missing_decisions,
        }


@dataclass(slots=True)
class Killer:
    """Kills on a schedule beside a replay and measures how long Flink needs to be level again."""

    running: Pipeline
    at_s: tuple[float, ...]
    kill: Callable[[Pipeline], None]
    say: Callable[[str], None]
    windows_ms: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self) -> None:
        """The thread's body."""
        start_s = time.monotonic()
        for due_s in self.at_s:
            time.sleep(max(0.0, start_s + due_s - time.monotonic()))
            began_ms = time.time_ns() // 1_000_000
            self.kill(self.running)
            self.say(f"killed after {time.monotonic() - start_s:.0f} s")
            self.windows_ms.append((began_ms, self._level(began_ms)))
            self.say(f"level again after {(self.windows_ms[-1][1] - began_ms) / 1000:.1f} s")

    def _level(self, began_ms: int) -> int:
        """Wall clock at which Flink's watermark has passed the event times decided before the kill."""
        deadline_s = time.monotonic() + CATCH_UP_S
        while time.monotonic() < deadline_s:
            with contextlib.suppress(StoreUnavailable, redis.RedisError):
                wall = [mark[3] for mark in self._marks()]
                if wall and min(wall) > began_ms + 1_000 and not self.running.rebuilding():
                    return max(wall)
            time.sleep(0.1)
        raise TimeoutError(f"Flink was not level within {CATCH_UP_S:.0f} s of the kill")

    def _marks(self) -> list[tuple[str, int, int, int]]:
        kafka = self.running.settings.kafka
        with self.running.connected() as store:
            marks = store.watermark()
        return [mark for (topic, _), mark in marks.items() if topic == kafka.decisions]


def kill_flink(running: Pipeline) -> None:
    """kill -9 of every process of both Flink parts; the supervisor starts them again."""
    for part in FLINK:
        running.stack.kill(part)


def lose_redis(running: Pipeline) -> None:
    """kill -9 of the server, its directory deleted, down for a while, started again."""
    running.stack.kill("valkey", hold=True)
    shutil.rmtree(running.plan.valkey.directory)
    time.sleep(DOWN_S)
    running.stack.restart("valkey")


def drill(
    plan: Plan,
    directory: Path,
    *,
    kill: Callable[[Pipeline], None],
    at_s: tuple[float, ...],
    rate: float,
    split_ms: int,
    say: Callable[[str], None],
) -> Loss:
    """Replay up to `split_ms` with kills on schedule, compare slots; then the rest, compare vectors."""
    keeper = Keeper(None)
    overrides = {
        "catalogue": {"name": plan.catalogue},
        "decide": {"fast_lane": plan.fast_lane, "clock": "event"},
        "flink": {"checkpoint_interval_ms": CHECKPOINTS_MS},
        **plan.settings,
    }
    with pipeline(directory, overrides, options=Options(usual_ports=False), keep=keeper, say=say) as running:
        past = replay_of(plan, running.catalogue)
        killer = Killer(running, at_s, kill, say)
        thread = threading.Thread(target=killer, name="killer")
        thread.start()
        running.kafka(Replay(past, pace=Pace(rate=rate), before_ms=split_ms))
        thread.join()
        running.settle(patience_s=CATCH_UP_S)
        say("comparing every stored slot with the log")
        tiles = _tiles(plan, running, keeper.log)
        keeper.phase = 1
        if plan.fast_lane:
            running.kafka(Replay(past, pace=Pace(rate=rate), since_ms=split_ms))
        else:
            with running.lockstep() as passage:
                running.kafka(Replay(past, passage=passage, since_ms=split_ms))
        running.settle(patience_s=CATCH_UP_S)
        return _judge(plan, running, keeper.log, killer, tiles, split_ms)


def _tiles(plan: Plan, running: Pipeline, log: Log) -> Comparison:
    catalogue = running.catalogue
    source = source_of(replay_of(plan, catalogue), catalogue)
    expected = count(catalogue, happened(catalogue, running.pseudonyms, source, log))
    return check(catalogue, running.store, expected)


def _judge(plan: Plan, running: Pipeline, log: Log, killer: Killer, tiles: Comparison, split_ms: int) -> Loss:
    catalogue = running.catalogue
    source = source_of(replay_of(plan, catalogue), catalogue)
    late = {i for i, t in source.transactions.items() if t.time_ms >= split_ms}
    found = recompute(catalogue, source, log, pseudonyms=running.pseudonyms, compare=late)
    report = compare(catalogue.names, found.expected, found.actual, len(found.apart))
    differs = sum(sum(c.values()) for c in (report.mismatch, report.missing, report.extra))
    decided = {record["id"] for record in log.decisions}
    during = [r for r in log.decisions if _within(r, killer.windows_ms)]
    return Loss(
        kills=len(killer.windows_ms),
        tiles=tiles,
        decisions_during=len(during),
        degraded=dict(Counter(part for r in during for part in r["degraded"])),
        recovery_s=[round((end - begin) / 1000, 1) for begin, end in killer.windows_ms],
        vectors=report.decisions,
        vectors_wrong=differs + report.excluded,
        missing_decisions=len(source.transactions.keys() - decided),
    )


def _within(record: Record, windows_ms: list[tuple[int, int]]) -> bool:
    return any(begin <= record["decided_ms"] <= end for begin, end in windows_ms)
