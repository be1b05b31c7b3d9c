"""`cordon rules`: rule sets from draft to live, and what they cost."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from cordon.evidence import Evidence
from cordon.rule_bench import DECISIONS, measure

app = typer.Typer(help=__doc__, no_args_is_help=True)
app.callback()(lambda: None)
Json = Annotated[bool, typer.Option("--json", help="Only the JSON object.")]


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
