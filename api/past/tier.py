"""From the query store into the warm store, never losing a decision.

    1  write a day's decisions into a file, sync it, rename it
    2  adopt the file: read it back; what it holds exactly as the query store does is removed there, in
       transactions that also note where it went

A crash leaves a file that is not adopted, or adopted in part: the next run adopts it again. A decision is
deleted only in the transaction that notes a file in which it was just read. A query store that was rebuilt
knows no files: it adopts them all.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.past.rows import Row
from api.past.store import SqlStore
from api.past.warm import DAY_MS, WarmMissing, WarmStore, day_of

PIECE: Final = 2_000
FILE_ROWS: Final = 200_000


@dataclass(frozen=True, slots=True)
class Moved:
    """What one run did. `doubled`: decisions that the warm store holds with another content."""

    decisions: int
    files: int
    doubled: int


class Tiers:
    """Moves decisions out of a query store. `stopping`: asked between pieces."""

    def __init__(
        self,
        store: SqlStore,
        directory: Path,
        stopping: Callable[[], bool] = lambda: False,
        *,
        piece: int = PIECE,
        file_rows: int = FILE_ROWS,
    ) -> None:
        self._store = store
        self._warm = WarmStore(directory)
        self._stopping = stopping
        self._piece = piece
        self._file_rows = file_rows
        self._moved = self._doubled = 0

    def run(self, *, keep_from_ms: int) -> Moved:
        """Move the days that end before this time; days are UTC.

        Raises `WarmBusy`, `WarmMissing`, `QueryStoreUnavailable`, `OSError`: what was moved stays moved.
        """
        self._moved = self._doubled = written = 0
        with self._warm.alone():
            known = self._store.adopted_files()
            for name in self._warm.files():
                if name not in known and not self._stopping():
                    self._adopt(name)
            while not self._stopping():
                oldest_ms = self._store.oldest_ms()
                if oldest_ms is None or (oldest_ms // DAY_MS + 1) * DAY_MS > keep_from_ms:
                    break
                written += self._day(oldest_ms // DAY_MS * DAY_MS)
        return Moved(self._moved, written, self._doubled)

    def _day(self, start_ms: int) -> int:
        """Move decisions of one day, a file's worth; how many files were written."""
        ids = self._store.ids_between(start_ms, start_ms + DAY_MS, self._file_rows)
        there = self._store.files_of(ids)
        for name in sorted(set(there.values())):
            # Projected once more after they had gone: the file that holds them decides what they are.
            self._adopt(name)
        left = set(
            self._store.files_of(self._store.ids_between(start_ms, start_ms + DAY_MS, self._file_rows))
        )
        if lost := sorted(left & set(there)):
            raise WarmMissing(f"{there[lost[0]]} lacks {lost[0]}, which was moved into it: restore the file")
        new = sorted(set(ids) - set(there), key=str.encode)
        if not new:
            return 0
        self._adopt(self._warm.write(day_of(start_ms), self._pieces(new)))
        return 1

    def _pieces(self, ids: list[str]) -> Iterator[list[Row]]:
        for start in range(0, len(ids), self._piece):
            rows = self._store.rows_among(ids[start : start + self._piece])
            yield sorted(rows, key=lambda row: str(row[0]).encode())

    def _adopt(self, name: str) -> None:
        number = self._store.begin_file(name)
        for piece in self._warm.pieces(name, self._piece):
            if self._stopping():
                return
            moved, doubled = self._store.adopt(number, piece)
            self._moved += moved
            self._doubled += doubled
        self._store.end_file(number)
