"""The supervisor of a stack as a process of its own: `python -m cordon.stack.daemon NAME OPTIONS`.

Started by `cordon up`, with the settings in its environment. It keeps the record of the stack, stops the
parts on SIGTERM or SIGINT, and ends when they have ended. Should it be killed, the parts' guards end them.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from cordon.failure import Failure
from cordon.settings import Settings
from cordon.stack.local import Local, Options, local
from cordon.stack.part import PartStatus
from cordon.stack.process import Identity
from cordon.stack.record import Phase, Record, directory_of
from cordon.stack.supervisor import Stack


class Stop(BaseException):
    """A signal asked the supervisor to end while it was starting the parts."""


class Keeper:
    """Writes the record whenever something changes."""

    def __init__(self, name: str, directory: Path) -> None:
        identity = Identity.of(os.getpid())
        assert identity is not None, "this very process runs"
        self._identity = identity
        self._name = name
        self._directory = directory
        self._plan: Local | None = None
        self._parts: tuple[PartStatus, ...] = ()
        self._phase: Phase = "starting"
        self.phase("starting")

    def phase(self, phase: Phase, message: str = "") -> None:
        """Enters a phase."""
        self._phase = phase
        self._write(message)

    def plan(self, plan: Local) -> None:
        """Notes where the parts will be."""
        self._plan = plan
        self._write()

    def changed(self, parts: tuple[PartStatus, ...]) -> None:
        """Notes the state of the parts."""
        self._parts = parts
        self._write()

    def _write(self, message: str = "") -> None:
        plan = self._plan
        Record(
            name=self._name,
            phase=self._phase,
            supervisor=self._identity,
            parts=self._parts,
            addresses=plan.addresses if plan else {},
            environment=plan.settings.environment(secrets=False) if plan else {},
            message=message,
        ).write(self._directory)


def supervise(name: str, options: Options) -> int:
    """Runs the stack until a signal; returns the exit status."""
    directory = directory_of(name)
    directory.mkdir(parents=True, exist_ok=True)
    lock = (directory / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"the stack {name} runs already")
        return 2
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        if stopping.is_set():
            return  # already on the way
        stopping.set()
        raise Stop

    keeper = Keeper(name, directory)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    stack: Stack | None = None
    try:
        plan = local(Settings.load(), directory, options)
        keeper.plan(plan)
        stack = Stack(plan.parts, directory, say=say, changed=keeper.changed)
        stack.start()
        keeper.phase("ready")
        signal.pause()
    except Stop:
        keeper.phase("stopping")
    except Failure as failure:
        say(str(failure))
        keeper.phase("failed", str(failure))
        return 1
    finally:
        stopping.set()
        if stack is not None:
            stack.stop()
    (directory / "stack.json").unlink(missing_ok=True)
    return 0


def say(line: str) -> None:
    """One line for the supervisor's log."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    sys.stderr.write(f"{now} {line}\n")
    sys.stderr.flush()


def encode(options: Options) -> str:
    """Options as one argument of the command line."""
    return json.dumps({**asdict(options), "only": list(options.only)})


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[1], Options(**json.loads(sys.argv[2]))))
