"""The service killed again and again under load: every decision that was answered is recorded exactly once.

    replay --HTTP--> service (kill -9, started again) --> journal --> Kafka --> query store
       `- answers                                          `------ each must hold each once -----'

A request whose answer was lost is sent again: the claim gives the first answer back, or the retry takes the
open claim over and its decision says `recovered`.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api.journal_reader import contents, journals_in
from api.query_store import open_store
from cordon.log import Record
from cordon.parity import Plan, replay_of
from cordon.pipeline import Pipeline, pipeline
from cordon.stack.local import Options
from stream.replay.http_client import Response
from stream.replay.item import Item
from stream.replay.pace import Pace
from stream.replay.run import Replay

PATIENCE_S = 300.0
# Flink and the Kafka door take no part in what is asked here.
PARTS = ("valkey", "kafka", "topics", "service", "publisher", "projector")


@dataclass(slots=True)
class Kept:
    """What the log held: how often each decision, and the claims of all of them."""

    decisions: Counter[str] = field(default_factory=Counter)
    claims: Counter[str] = field(default_factory=Counter)
    abandoned: Counter[str] = field(default_factory=Counter)

    def __call__(self, topic: str, record: Record) -> None:
        """Take one record of the log."""
        if record["type"] == "decision":
            self.decisions[record["id"]] += 1
            self.claims[record["claim"]] += 1
        elif record["type"] == "abandoned":
            self.abandoned[record["id"]] += 1


@dataclass(frozen=True, slots=True)
class Survived:
    """What the drill found. `missing`, `doubled`: answered decisions that one of the three places does not
    hold, or holds more than once; `unanswered`: transactions that never got an answer."""

    kills: int
    answered: int
    unanswered: int
    missing: dict[str, int]
    doubled: dict[str, int]
    recovered: int
    abandoned: int
    retries: int
    down_s: list[float]

    @property
    def holds(self) -> bool:
        """Whether everything answered is recorded once everywhere."""
        return not any((*self.missing.values(), *self.doubled.values(), self.unanswered))

    def as_json(self) -> dict[str, Any]:
        """The last line of the drill."""
        return {
            "kills": self.kills,
            "answered": self.answered,
            "missing": sum(self.missing.values()),
            "doubled": sum(self.doubled.values()),
            "recovered": self.recovered,
            "abandoned": self.abandoned,
            "unanswered": self.unanswered,
            "missing_in": self.missing,
            "doubled_in": self.doubled,
            "retries": self.retries,
            "down_s": self.down_s,
        }


class Killer(threading.Thread):
    """Kills the service `kills` times, each time `up_s` after it served again, and notes how long it was
    away. A failure to come back is raised by `finish`."""

    def __init__(self, running: Pipeline, kills: int, up_s: float, say: Callable[[str], None]) -> None:
        super().__init__(name="killer")
        self.down_s: list[float] = []
        self._running = running
        self._kills = kills
        self._up_s = up_s
        self._say = say

    def run(self) -> None:
        """The thread's body."""
        stack = self._running.stack
        for _ in range(self._kills):
            time.sleep(self._up_s)
            began_s = time.monotonic()
            stack.kill("service", hold=True)
            stack.restart("service")
            stack.wait_ready("service", seconds=PATIENCE_S)
            self.down_s.append(round(time.monotonic() - began_s, 1))
            self._say(f"killed {len(self.down_s)} times; away for {self.down_s[-1]} s")


def drill(
    plan: Plan, directory: Path, *, kills: int, up_s: float, rate: float, say: Callable[[str], None]
) -> Survived:
    """Replay over HTTP with kills beside it. Blocks for minutes; raises what stack and replay raise."""
    kept = Kept()
    answered: set[str] = set()

    def note(item: Item, response: Response, _latency_s: float) -> None:
        if item.kind == "transaction" and response.status == 200:
            answered.add(item.id)

    overrides = {"catalogue": {"name": plan.catalogue}, "decide": {"clock": "event"}, **plan.settings}
    options = Options(only=PARTS, usual_ports=False)
    with pipeline(directory, overrides, options=options, keep=kept, say=say) as running:
        killer = Killer(running, kills, up_s, say)
        killer.start()
        past = replay_of(plan, running.catalogue)
        manifest = running.http(Replay(past, pace=Pace(rate=rate)), note)
        killer.join()
        running.settle(flink=False, patience_s=PATIENCE_S)
        journal = journalled(running.settings.journal.directory)
        store, doubled = stored(running.settings.store_url, answered)
    return Survived(
        kills=len(killer.down_s),
        answered=len(answered),
        unanswered=manifest.sent["transaction"] - len(answered),
        missing={
            "journal": len(answered - journal.keys()),
            "topic": len(answered - kept.decisions.keys()),
            "query_store": len(answered - store),
        },
        doubled={"journal": repeated(journal), "topic": repeated(kept.decisions), "query_store": doubled},
        recovered=kept.claims["recovered"],
        abandoned=kept.abandoned.total(),
        retries=manifest.retries,
        down_s=killer.down_s,
    )


def journalled(directory: Path) -> Counter[str]:
    """How often the journals below `directory` hold each decision; every chain is verified on the way."""
    records = contents(*journals_in(directory))
    return Counter(record["id"] for record in records if record["type"] == "decision")


def repeated(found: Counter[str]) -> int:
    """Decisions that were found more than once."""
    return sum(number > 1 for number in found.values())


def stored(url: str, ids: set[str]) -> tuple[set[str], int]:
    """Those of the ids that the query store holds, once it has caught up, and how many second decisions of
    an id it was given."""
    deadline_s = time.monotonic() + PATIENCE_S
    with contextlib.closing(open_store(url)) as store:
        missing = set(ids)
        while missing and time.monotonic() < deadline_s:
            missing = {i for i in missing if store.record(i) is None}
            time.sleep(0.2 if missing else 0.0)
        return ids - missing, store.counts()["doubled"]
