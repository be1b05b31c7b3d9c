"""Checkpoints beside the shipping: a thread of the publisher, so that neither waits for the other.

Kafka down: checkpoints go on into the file store. The file store down: shipping goes on, and the metrics of
the unprotected interval grow until somebody looks.
"""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from api.audit.checkpoint import Checkpoint
from api.audit.notary import CheckpointsStopped, Notary
from api.metrics import Metrics
from api.segment import Damage

STEP_S: Final = 0.05
LOOK_EVERY_STEPS: Final = 10
COMPLAIN_EVERY_STEPS: Final = 200
LOG = logging.getLogger("cordon.checkpoints")


class Checkpoints:
    """A notary for all journals below a directory. `clock`: epoch milliseconds; `name`: of a journal, if it
    has a record yet."""

    def __init__(
        self,
        parent: Path,
        notary: Notary,
        metrics: Metrics,
        clock: Callable[[], int],
        name: Callable[[Path], str | None],
    ) -> None:
        self._parent = parent
        self._notary = notary
        self._metrics = metrics
        self._clock = clock
        self._name = name
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._known: set[Path] = set()
        self._damage: Damage | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, with a last look at what is due."""
        self._stop.set()
        self._thread.join(10)
        if not self._thread.is_alive():
            self._notary.close()

    def behind(self, journal: str, number: int) -> list[Checkpoint]:
        """Checkpoints of a journal after `number`, never waiting for one that is being made. Raises `Damage`
        where a journal turned out to be damaged."""
        if self._damage is not None:
            raise self._damage
        if not self._lock.acquire(blocking=False):
            return []
        try:
            return self._notary.behind(journal, number)
        except CheckpointsStopped:
            return []
        finally:
            self._lock.release()

    def _run(self) -> None:
        steps = silent = 0
        while not self._stop.wait(STEP_S):
            try:
                with self._lock:
                    if steps % LOOK_EVERY_STEPS == 0:
                        self._look()
                    self._notary.step(self._clock())
                silent = 0
            except (CheckpointsStopped, OSError) as error:
                if silent % COMPLAIN_EVERY_STEPS == 0:
                    LOG.error("no checkpoints are made, the journals are unprotected: %s", error)
                silent += 1
            except Damage as damage:
                self._damage = damage
                return
            if steps % LOOK_EVERY_STEPS == 0:
                self._measure()
            steps += 1

    def _look(self) -> None:
        for mark in sorted(self._parent.glob("*/mark")):
            directory = mark.parent
            if directory in self._known:
                continue
            name = self._name(directory)
            if name is not None:
                self._notary.follow(name, directory)
                self._known.add(directory)

    def _measure(self) -> None:
        for journal, unprotected in self._notary.unprotected(self._clock()).items():
            name = journal.rpartition("-")[0]
            self._metrics.set("cordon_unprotected_records", unprotected.records, name)
            self._metrics.set("cordon_unprotected_seconds", unprotected.age_ms / 1_000, name)
