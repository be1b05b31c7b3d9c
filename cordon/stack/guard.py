"""The parent of one part: nothing of the part outlives its supervisor, however that ends.

Run as `python -S -E guard.py LIFE REPORT NICE COMMAND...`. LIFE is the read end of a pipe whose write end
only the supervisor holds: end of file means that the supervisor is gone, by whatever death, and the guard
kills the part. REPORT receives the part's process id. NICE is how much the part yields the processor. The
guard adopts what daemonises itself away (as a child subreaper, so Linux), so the whole tree goes, and leaves
with the part's own exit status. Standard library only: it starts in 20 ms.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def prctl(option: int, value: int) -> None:
    """Linux's prctl."""
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def yield_processor(nice: int, pid: int | None = None) -> None:
    """Lets the leader of a session (this process) yield to others by `nice`; below 0 they yield to it, where
    that is permitted. Linux weighs processes within their session, and sessions against each other by a
    niceness of their own (autogroups, where they are switched on)."""
    try:
        own = os.getpriority(os.PRIO_PROCESS, pid or 0)
        os.setpriority(os.PRIO_PROCESS, pid or 0, max(-20, min(19, own + nice)))
    except PermissionError:
        return  # to go before others takes a privilege, and nobody depends on it
    for _ in range(20):
        try:
            Path(f"/proc/{pid or 'self'}/autogroup").write_text(f"{nice}\n")
        except BlockingIOError:
            time.sleep(0.05)  # without privileges the system takes ten such changes a second
        except OSError:
            return  # no autogroups here
        else:
            return


def children(pid: int) -> list[int]:
    """Direct children of a process, of all its threads; empty once it is gone."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(word) for word in (task / "children").read_text().split()]
    except OSError:
        return found
    return found


def descendants(pid: int) -> list[int]:
    """Every process below `pid`, nearest first."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children(waiting.pop(0))
        found += below
        waiting += below
    return found


def kill_all_below() -> None:
    """Kills every descendant and reaps it; returns when none is left."""
    while below := descendants(os.getpid()):
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        reap()
        select.select([], [], [], 0.01)


def reap() -> dict[int, int]:
    """Exit statuses of the children that ended, by process id."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def run(life: int, report: int, nice: int, command: list[str]) -> int:
    """Starts the part, watches it and the supervisor; returns the exit status (128 + signal where killed)."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        if os.getppid() != guard:  # the guard died before the line above took effect
            os._exit(137)
        os.close(life)
        os.close(report)
        if nice:
            yield_processor(nice)
        try:
            os.execvp(command[0], command)
        except OSError as error:
            os.write(2, f"{command[0]}: {error.strerror}\n".encode())
            os._exit(127)

    def forward(number: int, _frame: FrameType | None) -> None:
        try:
            os.kill(child, number)
        except ProcessLookupError:
            return

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    os.write(report, f"{child}\n".encode())
    os.close(report)
    while True:
        # The time limit covers a child that ended before its signal could wake us.
        ready, _, _ = select.select([life, wake_read], [], [], 1.0)
        if wake_read in ready:
            os.read(wake_read, 4096)
        ended = reap()
        if child in ended:
            kill_all_below()
            status = os.waitstatus_to_exitcode(ended[child])
            return status if status >= 0 else 128 - status
        if life in ready and os.read(life, 1) == b"":
            kill_all_below()
            return 137


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
