"""`cordon train`: from a history to a published artefact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cordon.evidence import Evidence
from cordon.failure import Failure
from cordon.when import duration_ms, instant_ms
from features import SchemaError, load
from features.column import InvalidHistory
from features.history import load_history
from models.artefact import ArtefactError, point
from models.artefact import load as load_model
from models.examples import InvalidExamples
from models.pipeline import train_history
from models.train import TrainingPlan

CHAMPION = "champion"


def command(
    history: Annotated[Path, typer.Option(help="Parquet file of labelled transactions.")],
    catalogue: Annotated[str, typer.Option(help="payments, handbook or a FILE.py.")] = "payments",
    until: Annotated[
        str | None, typer.Option(help="Cut-off: only what was known then is learned (default: the end).")
    ] = None,
    label_delay: Annotated[str | None, typer.Option(help="Age at which labels have arrived.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the artefacts.")] = Path(".cordon/models"),
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="The last line is one JSON object, as always.")
    ] = False,
) -> None:
    """Trains, publishes, loads what was published and makes it the champion; leaves with 0 if it loads."""
    evidence = Evidence.begin("train")
    try:
        chosen = load(catalogue)
        delay_ms = chosen.schema.label_delay_ms if label_delay is None else duration_ms(label_delay)
        past = load_history(history, chosen.schema, label_delay_ms=delay_ms)
        if not len(past):
            raise Failure(f"{history} has no transactions")
        # by default the last label has arrived: everything is old enough to learn from
        cutoff_ms = int(past.time_ms.max()) + delay_ms if until is None else instant_ms(until)
        plan = TrainingPlan(delay_ms, seed=seed)
        directory, trained = train_history(
            chosen, past, out, cutoff_ms=cutoff_ms, plan=plan, progress=evidence.progress
        )
        model = load_model(directory, features=chosen.names, fingerprint=chosen.vector_fingerprint)
        point(out, CHAMPION, model.version)
    except (SchemaError, InvalidHistory, InvalidExamples, ArtefactError) as error:
        raise Failure(str(error)) from error
    evidence.end(
        {
            "model": model.version,
            "directory": str(directory),
            "train": len(trained.window),
            "frauds": int(trained.window.fraud.sum()),
            "window_ms": list(trained.window_ms),
            "weights": {m.name: m.weight for m in trained.ensemble.members},
            "metrics": model.manifest["metrics"],
            "policy": trained.policy.to_json(),
            "notes": list(trained.notes),
        },
        holds=True,
    )
