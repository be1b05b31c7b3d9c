"""`cordon down`: stop the running stack."""

from __future__ import annotations

import signal
import time
from typing import Annotated

import typer

from cordon.stack.record import FILE, Record, directory_of

WAIT_S = 90.0
POLL_S = 0.1


def command(name: Annotated[str, typer.Option(help="The stack's name.")] = "default") -> None:
    """Stops every part, those that others need last. Nothing to stop is success."""
    directory = directory_of(name)
    record = Record.read(directory)
    if record is None:
        typer.echo(f"the stack {name} does not run", err=True)
        return
    record.supervisor.signal(signal.SIGTERM)
    deadline_s = time.monotonic() + WAIT_S
    while record.supervisor.alive():
        if time.monotonic() > deadline_s:
            typer.echo("the supervisor does not end: killed, with everything it started", err=True)
            record.supervisor.signal(signal.SIGKILL)
        time.sleep(POLL_S)
    (directory / FILE).unlink(missing_ok=True)
    typer.echo(f"the stack {name} is stopped", err=True)
