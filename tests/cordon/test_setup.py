"""`make setup` on a machine where something is missing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.parts import ROOT


def setup_on(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", str(ROOT / "deploy" / "setup")],
        env={"PATH": str(path), "HOME": str(path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def provide(path: Path, name: str, script: str = "") -> None:
    if script:
        (path / name).write_text(f"#!/bin/sh\n{script}\n")
        (path / name).chmod(0o755)
    else:
        found = shutil.which(name)
        assert found is not None
        (path / name).symlink_to(found)


def test_everything_missing_is_one_line_each_and_nothing_is_installed(tmp_path: Path):
    for name in ("dirname", "sed"):
        provide(tmp_path, name)
    # A shim without an interpreter behind it, as pyenv leaves one, is not a Python.
    provide(tmp_path, "python3.12", "echo 'python3.12: command not found' >&2; exit 127")
    result = setup_on(tmp_path)
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    named = [line.split(":")[1].strip().split(" ")[1] for line in lines if "Python" not in line]
    assert named == ["Java", "Maven", "make"]
    assert all(line.startswith("setup: missing ") and "install" in line for line in lines)


def test_an_old_java_is_as_good_as_none(tmp_path: Path):
    for name in ("dirname", "sed"):
        provide(tmp_path, name)
    provide(tmp_path, "java", """echo 'openjdk version "11.0.2" 2019-01-15' >&2""")
    assert "setup: missing Java 17 or newer" in setup_on(tmp_path).stderr
