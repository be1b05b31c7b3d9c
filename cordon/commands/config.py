"""`cordon config`: the settings in force, with secrets hidden."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cordon.settings import Settings, flatten, reference


def command(
    env: Annotated[bool, typer.Option("--env", help="As environment variables instead of JSON.")] = False,
    pages: Annotated[
        bool, typer.Option("--reference", help="The page of all settings, in Markdown.")
    ] = False,
) -> None:
    """Prints every setting after file and environment; leaves with 2 and a message where one is wrong."""
    if pages:
        typer.echo(reference(), nl=False)
        return
    shown = Settings.load().printable()
    if env:
        for name, value in flatten(shown):
            typer.echo(f"{name}={value}")
    else:
        typer.echo(json.dumps(shown, indent=2))
