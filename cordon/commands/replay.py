"""`cordon replay`: send a history, or a generated payments world, to the HTTP or the Kafka door."""

from __future__ import annotations

import contextlib
import enum
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import redis
import typer
import uvloop

from cordon.evidence import Evidence
from cordon.failure import Failure
from cordon.settings import Settings
from cordon.stack.record import running
from cordon.when import duration_ms, instant_ms
from features import SchemaError, load
from features.column import InvalidHistory
from features.library import Keys
from stream.replay.history import History
from stream.replay.http_door import DoorRefused, HttpDoor
from stream.replay.injection import Injection
from stream.replay.kafka_door import KafkaDoor, Undelivered
from stream.replay.manifest import Manifest
from stream.replay.pace import Pace
from stream.replay.passage import LoggedAndSeen, LogTopics, NotPassed
from stream.replay.run import Replay, to_http, to_kafka
from stream.world.spec import WorldSpec
from stream.world.world import events_path, generate, write_history

REFUSED_FROM = 400


class Door(enum.StrEnum):
    """Where a replay goes."""

    HTTP = "http"
    KAFKA = "kafka"
    NONE = "none"


def command(
    history: Annotated[
        Path | None, typer.Option(help="Parquet file of transactions; with --generate, where to write it.")
    ] = None,
    catalogue: Annotated[str, typer.Option(help="payments, handbook or a FILE.py.")] = "payments",
    make: Annotated[bool, typer.Option("--generate", help="Make a payments world and replay it.")] = False,
    customers: Annotated[int, typer.Option(help="Of the generated world.")] = 2_000,
    days: Annotated[int, typer.Option(help="Of the generated world.")] = 30,
    door: Annotated[Door, typer.Option(help="none: only write what --generate makes.")] = Door.HTTP,
    rate: Annotated[float | None, typer.Option(help="Transactions per second, open loop.")] = None,
    speed_up: Annotated[float | None, typer.Option(help="Times event time.")] = None,
    poisson: Annotated[
        bool, typer.Option("--poisson", help="Irregular arrivals of that mean rate, not even ones.")
    ] = False,
    start: Annotated[str | None, typer.Option("--from", help="First event time: a date or epoch ms.")] = None,
    until: Annotated[str | None, typer.Option(help="Event time of the end: a date or epoch ms.")] = None,
    label_delay: Annotated[
        str | None, typer.Option(help="Labels follow their transaction by this, such as 7d.")
    ] = None,
    duplicates: Annotated[float, typer.Option(help="Share of messages that are sent twice.")] = 0.0,
    conflicts: Annotated[float, typer.Option(help="Share sent again with other content.")] = 0.0,
    disorder: Annotated[float, typer.Option(help="Share sent late, by up to an hour.")] = 0.0,
    malformed: Annotated[float, typer.Option(help="Invalid messages per transaction.")] = 0.0,
    lockstep: Annotated[
        bool, typer.Option("--lockstep", help="Wait for Flink wherever order needs it (fast lane off).")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the world and of what is injected.")] = 0,
    connections: Annotated[int, typer.Option(help="HTTP requests under way at once.")] = 64,
    name: Annotated[str, typer.Option(help="Stack to send to.")] = "default",
    url: Annotated[str | None, typer.Option(help="HTTP door elsewhere: http://HOST:PORT.")] = None,
    bootstrap: Annotated[str | None, typer.Option(help="Broker elsewhere: HOST:PORT.")] = None,
    topic: Annotated[str | None, typer.Option(help="Topic of the Kafka door.")] = None,
) -> None:
    """The last line says what was sent and answered; leaves with 0 where the door refused what it should."""
    evidence = Evidence.begin("replay")
    settings = Settings.load()
    try:
        with source(history, customers, days, seed, make=make, say=evidence.progress) as path:
            if door is Door.NONE:
                evidence.end({"history": str(path), "events": str(events_path(path))}, holds=True)
            beside = events_path(path)
            past = History(
                path,
                load(catalogue).schema,
                events=beside if beside.is_file() else None,
                label_delay_ms=None if label_delay is None else duration_ms(label_delay),
                from_ms=None if start is None else instant_ms(start),
                until_ms=None if until is None else instant_ms(until),
            )
            injection = Injection(duplicates, conflicts, disorder, malformed, seed=seed)
            with passage(settings, name, bootstrap, lockstep=lockstep) as waits:
                replay = Replay(
                    past, injection, Pace(rate, speed_up, "poisson" if poisson else "even", seed), waits
                )
                if door is Door.HTTP:
                    key = settings.service.api_keys.get_secret_value().split(",")[0].partition("=")[0]
                    target = HttpDoor(
                        url or address(name, "http"),
                        {"Authorization": f"Bearer {key}"},
                        connections=connections,
                    )
                    manifest = uvloop.run(to_http(replay, target))
                else:
                    broker = KafkaDoor(
                        bootstrap or address(name, "kafka"), topic or settings.kafka.transactions
                    )
                    manifest = to_kafka(replay, broker)
    except (SchemaError, InvalidHistory, DoorRefused, Undelivered, NotPassed, ValueError) as error:
        raise Failure(str(error)) from error
    evidence.end(manifest.as_dict() | {"refused": refused(manifest)}, holds=answered_well(manifest, door))


@contextlib.contextmanager
def source(
    history: Path | None, customers: int, days: int, seed: int, *, make: bool, say: Callable[[str], None]
) -> Iterator[Path]:
    """The history file: the given one, or one made for the occasion. Raises `Failure`."""
    if not make:
        if history is None:
            raise Failure("cordon replay: give --history FILE.parquet, or --generate")
        yield history
        return
    with tempfile.TemporaryDirectory(prefix="cordon-world-") as folder:
        path = history or Path(folder) / "world.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        world = generate(WorldSpec(customers=customers, days=days), seed)
        write_history(world, path)
        say(f"{len(world.transactions):,} transactions and {len(world.events):,} events in {path}")
        yield path


@contextlib.contextmanager
def passage(
    settings: Settings, name: str, bootstrap: str | None, *, lockstep: bool
) -> Iterator[LoggedAndSeen | None]:
    """What a lockstep replay waits on; None without lockstep."""
    if not lockstep:
        yield None
        return
    kafka = settings.kafka
    topics = LogTopics(kafka.decisions, kafka.labels, kafka.events)
    watermark = Keys(settings.tenant, "").watermark
    with redis.Redis.from_url(address(name, "redis")) as store:
        waits = LoggedAndSeen(bootstrap or address(name, "kafka"), topics, store, watermark)
        try:
            yield waits
        finally:
            waits.close()


def address(name: str, part: str) -> str:
    """Where a part of a running stack is. Raises `Failure` where the stack does not run."""
    found = running(name).addresses.get(part)
    if found is None:
        raise Failure(f"the stack {name} has no {part}: start it with `cordon up`")
    return found


def refused(manifest: Manifest) -> int:
    """How many messages the HTTP door answered with an error."""
    statuses = ((key.rpartition(":")[2], count) for key, count in manifest.answers.items())
    return sum(count for status, count in statuses if status.isdigit() and int(status) >= REFUSED_FROM)


def answered_well(manifest: Manifest, door: Door) -> bool:
    """Everything went out, and the HTTP door refused as many messages as were spoiled on purpose."""
    complete = manifest.answers.total() == manifest.messages
    spoiled = manifest.conflicts.total() + manifest.malformed.total()
    return complete and (door is Door.KAFKA or refused(manifest) == spoiled)
