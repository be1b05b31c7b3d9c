"""Past decisions decided again by a service that was restarted with a newer champion.

    world --> service, model A --> journal      restart      service, model B <-- POST .../replay, every id

Then one rule, one list and one model are changed behind their versions, one after the other: the replay of
the decisions that they made must name exactly that part.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import uvloop
from msgspec import to_builtins

from api.journal_reader import contents
from client import Client, Limits, Replayed
from cordon.failure import Failure
from cordon.settings import Settings
from cordon.stack.local import Local, Options, local
from cordon.stack.supervisor import Stack
from features import load
from features.history import load_history
from models.pipeline import train_history
from models.train import TrainingPlan
from stream.replay.history import History
from stream.replay.http_door import HttpDoor
from stream.replay.run import Replay, to_http
from stream.world.spec import WorldSpec
from stream.world.world import events_path, generate, write_history

WORLD: Final = WorldSpec(customers=300, days=40, fraud_share=0.02)
WORLD_SEED: Final = 7
THREADS: Final = 8
SPARE: Final = 1.1
"""What is sent for each decision that is wanted: a service that starts turns some away."""
SAMPLE: Final = 25
"""Decisions that are asked about each planted change."""


class NothingDecided(Failure):
    """The service recorded too few decisions to replay: look at its log."""


@dataclass(frozen=True, slots=True)
class Plant:
    """A change behind a version: bytes of a file, and what a replay must say."""

    file: Path
    before: bytes
    after: bytes
    part: str
    name: str


@dataclass(frozen=True, slots=True)
class Found:
    """What the drill found. `different`: decisions that were not the very same. `named`: parts that every
    replay of the sample named, and nothing else."""

    replayed: int
    different: int
    planted: int
    named: tuple[str, ...]
    outcomes: dict[str, int]
    differences: tuple[dict[str, Any], ...]

    @property
    def holds(self) -> bool:
        """Nothing differs by itself, everything that was planted is named."""
        return self.replayed > 0 and self.different == 0 and len(self.named) == self.planted

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "replayed": self.replayed,
            "different": self.different,
            "planted": self.planted,
            "planted_found": len(self.named),
            "named": list(self.named),
            "outcomes": self.outcomes,
            "differences": list(self.differences),
        }


def drill(directory: Path, decisions: int, say: Callable[[str], None]) -> Found:
    """Run it below `directory`. Raises `NothingDecided`, and what training and the stack raise."""
    history, models = train(directory, say)
    with service(directory, models[0], say) as running:
        sent = replay(history, running, round(decisions * SPARE))
        rules = ready(running)["parts"]["rules"]
    say(f"{sent:,} transactions sent to {models[0].name}")
    records = recorded(directory / "stack" / "journal" / "service-0")[:decisions]
    if len(records) < decisions:
        raise NothingDecided(f"{len(records)} of {decisions} decisions are in the journal")
    with service(directory, models[1], say) as running:
        asked = [record["id"] for record in records]
        answers = replays(running, asked)
        different = [answer for answer in answers if not answer.same]
        say(f"{len(answers):,} replayed under {models[1].name}: {len(different)} differ")
        planted = plants(directory / "stack" / "rules" / "sets" / f"{rules}.toml", models[0])
        named = tuple(plant.part for plant in planted if is_named(running, plant, asked[:SAMPLE]))
        say(f"planted and named: {', '.join(named) or 'none'}")
    outcomes = {
        o: sum(r["outcome"] == o for r in records) for o in ("approve", "challenge", "review", "decline")
    }
    shown = tuple({"id": a.transaction_id, "found": to_builtins(a.differences)} for a in different[:5])
    return Found(len(answers), len(different), len(planted), named, outcomes, shown)


def train(directory: Path, say: Callable[[str], None]) -> tuple[Path, list[Path]]:
    """A world, and two models of it: today's champion and the next one."""
    catalogue = load("payments")
    path = directory / "world.parquet"
    write_history(generate(WORLD, WORLD_SEED), path)
    delay_ms = catalogue.schema.label_delay_ms
    past = load_history(path, catalogue.schema, label_delay_ms=delay_ms)
    cutoff_ms = int(past.time_ms.max()) + delay_ms
    made = []
    for seed in (1, 2):
        plan = TrainingPlan(delay_ms, seed=seed)
        place, _ = train_history(catalogue, past, directory / "models", cutoff_ms=cutoff_ms, plan=plan)
        made.append(place)
        say(f"trained {place.name}")
    return path, made


@contextlib.contextmanager
def service(directory: Path, model: Path, say: Callable[[str], None]) -> Iterator[Local]:
    """The store and the service of this directory, started with a model and stopped again."""
    settings = Settings.load(decide={"clock": "event", "model_dir": model})
    options = Options(only=("valkey", "service"), usual_ports=False)
    plan = local(settings, directory / "stack", options)
    with Stack(plan.parts, directory / "stack", say=say):
        yield plan


def replay(history: Path, running: Local, decisions: int) -> int:
    """Send the world's first events until that many transactions are decided; how many."""
    catalogue = load("payments")
    past = load_history(history, catalogue.schema, label_delay_ms=catalogue.schema.label_delay_ms)
    before_ms = int(past.time_ms[min(decisions, len(past) - 1)]) + 1
    source = History(history, catalogue.schema, events=events_path(history))
    door = HttpDoor(running.addresses["http"], {"Authorization": f"Bearer {key(running)}"})
    manifest = uvloop.run(to_http(Replay(source, before_ms=before_ms, quiet=True), door))
    return manifest.sent["transaction"]


def key(running: Local) -> str:
    """The first of the configured keys."""
    return running.settings.service.api_keys.get_secret_value().split(",")[0].partition("=")[0]


def client_of(running: Local) -> Client:
    """A client of the stack's service."""
    return Client(running.addresses["http"], key(running), limits=Limits(answer_s=60.0))


def ready(running: Local) -> Any:
    """The service's parts."""
    return httpx.get(f"{running.addresses['http']}/health/ready", timeout=10).json()


def recorded(journal: Path) -> list[dict[str, Any]]:
    """Decisions of a journal, oldest first."""
    return [record for record in contents(journal) if record["type"] == "decision"]


def replays(running: Local, ids: Sequence[str]) -> list[Replayed]:
    """What the service says of each. Raises `CordonError`."""

    def ask(some: Sequence[str]) -> list[Replayed]:
        with client_of(running) as client:
            return [client.replay(id_) for id_ in some]

    parts = [ids[i::THREADS] for i in range(THREADS) if ids[i::THREADS]]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(itertools.chain.from_iterable(pool.map(ask, parts)))


def plants(rules: Path, model: Path) -> list[Plant]:
    """A threshold, a list's entry, and one byte of a tree."""
    text = rules.read_bytes()
    member = next(iter(sorted(model.glob("member-0-*"))))
    tree = member.read_bytes()
    middle = len(tree) // 2
    changed = tree[:middle] + bytes([tree[middle] ^ 1]) + tree[middle + 1 :]
    return [
        Plant(
            rules, text, text.replace(b"card_speed > 900", b"card_speed > 901"), "rule", "impossible_travel"
        ),
        Plant(
            rules,
            text,
            text.replace(b"de_blocked_example", b"de_other_example", 1),
            "list",
            "blocked_devices",
        ),
        Plant(member, tree, changed, "model", model.name),
    ]


def is_named(running: Local, plant: Plant, ids: Sequence[str]) -> bool:
    """Whether every replay names exactly the part that was changed, and none once it is put back."""
    if plant.after == plant.before:
        return False
    try:
        plant.file.write_bytes(plant.after)
        answers = replays(running, ids)
    finally:
        plant.file.write_bytes(plant.before)
    named = [[(d.part, d.name) for d in answer.differences] for answer in answers]
    restored = all(answer.same for answer in replays(running, ids))
    return restored and all(found == [(plant.part, plant.name)] for found in named)
