"""A journal's next segment, made ahead: whoever waits for a decision never waits for a file to be made.

Its zeros are written, so that later syncs change no metadata, about as fast as the journal itself, and piece
by piece, so that batches that are synced meanwhile share the disk with little of it. Compiled code does it in
a thread that never asks for the interpreter's lock; where it cannot be built, Python does.
"""

import os
import select
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from api.syncing import prewriting, write_all
from models.kernel.errors import NotBuilt

PIECE_BYTES: Final = 256 * 1024
# Between two pieces.
_REST_MIN_S: Final = 0.004
_REST_MAX_S: Final = 0.1


class Spare:
    """At most one file of `size` bytes in `directory`. Not for use by several threads."""

    def __init__(self, directory: Path, size: int) -> None:
        self._file = directory / "spare"
        self._partial = directory / "spare.partial"
        self._size = size
        self._closed, self._open = os.pipe()
        self._thread: threading.Thread | None = None

    def prepare(self, within_s: float) -> None:
        """Begin to make one, which takes about so long, unless that has begun."""
        if self._thread is None:
            rest_s = min(max(within_s * PIECE_BYTES / self._size, _REST_MIN_S), _REST_MAX_S)
            self._thread = threading.Thread(
                target=self._make, args=(round(rest_s * 1e3),), name="journal-spare", daemon=True
            )
            self._thread.start()

    def take(self) -> Path | None:
        """Where it is, if there is one; it is the caller's then."""
        if self._thread is not None and self._thread.is_alive():
            return None
        self._thread = None
        return self._file if self._file.exists() else None

    def close(self) -> None:
        """Give up what is being made."""
        os.close(self._open)
        if self._thread is not None:
            self._thread.join()
        os.close(self._closed)

    def _make(self, rest_ms: int) -> None:
        try:
            file = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o640)
            try:
                whole = _prewrite_slowly(file, self._size, self._closed, rest_ms)
            finally:
                os.close(file)
            if whole:
                os.rename(self._partial, self._file)
                return
        except OSError:
            pass  # A full disk shows at the rotation, where somebody can be told.
        self._partial.unlink(missing_ok=True)


def prewrite(file: int, start: int, end: int, rest: Callable[[], bool] | None = None) -> bool:
    """Zeros from `start` to `end`; with `rest`, each piece is synced and followed by one. A rest that returns
    true ends it; whether it came to the end. Raises `OSError`."""
    os.posix_fallocate(file, start, end - start)
    zeros = bytes(PIECE_BYTES)
    for at in range(start, end, PIECE_BYTES):
        write_all(file, zeros[: end - at], at)
        if rest is not None:
            os.fdatasync(file)
            if rest():
                return False
    return True


def _prewrite_slowly(file: int, size: int, closed: int, rest_ms: int) -> bool:
    """As `prewrite`, with rests that the pipe's end ends."""
    try:
        routine = prewriting()
    except NotBuilt:
        end = select.poll()
        end.register(closed, select.POLLIN)
        return prewrite(file, 0, size, lambda: bool(end.poll(rest_ms)))
    os.posix_fallocate(file, 0, size)
    number = routine(file, 0, size, closed, rest_ms)
    if number > 0:
        raise OSError(number, os.strerror(number))
    return bool(number == 0)
