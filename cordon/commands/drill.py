"""`cordon drill`: break a real part under load and count what is left."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from cordon.commands.parity import WORLD_SEED
from cordon.drill import erased, replayed
from cordon.drill.loss import drill, kill_flink, lose_redis
from cordon.drill.service import drill as survive
from cordon.drill.tamper import Drill
from cordon.evidence import Evidence
from cordon.parity import Plan
from cordon.pipeline import Pipeline
from features.tier import DAY
from stream.world.spec import WorldSpec
from stream.world.world import events_path, generate, write_history

app = typer.Typer(help=__doc__, no_args_is_help=True)
TILES_MIN = 100_000
TRANSACTIONS = 30_000
TAIL = 2_000
VERIFY_PER_S = 200_000
DECISIONS = 10_000
EXPLAINED = 1_000
KILLS = 10
UP_S = 2.0
SERVED = 30_000
ANSWERED_MIN = 20_000
SERVED_CUSTOMERS = 8_000
SERVED_PER_DAY = 11_000


Transactions = Annotated[int, typer.Option(help="Size of the replayed world.")]
Kills = Annotated[int, typer.Option(help="How often the service dies.")]
Rate = Annotated[float, typer.Option(help="Decisions per second.")]
Json = Annotated[bool, typer.Option("--json", help="Only the JSON object.")]
Write = Annotated[bool, typer.Option(help="Keep the result in bench/results.")]


@app.command()
def flink(
    transactions: Transactions = TRANSACTIONS, rate: Rate = 300.0, as_json: Json = False, write: Write = False
) -> None:
    """kill -9 of Flink's processes, twice."""
    _loss("drill_flink", kill_flink, 2, False, transactions, rate, write)


@app.command()
def redis(
    transactions: Transactions = TRANSACTIONS, rate: Rate = 300.0, as_json: Json = False, write: Write = False
) -> None:
    """kill -9 of the online store with its directory deleted."""
    _loss("drill_redis", lose_redis, 1, True, transactions, rate, write)


@app.command()
def service(
    transactions: Transactions = SERVED, rate: Rate = 500.0, kills: Kills = KILLS, as_json: Json = False,
    write: Write = False,
) -> None:  # fmt: skip
    """kill -9 of the service, ten times, each time two seconds after it served again."""
    evidence = Evidence.begin("drill_service")
    with tempfile.TemporaryDirectory(prefix="cordon-drill-") as folder:
        path = Path(folder) / "world.parquet"
        days = max(2, transactions // SERVED_PER_DAY + 1)
        world = generate(WorldSpec(customers=SERVED_CUSTOMERS, days=days), WORLD_SEED)
        write_history(world, path)
        times = world.transactions["time"]
        # A second of this replay is an hour of events: what was sent again after a kill is not late.
        plan = Plan(
            "payments",
            path,
            until_ms=times[min(transactions, len(times) - 1)].as_py(),
            settings={"catalogue": {"name": "payments", "lateness_ms": DAY}},
        )
        found = survive(
            plan, Path(folder) / "stack", kills=kills, up_s=UP_S, rate=rate, say=evidence.progress
        )
    enough = transactions < SERVED or (found.answered >= ANSWERED_MIN and found.kills >= KILLS)
    evidence.end(found.as_json(), holds=found.holds and enough, write=write)


@app.command()
def replay(
    decisions: Annotated[int, typer.Option(min=100, help="Past decisions to replay.")] = DECISIONS,
    as_json: Json = False,
    write: Write = False,
) -> None:
    """A restart with a newer champion; then a rule, a list and a model changed behind their versions."""
    evidence = Evidence.begin("drill_replay")
    with tempfile.TemporaryDirectory(prefix="cordon-drill-") as folder:
        found = replayed.drill(Path(folder), decisions, evidence.progress)
    evidence.end(found.to_json(), holds=found.holds and decisions >= DECISIONS, write=write)


@app.command()
def tamper(
    records: Annotated[
        int, typer.Option(min=2_000, help="Decisions in the journal that is damaged.")
    ] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Of the places that are damaged.")] = 1,
    as_json: Json = False,
    write: Write = False,
) -> None:
    """Seven damages to a journal of a million decisions, each named; twenty sound journals, no alarm.

    About 4.4 GB of disk, ten minutes. Ten sound journals and ten with a tail torn by kill -9 of their writer:
    the sound ones have a 200th of the records each, the torn ones what their writers wrote until they were
    killed in the middle of a batch.
    """
    evidence = Evidence.begin("drill_tamper")
    say = (lambda line: None) if as_json else evidence.progress
    with tempfile.TemporaryDirectory(prefix="cordon-drill-") as folder:
        found = Drill(Path(folder), records, seed, say).run()
    # The figure is for records of which there are enough to measure.
    fast = records < 100_000 or found.verify_records_per_s >= VERIFY_PER_S
    evidence.end(found.as_json(), holds=found.holds and fast, write=write)


@app.command()
def explain(
    decisions: Annotated[int, typer.Option(min=100, help="Past decisions to explain.")] = EXPLAINED,
    as_json: Json = False,
    write: Write = False,
) -> None:
    """Explanations of past decisions against Shapley values by `shap`, over the same trees."""
    # Importing shap takes seconds.
    from cordon.drill import explained

    evidence = Evidence.begin("drill_explain")
    with tempfile.TemporaryDirectory(prefix="cordon-drill-") as folder:
        found = explained.drill(Path(folder), decisions, evidence.progress)
    evidence.end(found.as_json(), holds=found.holds and decisions >= EXPLAINED, write=write)


@app.command()
def erase(as_json: Json = False, write: Write = False) -> None:
    """A data subject erased from a running stack, and searched for in every place before and after."""
    evidence = Evidence.begin("drill_erase")
    say = (lambda line: None) if as_json else evidence.progress
    with tempfile.TemporaryDirectory(prefix="cordon-drill-") as folder:
        found = erased.drill(Path(folder), say)
    evidence.end(found.as_json(), holds=found.holds, write=write)


def _loss(
    name: str,
    kill: Callable[[Pipeline], None],
    kills: int,
    fast_lane: bool,
    transactions: int,
    rate: float,
    write: bool,
) -> None:
    evidence = Evidence.begin(name)
    with tempfile.TemporaryDirectory(prefix="cordon-drill-") as folder:
        path = Path(folder) / "world.parquet"
        world = generate(WorldSpec(days=max(8, transactions // 3_000 + 2)), WORLD_SEED)
        write_history(world, path)
        times = world.transactions["time"]
        last = min(transactions + TAIL, len(times) - 1)
        plan = Plan(
            "payments",
            path,
            events=events_path(path),
            until_ms=times[last].as_py() + 1,
            fast_lane=fast_lane,
        )
        seconds = transactions / rate
        at_s = tuple(seconds * (k + 1) / (kills + 2) for k in range(kills))
        found = drill(
            plan,
            Path(folder) / "stack",
            kill=kill,
            at_s=at_s,
            rate=rate,
            split_ms=times[last - TAIL].as_py() + 1,
            say=evidence.progress,
        )
    enough = transactions < TRANSACTIONS or found.tiles.tiles >= TILES_MIN
    evidence.end(found.as_json(), holds=found.holds and enough and found.kills == kills, write=write)
