"""One running process of a part, behind its guard. A process id counts only with its start time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cordon.stack.guard import descendants

GUARD = Path(__file__).with_name("guard.py")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Identity:
    """A process for ever: its id is recycled one day, its id and start time together are not."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The process that has this id now; None where there is none (or only its remains)."""
        started = start_time(pid)
        return None if started is None else cls(pid, started)

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return start_time(self.pid) == self.started

    def signal(self, number: signal.Signals) -> bool:
        """Sends a signal to this process and no other; False where it is gone."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def start_time(pid: int) -> str | None:
    """When the process started, as an opaque word; None where it does not run (a zombie does not)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


def processors() -> list[int]:
    """Those that this process may run on; none where the system has no such thing."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def threads(pid: int) -> list[int]:
    """Ids of the threads of a process; empty once it is gone."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def processor_s(pids: Iterable[int]) -> float:
    """Seconds of processor time, user and system mode, that these processes have used; 0 for those gone."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_S


class Process:
    """A guarded process. Not thread-safe: its stack calls it under one lock."""

    def __init__(self, guard: subprocess.Popen[bytes], life: int, identity: Identity | None) -> None:
        self._guard = guard
        self._life = life
        self.identity = identity

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        log: Path,
        nice: int = 0,
    ) -> Process:
        """Starts `command` with its output appended to `log`; returns once the guard has forked it.

        `nice`: how much it yields the processor to the others, 0 to 19.
        """
        life_read, life_write = os.pipe()
        report_read, report_write = os.pipe()
        guarded = (str(life_read), str(report_write), str(nice), *command)
        try:
            with log.open("ab") as output:
                guard = subprocess.Popen(
                    [sys.executable, "-S", "-E", str(GUARD), *guarded],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=directory,
                    env=dict(environment),
                    pass_fds=(life_read, report_write),
                    start_new_session=True,
                )
        except OSError:
            os.close(life_write)
            os.close(report_read)
            raise
        finally:
            os.close(life_read)
            os.close(report_write)
        with os.fdopen(report_read) as report:
            line = report.readline().strip()
        return cls(guard, life_write, Identity.of(int(line)) if line else None)

    @property
    def guard(self) -> Identity | None:
        """The guard's own identity."""
        return Identity.of(self._guard.pid)

    def exit_status(self) -> int | None:
        """None while it runs; its exit status (128 + signal number where killed) afterwards."""
        status = self._guard.poll()
        if status is not None and self._life >= 0:
            os.close(self._life)
            self._life = -1
        return status

    def tree(self) -> list[int]:
        """Ids of every process of the part, the guard excluded."""
        return descendants(self._guard.pid) if self._guard.poll() is None else []

    def signal_tree(self, number: signal.Signals) -> None:
        """Sends a signal to every process of the part at once."""
        for pid in self.tree():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def keep_off(self, spares: int) -> None:
        """Leaves the last processors to others: all threads of the part, and what they start, run on the
        rest, if there is one."""
        own = processors()
        kept = own[: len(own) - spares] or own
        moved: set[int] = set()
        # A thread that was not moved yet may have started another one meanwhile.
        while left := {thread for pid in self.tree() for thread in threads(pid)} - moved:
            for thread in left:
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(thread, kept)
            moved |= left

    def terminate(self) -> None:
        """Asks the part to end: SIGTERM to its first process, which ends its own children in its own order.
        Whatever is left when it has ended, the guard kills. Does not wait."""
        if self._guard.poll() is None and self.identity is not None:
            self.identity.signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends every process of the part at once (SIGKILL) and waits until they are gone."""
        self.signal_tree(signal.SIGKILL)
        if self._life >= 0:
            os.close(self._life)  # whatever a fork left behind goes with the guard
            self._life = -1
        self._guard.wait()

    def wait(self, seconds: float) -> bool:
        """Waits for the part to end; False where it still runs afterwards."""
        try:
            self._guard.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return self.exit_status() is not None
