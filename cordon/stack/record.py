"""The record of a running stack, `.cordon/<name>/stack.json`: its supervisor writes it, commands read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from cordon.evidence import ROOT
from cordon.failure import Failure
from cordon.stack.part import PartStatus, State
from cordon.stack.process import Identity

STACKS = ROOT / ".cordon"
FILE = "stack.json"
Phase = Literal["starting", "ready", "failed", "stopping"]


class StackRecordError(Failure):
    """A stack runs where none may, or none runs where one must. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a stack. `environment`: the settings that lead to it, without the secrets."""

    name: str
    phase: Phase
    supervisor: Identity
    parts: tuple[PartStatus, ...] = ()
    addresses: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    message: str = ""

    def alive(self) -> bool:
        """Whether the supervisor that wrote this still runs."""
        return self.supervisor.alive()

    def write(self, directory: Path) -> None:
        """Replaces the file in one step: a reader sees the old or the new one."""
        directory.mkdir(parents=True, exist_ok=True)
        new = directory / f"{FILE}.new"
        new.write_text(json.dumps(asdict(self), indent=1))
        new.replace(directory / FILE)

    @classmethod
    def read(cls, directory: Path) -> Record | None:
        """The record in this directory; None where there is none."""
        try:
            raw: dict[str, Any] = json.loads((directory / FILE).read_text())
        except FileNotFoundError:
            return None
        parts = tuple(PartStatus(**{**part, "state": State(part["state"])}) for part in raw.pop("parts"))
        return cls(**{**raw, "supervisor": Identity(**raw["supervisor"]), "parts": parts})


def directory_of(name: str) -> Path:
    """Where the stack of this name keeps everything. Raises `StackRecordError` for a name that is a path."""
    if not name or not all(letter.isalnum() or letter in "-_" for letter in name):
        raise StackRecordError(f"{name!r}: a stack's name has letters, digits, - and _ only")
    return STACKS / name


def running(name: str = "default") -> Record:
    """The record of a stack that runs. Raises `StackRecordError` where none does."""
    record = Record.read(directory_of(name))
    if record is None or not record.alive():
        raise StackRecordError(f"the stack {name} does not run: start it with `cordon up`")
    return record
