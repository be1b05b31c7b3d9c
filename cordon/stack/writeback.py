"""Spreads over time what parts hand to the disk at once: what they append, and what they delete.

A store that syncs its append-only file once a second hands the disk megabytes at once, and whoever makes a
few kilobytes durable meanwhile waits for all of them. Told of every piece at once (`sync_file_range`), the
kernel has little left when the sync comes. Nothing is promised and nobody waits here: what is durable, and
when, stays each part's own affair.

A file of gigabytes that is deleted (a store does so when it has compacted its own) may hold up the disk for
as long, where freed blocks are discarded at once. These files stay open here, so that deleting them frees
nothing yet, and are then cut off piece by piece.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

EVERY_S: Final = 0.01
# How often it is looked for files.
LOOK_S: Final = 1.0
# Of a deleted file, with every step.
CUT_BYTES: Final = 4 << 20
PAGE: Final = os.sysconf("SC_PAGESIZE")
_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE: begin, and do not wait

Begin = Callable[[int, int, int], None]
"""`(descriptor, start, length)`: begin to write these bytes of a file."""


def begin_writing() -> Begin | None:
    """The system's way; `None` where it has none."""
    if sys.platform != "linux":
        return None
    routine = ctypes.CDLL(None).sync_file_range
    routine.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]

    def begin(file: int, start: int, length: int) -> None:
        # A file system that does not know it refuses: then its files are written as before.
        routine(file, start, length, _WRITE)

    return begin


@dataclass(slots=True)
class _File:
    descriptor: int
    begun: int


class WriteBack:
    """Follows the files that match `patterns`, each of a directory. Not for several threads."""

    def __init__(
        self, patterns: Callable[[], Iterable[tuple[Path, str]]], begin: Begin | None = None
    ) -> None:
        self._patterns = patterns
        self._begin = begin or begin_writing()
        self._files: dict[Path, _File] = {}
        self._deleted: list[int] = []
        self._looked_s = float("-inf")
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Step by step on a thread of its own, until `stop`."""
        if self._begin is None or self._thread is not None:
            return
        self._closing.clear()
        self._thread = threading.Thread(target=self._run, name="writeback", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let go of the files."""
        if self._thread is not None:
            self._closing.set()
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        passed_s = 0.0
        while not self._closing.wait(EVERY_S):
            passed_s += EVERY_S
            self.step(passed_s)
        self.close()

    def step(self, now_s: float) -> None:
        """Whole pages that were appended since the last step; the last piece of a file that was deleted."""
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            self._look()
        for file in self._files.values():
            end = os.fstat(file.descriptor).st_size // PAGE * PAGE
            if end > file.begun and self._begin is not None:
                self._begin(file.descriptor, file.begun, end - file.begun)
            file.begun = end
        if self._deleted:
            self._cut(self._deleted[-1])

    def _cut(self, descriptor: int) -> None:
        left = os.fstat(descriptor).st_size - CUT_BYTES
        if left > 0:
            os.ftruncate(descriptor, left)
        else:
            os.close(self._deleted.pop())

    def close(self) -> None:
        """Let go of the files."""
        while self._files:
            os.close(self._files.popitem()[1].descriptor)
        while self._deleted:
            os.close(self._deleted.pop())

    def _look(self) -> None:
        found = {path for directory, pattern in self._patterns() for path in directory.glob(pattern)}
        for path in [*self._files]:
            if path not in found:
                descriptor = self._files.pop(path).descriptor
                if os.fstat(descriptor).st_nlink == 0:
                    self._deleted.append(descriptor)
                else:  # it has another name now
                    os.close(descriptor)
        for path in found - self._files.keys():
            with suppress(OSError):  # gone meanwhile
                descriptor = os.open(path, os.O_RDWR)
                self._files[path] = _File(descriptor, os.fstat(descriptor).st_size // PAGE * PAGE)
