"""`cordon status`: the parts of the running stack."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from cordon.stack.part import State
from cordon.stack.record import Record, directory_of

WELL = (State.READY, State.DONE)


def command(
    name: Annotated[str, typer.Option(help="The stack's name.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Only the JSON object.")] = False,
) -> None:
    """Prints a line per part on stderr and a JSON object on stdout; leaves with 0 where every part serves."""
    record = Record.read(directory_of(name))
    alive = record is not None and record.alive()
    parts = record.parts if record is not None and alive else ()
    well = alive and all(part.state in WELL for part in parts)
    if not as_json:
        for part in parts:
            deaths = f"died {part.deaths} times" if part.deaths else ""
            typer.echo(
                f"{part.name:12} {part.state:9} {part.pid or '':>8} {part.address} {deaths}".rstrip(),
                err=True,
            )
        if record is None or not alive:
            typer.echo(f"the stack {name} does not run", err=True)
        elif record.message:
            typer.echo(record.message, err=True)
    shown = {
        "name": name,
        "running": alive,
        "phase": record.phase if record is not None and alive else "down",
        "addresses": dict(record.addresses) if record is not None and alive else {},
        "parts": [asdict(part) for part in parts],
    }
    typer.echo(json.dumps(shown))
    raise typer.Exit(0 if well else 1)
