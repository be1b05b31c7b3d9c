"""`cordon parity`: features against an independent computation of the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cordon.evidence import ROOT, Evidence
from cordon.failure import Failure
from features.column import InvalidHistory
from features.parity import TIED_ROWS_MAX, published

DATA_VARIABLE = "CORDON_DATA"


def data_folder() -> Path:
    """Where reference data lies: `CORDON_DATA`, or `shared/data` beside the checkout."""
    return Path(os.environ.get(DATA_VARIABLE) or ROOT.parent / "shared" / "data")


def command(
    reference: Annotated[
        bool, typer.Option("--published", help="The handbook's 14 published features, offline in exact mode.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Only the JSON object.")] = False,
    write: Annotated[bool, typer.Option(help="Keep the result in bench/results.")] = False,
) -> None:
    """Leaves with 0 where everything compared is equal."""
    if not reference:
        raise Failure("cordon parity: say what to compare: --published")
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
