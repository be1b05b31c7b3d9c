"""How a batch is written and becomes durable: at once (`Inline`), or while the process does something else
(`Beside`).

`Beside` is a thread of compiled code, which frames, chains, writes and syncs: it never asks for the
interpreter's lock, so that nobody waits for whoever holds it. `python -m api.syncing` builds it; where it
cannot be built, `Inline` serves.
"""

import ctypes
import logging
import os
import select
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from api.segment import HASH_BYTES, Head, encode_batch
from models.kernel.build import Source, library, report
from models.kernel.errors import NotBuilt

LOG = logging.getLogger("cordon.syncing")
SYNC: Final = Source("sync", Path(__file__).parent, ("sync.c", "sha256.c", "prewrite.c"), ("sha256.h",))
_STOP: Final = 1
_GO: Final = 2
_SAID: Final = 1


class Order(NamedTuple):
    """A batch to be written: its records' bodies, `head` that they continue, and where they go."""

    file: int
    offset: int
    epoch: int
    head: Head
    bodies: Sequence[bytes]


class Syncing(Protocol):
    """One batch at a time: each `start` is followed by one `wait`."""

    descriptor: int | None
    """Readable once the disk is done; `None`: it always is, when `start` has returned."""

    def start(self, order: Order) -> None:
        """Begin to write it, and to make it durable. What goes wrong, `wait` says."""

    def done(self) -> bool:
        """Whether `wait` would return at once."""

    def wait(self) -> Head:
        """Until it is durable: the head behind it. Raises `OSError`: it may never be."""

    def close(self) -> None:
        """End, with nothing under way."""


class Inline:
    """The caller waits."""

    descriptor: int | None = None

    def __init__(self) -> None:
        self._found: Head | OSError = Head()

    def start(self, order: Order) -> None:
        """See `Syncing.start`."""
        data, head = encode_batch(order.bodies, order.head, order.epoch, order.offset)
        try:
            write_all(order.file, data, order.offset)
            os.fdatasync(order.file)
        except OSError as error:
            self._found = error
        else:
            self._found = head

    def done(self) -> bool:
        """See `Syncing.done`."""
        return True

    def wait(self) -> Head:
        """See `Syncing.wait`."""
        if isinstance(self._found, OSError):
            raise self._found
        return self._found

    def close(self) -> None:
        """See `Syncing.close`."""


class _Told(ctypes.Structure):
    """An order as the thread reads it; `hash` is the chain's, before and behind the batch."""

    _fields_ = (
        ("file", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("sequence", ctypes.c_uint64),
        ("epoch", ctypes.c_uint32),
        ("records", ctypes.c_uint32),
        ("bodies", ctypes.POINTER(ctypes.c_char_p)),
        ("lengths", ctypes.POINTER(ctypes.c_uint64)),
        ("hash", ctypes.c_uint8 * HASH_BYTES),
    )


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
        self._told = _Told()
        self._held: tuple[object, ...] = ()
        self._thread = threading.Thread(
            target=routine,
            args=(self._kick, self._done, ctypes.byref(self._told)),
            name="journal-sync",
            daemon=True,
        )
        self._thread.start()

    def start(self, order: Order) -> None:
        """See `Syncing.start`."""
        told, count = self._told, len(order.bodies)
        bodies = (ctypes.c_char_p * count)(*order.bodies)
        lengths = (ctypes.c_uint64 * count)(*map(len, order.bodies))
        told.file, told.offset, told.epoch = order.file, order.offset, order.epoch
        told.sequence, told.records = order.head.sequence, count
        told.bodies, told.lengths = bodies, lengths
        ctypes.memmove(told.hash, order.head.hash, HASH_BYTES)
        # The thread reads these; they may go when it is done.
        self._held = bodies, lengths, order.bodies
        self._said = 0
        os.eventfd_write(self._kick, _GO)

    def done(self) -> bool:
        """See `Syncing.done`."""
        if not self._said:
            with suppress(BlockingIOError):
                self._said = os.eventfd_read(self._done)
        return self._said != 0

    def wait(self) -> Head:
        """See `Syncing.wait`."""
        while not self.done():
            self._poll.poll()
        self._held = ()
        if self._said > _SAID:
            number = self._said - _SAID
            raise OSError(number, os.strerror(number))
        told = self._told
        return Head(told.sequence + told.records, bytes(told.hash))

    def close(self) -> None:
        """See `Syncing.close`."""
        os.eventfd_write(self._kick, _STOP)
        self._thread.join()
        os.close(self._kick)
        os.close(self._done)


@cache
def _loaded() -> ctypes.CDLL:
    try:
        # CDLL, not PyDLL: the interpreter's lock is given up for as long as a routine runs.
        loaded = ctypes.CDLL(str(library(SYNC)))
        loaded.sha256_choose(0)
    except OSError as error:
        raise NotBuilt(f"the shared object cannot be loaded: {error}") from error
    loaded.cordon_sync.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.POINTER(_Told)]
    loaded.cordon_prewrite.argtypes = [
        ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_int, ctypes.c_int,
    ]  # fmt: skip
    return loaded


def _routine() -> "ctypes._NamedFuncPointer":
    if not hasattr(os, "eventfd"):
        raise NotBuilt("this system has no eventfd")
    return _loaded().cordon_sync


def prewriting() -> "ctypes._NamedFuncPointer":
    """`cordon_prewrite` (see prewrite.c). Raises `NotBuilt`."""
    return _loaded().cordon_prewrite


def write_all(file: int, data: bytes, offset: int) -> None:
    """All of it, however many calls that takes. Raises `OSError`."""
    written = os.pwrite(file, data, offset)
    while written < len(data):
        written += os.pwrite(file, data[written:], offset + written)


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
