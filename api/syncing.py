"""How written bytes become durable: at once (`Inline`), or while the process does something else (`Beside`).

`Beside` is a thread of compiled code: it never asks for the interpreter's lock, so that nobody waits for
whoever holds it. `python -m api.syncing` builds it; where it cannot be built, `Inline` serves.
"""

import ctypes
import logging
import os
import select
import sys
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final, Protocol

from models.kernel.build import Source, library, report
from models.kernel.errors import NotBuilt

LOG = logging.getLogger("cordon.syncing")
SYNC: Final = Source("sync", Path(__file__).parent, ("sync.c",))
_STOP: Final = 1
_SAID: Final = 1


class Syncing(Protocol):
    """`fdatasync`, one at a time: each `start` is followed by one `wait`."""

    descriptor: int | None
    """Readable once the disk is done; `None`: it always is, when `start` has returned."""

    def start(self, file: int) -> None:
        """Begin to make durable what was written to the file. Raises `OSError`."""

    def done(self) -> bool:
        """Whether `wait` would return at once."""

    def wait(self) -> None:
        """Until it is durable. Raises `OSError`: it may never be."""

    def close(self) -> None:
        """End, with nothing under way."""


class Inline:
    """The caller waits."""

    descriptor: int | None = None

    def __init__(self) -> None:
        self._error: OSError | None = None

    def start(self, file: int) -> None:
        """See `Syncing.start`."""
        self._error = None
        try:
            os.fdatasync(file)
        except OSError as error:
            self._error = error

    def done(self) -> bool:
        """See `Syncing.done`."""
        return True

    def wait(self) -> None:
        """See `Syncing.wait`."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """See `Syncing.close`."""


class Beside:
    """A thread does. Raises `NotBuilt` where there is no such thread."""

    def __init__(self) -> None:
        routine = _routine()
        self._kick = os.eventfd(0)
        self.descriptor: int | None = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._done = self.descriptor
        self._poll = select.poll()
        self._poll.register(self._done, select.POLLIN)
        self._said = 0
        self._thread = threading.Thread(
            target=routine, args=(self._kick, self._done), name="journal-sync", daemon=True
        )
        self._thread.start()

    def start(self, file: int) -> None:
        """See `Syncing.start`."""
        self._said = 0
        os.eventfd_write(self._kick, file + 2)

    def done(self) -> bool:
        """See `Syncing.done`."""
        if not self._said:
            with suppress(BlockingIOError):
                self._said = os.eventfd_read(self._done)
        return self._said != 0

    def wait(self) -> None:
        """See `Syncing.wait`."""
        while not self.done():
            self._poll.poll()
        if self._said > _SAID:
            number = self._said - _SAID
            raise OSError(number, os.strerror(number))

    def close(self) -> None:
        """See `Syncing.close`."""
        os.eventfd_write(self._kick, _STOP)
        self._thread.join()
        os.close(self._kick)
        os.close(self._done)


@cache
def _routine() -> "ctypes._NamedFuncPointer":
    if not hasattr(os, "eventfd"):
        raise NotBuilt("this system has no eventfd")
    try:
        # CDLL, not PyDLL: the interpreter's lock is given up for as long as the thread lives.
        routine = ctypes.CDLL(str(library(SYNC))).cordon_sync
    except OSError as error:
        raise NotBuilt(f"the shared object cannot be loaded: {error}") from error
    routine.argtypes = [ctypes.c_int, ctypes.c_int]
    return routine


def best() -> Syncing:
    """The one that keeps nobody waiting, where it can be built."""
    try:
        return Beside()
    except NotBuilt as error:
        LOG.warning("the decider waits for the disk, no thread of compiled code does: %s", error)
        return Inline()


def _built() -> Path:
    _routine()
    return library(SYNC)


if __name__ == "__main__":
    sys.exit(report("syncing", _built, "the decider waits for the disk"))
