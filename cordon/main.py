"""The command line. Each command lives in `cordon/commands/<name>.py` and is imported when it is called.

A module offers either `command`, a function with typer's annotations, or `app`, a `typer.Typer`.
"""

from __future__ import annotations

import importlib
import importlib.util
import signal
from types import FrameType
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from cordon.failure import Failure

# In the order of `cordon --help`.
COMMANDS = {
    "up": "Start the stack of this machine and leave it running.",
    "down": "Stop the running stack.",
    "status": "Show the parts of the running stack.",
    "demo": "Set up, train, replay attack campaigns and show a real pipeline deciding.",
    "train": "Train an ensemble from a history and write its artefact.",
    "replay": "Send a history, or a generated world, to the HTTP or the Kafka door.",
    "evaluate": "Train and test a catalogue offline, point in time.",
    "parity": "Compare every served vector with an independent recomputation.",
    "drill": "Break a part on purpose and check that nothing is lost.",
    "bench": "Measure, with the answers checked.",
    "rules": "Check, publish and backtest rules; what they cost.",
    "audit": "Verify journals offline with public keys alone, prove a record, export, rotate keys.",
    "access": "Make API keys.",
    "store": "Migrate the query store; move what is old into the warm store.",
    "erasures": "List erasures; repeat them after a backup of the keys was restored.",
    "letters": "List what could not be decided; look inside.",
    "reference": "Print the reference of features, rules and settings.",
    "config": "Show the settings, with secrets hidden.",
}


class Deferred(TyperCommand):
    """A command known by name and one line; its module is imported when it is called."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the real command."""
        return load(self.name or "").make_context(info_name, args, parent=parent, **extra)


class Commands(TyperGroup):
    """The commands whose module is there."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, in the order of the help."""
        return [name for name in COMMANDS if exists(name)]

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """A command, not yet imported; None where there is none of that name."""
        if cmd_name not in COMMANDS or not exists(cmd_name):
            return None
        return Deferred(cmd_name, help=COMMANDS[cmd_name], short_help=COMMANDS[cmd_name])

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; a `Failure` is a message and exit status 2, anything else a traceback."""
        try:
            return super().invoke(ctx)
        except Failure as failure:
            typer.secho(str(failure), err=True, fg="red")
            raise typer.Exit(2) from None


def exists(name: str) -> bool:
    """Whether the command's module is there."""
    return importlib.util.find_spec(f"cordon.commands.{name}") is not None


def load(name: str) -> Any:
    """Imports a command's module and builds the command."""
    module = importlib.import_module(f"cordon.commands.{name}")
    commands = getattr(module, "app", None)
    if commands is None:
        commands = typer.Typer(add_completion=False)
        commands.command(name, help=COMMANDS[name])(module.command)
    return typer.main.get_command(commands)


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False
)


@app.callback()
def cordon() -> None:
    """Streaming fraud detection: decisions with reasons, within milliseconds."""
    signal.signal(signal.SIGTERM, terminate)


def terminate(_number: int, _frame: FrameType | None) -> None:
    """Leaves as after Ctrl-C: whatever the command has started is stopped on the way out."""
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    app()
