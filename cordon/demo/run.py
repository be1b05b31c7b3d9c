"""The demonstration from end to end."""

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from api.query_store import open_store
from client import Client
from cordon.demo.attach import await_doors
from cordon.demo.prepare import prepare
from cordon.demo.scoreboard import Scoreboard, Verdict, score, truths
from cordon.demo.screen import Screen, Tally, show_campaigns
from cordon.log import Record
from cordon.own_key import own_key_stale
from cordon.parity import Keeper, Plan, replay_of
from cordon.pipeline import Pipeline, pipeline
from cordon.stack.local import Options
from features import load
from stream.replay.pace import Pace
from stream.replay.run import Replay
from stream.world.world import events_path

RATE = 306.0
P99_MS_MAX = 50.0
RATE_MIN = 300.0
SENT_MIN = 20_000
EXPLAINED = 3
PATIENCE_S = 300.0


class Seen(Keeper):
    """Also keeps what the scoreboard needs of each decision."""

    def __init__(self) -> None:
        super().__init__(None)
        self.verdicts: dict[str, Verdict] = {}
        self.repeats: Counter[str] = Counter()

    def __call__(self, topic: str, record: Record) -> None:
        """Take one record of the log."""
        super().__call__(topic, record)
        if record["type"] == "decision":
            hit = any(r["result"] == "hit" and r["mode"] == "live" for r in record["rules"])
            amount = int(record["transaction"].get("amount", 0))
            self.verdicts[record["id"]] = Verdict(record["outcome"], amount, hit)
            self.repeats[record["id"]] += 1


@dataclass(frozen=True, slots=True)
class Result:
    """What the last line says, and whether it holds."""

    body: dict[str, Any]
    holds: bool


@contextlib.contextmanager
def demonstration(
    directory: Path, say: Callable[[str], None], *, attach: bool = False
) -> Iterator[tuple[Pipeline, Result]]:
    """Prepare, start, backfill, replay the attacks, judge. The stack runs until the block ends.

    It starts empty: the replayed transactions have the same ids each time. `attach`: the parts run elsewhere,
    as containers; the doors there have been waiting for the model. Raises `NotAttached`.
    """
    console = Console(stderr=True)
    catalogue = load("payments")
    made = prepare(directory / "prepared", catalogue, say)
    seen = Seen()
    overrides = {
        "catalogue": {"name": "payments"},
        "decide": {"clock": "event", "model_dir": made.model.resolve()},
    }
    if attach:
        await_doors(made.model, say)
    started_s = time.monotonic()
    shutil.rmtree(directory / "stack", ignore_errors=True)
    with pipeline(
        directory / "stack", overrides, options=Options(attach=attach), keep=seen, say=say
    ) as running:
        plan = Plan("payments", made.stream, events=events_path(made.stream))
        past = replay_of(plan, catalogue)
        say("replaying a month of history into the Kafka door")
        running.kafka(Replay(past, before_ms=made.live_from_ms))
        running.reader.until({running.settings.kafka.decisions: 1}, patience_s=PATIENCE_S)
        first_s = round(time.monotonic() - started_s, 1)
        running.settle(patience_s=PATIENCE_S)
        say(f"first decision {first_s} s after the start; {sum(seen.repeats.values())} decided")
        before = set(seen.verdicts)
        tally = Tally(truths(made.stream))
        with Screen(tally, lambda: flink_lag_ms(running)) as screen:
            live = Replay(
                past, pace=Pace(rate=RATE, arrivals="poisson"), since_ms=made.live_from_ms, quiet=True
            )
            manifest = running.http(live, screen.answered)
        running.settle(patience_s=PATIENCE_S)
        decided = {i: v for i, v in seen.verdicts.items() if i not in before}
        board = score(tally.truth, decided)
        show_campaigns(console, board)
        stale = own_key_stale(plan, catalogue, running.pseudonyms, seen.log, set(decided))
        body = {
            "sent": manifest.sent["transaction"],
            "decided": tally.statuses[200],
            "logged": len(decided),
            "stored": stored(running, list(decided)),
            "duplicates": sum(n - 1 for n in seen.repeats.values()),
            "lost": manifest.sent["transaction"] - len(decided),
            "p99_ms": tally.p99_ms,
            "rate": round(manifest.sent["transaction"] / manifest.seconds, 1),
            "first_decision_s": first_s,
            "own_key_stale": stale,
            **_board(board),
            "stateless_average_precision": made.stateless_average_precision,
        }
        explain(console, running, decided, tally)
        yield running, Result(body, _holds(body))


def _board(board: Scoreboard) -> dict[str, Any]:
    return {
        "campaigns": [campaign.as_json() for campaign in board.campaigns],
        "outcomes": board.outcomes,
        "precision": board.precision,
        "recall": board.recall,
        "rules_precision": board.rules_precision,
        "rules_recall": board.rules_recall,
        "money_saved": board.money_saved,
        "money_lost": board.money_lost,
        "good_stopped": board.good_stopped,
    }


def _holds(body: dict[str, Any]) -> bool:
    whole = body["sent"] == body["decided"] == body["logged"] == body["stored"] > SENT_MIN
    clean = body["duplicates"] == body["lost"] == body["own_key_stale"] == 0
    return bool(whole and clean and body["p99_ms"] < P99_MS_MAX and body["rate"] >= RATE_MIN)


def flink_lag_ms(running: Pipeline) -> int | None:
    """Age of the newest watermark: how long ago Flink last said how far it is."""
    wall = [mark[3] for mark in running.store.watermark().values()]
    return max(0, time.time_ns() // 1_000_000 - max(wall)) if wall else None


def stored(running: Pipeline, ids: list[str]) -> int:
    """How many of these decisions the query store holds, once the projector had time to catch up."""
    with contextlib.closing(open_store(running.settings.store_url)) as store:
        deadline_s = time.monotonic() + PATIENCE_S
        while (found := sum(store.record(i) is not None for i in ids)) < len(ids):
            if time.monotonic() > deadline_s:
                break
            time.sleep(0.5)
        return found


def explain(
    console: Console,
    running: Pipeline,
    decided: dict[str, Verdict],
    tally: Tally,
) -> None:
    """Three stopped attacks of different kinds, in words."""
    chosen: dict[str, str] = {}
    for i, verdict in decided.items():
        if verdict.outcome != "approve" and tally.truth[i].fraud:
            chosen.setdefault(str(tally.truth[i].kind), i)
    base = running.plan.addresses["http"]
    with Client(base, running.key) as client:
        for kind, i in list(chosen.items())[:EXPLAINED]:
            found = client.explanation(i)
            console.print(f"\n[bold]{i}[/bold] ({kind}): {decided[i].outcome}")
            for reason in found.reasons:
                console.print(f"  - {reason.text}")
    example = next(iter(chosen.values()), None)
    header = next(iter(f"{name}: {value}" for name, value in running.headers.items()))
    console.print("\nAsk it:")
    for path in (
        "/openapi.json",
        "/health/ready",
        "/metrics",
        *([f"/v1/decisions/{example}/explanation"] if example else []),
    ):
        console.print(f"  curl -s -H '{header}' {base}{path}", soft_wrap=True, highlight=False)
