"""The whole service on one machine: every part of the stack, wired by the settings that it is given.

    valkey   kafka --> topics   jobmanager, taskmanager
       \\________________|_______________/
                 |              |
        service, door       jobs (submit and keep the Flink jobs)
        publisher, projector

The processes receive their settings through the environment only, as they do in containers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cordon.evidence import ROOT
from cordon.settings import Settings
from cordon.stack.flink import Flink
from cordon.stack.kafka import Kafka
from cordon.stack.part import Part
from cordon.stack.port import HOST, Ports
from cordon.stack.probe import All, Healthy, JobsRunning, Probe, Said
from cordon.stack.process import processors
from cordon.stack.valkey import Valkey

USUAL_PORTS = {
    "valkey": 6379,
    "kafka": 9092,
    "kafka-controller": 9093,
    "flink-rest": 8081,
    "flink-rpc": 6123,
}
LISTENERS = (*USUAL_PORTS, "service")
# Where processors are few, what follows the log yields to what answers: a decision never waits for a tile. It
# keeps off as many processors as there are workers who answer (see `spared`). Among those that follow, the
# projector comes last: no feature waits for it.
FOLLOWERS = {
    "kafka": 5, "jobmanager": 10, "taskmanager": 10, "jobs": 10, "publisher": 5, "projector": 19,
    "webhooks": 10,
}  # fmt: skip
# What a person calls the address of a part.
LABELS = {"service": "http", "kafka": "kafka", "valkey": "redis", "jobmanager": "flink"}
NAMES = (
    "valkey",
    "kafka",
    "topics",
    "jobmanager",
    "taskmanager",
    "jobs",
    "service",
    "door",
    "publisher",
    "projector",
    "webhooks",
)


@dataclass(frozen=True, slots=True)
class Options:
    """What a local stack may be asked for, beside the settings.

    `only`: names of parts to run (all without); `usual_ports`: try the well-known ports first, as a person
    expects; tests take random ones. `jobs`: how many Flink jobs make it ready. `attach`: start nothing; the
    settings lead to parts that run elsewhere, as containers.
    """

    only: Collection[str] = ()
    usual_ports: bool = True
    jobs: int = 1
    attach: bool = False


@dataclass(frozen=True, slots=True)
class Local:
    """A local stack before it is started: its parts, and the settings that lead to them."""

    directory: Path
    settings: Settings
    parts: tuple[Part, ...]
    valkey: Valkey
    kafka: Kafka
    flink: Flink
    addresses: dict[str, str] = field(default_factory=dict)


def local(
    settings: Settings,
    directory: Path,
    options: Options | None = None,
    *,
    ports: Ports | None = None,
    root: Path = ROOT,
) -> Local:
    """Chooses ports, writes the configuration of the parts below `directory` and returns the stack.

    Raises `FlinkMissing` and `NoFreePort`. What the settings say explicitly about files is kept; addresses
    are those of the parts started here.
    """
    chosen = options or Options()
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    usual = {**USUAL_PORTS, "service": settings.service.port}
    given = choose_ports(directory, ports or Ports(), usual if chosen.usual_ports else {})
    valkey = Valkey(directory / "valkey", given["valkey"])
    kafka = Kafka(directory / "kafka", root / ".jars" / "kafka", given["kafka"], given["kafka-controller"])
    flink = Flink(
        directory / "flink",
        root / ".venv-flink" / "bin" / "python",
        root / ".jars" / "flink",
        given["flink-rest"],
        given["flink-rpc"],
        # One for each subtask: idle ones would divide the memory of the state with them.
        slots=settings.flink.parallelism + 1,
        state=settings.flink.state,
        checkpoint_interval_ms=settings.flink.checkpoint_interval_ms,
    )
    if chosen.attach:
        return Local(directory, settings, (), valkey, kafka, flink, addresses_of(settings))
    wired = wire(settings, directory, valkey, kafka, flink, given["service"])
    parts = (valkey.part(), kafka.part(), *flink.parts(), *processes(wired, directory, flink, chosen, root))
    order = {name: place for place, name in enumerate(NAMES)}
    kept = [part for part in parts if not chosen.only or part.name in chosen.only]
    spares = spared(settings) if any(part.name == "service" for part in kept) else 0
    wanted = sorted(
        (
            replace(part, nice=FOLLOWERS[part.name], spares=spares) if part.name in FOLLOWERS else part
            for part in kept
        ),
        key=lambda p: order[p.name],
    )
    return Local(
        directory=directory,
        settings=wired,
        parts=tuple(wanted),
        valkey=valkey,
        kafka=kafka,
        flink=flink,
        addresses={label: part.address for part in wanted if (label := LABELS.get(part.name))},
    )


def spared(settings: Settings) -> int:
    """How many processors what follows leaves to what answers: one for each worker, at most half of all."""
    return min(settings.service.workers, len(processors()) // 2)


def addresses_of(settings: Settings) -> dict[str, str]:
    """Where the parts are that the settings lead to."""
    return {
        "http": f"http://{settings.service.host}:{settings.service.port}",
        "kafka": settings.kafka.bootstrap,
        "redis": settings.redis.url,
        "flink": settings.flink.rest,
    }


def wire(
    settings: Settings, directory: Path, valkey: Valkey, kafka: Kafka, flink: Flink, service_port: int
) -> Settings:
    """The settings with the addresses and directories of this stack."""
    update = {
        "redis": settings.redis.model_copy(update={"url": valkey.address, "cluster": False}),
        "kafka": settings.kafka.model_copy(update={"bootstrap": kafka.bootstrap}),
        "service": settings.service.model_copy(update={"host": HOST, "port": service_port}),
        "flink": settings.flink.model_copy(
            update={
                "rest": flink.rest,
                "checkpoints": flink.checkpoint_directory,
                "jars": flink.jars.resolve(),
            }
        ),
    }
    if "directory" not in settings.journal.model_fields_set:
        update["journal"] = settings.journal.model_copy(update={"directory": directory / "journal"})
    if "directory" not in settings.vault.model_fields_set:
        update["vault"] = settings.vault.model_copy(update={"directory": directory / "vault"})
    if "rules_dir" not in settings.decide.model_fields_set:
        update["decide"] = settings.decide.model_copy(update={"rules_dir": directory / "rules"})
    if "warm" not in settings.tier.model_fields_set:
        update["tier"] = settings.tier.model_copy(update={"warm": directory / "warm"})
    if "file" not in settings.webhooks.model_fields_set:
        place = {"file": directory / "webhooks.sqlite"}
        update["webhooks"] = settings.webhooks.model_copy(update=place)
    audit = {name: directory / name for name in ("anchors", "keys")}
    unset = {name: path for name, path in audit.items() if name not in settings.audit.model_fields_set}
    update["audit"] = settings.audit.model_copy(update=unset)
    wired = settings.model_copy(update=update)
    if "store_url" not in settings.model_fields_set:
        wired = wired.model_copy(update={"store_url": f"sqlite:///{directory / 'store.sqlite'}"})
    return wired


def processes(
    settings: Settings, directory: Path, flink: Flink, options: Options, root: Path
) -> tuple[Part, ...]:
    """Our own processes, in both environments."""
    base = {**settings.environment(), "PYTHONUNBUFFERED": "1"}
    python = sys.executable

    def process(name: str, module: str, needs: tuple[str, ...], probe: Probe) -> Part:
        return Part(
            name=name,
            command=(python, "-m", module),
            probe=probe,
            environment=base,
            directory=root,
            needs=needs,
        )

    topics = Part(
        name="topics",
        command=(python, "-m", "cordon.stack.topics"),
        environment=base,
        directory=root,
        needs=("kafka",),
        once=True,
    )
    jobs = Part(
        name="jobs",
        command=(str(flink.python.absolute()), "-m", "stream.jobs"),
        probe=All((Said("ready: jobs"), JobsRunning(flink.rest, options.jobs))),
        environment={**base, **flink.environment()},
        directory=root,
        needs=("valkey", "topics", "taskmanager"),
        start_timeout_s=240.0,
        # It takes a last checkpoint of its jobs before it leaves.
        stop_timeout_s=30.0,
    )
    address = f"http://{HOST}:{settings.service.port}"
    service = process("service", "api.serve", ("valkey", "topics"), Healthy(f"{address}/health/ready"))
    return (
        topics,
        jobs,
        replace(service, address=address),
        process("door", "api.door", ("valkey", "topics"), Said("ready: door")),
        process("publisher", "api.publisher", ("topics",), Said("ready: publisher")),
        process("projector", "api.projector", ("topics",), Said("ready: projector")),
        process("webhooks", "api.webhooks", ("topics",), Said("ready: webhooks")),
    )


def choose_ports(directory: Path, ports: Ports, usual: Mapping[str, int]) -> dict[str, int]:
    """A port for each listener: the one of the last start, the usual one, or a random one."""
    file = directory / "ports.json"
    last: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    given = {}
    for name in LISTENERS:
        wished = [known[name] for known in (last, usual) if name in known]
        given[name] = ports.take(*wished)
    file.write_text(json.dumps(given))
    return given
