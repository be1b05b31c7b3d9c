"""`cordon demo`: a real pipeline decides a real stream; then it stays up until Ctrl-C."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from cordon.demo.run import demonstration
from cordon.evidence import Evidence
from cordon.stack.record import directory_of

DIRECTORY = "demo"


def command(
    once: Annotated[bool, typer.Option("--once", help="Leave when everything has been decided.")] = False,
    directory: Annotated[Path | None, typer.Option(help="Where it keeps what it made.")] = None,
    attach: Annotated[
        bool, typer.Option("--attach", help="Use the parts that the settings lead to; start none.")
    ] = False,
    write: Annotated[bool, typer.Option(help="Keep the result in bench/results.")] = False,
) -> None:
    """With --once the last line is a JSON summary and the exit status says whether everything held."""
    evidence = Evidence.begin("demo")
    place = directory or directory_of(DIRECTORY)
    with demonstration(place, evidence.progress, attach=attach) as (running, result):
        if not once:
            typer.echo(json.dumps(result.body))
            evidence.progress(f"\nrunning at {running.plan.addresses['http']}; Ctrl-C stops it")
            stop = threading.Event()
            signal.signal(signal.SIGTERM, lambda *_: stop.set())
            try:
                stop.wait()
            except KeyboardInterrupt:
                evidence.progress("stopping")
            sys.exit(0 if result.holds else 1)
    evidence.end(result.body, holds=result.holds, write=write)
