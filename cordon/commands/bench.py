"""`cordon bench NAME`: the measurements of `bench/`, each a module that prints one JSON object last."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

import typer

from cordon.evidence import ROOT
from cordon.failure import Failure

BENCHES = ROOT / "bench"


class UnknownBench(Failure):
    """There is no measurement of this name."""


app = typer.Typer(add_completion=False)


@app.command(
    "bench",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def command(context: typer.Context) -> None:
    """Runs a measurement with the arguments that follow its name; without a name, lists them."""
    words = list(context.args)
    if not words or words[0] in ("--help", "-h"):
        for name, meaning in measurements(BENCHES).items():
            typer.echo(f"cordon bench {name:10} {meaning}")
        return
    known = measurements(BENCHES)
    if words[0] not in known:
        raise UnknownBench(f"no measurement is named {words[0]}; there are: {', '.join(known)}")
    sys.argv = [f"cordon bench {words[0]}", *words[1:]]
    runpy.run_module(f"bench.{words[0]}", run_name="__main__")


def measurements(directory: Path) -> dict[str, str]:
    """Names and first lines of the modules that can be run, without importing them."""
    found = {}
    for path in sorted(directory.glob("*.py")):
        tree = ast.parse(path.read_text())
        if any(is_entry(node) for node in tree.body):
            found[path.stem] = (ast.get_docstring(tree) or "").split("\n", 1)[0]
    return found


def is_entry(node: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == "__main__":`."""
    return isinstance(node, ast.If) and "__name__" in {
        inner.id for inner in ast.walk(node.test) if isinstance(inner, ast.Name)
    }
