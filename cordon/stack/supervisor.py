"""Starts, watches and stops the parts of a stack.

One small state machine per part, advanced by `step`; a thread calls it while the stack runs:

    waiting -> starting -> ready (or done) -> stopped
                  ^           | died
                  +- backoff <+            paused, held: on purpose, by `pause` and `kill(hold=True)`
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cordon.failure import Failure
from cordon.stack.part import Part, PartStatus, State
from cordon.stack.probe import Attempt
from cordon.stack.process import Process
from cordon.stack.writeback import WriteBack

STEP_S = 0.05
WATCH_S = 0.2
LOG_TAIL_LINES = 15
LOG_BYTES_MAX = 32 * 2**20
UP = (State.STARTING, State.READY, State.PAUSED)
TO_COME = (State.WAITING, State.STARTING, State.BACKOFF)


class StackError(Failure):
    """The stack cannot do what was asked; the message says why.

    * PartFailed    a part does not start or keeps dying: read its log, correct, start again
    * UnknownPart   there is no part of that name: a mistake of the caller
    """


class PartFailed(StackError):
    """A part did not become ready, or died too often. The message ends with the tail of its log."""


class UnknownPart(StackError):
    """No part of the stack has this name."""


@dataclass(slots=True)
class Running:
    """A part's changing half."""

    part: Part
    state: State = State.WAITING
    process: Process | None = None
    since_s: float = 0.0
    spares: bool = False
    log_start: int = 0
    deaths: int = 0
    exit_status: int | None = None
    retry_at_s: float = 0.0
    why: str = ""


class Stack:
    """The parts of one stack, as processes. Thread-safe.

    `directory` receives `logs/`. `say` is told every change in one line. `changed` is called after each one
    with the status of all parts. As a context manager it starts on entry and stops on exit.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        directory: Path,
        *,
        say: Callable[[str], None] = lambda line: None,
        changed: Callable[[tuple[PartStatus, ...]], None] = lambda statuses: None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._directory = directory.resolve()
        self._logs = self._directory / "logs"
        self._say = say
        self._changed = changed
        self._environment = dict(os.environ if environment is None else environment)
        self._lock = threading.RLock()
        self._running: dict[str, Running] = {}
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._writeback = WriteBack(self._appended)
        self._include(parts)

    # ---- the whole stack -------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts every part that does not run and waits until all serve. Raises `PartFailed`, having stopped
        everything; so does an interrupt."""
        try:
            self._await_ready(list(self._running))
        except BaseException:
            self.stop()
            raise
        self._watch()

    def add(self, *parts: Part) -> None:
        """Adds parts to a running stack and waits until they serve. Raises `PartFailed`; the others go on."""
        self._include(parts)
        self._await_ready([part.name for part in parts])
        self._watch()

    def stop(self) -> None:
        """Stops every part, those that others need last: SIGTERM, then SIGKILL. Safe to call twice."""
        self._closing.set()
        self._writeback.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self._thread = None
        with self._lock:
            self._stop_in_order()
        self._closing.clear()

    def status(self) -> tuple[PartStatus, ...]:
        """Every part, in the order of the stack."""
        with self._lock:
            return tuple(self._status(running) for running in self._running.values())

    def log(self, name: str) -> Path:
        """The log file of a part."""
        return self._logs / f"{name}.log"

    def address(self, name: str) -> str:
        """What a client of the part is given. Raises `UnknownPart`."""
        return self._find(name).part.address

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ---- one part, for drills and tests ----------------------------------------------------------------

    def pause(self, name: str) -> None:
        """Freezes every process of the part (SIGSTOP)."""
        with self._lock:
            running = self._find(name)
            if running.process is not None:
                running.process.signal_tree(signal.SIGSTOP)
                self._move(running, State.PAUSED)

    def resume(self, name: str) -> None:
        """Lets a paused part go on (SIGCONT)."""
        with self._lock:
            running = self._find(name)
            if running.process is not None and running.state is State.PAUSED:
                running.process.signal_tree(signal.SIGCONT)
                self._move(running, State.READY)

    def kill(self, name: str, *, hold: bool = False) -> None:
        """`kill -9` of every process of the part. The stack starts it again, unless `hold`: then it stays
        down until `restart`."""
        with self._lock:
            running = self._find(name)
            if hold:
                self._move(running, State.HELD)
            if running.process is not None:
                running.process.kill()

    def restart(self, name: str) -> None:
        """Stops the part if it runs, starts it and waits until it serves. Raises `PartFailed`."""
        with self._lock:
            running = self._find(name)
            if running.process is not None:
                self._end(running)
            running.deaths = 0
            self._move(running, State.WAITING)
        self._await_ready([name])

    def wait_ready(self, *names: str, seconds: float = 60.0) -> None:
        """Waits until these parts (all, without names) serve, as after a kill. Raises `PartFailed`."""
        self._await_ready(list(names) or list(self._running), seconds=seconds)

    def processes(self, name: str) -> list[int]:
        """Ids of every process of the part, now."""
        with self._lock:
            process = self._find(name).process
            return [] if process is None else process.tree()

    # ---- the state machine -----------------------------------------------------------------------------

    def _step(self, now_s: float) -> None:
        """Advances every part by at most one state."""
        with self._lock:
            for running in self._running.values():
                self._notice_death(running, now_s)
                if running.state is State.WAITING and self._needs_met(running.part):
                    self._spawn(running, now_s)
                elif running.state is State.BACKOFF and now_s >= running.retry_at_s:
                    self._move(running, State.WAITING)
                elif running.state is State.STARTING:
                    self._probe(running, now_s)
            if not any(running.state in TO_COME for running in self._running.values()):
                self._spare()

    def _spare(self) -> None:
        """Once everything serves; starting may take all processors that there are."""
        for running in self._running.values():
            if running.part.spares and running.process is not None and not running.spares:
                running.process.keep_off(running.part.spares)
                running.spares = True

    def _needs_met(self, part: Part) -> bool:
        states = [self._running[name].state for name in part.needs if name in self._running]
        return all(state in (State.READY, State.DONE, State.PAUSED) for state in states)

    def _spawn(self, running: Running, now_s: float) -> None:
        part = running.part
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self.log(part.name)
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_suffix(".log.1"))
        start = log.stat().st_size if log.exists() else 0
        directory = part.directory or self._directory
        directory.mkdir(parents=True, exist_ok=True)
        if shutil.which(part.command[0], path=self._environment.get("PATH")) is None:
            running.why = f"{part.command[0]} is missing: run `make setup`"
            self._move(running, State.FAILED)
            return
        running.process = Process.start(
            part.command,
            environment={**self._environment, **part.environment},
            directory=directory,
            log=log,
            nice=part.nice,
        )
        running.since_s = now_s
        running.spares = False
        running.log_start = start
        running.exit_status = None
        self._move(running, State.STARTING)

    def _probe(self, running: Running, now_s: float) -> None:
        part = running.part
        if not part.once and part.probe.ready(self._attempt(running, now_s)):
            running.since_s = now_s
            self._move(running, State.READY)
        elif now_s - running.since_s > part.start_timeout_s:
            running.why = f"not ready after {part.start_timeout_s:.0f} s"
            self._end(running)
            self._move(running, State.FAILED)

    def _attempt(self, running: Running, now_s: float) -> Attempt:
        return Attempt(now_s - running.since_s, self.log(running.part.name), running.log_start)

    def _notice_death(self, running: Running, now_s: float) -> None:
        if running.process is None or (status := running.process.exit_status()) is None:
            return
        was, running.process, running.exit_status = running.state, None, status
        if running.part.once and status == 0 and was is State.STARTING:
            self._move(running, State.DONE)
        elif was in UP:
            self._after_death(running, was, now_s)

    def _after_death(self, running: Running, was: State, now_s: float) -> None:
        part, backoff = running.part, running.part.backoff
        if was is State.READY and now_s - running.since_s > backoff.forgiven_after_s:
            running.deaths = 0
        running.deaths += 1
        running.why = f"ended with status {running.exit_status}"
        if part.once or not part.critical or running.deaths > backoff.deaths_max:
            self._move(running, State.FAILED)
        else:
            running.retry_at_s = now_s + backoff.delay_s(running.deaths)
            self._move(running, State.BACKOFF)

    def _move(self, running: Running, state: State) -> None:
        if running.state is state:
            return
        running.state = state
        reason = f" ({running.why})" if state in (State.BACKOFF, State.FAILED) and running.why else ""
        where = f" {running.part.address}" if state is State.READY and running.part.address else ""
        self._say(f"{running.part.name}: {state}{where}{reason}")
        self._changed(self.status())

    # ---- waiting, watching, ending ---------------------------------------------------------------------

    def _await_ready(self, names: Sequence[str], *, seconds: float | None = None) -> None:
        deadline_s = None if seconds is None else time.monotonic() + seconds
        while True:
            self._step(time.monotonic())
            with self._lock:
                waited = [self._find(name) for name in names]
                failed = [running for running in self._running.values() if running.state is State.FAILED]
            for running in failed:
                if running in waited or self._blocks(running, waited):
                    raise PartFailed(self._failure(running))
            late = [running for running in waited if running.state not in (State.READY, State.DONE)]
            if not late:
                return
            if deadline_s is not None and time.monotonic() > deadline_s:
                raise PartFailed(self._failure(late[0], f"{late[0].state} after {seconds:.0f} s"))
            time.sleep(STEP_S)

    def _blocks(self, failed: Running, waited: Sequence[Running]) -> bool:
        return any(failed.part.name in running.part.needs for running in waited)

    def _failure(self, running: Running, why: str = "") -> str:
        log = self.log(running.part.name)
        lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:] if log.exists() else []
        return "\n".join([f"{running.part.name}: {why or running.why}; log: {log}", *lines])

    def _watch(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="stack", daemon=True)
            self._thread.start()
            self._writeback.start()

    def _appended(self) -> list[tuple[Path, str]]:
        with self._lock:
            parts = [running.part for running in self._running.values()]
        return [(part.directory, each) for part in parts if part.directory for each in part.appends]

    def _loop(self) -> None:
        while not self._closing.wait(WATCH_S):
            self._step(time.monotonic())

    def _stop_in_order(self) -> None:
        asked: dict[str, float] = {}
        while alive := [running for running in self._running.values() if running.process is not None]:
            needed = {name for running in alive for name in running.part.needs}
            for running in alive:
                process = running.process
                if process is None or running.part.name in needed:
                    continue
                now_s = time.monotonic()
                if running.part.name not in asked:
                    asked[running.part.name] = now_s
                    process.signal_tree(signal.SIGCONT)
                    process.terminate()
                elif process.exit_status() is not None:
                    running.exit_status, running.process = process.exit_status(), None
                elif now_s - asked[running.part.name] > running.part.stop_timeout_s:
                    process.kill()
            time.sleep(STEP_S / 5)
        for running in self._running.values():
            self._move(running, State.STOPPED)

    def _end(self, running: Running) -> None:
        process = running.process
        if process is None:
            return
        process.signal_tree(signal.SIGCONT)
        process.terminate()
        if not process.wait(running.part.stop_timeout_s):
            process.kill()
        running.exit_status, running.process = process.exit_status(), None

    def _include(self, parts: Sequence[Part]) -> None:
        with self._lock:
            for part in parts:
                if part.name in self._running:
                    raise StackError(f"two parts are named {part.name}")
                self._running[part.name] = Running(part)

    def _find(self, name: str) -> Running:
        try:
            return self._running[name]
        except KeyError:
            known = ", ".join(self._running)
            raise UnknownPart(f"no part is named {name}; there are: {known}") from None

    def _status(self, running: Running) -> PartStatus:
        identity = running.process.identity if running.process is not None else None
        return PartStatus(
            name=running.part.name,
            state=running.state,
            address=running.part.address,
            pid=identity.pid if identity else None,
            started=identity.started if identity else None,
            deaths=running.deaths,
            exit_status=running.exit_status,
            log=str(self.log(running.part.name)),
        )


@contextlib.contextmanager
def paused(stack: Stack, *names: str) -> Iterator[None]:
    """These parts stand still within the block, as with Flink stopped in the middle of a run."""
    for name in names:
        stack.pause(name)
    try:
        yield
    finally:
        for name in names:
            stack.resume(name)
