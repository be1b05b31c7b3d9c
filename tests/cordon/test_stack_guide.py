"""docs/local-stack.md says what is true: its example runs, its table is the stack."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cordon.stack.local import NAMES
from tests.parts import ROOT

GUIDE = (ROOT / "docs" / "local-stack.md").read_text()


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/local-stack.md", "exec"), {})


def test_every_part_is_in_the_table():
    first_column = " ".join(line.split("|")[1] for line in GUIDE.splitlines() if line.startswith("| `"))
    assert re.findall(r"`(\w+)`", first_column) == list(NAMES)
