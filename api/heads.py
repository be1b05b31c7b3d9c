"""Request heads that were read before: what the parser said of one, it would say of the same bytes again.

A client repeats its head, all but the length of the body, from request to request. What is kept is how the
parser took a whole plain request that began where one may begin; nothing here reads HTTP by itself.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from api.work import EventKind

END: Final = b"\r\n\r\n"
HEAD_BYTES_MAX: Final = 2_048
HEADS_MAX: Final = 4_096


class Head(NamedTuple):
    """What a head says: of a request that keeps its connection. `length`: of the body, in bytes."""

    kind: EventKind
    headers: Sequence[tuple[bytes, bytes]]
    length: int


class Heads:
    """At most `limit` heads of admitted callers, for all connections of a process."""

    def __init__(self, limit: int = HEADS_MAX) -> None:
        self._limit = limit
        self._kept: dict[bytes, Head] = {}

    def find(self, data: bytes) -> tuple[Head, int] | None:
        """The head that `data` begins with and where it ends, if `data` is that request and no more."""
        end = data.find(END) + len(END)
        head = self._kept.get(data[:end])
        return (head, end) if head is not None and len(data) - end == head.length else None

    def keep(self, data: bytes, kind: EventKind, headers: Sequence[tuple[bytes, bytes]], length: int) -> None:
        """`data` began where a request may begin and was read as one, with a body of so many bytes.

        A head that does not end at the first empty line, or says less than all of what precedes the body (a
        body in chunks), is not kept.
        """
        end = data.find(END) + len(END)
        if end > HEAD_BYTES_MAX or end < len(END) or len(data) - end != length:
            return
        if len(self._kept) >= self._limit:
            self._kept.clear()
        self._kept[data[:end]] = Head(kind, tuple(headers), length)

    def __len__(self) -> int:
        return len(self._kept)
