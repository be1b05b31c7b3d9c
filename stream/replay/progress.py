"""The progress of a replay on stderr: a bar on a terminal, a line every few seconds elsewhere."""

import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_EVERY_S = 5.0
_LOOK_EVERY = 256  # messages between two looks at the clock


def line(done: int, total: int, elapsed_s: float, event_ms: int) -> str:
    """`replay 12,300/50,000 transactions, 498/s, at 2024-01-03 11:20 UTC`."""
    rate = done / elapsed_s if elapsed_s > 0 else 0.0
    at = datetime.fromtimestamp(event_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    return f"replay {done:,}/{total:,} transactions, {rate:,.0f}/s, at {at} UTC"


@dataclass(slots=True)
class Bar:
    """Shows how far a replay is. Use as a context manager; `quiet` shows nothing."""

    total: int
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    quiet: bool = False
    _progress: Progress | None = None
    _next_s: float = _LINE_EVERY_S
    _calls: int = 0

    def __enter__(self) -> "Bar":
        if not self.quiet and self.stream.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=Console(file=self.stream))
            self._progress.start()
            self._progress.add_task("replay", total=self.total)
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, done: int, elapsed_s: float, event_ms: int, *, last: bool = False) -> None:
        """`done` transactions of the total after that many seconds, the newest at that event time."""
        self._calls += 1
        if self.quiet or (not last and self._calls % _LOOK_EVERY):
            return
        if self._progress is not None:
            task = self._progress.task_ids[0]
            self._progress.update(
                task, completed=done, description=line(done, self.total, elapsed_s, event_ms)
            )
        elif last or elapsed_s >= self._next_s:
            self._next_s = elapsed_s + _LINE_EVERY_S
            self.stream.write(line(done, self.total, elapsed_s, event_ms) + "\n")
            self.stream.flush()
