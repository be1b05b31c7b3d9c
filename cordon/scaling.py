"""What a load needs, computed from measured processor time: the tables of docs/scaling.md.

    cores of a stage  =  peak rate * microseconds per transaction / 1,000,000 / UTILISATION

Stages that run as single threads (a decision process, a Redis shard) need that many of them, rounded up.
Memory of Redis is what the state of an active card and of what belongs to it takes, per transaction that the
state remembers. A cell without a result stays empty.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

UTILISATION: Final = 0.6
"""Of a processor at the peak: above it, waiting grows faster than the load."""
PEAK: Final = 3.0
"""The busiest minute of a day against its average."""
DAY_S: Final = 86_400
REMEMBERED_DAYS: Final = 90
SHARD_GIB: Final = 64
EMPTY: Final = "–"
Costs = Mapping[str, float]

# Parts of a result's CPU figures, by stage.
STAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "decide": ("service", "door", "stream_door"),
    "Redis": ("valkey", "redis"),
    "Kafka": ("kafka",),
    "publish": ("publisher",),
    "project": ("projector",),
    "Flink": ("jobmanager", "taskmanager", "jobs", "flink_jvm", "flink_python"),
}
SINGLE: Final = ("decide", "Redis", "publish", "project")
"""One process of these uses one processor."""
PATHS: Final = {
    "over HTTP": (("http_beside_2000", "http_beside_1000"), "cpu_us_per_request"),
    "over Kafka": (("stream",), "cpu_us_per_tx"),
    "over Kafka, decided and observed only": (("decide",), "cpu_us_per_tx"),
}

INSIDE: Final = {
    "features": "features",
    "score": "score",
    "rules": "rules and outcome",
    "explain": "exact reasons of those that are not approved",
    "rest": "consume, identify, claim and observe in Redis, encode, journal, sync, answer the claims, commit",
}


@dataclass(frozen=True, slots=True)
class Demand:
    """A load: transactions of a day, and a second at the peak."""

    name: str
    daily: float
    peak: float


DEMANDS: Final = (
    Demand("10 million a day", 10e6, PEAK * 10e6 / DAY_S),
    Demand("1 billion a day", 1e9, PEAK * 1e9 / DAY_S),
    Demand("100,000 a second", 100_000 / PEAK * DAY_S, 100_000.0),
)


def cores(peak: float, cost_us: float) -> float:
    """Processors that a stage needs at a peak rate per second."""
    return peak * cost_us / 1e6 / UTILISATION


def costs(cpu_us: Mapping[str, float]) -> dict[str, float]:
    """Microseconds per transaction by stage, of the parts that a result names."""
    found = {s: sum(cpu_us[p] for p in parts if p in cpu_us) for s, parts in STAGES.items()}
    return {stage: cost for stage, cost in found.items() if cost > 0}


def state_bytes(memory: Mapping[str, Any]) -> float:
    """Of Redis, per remembered transaction: the states of all entities of the measured cards."""
    whole = sum(one["keys"] * one["memory"] for one in memory["entities"].values())
    return float(whole / (memory["cards"] * memory["transactions_per_card"]))


def partitions(decide: float, flink: float) -> int:
    """Of the topics: a power of two, twice as many as processes that read them at the peak."""
    return int(2 ** math.ceil(math.log2(2 * max(1.0, decide, flink))))


def first(found: Costs) -> tuple[str, float]:
    """The stage that a single process of saturates at the lowest rate, and that rate a second."""
    limits = {stage: 1e6 / found[stage] for stage in SINGLE if stage in found}
    stage = min(limits, key=lambda name: limits[name])
    return stage, limits[stage]


def fill(page: str, results: Path) -> str:
    """The page with its tables made anew. Raises `ValueError` without their markers."""
    made: Mapping[str, Callable[[Path], str]] = {
        "cost": cost_table,
        "inside": inside_table,
        "demand": demand_table,
        "first": first_sentence,
        "scale": scale_table,
    }
    for name, make in made.items():
        before, rest = page.split(f"<!-- {name} -->")
        _, after = rest.split(f"<!-- /{name} -->")
        page = f"{before}<!-- {name} -->\n{make(results)}\n<!-- /{name} -->{after}"
    return page


def cost_table(results: Path) -> str:
    """Microseconds per transaction, by stage and path."""
    found = {path: measured(results, path) for path in PATHS}
    lines = [f"| stage | {' | '.join(PATHS)} |", "|---|" + "---|" * len(PATHS)]
    for stage in STAGES:
        lines.append(f"| {stage} | {' | '.join(shown(one.get(stage)) for one in found.values())} |")
    whole = (sum(one.values()) if one else None for one in found.values())
    return "\n".join([*lines, f"| whole | {' | '.join(map(shown, whole))} |"])


def inside_table(results: Path) -> str:
    """Microseconds of the stages within a decision process."""
    found = {name: read(results, name).get("wall_us_per_tx", {}) for name in ("decide", "decide_handbook")}
    lines = ["| within a decision | payments | handbook, by rules alone |", "|---|---|---|"]
    for stage, what in INSIDE.items():
        lines.append(row(what, [shown(one.get(stage)) for one in found.values()]))
    return "\n".join(lines)


def demand_table(results: Path) -> str:
    """What each load needs: every stage, over HTTP, or over Kafka where that was not measured."""
    found = whole_path(results)
    memory = read(results, "memory")
    lines = [f"| | {' | '.join(demand.name for demand in DEMANDS)} |", "|---|" + "---|" * len(DEMANDS)]
    lines.append(row("transactions a second at the peak", [f"{demand.peak:,.0f}" for demand in DEMANDS]))
    for stage in STAGES:
        cells = [shown(cores(d.peak, found[stage]) if stage in found else None, 1) for d in DEMANDS]
        lines.append(row(f"cores: {stage}", cells))
    whole = [shown(cores(d.peak, sum(found.values())) if found else None, 0) for d in DEMANDS]
    lines.append(row("cores in all", whole))
    for name, stage in (("decision processes", "decide"), ("Redis shards, by processor", "Redis")):
        needed = (math.ceil(cores(d.peak, found[stage])) if stage in found else None for d in DEMANDS)
        lines.append(row(name, [shown(one, 0) for one in needed]))
    both = {"decide", "Flink"} <= found.keys()
    topics = (partitions(cores(d.peak, found["decide"]), cores(d.peak, found["Flink"])) if both else None
              for d in DEMANDS)  # fmt: skip
    lines.append(row("partitions", [shown(one, 0) for one in topics]))
    held = [d.daily * REMEMBERED_DAYS * state_bytes(memory) / 2**30 if memory else None for d in DEMANDS]
    lines.append(row("memory of Redis, GiB", [shown(one, 0) for one in held]))
    shards = [None if one is None else math.ceil(one / SHARD_GIB) for one in held]
    lines.append(row(f"Redis shards, by memory of {SHARD_GIB} GiB", [shown(one, 0) for one in shards]))
    return "\n".join(lines)


def first_sentence(results: Path) -> str:
    """Which single process is the first at its end."""
    found = whole_path(results)
    if not found:
        return "Not measured yet."
    stage, rate = first(found)
    return f"One process of each, a processor for each: {stage}, at {rate:,.0f} transactions a second."


def scale_table(results: Path) -> str:
    """One against two: workers of the service, subtasks of Flink."""
    lines = ["| what | figure | 1 | 2 |", "|---|---|---|---|"]
    for what, figure, key, one, two in (
        ("workers of the service", "p99 in ms at 2,000/s", "p99_ms", "http_alone_2000", "http_alone_2000_w2"),
        ("workers of the service", "decisions a second, as fast as they go", "warm_rps", "http_alone_2000",
         "http_alone_2000_w2"),
        ("Flink's parallelism", "transactions a second", "tps", "features", "features_p2"),
    ):  # fmt: skip
        cells = (shown(read(results, name).get(key)) for name in (one, two))
        lines.append(f"| {what} | {figure} | {' | '.join(cells)} |")
    return "\n".join(lines)


def row(name: str, cells: list[str]) -> str:
    """Of a table."""
    return f"| {name} | {' | '.join(cells)} |"


def whole_path(results: Path) -> dict[str, float]:
    """Costs of all stages: over HTTP, or over Kafka where those are absent."""
    return measured(results, "over HTTP") or measured(results, "over Kafka")


def measured(results: Path, path: str) -> dict[str, float]:
    """Costs of a path's newest kind of result; empty without one."""
    names, key = PATHS[path]
    return next((costs(found[key]) for name in names if (found := read(results, name))), {})


def read(results: Path, name: str) -> dict[str, Any]:
    """A result, or nothing."""
    path = results / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def shown(value: float | None, digits: int = 1) -> str:
    """A cell."""
    return EMPTY if value is None else f"{value:,.{digits}f}"
