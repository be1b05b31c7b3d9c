"""The patrol: four times a second, beside the loop that decides, it exchanges counts, pulls brakes and
releases the guard. Each step is an audit record and an alert, appended in one piece, before it is taken.

Of several processes that see the same, one takes the step: whoever comes second finds another epoch.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from api.alerts import Alert, Code
from api.audit.logbook import append, audit_body
from api.brakes.brake import Brake, why
from api.brakes.cap import GUARD, Cap, counter, guarded_next, total
from api.brakes.shared import Counts, Exchange, SharedUnavailable
from api.journal import JournalBusy, JournalUnavailable
from api.metrics import Metrics
from api.rules.registry import Refused, Registry, Step
from api.rules.rule import RuleSet
from api.rules.trips import UNTIL_RESET_MS
from api.segment import Damage

EVERY_S: Final = 0.25
BY: Final = "brakes"
LOG = logging.getLogger("cordon.brakes")


def recorder(journals: Path, tenant: str) -> Callable[[Step], None]:
    """Writes a step's audit record, and its alert, before it is taken. Raises what the journal raises."""

    def record(step: Step) -> None:
        name, _, detail = step.note.partition(": ")
        code: Code
        if name == GUARD:
            code = "guard_entered" if step.kind == "tripped" else "guard_left"
        else:
            code = "rule_tripped" if step.kind == "tripped" else "rule_reset"
        number = f"{step.sequence}-{step.at_ms}"
        facts = {"step": asdict(step), "by": step.by}
        audit = audit_body(f"rules_{step.kind}", facts, f"rules-{number}", step.at_ms, tenant)
        about = {"rule": name, "by": step.by} if name != GUARD else {"by": step.by}
        alert = Alert(code, f"{code}-{number}", step.at_ms, f"{name}: {detail}", about)
        append(journals, [audit, alert.body(tenant)])

    return record


class Patrol:
    """`rules`: the live set; `registry`: where steps are written, with a `recorder`."""

    def __init__(
        self,
        brake: Brake,
        exchange: Exchange,
        registry: Registry,
        rules: Callable[[], RuleSet],
        clock: Callable[[], int],
    ) -> None:
        self._brake = brake
        self._exchange = exchange
        self._registry = registry
        self._rules = rules
        self._clock = clock
        self._apart = False
        self._shown: set[str] = set()
        self.metrics: Metrics | None = None

    def step(self) -> None:
        """Once around. What cannot be exchanged or written now is tried again the next time."""
        now_ms = self._clock()
        own = self._brake.counts()
        caps = self._caps()
        self._meet(own, caps, now_ms)
        try:
            self._trip(own, caps, now_ms)
            self._guard(own, now_ms)
        except (Refused, OSError, JournalBusy, JournalUnavailable, Damage) as error:
            LOG.error("a brake could not be written, it holds in this process: %s", error)
        self._show(now_ms)

    def _caps(self) -> dict[str, Cap]:
        found = {rule.id: self._brake.limits.cap_of(rule) for rule in self._rules().rules}
        return {id_: cap for id_, cap in found.items() if cap is not None}

    def _meet(self, own: Counts, caps: dict[str, Cap], now_ms: int) -> None:
        brake = self._brake
        rate = brake.limits.rate
        spans = {counter(id_, brake.epoch(id_)): cap.within_ms for id_, cap in caps.items()}
        if rate is not None:
            for what in ("decisions", "declines"):
                spans[counter(GUARD, brake.epoch(GUARD), what)] = rate.within_ms
        if not spans:
            return
        try:
            self._exchange.turn(own, max(spans.values()), now_ms)
        except SharedUnavailable as error:
            if not self._apart:
                LOG.warning("counting alone, the others are out of reach: %s", error)
            self._apart = True
            return
        self._apart = False
        sums = {name: total(self._exchange.others(name), span, now_ms) for name, span in spans.items()}
        brake.others = {name: n for name, n in sums.items() if n}

    def _trip(self, own: Counts, caps: dict[str, Cap], now_ms: int) -> None:
        brake = self._brake
        for name, reached in list(brake.reached.items()):
            self._registry.trip(name, reached.epoch, reached.until_ms, BY, now_ms, reached.why)
        held = brake.tripped(now_ms)
        for name, cap in caps.items():
            epoch = brake.epoch(name)
            label = counter(name, epoch)
            declines = total(own.get(label, {}), cap.within_ms, now_ms) + brake.others.get(label, 0)
            if name not in held and declines >= cap.declines:
                words = why(declines, cap.declines, cap.within_ms)
                self._registry.trip(name, epoch, now_ms + cap.within_ms, BY, now_ms, words)

    def _guard(self, own: Counts, now_ms: int) -> None:
        brake, rate = self._brake, self._brake.limits.rate
        trip = brake.trips.get(GUARD)
        guarded = trip is not None and trip.holds(now_ms)
        if rate is None:
            return
        epoch = brake.epoch(GUARD)
        decisions, declines = (
            total(own.get(label, {}), rate.within_ms, now_ms) + brake.others.get(label, 0)
            for label in (counter(GUARD, epoch, what) for what in ("decisions", "declines"))
        )
        since_ms = 0 if trip is None else trip.at_ms
        wanted = guarded_next(
            rate, guarded=guarded, since_ms=since_ms, decisions=decisions, declines=declines, now_ms=now_ms
        )
        words = f"{declines} of {decisions} decisions within {rate.within_ms // 1_000} s were declines"
        if wanted and not guarded:
            self._registry.trip(GUARD, epoch, UNTIL_RESET_MS, BY, now_ms, words)
        elif guarded and not wanted:
            self._registry.reset(GUARD, BY, now_ms, words, epoch=epoch)

    def _show(self, now_ms: int) -> None:
        if self.metrics is None:
            return
        brake = self._brake
        pulled = set(brake.tripped(now_ms)) | ({GUARD} if brake.guard(now_ms) else set())
        for name in pulled | self._shown:
            self.metrics.set("cordon_brakes", float(name in pulled), name)
        self._shown = pulled


class Round(threading.Thread):
    """A patrol on a thread of its own, for a process without an event loop. `failure`: why it ended."""

    def __init__(self, patrol: Patrol) -> None:
        super().__init__(name="brakes", daemon=True)
        self._patrol = patrol
        self._ending = threading.Event()
        self.failure: Exception | None = None

    def run(self) -> None:
        """Until `end`."""
        while not self._ending.wait(EVERY_S):
            try:
                self._patrol.step()
            except Exception as error:  # noqa: BLE001 - outermost of this thread; the process ends with it
                self.failure = error
                return

    def end(self) -> None:
        """Stop, and wait for it."""
        self._ending.set()
        if self.is_alive():
            self.join(10)
