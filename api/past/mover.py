"""Moves old decisions into the warm store now and then, beside the projector."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from api.engine import QueryStoreUnavailable
from api.metrics import Metrics
from api.past.store import SqlStore
from api.past.tier import Moved, Tiers
from api.past.warm import DAY_MS, WarmBusy, WarmMissing

LOG: Final = logging.getLogger("cordon.projector")


def move(
    address: str, warm: Path, hot_days: int, now_ms: int, stopping: Callable[[], bool] = lambda: False
) -> Moved:
    """One run: what was decided on a day that ended `hot_days` ago or earlier moves.

    Raises `WarmBusy`, `WarmMissing`, `QueryStoreUnavailable`, `OSError`, `ValueError` for another address.
    """
    store = SqlStore.open(address, warm, migrating=True)
    try:
        return Tiers(store, warm, stopping).run(keep_from_ms=now_ms - hot_days * DAY_MS)
    finally:
        store.close()


class Mover:
    """A thread. `clock`: wall clock in ms."""

    def __init__(
        self,
        address: str,
        warm: Path,
        hot_days: int,
        every_s: float,
        metrics: Metrics,
        clock: Callable[[], int],
    ) -> None:
        self._address = address
        self._warm = warm
        self._hot_days = hot_days
        self._every_s = every_s
        self._metrics = metrics
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mover", daemon=True)

    def start(self) -> None:
        """Move now, then again and again."""
        self._thread.start()

    def stop(self) -> None:
        """End after the piece at hand."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                done = move(self._address, self._warm, self._hot_days, self._clock(), self._stop.is_set)
            except (WarmBusy, WarmMissing, QueryStoreUnavailable, OSError) as error:
                LOG.warning("old decisions stay where they are, trying again: %s", error)
            else:
                self._note(done)
            self._stop.wait(self._every_s)

    def _note(self, done: Moved) -> None:
        if done.decisions:
            LOG.info("%d decisions moved to the warm store, %d files", done.decisions, done.files)
            self._metrics.count("cordon_moved_decisions", by=done.decisions)
        if done.doubled:
            LOG.error("%d decisions were decided twice; both are kept", done.doubled)
            self._metrics.count("cordon_doubled_decisions", by=done.doubled)
