"""Random byte strings of one length, drawn from the system in blocks: a call to it costs as much as a hash.

Each string is handed out once. What was drawn before a fork is forgotten in the child, so that parent and
child never hand out the same; what was drawn and not handed out dies with the process and is stored nowhere.
A copy of a running machine's memory, restored beside it, holds the same block: restart the processes there.
"""

import os
from collections.abc import Callable
from typing import Final

BLOCK: Final = 64
_lives = 0


def _forked() -> None:
    global _lives
    _lives += 1


os.register_at_fork(after_in_child=_forked)


class Drawn:
    """Strings of `size` fresh random bytes, one per call. `source`: random bytes from the system, by length.

    As good as `source(size)` each time: a string is as unlikely to come again as that many random bits.
    For several threads too.
    """

    def __init__(self, size: int, source: Callable[[int], bytes]) -> None:
        self._size = size
        self._source = source
        self._left: list[bytes] = []
        self._life = _lives

    def __call__(self) -> bytes:
        """The next string. Raises what `source` raises."""
        if self._life == _lives:
            try:
                return self._left.pop()
            except IndexError:
                pass
        size = self._size
        block = self._source(size * BLOCK)
        fresh = [block[at : at + size] for at in range(0, size * BLOCK, size)]
        self._life = _lives
        self._left = fresh
        return fresh.pop()
