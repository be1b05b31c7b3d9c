"""`cordon parity`: features against an independent computation of the same."""

from __future__ import annotations

import contextlib
import enum
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cordon.evidence import ROOT, Evidence
from cordon.failure import Failure
from cordon.parity import Plan, run
from features.column import InvalidHistory
from features.parity import HISTORY, TIED_ROWS_MAX, published
from features.tier import DAY
from stream.replay.injection import Injection
from stream.world.spec import WorldSpec
from stream.world.world import events_path, generate, write_history

DATA_VARIABLE = "CORDON_DATA"
HANDBOOK_START_MS = 1_522_540_800_000  # 2018-04-01T00:00:00Z
WEEK_MS = 7 * DAY
BACKFILL_DAYS = 37
TEST_DAYS = {True: 14, False: 3}
"""Days that are compared: with the fast lane, and in lockstep without it."""
DECISIONS_MIN = {True: 100_000, False: 20_000}
RATE_MIN = 500.0
WORLD_SEED = 7


class Switch(enum.StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


def data_folder() -> Path:
    """Where reference data lies: `CORDON_DATA`, or `shared/data` beside the checkout."""
    return Path(os.environ.get(DATA_VARIABLE) or ROOT.parent / "shared" / "data")


def command(
    reference: Annotated[
        bool, typer.Option("--published", help="The handbook's 14 published features, offline in exact mode.")
    ] = False,
    catalogue: Annotated[
        str | None, typer.Option(help="handbook or payments: replay through the whole stack and recompute.")
    ] = None,
    fast_lane: Annotated[
        Switch, typer.Option(help="off: lockstep, Flink alone feeds the store.")
    ] = Switch.ON,
    days: Annotated[int | None, typer.Option(help="Days that are compared.")] = None,
    transactions: Annotated[int, typer.Option(help="Size of the payments world.")] = 50_000,
    rate: Annotated[float, typer.Option(help="Transactions per second while comparing.")] = 600.0,
    keep: Annotated[
        Path | None, typer.Option(help="Folder for world, logs and state, kept afterwards.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Only the JSON object.")] = False,
    write: Annotated[bool, typer.Option(help="Keep the result in bench/results.")] = False,
) -> None:
    """Leaves with 0 where everything compared is equal."""
    if reference:
        _published(as_json=as_json, write=write)
    if catalogue not in ("handbook", "payments"):
        raise Failure("cordon parity: say what to compare: --published, --catalogue handbook or payments")
    on = fast_lane is Switch.ON
    evidence = Evidence.begin(f"parity_{catalogue}" + ("" if on else "_lockstep"))
    with contextlib.ExitStack() as stack:
        place = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cordon-parity-")))
        place.mkdir(parents=True, exist_ok=True)
        if catalogue == "handbook":
            plan = handbook_plan(days or TEST_DAYS[on], fast_lane=on, rate=rate)
        else:
            plan = payments_plan(place, transactions, fast_lane=on, rate=rate)
        outcome = run(plan, place / "stack", evidence.progress)
    body = outcome.as_json(plan)
    whole = days is None and catalogue == "handbook"
    enough = not whole or outcome.oracle.decisions >= DECISIONS_MIN[on]
    fast = not (whole and on) or body["replay"]["transactions_per_s"] >= RATE_MIN
    if outcome.oracle.constant:
        evidence.progress(f"constant: {', '.join(outcome.oracle.constant)}")
    for name in catalogue_names(outcome.oracle.mismatch, outcome.oracle.missing, outcome.oracle.extra):
        evidence.progress(f"differs: {name}")
    evidence.end(body, holds=outcome.holds and enough and fast, write=write)


def handbook_plan(days: int, *, fast_lane: bool, rate: float) -> Plan:
    """Thirty-seven days of backfill, then `days` that are compared, labels seven days late."""
    history = data_folder() / HISTORY
    if not history.is_file():
        raise Failure(f"{history} is missing; {DATA_VARIABLE} names the folder with the data")
    test_from_ms = HANDBOOK_START_MS + BACKFILL_DAYS * DAY
    return Plan(
        "handbook",
        history,
        label_delay_ms=WEEK_MS,
        test_from_ms=test_from_ms,
        until_ms=test_from_ms + days * DAY,
        rate=rate if fast_lane else None,
        fast_lane=fast_lane,
        pause_s=10.0 if fast_lane else 0.0,
    )


def payments_plan(folder: Path, transactions: int, *, fast_lane: bool, rate: float) -> Plan:
    """A generated world with labels and lifecycle events; repeats, disorder and garbage injected."""
    customers = max(60, min(2_000, transactions // 25))
    days = max(8, round(transactions / (customers * 1.55)) + 1)
    spec = WorldSpec(customers=customers, days=days, fraud_share=0.005, label_delay_scale=0.25)
    world = generate(spec, WORLD_SEED)
    cut = world.transactions["time"][min(transactions, len(world.transactions) - 1)].as_py()
    path = folder / "world.parquet"
    write_history(world, path)
    injection = Injection(duplicates=0.02, disorder=0.02, malformed=0.01) if fast_lane else Injection()
    return Plan(
        "payments",
        path,
        events=events_path(path),
        until_ms=cut + 1,
        rate=rate if fast_lane else None,
        injection=injection,
        fast_lane=fast_lane,
    )


def catalogue_names(*counts: Mapping[str, int]) -> list[str]:
    """Features with a difference of any kind."""
    return [name for name in counts[0] if any(count[name] for count in counts)]


def _published(*, as_json: bool, write: bool) -> NoReturn:
    evidence = Evidence.begin("parity_published")
    folder = data_folder()
    try:
        found = published(folder)
    except InvalidHistory as error:
        raise Failure(f"{error}; {DATA_VARIABLE} names the folder with the data") from error
    if not as_json:
        for name, count in found.columns.items():
            evidence.progress(f"{name:40} {count:4} of {found.rows} rows differ")
        evidence.progress(
            f"{found.mismatch} rows differ, {found.tied} of them tied (at most {TIED_ROWS_MAX})"
        )
    evidence.end(found.as_json(), holds=found.holds, write=write)
