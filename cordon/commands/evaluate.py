"""`cordon evaluate`: train and test offline, point in time; the handbook's folds, or any history by dates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cordon.commands.parity import DATA_VARIABLE, data_folder
from cordon.evidence import Evidence
from cordon.failure import Failure
from cordon.when import duration_ms, instant_ms
from features import Catalogue, SchemaError, load
from features.column import InvalidHistory
from features.history import load_history
from features.parity import HISTORY
from models.evaluate import HANDBOOK_BAR, evaluate, evaluate_handbook
from models.examples import InvalidExamples
from models.metrics import MetricUndefined


def command(
    protocol: Annotated[str | None, typer.Argument(help="handbook: its four test folds.")] = None,
    catalogue: Annotated[str | None, typer.Option(help="payments, handbook or a FILE.py.")] = None,
    history: Annotated[Path | None, typer.Option(help="Parquet file of labelled transactions.")] = None,
    train_until: Annotated[str | None, typer.Option(help="Learn from transactions before this.")] = None,
    test_from: Annotated[str | None, typer.Option(help="Score every transaction from here on.")] = None,
    label_delay: Annotated[str | None, typer.Option(help="When a fraud becomes known, such as 7d.")] = None,
    validation: Annotated[bool, typer.Option(help="The folds on which settings are chosen.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The last line is one JSON object, as always.")
    ] = False,
    write: Annotated[bool, typer.Option(help="Keep the result in bench/results.")] = False,
) -> None:
    """Leaves with 0 where the bar holds: the handbook's means, or a test that could be measured."""
    evidence = Evidence.begin("evaluate_handbook" if protocol else "evaluate")
    try:
        if protocol is not None:
            _handbook(evidence, protocol, catalogue, history, validation=validation, write=write)
        chosen, file, until, since = _complete(catalogue, history, train_until, test_from)
        delay_ms = chosen.schema.label_delay_ms if label_delay is None else duration_ms(label_delay)
        found = evaluate(
            chosen,
            load_history(file, chosen.schema, label_delay_ms=delay_ms),
            train_until_ms=instant_ms(until),
            test_from_ms=instant_ms(since),
            label_delay_ms=delay_ms,
            progress=evidence.progress,
        )
    except (SchemaError, InvalidHistory, InvalidExamples, MetricUndefined) as error:
        raise Failure(str(error)) from error
    evidence.end(found.as_json(), holds=found.auc > 0.5, write=write)


def _handbook(
    evidence: Evidence,
    protocol: str,
    catalogue: str | None,
    history: Path | None,
    *,
    validation: bool,
    write: bool,
) -> None:
    if protocol != "handbook":
        raise Failure(f"no protocol {protocol!r}: say handbook, or --catalogue and --history with dates")
    path = history or data_folder() / HISTORY
    if not path.is_file():
        raise Failure(f"{path} is not there; {DATA_VARIABLE} names the folder with the data")
    found = evaluate_handbook(
        load(catalogue or "handbook"), path, validation=validation, progress=evidence.progress
    )
    evidence.progress(f"bar: {HANDBOOK_BAR}")
    evidence.end(found.as_json(), holds=found.holds, write=write and not validation)


def _complete(
    catalogue: str | None, history: Path | None, train_until: str | None, test_from: str | None
) -> tuple[Catalogue, Path, str, str]:
    if catalogue is None or history is None or train_until is None or test_from is None:
        raise Failure("say `handbook`, or all of --catalogue, --history, --train-until and --test-from")
    return load(catalogue), history, train_until, test_from
