"""`cordon rules`: rule sets from draft to live, and what they cost."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from api.backtest import NothingStored
from api.backtest import backtest as run_backtest
from api.rules.registry import Step, waiting
from api.rules.trips import UNTIL_RESET_MS
from api.segment import Damage
from api.warehouse import project
from cordon.evidence import Evidence
from cordon.rule_bench import DECISIONS, measure
from cordon.rule_desk import Desk, NotPublished
from cordon.rule_table import table_of
from cordon.when import duration_ms

app = typer.Typer(help=__doc__, no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Only the JSON object.")]
By = Annotated[str, typer.Option("--by", help="Who you are.")]
Message = Annotated[str, typer.Option("--message", "-m", help="Why.")]
Stack = Annotated[str, typer.Option("--name", help="The stack that is meant.")]
Directory = Annotated[
    Path | None, typer.Option("--rules-dir", help="Published sets; the stack's or the settings' without.")
]
File = Annotated[Path, typer.Argument(help="The draft, a TOML file.")]


@app.command()
def check(file: File, name: Stack = "default", as_json: Json = False) -> None:
    """Compiles a draft, tries its examples and measures it. Changes nothing."""
    evidence = Evidence.begin("rules")
    _, rules, ns = Desk.open(name, time.perf_counter_ns).check(file)
    if not as_json:
        evidence.progress(f"{len(rules.rules)} rules are fit: {rules.version}")
    found = {"version": rules.version, "rules": len(rules.rules), "lists": len(rules.lists)}
    evidence.end({**found, "ns_per_rule": round(ns, 1)}, holds=True)


@app.command()
def publish(
    file: File,
    by: By,
    message: Message = "",
    name: Stack = "default",
    rules_dir: Directory = None,
    as_json: Json = False,
) -> None:
    """Proposes a draft under a new number. It is live once another person approves it."""
    desk = _desk(name, rules_dir)
    step = desk.publish(file, by, _now_ms(), message)
    _done(step, as_json, f"number {step.number}, {step.version}: another person approves it with --by NAME")


@app.command()
def approve(
    number: Annotated[int, typer.Argument(help="Of the proposal.")],
    by: By,
    message: Message = "",
    name: Stack = "default",
    rules_dir: Directory = None,
    as_json: Json = False,
) -> None:
    """Makes a proposal live on all workers and both doors within a second."""
    step = _desk(name, rules_dir).approve(number, by, _now_ms(), message)
    _done(step, as_json, f"number {step.number}, {step.version}, is live")


@app.command()
def rollback(
    by: By,
    number: Annotated[int | None, typer.Argument(help="An earlier set; the one before without.")] = None,
    message: Message = "",
    name: Stack = "default",
    rules_dir: Directory = None,
    as_json: Json = False,
) -> None:
    """Makes a set live again that was approved before: one person is enough."""
    step = _desk(name, rules_dir).roll_back(number, by, _now_ms(), message)
    _done(step, as_json, f"number {step.number}, {step.version}, is live again")


@app.command("list")
def list_(name: Stack = "default", rules_dir: Directory = None, as_json: Json = False) -> None:
    """Everything that happened, what is live and what waits for approval."""
    desk = _desk(name, rules_dir)
    steps, live = desk.registry.steps(), desk.registry.live()
    open_ = [step.number for step in waiting(steps, live)]
    evidence = Evidence.begin("rules")
    if not as_json:
        for step in steps:
            waits = ", waits for approval" if step.kind == "proposed" and step.number in open_ else ""
            what = f"{step.number:>4}  {step.version}" if step.number else step.note
            evidence.progress(f"{_shown(step.at_ms)}  {step.kind:<11} {what}  by {step.by}{waits}")
        evidence.progress(f"live: {desk.served()}")
    body = {"live": desk.served(), "waiting": open_, "steps": [asdict(step) for step in steps]}
    evidence.end(body, holds=True)


@app.command()
def show(
    version: Annotated[str, typer.Argument(help="A number, a version, or live.")] = "live",
    name: Stack = "default",
    rules_dir: Directory = None,
) -> None:
    """Prints a set as it was published."""
    typer.echo(_desk(name, rules_dir).text(version), nl=False)


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="A number, a version, or live.")],
    after: Annotated[str, typer.Argument(help="A number, a version, or live.")] = "live",
    name: Stack = "default",
    rules_dir: Directory = None,
    as_json: Json = False,
) -> None:
    """Rules and lists that differ between two sets, then the lines."""
    evidence = Evidence.begin("rules")
    found, lines = _desk(name, rules_dir).difference(before, after)
    if not as_json:
        evidence.progress(lines)
    evidence.end(asdict(found), holds=True)


@app.command()
def snooze(
    rule: Annotated[str, typer.Argument(help="Id of a live rule.")],
    entity: Annotated[str, typer.Argument(help="card, customer, ...")],
    id_: Annotated[str, typer.Argument(metavar="ID", help="The entity's id, as transactions carry it.")],
    by: By,
    reason: Message,
    lasting: Annotated[str, typer.Option("--for", help="15m, 2h, 1d; 0s wakes it.")] = "1d",
    name: Stack = "default",
    rules_dir: Directory = None,
    as_json: Json = False,
) -> None:
    """Lets a rule rest for one entity until a time; hits are recorded, but do not count."""
    now_ms = _now_ms()
    until_ms = now_ms + duration_ms(lasting)
    step = _desk(name, rules_dir).snooze(rule, entity, id_, until_ms, by, reason, now_ms)
    _done(step, as_json, f"{rule} rests for this {entity} until {_shown(until_ms)}")


@app.command()
def reset(
    rule: Annotated[str, typer.Argument(help="Id of a tripped rule, or guard:decline_rate.")],
    by: By,
    reason: Message,
    name: Stack = "default",
    rules_dir: Directory = None,
    as_json: Json = False,
) -> None:
    """Brings a rule back that its breaker dropped to shadow, or ends the guarded mode."""
    step = _desk(name, rules_dir).reset(rule, by, _now_ms(), reason)
    _done(step, as_json, f"{rule} counts again, from zero")


@app.command()
def brakes(name: Stack = "default", rules_dir: Directory = None, as_json: Json = False) -> None:
    """What is tripped now, until when and why."""
    evidence = Evidence.begin("rules")
    now_ms = _now_ms()
    found = [trip for trip in _desk(name, rules_dir).trips() if trip.holds(now_ms)]
    if not as_json:
        for trip in found:
            until = "it is reset" if trip.until_ms >= UNTIL_RESET_MS else _shown(trip.until_ms)
            evidence.progress(f"{trip.name}: {trip.why}; until {until}")
        evidence.progress(f"{len(found)} tripped")
    evidence.end({"tripped": [asdict(trip) for trip in found]}, holds=True)


@app.command()
def export(
    to: Annotated[Path, typer.Argument(help="A directory for Parquet; what is there is continued.")],
    journal: Annotated[Path | None, typer.Option(help="Journals; the stack's without.")] = None,
    name: Stack = "default",
    as_json: Json = False,
) -> None:
    """Writes what is new in the journals as columns, for backtests."""
    evidence = Evidence.begin("rules")
    desk = _desk(name, None)
    try:
        found = project(journal or desk.config.journal_dir, to, desk.catalogue)
    except (Damage, OSError) as error:
        raise NotPublished(f"not exported: {error}") from error
    if not as_json:
        evidence.progress(f"{found.decisions:,} decisions and {found.labels:,} labels more in {to}")
    evidence.end(asdict(found), holds=True)


@app.command()
def backtest(
    file: File,
    decisions: Annotated[Path, typer.Option(help="What `cordon rules export` wrote.")],
    mature: Annotated[
        str | None, typer.Option(help="Age from which no label means no fraud; the schema's label delay.")
    ] = None,
    name: Stack = "default",
    as_json: Json = False,
) -> None:
    """Runs a draft over stored decisions: what it would have caught, whom it would have hit."""
    evidence = Evidence.begin("rules")
    desk = _desk(name, None)
    mature_ms = desk.catalogue.schema.label_delay_ms if mature is None else duration_ms(mature)
    _, rules, _ = desk.check(file)
    fingerprint = desk.catalogue.vector_fingerprint
    try:
        found = run_backtest(rules, decisions, fingerprint, mature_ms=mature_ms, timer=time.perf_counter_ns)
    except (NothingStored, OSError) as error:
        raise NotPublished(str(error)) from error
    if not as_json:
        evidence.progress(table_of(found, desk.vocabulary.minor_digits))
    evidence.end(found.to_json(), holds=True)


@app.command()
def bench(
    decisions: Annotated[int, typer.Option(min=1, help="Stored decisions of the backtest.")] = DECISIONS,
    as_json: Json = False,
    write: Annotated[bool, typer.Option(help="Keep the result in bench/results.")] = False,
) -> None:
    """Nanoseconds per rule as served, and a draft over stored decisions; both forms compared first."""
    evidence = Evidence.begin("rules")
    with tempfile.TemporaryDirectory(prefix="cordon-rules-") as folder:
        found = measure(Path(folder), decisions, (lambda _: None) if as_json else evidence.progress)
    evidence.end(found.to_json(), holds=found.holds and decisions >= DECISIONS, write=write)


def _desk(name: str, rules_dir: Path | None) -> Desk:
    return Desk.open(name, time.perf_counter_ns, rules_dir)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _shown(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")


def _done(step: Step, as_json: bool, line: str) -> None:
    evidence = Evidence.begin("rules")
    if not as_json:
        evidence.progress(line)
    body: dict[str, Any] = asdict(step)
    evidence.end(body, holds=True)
