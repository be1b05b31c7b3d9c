"""A service on real parts, and measured runs against it whose every answer is checked."""

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import numpy as np

from api.journal_reader import contents, journals_in
from bench.load import generator
from bench.load.generator import Load
from cordon.failure import Failure
from cordon.log import Record
from cordon.pipeline import Pipeline, pipeline
from cordon.settings import Settings
from cordon.stack.local import Local, Options, local
from cordon.stack.port import is_free
from cordon.stack.process import processor_s
from cordon.stack.supervisor import Stack
from features import DAY
from stream.replay.item import Item

ACHIEVED_SHARE_MIN: Final = 0.98
EXPLAINED_SHARE_MIN: Final = 0.05
"""Of the decisions: fewer would be cheaper than those of a bad day."""
ALONE: Final = ("valkey", "service")
REST_S: Final = 1.0
WARM_SEED: Final = 1_000
"""Of the arrivals before the measured ones, whose seeds are 0, 1, ..."""
WARM_CONNECTIONS: Final = 64
"""While history is sent as fast as it goes, which must not be an overload."""
PATIENCE_S: Final = 300.0


class NotMeasured(Failure):
    """Something was not as it must be: there is no figure. The message says what."""


class Reason(msgspec.Struct, frozen=True):
    """A reason as the API answers it; `weight` is the exact contribution, none for a rule's."""

    code: str
    text: str
    weight: float | None


class Decision(msgspec.Struct, frozen=True):
    """The answer to a transaction, as far as it is checked."""

    transaction_id: str
    outcome: str
    score: int | None
    reasons: tuple[Reason, ...]
    decision: dict[str, Any]
    freshness: dict[str, Any]
    degraded: tuple[str, ...]
    replay: bool


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run that was right in every answer. `due_s`: when each request was, from the start."""

    rate: float
    due_s: Sequence[float]
    load: Load
    explained_share: float
    cpu_s: Mapping[str, float]

    def percentile(self, percent: float) -> float:
        """Of the latencies, counted from when each request was due."""
        return round(float(np.percentile([a.latency_ms for a in self.load.answers], percent)), 3)

    def report(self) -> dict[str, Any]:
        """What one run found."""
        count = len(self.load.answers)
        late_ms = [a.late_ms for a in self.load.answers]
        return {
            "intended_rps": round(self.rate, 1),
            "achieved_rps": round(self.load.achieved_rps, 1),
            "errors": 0,
            **{f"p{name}_ms": self.percentile(p) for name, p in PERCENTILES.items()},
            "explained_share": round(self.explained_share, 4),
            "cpu_us_per_request": {n: round(s / count * 1e6, 1) for n, s in self.cpu_s.items()},
            "generator_late_p99_ms": round(float(np.percentile(late_ms, 99)), 3),
            "waited_for_connection": self.load.waited,
        }


PERCENTILES: Final[Mapping[str, float]] = {"50": 50, "90": 90, "99": 99, "999": 99.9, "max": 100}


class Followers(Protocol):
    """What follows the service; see `cordon.pipeline.Pipeline`."""

    def expect(self, sent: Mapping[str, int]) -> None:
        """Note what was accepted, by kind."""

    def drain(self, *, patience_s: float) -> None:
        """Wait until all of it is worked off."""


@dataclass(slots=True)
class Course:
    """A running service and what it has answered so far. `connections`: open to the service, all the time;
    `followers`: none beside a service that is measured alone."""

    plan: Local
    stack: Stack
    connections: int
    followers: Followers | None = None
    answered: dict[str, Decision] = field(default_factory=dict)

    def load(self, items: Sequence[Item], due_s: Sequence[float], *, connections: int | None = None) -> Load:
        """Sends them as they are due, over so many connections instead of all; checks nothing."""
        service = self.plan.settings.service
        key = service.api_keys.get_secret_value().split(",")[0].partition("=")[0]
        headers = [("authorization", f"Bearer {key}")]
        host = f"{service.host}:{service.port}"
        sent = [generator.request("/v1/decisions", item.body, host, headers) for item in items]
        return generator.run(
            sent, due_s, service.host, service.port, connections=connections or self.connections
        )

    def warm_up(self, history: Sequence[Item], steady: Sequence[Item], seconds: float) -> dict[str, Any]:
        """What comes before a measured run; what it was, for the report.

        `history` for the entities, as fast as it goes; when all is worked off, `steady` within `seconds`, as
        in a measured run: what compiles as it runs has then seen this rate, and nobody has a backlog.
        """
        found = self.load(history, [0.0] * len(history), connections=min(self.connections, WARM_CONNECTIONS))
        self._checked(history, found, whole=False)
        self.drain()
        if steady:
            due_s = arrivals_s(len(steady), seconds, WARM_SEED)
            self._checked(steady, self.load(steady, due_s), whole=False)
            self.drain()
        return {"warm": len(history), "warm_rps": round(found.achieved_rps), "warm_seconds": seconds}

    def drain(self) -> None:
        """Waits until all that was answered is worked off by what follows. Raises `LogIncomplete`."""
        if self.followers is not None:
            self.followers.drain(patience_s=PATIENCE_S)

    def run(self, items: Sequence[Item], seconds: float, seed: int, stall_s: float = 0.0) -> Run:
        """One open-loop run, arrivals of a Poisson process; halfway the service stands still for `stall_s`.

        Raises `NotMeasured` for a wrong answer, or too low a rate.
        """
        due_s = arrivals_s(len(items), seconds, seed)
        before_s = self.cpu_s()
        with self._stalled(seconds / 2, stall_s):
            found = self.load(items, due_s)
        spent_s = {name: s - before_s[name] for name, s in self.cpu_s().items()} | {"generator": found.cpu_s}
        rate = len(items) / due_s[-1]
        if found.achieved_rps < ACHIEVED_SHARE_MIN * rate:
            # First of all: what else went wrong may be due to that.
            raise NotMeasured(
                f"{found.achieved_rps:.0f}/s of the intended {rate:.0f}/s: latency would say nothing; "
                f"answers by status: {_statuses(found)}"
            )
        explained = sum(any(r.weight is not None for r in d.reasons) for d in self._checked(items, found))
        return Run(rate, due_s, found, explained / len(items), spent_s)

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds of every part so far, its children included."""
        names = (part.name for part in self.plan.parts if not part.once)
        return {name: processor_s(self.stack.processes(name)) for name in names}

    def check_journals(self) -> int:
        """Every answer is in the journals once, as it was answered; their number. Raises `NotMeasured`."""
        seen: Counter[str] = Counter()
        for stored in contents(*journals_in(self.plan.settings.journal.directory, "service-*")):
            seen[stored["id"]] += 1
            answer = self.answered.get(stored["id"])
            if answer is None or (answer.outcome, answer.score) != (stored["outcome"], stored["score"]):
                raise NotMeasured(f"the record of {stored['id']} is not what was answered")
        wrong = [id for id in self.answered if seen[id] != 1]
        if wrong:
            raise NotMeasured(f"{len(wrong)} answers are not in the journal exactly once, such as {wrong[0]}")
        return len(self.answered)

    def _checked(self, items: Sequence[Item], load: Load, *, whole: bool = True) -> list[Decision]:
        """The answers, each that of its request; `whole`: none was made without the history."""
        found = []
        statuses = _statuses(load)
        if set(statuses) != {200}:
            other = next(answer.body for answer in load.answers if answer.status != 200)
            raise NotMeasured(f"not every request was answered with 200: {statuses}, {other[:300]!r}")
        decode = msgspec.json.Decoder(Decision).decode
        for item, answer in zip(items, load.answers, strict=True):
            try:
                decision = decode(answer.body)
            except msgspec.ValidationError as error:
                raise NotMeasured(f"{item.id}: the answer is not of its schema: {error}") from error
            if decision.transaction_id != item.id or decision.replay:
                raise NotMeasured(f"{item.id}: the answer to something else: {answer.body!r}")
            if whole and "features" in decision.degraded:
                raise NotMeasured(
                    f"{item.id} was decided without its history: the store did not answer in time"
                )
            found.append(decision)
        self.answered |= {decision.transaction_id: decision for decision in found}
        if self.followers is not None:
            self.followers.expect({"transaction": len(found)})
        return found

    @contextlib.contextmanager
    def _stalled(self, after_s: float, stall_s: float) -> Iterator[None]:
        """SIGSTOP to the service's processes `after_s` from now, SIGCONT `stall_s` later."""
        if not stall_s:
            yield
            return
        pids = self.stack.processes("service")

        def stall() -> None:
            time.sleep(after_s)
            for number in (signal.SIGSTOP, signal.SIGCONT):
                for pid in pids:
                    os.kill(pid, number)
                if number is signal.SIGSTOP:
                    time.sleep(stall_s)

        thread = threading.Thread(target=stall)
        thread.start()
        yield
        thread.join()


def _statuses(load: Load) -> dict[int, int]:
    return dict(Counter(answer.status for answer in load.answers))


def arrivals_s(count: int, seconds: float, seed: int) -> list[float]:
    """When so many requests of a Poisson process are due, from its start, in their order."""
    found: list[float] = np.sort(np.random.default_rng(seed).uniform(0.0, seconds, count)).tolist()
    return found


CALM: Final = {"declines_max": 10**9}
"""Brakes that no rule reaches: hours of attacks pass in seconds, and each run must do the same work."""


def payments_with(model: Path, *, workers: int = 1) -> dict[str, Any]:
    """Settings of a service that decides a generated world's payments with this model."""
    return {
        "brakes": CALM,
        # Event time passes thousands of times faster than the clock: what overtakes is not late.
        "catalogue": {"name": "payments", "lateness_ms": DAY},
        "decide": {"clock": "event", "model_dir": model.resolve()},
        "service": {"workers": workers},
    }


@contextlib.contextmanager
def course(
    directory: Path,
    overrides: Mapping[str, Any],
    *,
    alone: bool,
    connections: int,
    port: int | None = None,
    keep: Callable[[str, Record], None] = lambda topic, record: None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[Course, Pipeline | None]]:
    """The parts, started below `directory`: service and Valkey, or (not `alone`) also all that follows them.

    `port`: of the service; any free one if absent. `keep` is given each record of the log. Raises
    `NotMeasured` where the port is taken.
    """
    if port is not None and not is_free(port):
        raise NotMeasured(f"port {port} is taken: another service would be measured, or measured with it")
    options = Options(only=ALONE if alone else (), usual_ports=port is not None)
    given = {**overrides, "service": {**overrides.get("service", {}), **({"port": port} if port else {})}}
    if alone:
        plan = local(Settings.load(**given), directory, options)
        with Stack(plan.parts, directory, say=say) as stack:
            yield Course(plan, stack, connections), None
        return
    with pipeline(directory, given, options=options, keep=keep, say=say) as running:
        yield Course(running.plan, running.stack, connections, running), running
