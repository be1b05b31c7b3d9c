"""The batches of one worker: where they lie, who works on them, and what is told when one has ended."""

from collections.abc import Callable

from api.alerts import Alert
from api.batch.result import Batch
from api.batch.runner import Runner
from api.batch.shelf import Shelf
from api.batcher import Batcher
from api.compose import Parts
from api.journal import JournalUnavailable
from api.metrics import Metrics

HOUR_MS = 3_600_000


class Desk:
    """`shelf` takes batches, `runner` works them off. `clock`: wall clock in ms."""

    def __init__(self, parts: Parts, batcher: Batcher, metrics: Metrics, clock: Callable[[], int]) -> None:
        limits = parts.config.batches
        directory = limits.directory or parts.config.journal_dir / ".batches"
        self._parts = parts
        self._metrics = metrics
        self.shelf = Shelf(directory, parts.config.tenant, parts.pseudonyms.secret, open_max=limits.open_max)
        self.runner = Runner(
            self.shelf, batcher.spare, self._able, clock, self._ended, keep_ms=limits.keep_hours * HOUR_MS
        )

    def _able(self) -> bool:
        """Without claims a batch that is continued after a crash could decide something twice: it waits."""
        engine = self._parts.engine
        return self._parts.journal.failure is None and not engine.store_breaker.is_open

    def _ended(self, batch: Batch, now_ms: int) -> None:
        """An alert in the journal, from where the publisher ships it. Raises `OSError`: not now."""
        sums = batch.sums
        about = {"batch": batch.id, "by": batch.by, "lines": batch.lines, "failed": sums.failed}
        detail = f"{sums.done} of {batch.lines} lines are done"
        alert = Alert("batch_finished", f"batch-{batch.id}-{batch.accepted_ms}", now_ms, detail, about)
        try:
            self._parts.journal.append([alert.body(self._parts.config.tenant)])
        except JournalUnavailable as error:
            raise OSError(str(error)) from error
        self._metrics.count("cordon_finished_batches")
