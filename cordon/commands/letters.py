"""`cordon letters`: what could not be decided; looking inside is an audit event."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated

import typer

from api.letter import place_of
from cordon.letter_desk import Post

app = typer.Typer(help=__doc__, no_args_is_help=True)
Name = Annotated[str, typer.Option(help="The stack that is meant.")]


@app.command("list")
def list_(name: Name = "default", limit: Annotated[int, typer.Option(min=1, max=100_000)] = 1_000) -> None:
    """The newest dead letters, one JSON object per line, without what is inside."""
    found = list(Post.open(name).letters())[-limit:]
    for letter in found:
        shown = {key: value for key, value in letter.items() if key not in ("sealed", "original")}
        sys.stdout.write(json.dumps({"id": place_of(letter).id, **shown}) + "\n")


@app.command()
def show(
    id: Annotated[str, typer.Argument(help="As `list` names it: TOPIC-PARTITION-OFFSET.")],
    purpose: Annotated[str, typer.Option(help="Why: a case, not a person. It goes into the journal.")],
    name: Name = "default",
) -> None:
    """One dead letter with the bytes that it holds, as one JSON object."""
    letter, inside = Post.open(name).look(id, purpose, time.time_ns() // 1_000_000)
    shown = {key: value for key, value in letter.items() if key != "sealed"}
    body = {**shown, "field": inside.field, "reason": inside.reason}
    text = inside.original.decode("utf-8", "backslashreplace")
    sys.stdout.write(json.dumps({**body, "original": text}) + "\n")
