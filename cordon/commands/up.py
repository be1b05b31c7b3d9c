"""`cordon up`: start the stack of this machine; it goes on in the background until `cordon down`."""

from __future__ import annotations

import enum
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cordon.failure import Failure
from cordon.settings import Settings
from cordon.stack.daemon import encode, supervise
from cordon.stack.local import NAMES, Options
from cordon.stack.part import PartStatus
from cordon.stack.record import Record, StackRecordError, directory_of

POLL_S = 0.1


class Switch(enum.StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


def command(
    name: Annotated[str, typer.Option(help="Several stacks may run, each under its name.")] = "default",
    catalogue: Annotated[
        str | None, typer.Option(help="payments, handbook, or a FILE.py that defines CATALOGUE.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Directory of the artefact to serve.")] = None,
    fast_lane: Annotated[Switch | None, typer.Option(help="Observe in the decision path.")] = None,
    clock: Annotated[Literal["wall", "event"] | None, typer.Option(help="event: for replays.")] = None,
    only: Annotated[str, typer.Option(help=f"Some of: {', '.join(NAMES)}.")] = "",
    flink_state: Annotated[
        Literal["rocksdb", "hashmap"] | None, typer.Option(help="hashmap: faster, state in memory.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget everything that the stack stored.")] = False,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay; Ctrl-C stops the stack.")] = False,
) -> None:
    """Starts every part, waits until all serve and returns; where one does not, 2 and the tail of its log."""
    directory = directory_of(name)
    record = Record.read(directory)
    if record is not None and record.alive():
        raise StackRecordError(f"the stack {name} runs already: `cordon status`, `cordon down`")
    settings = Settings.load(**overrides(catalogue, model, fast_lane, clock, flink_state))
    if fresh:
        shutil.rmtree(directory, ignore_errors=True)
    options = Options(only=parts_of(only))
    environment = {**os.environ, **settings.environment(explicit=True)}
    if foreground:
        os.environ.update(environment)
        raise typer.Exit(supervise(name, options))
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "stack.json").unlink(missing_ok=True)
    with (directory / "supervisor.log").open("wb") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "cordon.stack.daemon", name, encode(options)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=Path.cwd(),
            env=environment,
            start_new_session=True,
        )
    try:
        follow(daemon, directory)
    except KeyboardInterrupt:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()
        raise typer.Exit(130) from None


def overrides(
    catalogue: str | None,
    model: Path | None,
    fast_lane: Switch | None,
    clock: str | None,
    flink_state: str | None,
) -> dict[str, Any]:
    """Options as settings. Files are made absolute: the parts run in another directory."""
    decide: dict[str, Any] = {}
    if model is not None:
        decide["model_dir"] = model.resolve()
    if fast_lane is not None:
        decide["fast_lane"] = fast_lane is Switch.ON
    if clock is not None:
        decide["clock"] = clock
    values: dict[str, Any] = {"decide": decide} if decide else {}
    if flink_state is not None:
        values["flink"] = {"state": flink_state}
    if catalogue is not None:
        is_file = catalogue.endswith(".py")
        values["catalogue"] = {"name": str(Path(catalogue).resolve()) if is_file else catalogue}
    return values


def parts_of(only: str) -> tuple[str, ...]:
    """Names of parts from a list with commas. Raises `Failure` for one that does not exist."""
    names = tuple(name.strip() for name in only.split(",") if name.strip())
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise Failure(f"no part is named {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    return names


def follow(daemon: subprocess.Popen[bytes], directory: Path) -> None:
    """Shows every change until the stack serves. Raises `Failure` where it does not come up."""
    shown: dict[str, PartStatus] = {}
    while True:
        ended = daemon.poll() is not None
        record = Record.read(directory)
        for part in record.parts if record else ():
            if part.name not in shown or shown[part.name].state is not part.state:
                where = part.address or ""
                typer.echo(f"{part.name:12} {part.state:9} {where}".rstrip(), err=True)
            shown[part.name] = part
        if record is not None and record.phase == "failed":
            daemon.wait()
            raise Failure(record.message)
        if record is not None and record.phase == "ready":
            typer.echo(json.dumps({"name": record.name, "addresses": dict(record.addresses)}))
            return
        if ended:
            log = (directory / "supervisor.log").read_text(errors="replace")
            raise Failure(f"the supervisor ended with {daemon.returncode}:\n{log[-4000:]}")
        time.sleep(POLL_S)
