"""When Flink's watermark passed each position of the log of decisions, seen from outside."""

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

EVERY_S: Final = 0.002


class Watch:
    """A thread that asks again and again how far the watermark is, while the block runs.

    `reached`: next offset of each partition, called in that thread only. A position counts as passed when an
    answer that says so has arrived: what is measured is never less than what was.
    """

    def __init__(self, reached: Callable[[], Mapping[int, int]], clock: Callable[[], float]) -> None:
        self._reached = reached
        self._clock = clock
        self._offsets: dict[int, list[int]] = {}
        self._times_s: dict[int, list[float]] = {}
        self._done = threading.Event()
        self._thread = ThreadPoolExecutor(1, "watermark")

    def __enter__(self) -> Self:
        self._running = self._thread.submit(self._watch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.shutdown()
        if kind is None:
            self._running.result()

    def passed_s(self, partition: int, offset: int) -> float | None:
        """When the watermark was seen behind this record, by the clock; None if it never was."""
        place = bisect_right(self._offsets.get(partition, []), offset)
        times_s = self._times_s.get(partition, [])
        return times_s[place] if place < len(times_s) else None

    def _watch(self) -> None:
        while not self._done.is_set():
            for partition, offset in self._reached().items():
                offsets = self._offsets.setdefault(partition, [])
                if not offsets or offset > offsets[-1]:
                    offsets.append(offset)
                    self._times_s.setdefault(partition, []).append(self._clock())
            time.sleep(EVERY_S)
