"""A part of the stack as a value: what runs, what it needs, how to know that it serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cordon.stack.probe import Probe, Running


class State(StrEnum):
    """Where a part is in its life."""

    WAITING = "waiting"  # for the parts that it needs
    STARTING = "starting"  # runs, does not serve yet
    READY = "ready"
    DONE = "done"  # a task that ends by itself has ended well
    PAUSED = "paused"
    BACKOFF = "backoff"  # died; will be started again
    HELD = "held"  # killed on purpose; stays down until started
    FAILED = "failed"  # died too often, or never became ready
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Backoff:
    """How a part that died is started again."""

    first_s: float = 0.25
    factor: float = 2.0
    longest_s: float = 10.0
    deaths_max: int = 8
    # A part that served this long starts with a clean record.
    forgiven_after_s: float = 60.0

    def delay_s(self, deaths: int) -> float:
        """Seconds to wait after the `deaths`-th death in a row (1, 2, ...)."""
        return float(min(self.longest_s, self.first_s * self.factor ** (deaths - 1)))


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the stack.

    `environment` is added to the supervisor's own. `needs` are names of parts that must serve before this
    one is started. `once`: a task that ends by itself. `critical`: started again when it dies; otherwise its
    death is only shown. `address`: what a client of the part is given. `nice`: how much it yields the
    processor to the others, 0 to 19; `spares`: how many processors it leaves to them once all parts serve.
    `appends`: patterns of the files below its directory that it appends to and syncs only now and then (see
    writeback.py).
    """

    name: str
    command: tuple[str, ...]
    probe: Probe = field(default_factory=Running)
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None
    needs: tuple[str, ...] = ()
    address: str = ""
    once: bool = False
    critical: bool = True
    nice: int = 0
    spares: int = 0
    appends: tuple[str, ...] = ()
    start_timeout_s: float = 90.0
    stop_timeout_s: float = 10.0
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(frozen=True, slots=True)
class PartStatus:
    """What is known of a part at one moment. `pid` and `started` identify the process, where one runs."""

    name: str
    state: State
    address: str
    pid: int | None
    started: str | None
    deaths: int
    exit_status: int | None
    log: str
