"""The engine behind both doors: claim and observe, vector, score, rules, journal, claims, answers.

One batch is one pipelined call to the store, one call to the scorer, one `fdatasync`. A caller who has other
things to do while the store or the disk is at it takes a batch's steps one by one:

    begin    validate, send off what is claimed and observed      has_landed: the store has answered
    record   judge, hand to the journal                           is_durable: the disk has answered
    answer   claims, answers

Flights take each step in the order of their departure. The only state that outlives a batch is what is known
about the parts' health.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from api.answer import (
    Accepted,
    Answer,
    Conflicting,
    Decided,
    Pending,
    Refused,
    Unavailable,
    Unknown,
)
from api.attempts import Attempts, Found
from api.breaker import Breaker
from api.flight import Flight, Verdicts
from api.gauge import FreshnessGauge
from api.journal import Journal, JournalLate, JournalUnavailable
from api.judge import Judge, Judged, Read
from api.record import VERSION, Kind, Location, compose, decode_json, encode_json, pack, shortened
from api.work import Inbound, Intake, Work
from features.event import InvalidEvent, LabelEvent, LifecycleEvent, Transaction, check_time
from features.store import Claim, Observed, OnlineStore, Status, StoreUnavailable

ABANDONED_AFTER_MS: Final = 60_000
UNFINISHED_MAX: Final = 10_000
UNCLAIMED_MAX: Final = 10_000
REVIVE_EVERY_MS: Final = 1_000


class QueryStoreUnavailable(Exception):
    """Look-ups of past decisions have no answer now: try again later."""


class Past(Protocol):
    """Look-up of past decisions by id."""

    def record(self, transaction_id: str) -> Mapping[str, Any] | None:
        """The stored record. Raises `QueryStoreUnavailable`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`deadline_ms`: of one call to the store. `backlog_max`: unshipped records of the journal.
    `record_within_ms`: a batch that takes longer than this from claim to journal is given up, well before
    others may take its claims over.
    `lateness_ms`, `future_skew_ms`: instead of the schema's own."""

    deadline_ms: int = 250
    backlog_max: int = 2_000_000
    record_within_ms: int = 3_500
    lateness_ms: int | None = None
    future_skew_ms: int | None = None


class Engine:
    """Decides batches. `timer`: monotonic nanoseconds. Not for use by several threads."""

    def __init__(
        self,
        intake: Intake,
        store: OnlineStore,
        journal: Journal,
        judge: Judge,
        gauge: FreshnessGauge,
        past: Past,
        attempts: Attempts,
        limits: Limits,
        timer: Callable[[], int],
        tenant: str,
    ) -> None:
        self.intake = intake
        self.store = store
        self.journal = journal
        self.judge = judge
        self.gauge = gauge
        self.past = past
        self.attempts = attempts
        self.limits = limits
        self.tenant = tenant
        self.store_breaker = Breaker()
        self._timer = timer
        schema = intake.catalogue.schema
        self._primary = schema.primary
        self._accepts = replace(
            schema,
            lateness_ms=schema.lateness_ms if limits.lateness_ms is None else limits.lateness_ms,
            future_skew_ms=schema.future_skew_ms if limits.future_skew_ms is None else limits.future_skew_ms,
        )
        self._newest_ms = 0
        self._revive_ms = 0
        self._originals: dict[str, Claim | None] | None = {}
        self._unfinished: list[tuple[str, bytes, bytes]] = []
        self._posted: list[tuple[str, bytes, bytes]] = []
        # Decided without a claim: what follows them finds them here until the query store has them.
        self._unclaimed: dict[str, Mapping[str, Any]] = {}
        self._inherited: dict[str, Found] = {}

    def inherit(self, recorded: Mapping[str, Found]) -> None:
        """Take over what an earlier life of the journal recorded last, by claim: claims that it left open are
        answered before anything else is claimed."""
        self._inherited = dict(recorded)

    @property
    def newest_ms(self) -> int:
        """Event time of the newest accepted event, 0 if none."""
        return self._newest_ms

    def decide_batch(self, inbound: Sequence[Inbound], *, now_ms: int) -> list[Answer]:
        """One answer per event, in order. `now_ms`: wall clock. Raises `JournalFenced`: stop the process."""
        answers = self.finish(self.begin(inbound, now_ms=now_ms))
        self.flush(now_ms=now_ms)
        return answers

    def flush(self, *, now_ms: int) -> None:
        """Nothing follows at once: the answers' claims learn of them now, not with the next batch."""
        if not self._posted:
            return
        try:
            self.store.flush()
        except StoreUnavailable:
            self._store_failed(now_ms)

    def begin(self, inbound: Sequence[Inbound], *, now_ms: int) -> Flight:
        """First step of `decide_batch`: validate, and send off what is to be claimed and observed.

        While the store is at it, the batch before may be finished.
        """
        if self.journal.failure is not None and not self._revive_journal(now_ms):
            return Flight([Unavailable("journal")] * len(inbound))
        if self.journal.backlog + len(inbound) > self.limits.backlog_max:
            return Flight([Unavailable("backlog")] * len(inbound))
        began = self._timer()
        self._answer_inherited(now_ms)
        self._post(now_ms)
        self._originals = self._look_up(inbound, now_ms)
        answers: list[Answer | None] = [None] * len(inbound)
        works: dict[str, tuple[int, Work]] = {}
        twins: list[tuple[int, Work]] = []
        for index, item in enumerate(inbound):
            made = self._prepare(item, works, now_ms)
            if not isinstance(made, Work):
                answers[index] = made
            elif made.key in works:
                twins.append((index, made))
            else:
                works[made.key] = (index, made)
        # The store's deadline counts from here: looking originals up may have taken a while.
        now_ms += (self._timer() - began) // 1_000_000
        flight = Flight(answers, works, twins, now_ms, self._timer())
        flight.departed = self._depart([work for _, work in works.values()], now_ms)
        flight.departing_ms = (self._timer() - flight.started) // 1_000_000
        return flight

    def finish(self, flight: Flight) -> list[Answer]:
        """The other steps of `decide_batch`. Raises `JournalFenced`: stop the process."""
        self.record(flight)
        return self.answer(flight)

    @property
    def descriptors(self) -> list[int]:
        """What becomes readable when a flight may have landed, or be durable."""
        return [fd for fd in (self.store.descriptor, self.journal.syncing.descriptor) if fd is not None]

    def gather(self) -> None:
        """Take in what the store has said so far; until somebody does, it may not get on."""
        self.store.landed()

    def has_landed(self, flight: Flight) -> bool:
        """Whether `record` would not wait for the store; of the flights that were not recorded, the first is
        asked for."""
        return self.store.landed() or not flight.departed

    def record(self, flight: Flight) -> None:
        """Second step: judge, and hand the records to the journal, which writes them once the disk has done
        what it is at. Of the flights before, all are answered or recorded. Raises `JournalFenced`: stop the
        process."""
        works = [work for _, work in flight.works.values()]
        observed: list[Observed | None] = [None] * len(works)
        if flight.departed:
            observed = self._seen(self.store.land, len(works), flight.now_ms)
            if flight.departing_ms >= self.limits.deadline_ms:
                self._repeat(works, observed, flight)
        flight.verdicts = self._verdicts(works, observed, flight.now_ms, flight.started)

    def is_durable(self, flight: Flight) -> bool:
        """Whether `answer` would not wait for the disk. Raises what `record` does."""
        verdicts = flight.verdicts
        return verdicts is None or verdicts.written is None or self.journal.is_settled(verdicts.written)

    def answer(self, flight: Flight) -> list[Answer]:
        """Third step: one answer per event, in order; the flights before are answered. Raises what `record`
        does."""
        answers, now_ms = flight.answers, flight.now_ms
        if flight.verdicts is None:
            raise RuntimeError("a flight is recorded before it is answered")
        found = self._close(flight.verdicts, now_ms)
        for (index, _), answer in zip(flight.works.values(), found, strict=True):
            answers[index] = answer
        for index, twin in flight.twins:
            first = flight.works[twin.key]
            answers[index] = self._twin(twin, first[1], answers[first[0]], now_ms)
        return [answer if answer is not None else Unavailable("time") for answer in answers]

    def sweep(self, *, now_ms: int, limit: int = 64) -> int:
        """Record attempts that nobody finished for a minute; how many. Raises `StoreUnavailable`."""
        self._settle()
        self._answer_inherited(now_ms)
        self._post(now_ms)
        if self.journal.failure is not None:
            return 0
        claims = self.store.open_claims(now_ms - ABANDONED_AFTER_MS, limit)
        works = []
        for key, claim in claims:
            if claim.payload is None:
                continue
            work = self.intake.resume(decode_json(claim.payload), claim.content)
            if work.key == key:
                works.append(work)
        answers = self._decide(works, now_ms, abandoned=True)
        self.flush(now_ms=now_ms)
        return sum(isinstance(a, Decided | Accepted) and not a.replay for a in answers)

    def _prepare(self, item: Inbound, batch: Mapping[str, tuple[int, Work]], now_ms: int) -> Work | Answer:
        try:
            event = self.intake.parse(item)
            if not item.waited:
                self._check_time(event, now_ms)
        except InvalidEvent as error:
            return Refused(error)
        if isinstance(event, Transaction):
            work = self.intake.transaction(event, item.door)
        else:
            original = self._original(event.transaction_id, batch)
            if isinstance(original, Unavailable | Unknown):
                return original
            if isinstance(event, LabelEvent):
                work = self.intake.label(event, original)
            else:
                work = self.intake.lifecycle(event, original)
        self._newest_ms = max(self._newest_ms, event.time_ms)
        return work

    def _check_time(self, event: Transaction | LabelEvent | LifecycleEvent, now_ms: int) -> None:
        """Raises `InvalidEvent`; an event that was claimed before is not late but repeated."""
        try:
            check_time(self._accepts, event.time_ms, newest_ms=self._newest_ms, now_ms=now_ms)
        except InvalidEvent as error:
            if error.code != "late" or not self._claimed(_key(event)):
                raise

    def _claimed(self, key: str) -> bool:
        try:
            claim = self.store.claim(key)
        except StoreUnavailable:
            return False
        return claim is not None and claim.answer is not None

    def _revive_journal(self, now_ms: int) -> bool:
        """Try the journal again, at most once a second: nothing is claimed that cannot be recorded."""
        if now_ms < self._revive_ms:
            return False
        self._revive_ms = now_ms + REVIVE_EVERY_MS
        return self.journal.revive()

    def _look_up(self, inbound: Sequence[Inbound], now_ms: int) -> dict[str, Claim | None] | None:
        """Claims of the transactions that this batch's labels and events follow; `None`: no store."""
        followed = {
            f"tx:{item.payload.get('transaction_id')}": None
            for item in inbound
            if item.kind != "transaction" and isinstance(item.payload, dict)
        }
        if not followed:
            return {}
        if not self.store_breaker.allows(now_ms):
            return None
        try:
            return dict(zip(followed, self.store.claims(list(followed)), strict=True))
        except StoreUnavailable:
            self._store_failed(now_ms)
            return None

    def _original(
        self, transaction_id: str, batch: Mapping[str, tuple[int, Work]]
    ) -> Mapping[str, Any] | Unavailable | Unknown:
        """The transaction that an event follows: of this batch, of its claim, or of the query store."""
        key = f"tx:{transaction_id}"
        if key in batch:
            return batch[key][1].facts
        if self._originals is None:
            return Unavailable("store")
        claim = self._originals.get(key)
        if claim is not None:
            stored = claim.answer if claim.answer is not None else claim.payload
            if stored is not None:
                found: Mapping[str, Any] = decode_json(stored)
                return found
        try:
            record = self.past.record(transaction_id)
        except QueryStoreUnavailable:
            return Unavailable("query_store")
        record = record or self._unclaimed.get(key)
        return record if record is not None else Unknown(transaction_id)

    def _twin(self, twin: Work, first: Work, answer: Answer | None, now_ms: int) -> Answer:
        """The same id twice in one batch."""
        if isinstance(answer, Decided | Accepted) and not answer.replay:
            if twin.arrival.content != first.arrival.content:
                return Conflicting(twin.key)
            return type(answer)(answer.record, replay=True)
        return self._decide([twin], now_ms)[0]

    def _decide(self, works: Sequence[Work], now_ms: int, *, abandoned: bool = False) -> list[Answer]:
        """Claim, observe, judge, record. `abandoned`: works of the sweep."""
        started = self._timer()
        seen = self._arrive(works, now_ms)
        return self._close(self._verdicts(works, seen, now_ms, started, abandoned=abandoned), now_ms)

    def _verdicts(
        self,
        works: Sequence[Work],
        observed: Sequence[Observed | None],
        now_ms: int,
        started: int,
        *,
        abandoned: bool = False,
    ) -> Verdicts:
        """Judge what the store has seen, and write it."""
        if not works:
            return Verdicts([])
        self._settle()
        answers: list[Answer | None] = [None] * len(works)
        reads: list[tuple[int, Read]] = []
        taken = [works[i].key for i, seen in enumerate(observed) if seen and seen.status is Status.RECOVERED]
        earlier = self.attempts.find(taken)
        for index, (work, seen) in enumerate(zip(works, observed, strict=True)):
            if work.key in earlier:
                found = earlier[work.key]
                self._unfinished.append((work.key, work.arrival.owner, found.receipt))
                answers[index] = _recorded(work, found.record, replay=True)
            else:
                made = self._read(work, seen)
                if isinstance(made, Read):
                    reads.append((index, made))
                else:
                    answers[index] = made
        verdicts = Verdicts(answers, reads)
        verdicts.judged = self._judge([read for _, read in reads], now_ms, started, abandoned=abandoned)
        self._write(verdicts, started)
        return verdicts

    def _close(self, made: Verdicts, now_ms: int) -> list[Answer]:
        """Answer what was judged, once it is durable."""
        failure, location = made.failure, None
        if made.written is not None:
            try:
                location = self.journal.settle(made.written)
            except JournalLate:
                failure = Unavailable("time")
            except JournalUnavailable:
                failure = Unavailable("journal")
        answers, reads = made.answers, [read for _, read in made.reads]
        for (index, read), one in zip(made.reads, made.judged, strict=True):
            answers[index] = failure or _recorded(read.work, one.record, replay=False)
        if location is not None:
            self._remember_unclaimed(reads)
            self._answer_claims(reads, made.judged, location, now_ms)
        return [answer if answer is not None else Unavailable("time") for answer in answers]

    def _arrive(self, works: Sequence[Work], now_ms: int) -> list[Observed | None]:
        """What the store says of each; `None` where it says nothing."""
        if not works or not self.store_breaker.allows(now_ms):
            return [None] * len(works)

        def arrive() -> list[Observed]:
            self.gauge.refresh(now_ms)
            deadline_ms = now_ms + self.limits.deadline_ms
            return self.store.arrive([w.arrival for w in works], now_ms=now_ms, deadline_ms=deadline_ms)

        return self._seen(arrive, len(works), now_ms)

    def _repeat(self, works: Sequence[Work], observed: list[Observed | None], flight: Flight) -> None:
        """Ask once more for what had expired before it was sent: it was this process that stood still, not
        the store, which did nothing."""
        places = [i for i, seen in enumerate(observed) if seen and seen.status is Status.EXPIRED]
        now_ms = flight.now_ms + (self._timer() - flight.started) // 1_000_000
        again = self._arrive([works[place] for place in places], now_ms)
        for place, seen in zip(places, again, strict=True):
            observed[place] = seen

    def _depart(self, works: Sequence[Work], now_ms: int) -> bool:
        """Send them to the store; whether it will say something."""
        if not works or not self.store_breaker.allows(now_ms):
            return False
        try:
            self.gauge.follow(now_ms)
            deadline_ms = now_ms + self.limits.deadline_ms
            self.store.depart([w.arrival for w in works], now_ms=now_ms, deadline_ms=deadline_ms)
        except StoreUnavailable:
            self._store_failed(now_ms)
            return False
        return True

    def _seen(self, ask: Callable[[], list[Observed]], count: int, now_ms: int) -> list[Observed | None]:
        try:
            found: list[Observed | None] = [*ask()]
            self.gauge.note_generation()
        except StoreUnavailable:
            self._store_failed(now_ms)
            return [None] * count
        self.store_breaker.worked()
        return found

    def _read(self, work: Work, seen: Observed | None) -> Read | Answer:
        if seen is None or seen.status is Status.EXPIRED:
            # A transaction is decided without its history; what follows one waits for the store.
            return Read(work, None) if work.kind == "transaction" else Unavailable("store")
        if seen.status is Status.REPLAY and seen.answer is not None:
            return _recorded(work, decode_json(seen.answer), replay=True)
        if seen.status is Status.CONFLICT:
            return Conflicting(work.key)
        if seen.status is Status.PENDING:
            return Pending(work.key)
        return Read(work, seen)

    def _judge(self, reads: Sequence[Read], now_ms: int, started: int, *, abandoned: bool) -> list[Judged]:
        """Records of what was read, in order."""
        transactions = [read for read in reads if read.work.kind == "transaction"]
        stages = {"batch": len(reads), "observe": (self._timer() - started) // 1_000}
        freshness = self.gauge.read()
        decided = iter(self.judge.records(transactions, freshness, now_ms, stages, abandoned=abandoned))
        self.gauge.decided(now_ms)
        return [
            next(decided)
            if read.work.kind == "transaction"
            else self._follow_record(read, freshness.generation)
            for read in reads
        ]

    def _follow_record(self, read: Read, generation: str) -> Judged:
        facts = dict(read.work.facts)
        record = {"type": facts.pop("kind"), "v": VERSION, "tenant": self.tenant}
        if "event" in facts:
            facts["kind"] = facts.pop("event")
        record = {**record, **facts, "order": read.order(generation), "claim": read.claim}
        return Judged(_KINDS[read.work.kind], record, *compose(record))

    def _write(self, made: Verdicts, started: int) -> None:
        """Hand the records to the journal."""
        if not made.judged:
            return
        bodies = [
            pack(one.kind, self._topic_key(read.work), one.payload)
            for (_, read), one in zip(made.reads, made.judged, strict=True)
        ]
        within_s = self.limits.record_within_ms / 1e3 - (self._timer() - started) / 1e9
        try:
            made.written = self.journal.write(bodies, within_s=within_s)
        except JournalLate:
            made.failure = Unavailable("time")
        except JournalUnavailable:
            made.failure = Unavailable("journal")

    def _topic_key(self, work: Work) -> str:
        primary = work.identity.entities.get(self._primary)
        return str(primary or work.facts.get("transaction_id") or work.id)

    def _answer_inherited(self, now_ms: int) -> None:
        if not self._inherited or not self.store_breaker.allows(now_ms):
            return
        try:
            # All of them, whatever the clock of the host that died there was.
            claims = self.store.open_claims(now_ms + ABANDONED_AFTER_MS, UNFINISHED_MAX)
        except StoreUnavailable:
            self._store_failed(now_ms)
            return
        self._unfinished += [
            (key, claim.owner, self._inherited[key].receipt)
            for key, claim in claims
            if key in self._inherited
        ]
        self._inherited = {}

    def _remember_unclaimed(self, reads: Sequence[Read]) -> None:
        for read in reads:
            if read.seen is None and read.work.kind == "transaction":
                self._unclaimed[read.work.key] = read.work.facts
        while len(self._unclaimed) > UNCLAIMED_MAX:
            del self._unclaimed[next(iter(self._unclaimed))]

    def _answer_claims(
        self, reads: Sequence[Read], judged: Sequence[Judged], location: Location, now_ms: int
    ) -> None:
        place = encode_json(location)
        # Unclaimed ones too: the store may have taken the claim and lost only the reply.
        self._unfinished += [
            (read.work.key, read.work.arrival.owner, shortened(one.payload, one.kept, place))
            for read, one in zip(reads, judged, strict=True)
        ]
        self._post(now_ms)

    def _post(self, now_ms: int) -> None:
        """Hand answers to their claims, with the next batch or by `flush`. Nobody waits for the store: what
        it made of them is known when that batch has arrived there, and the journal has them anyway."""
        if not self._unfinished or not self.store_breaker.allows(now_ms):
            del self._unfinished[:-UNFINISHED_MAX]
            return
        try:
            self.store.post(self._unfinished)
        except StoreUnavailable:
            self._store_failed(now_ms)
        else:
            self._posted += self._unfinished
            self._unfinished = []

    def _settle(self) -> None:
        """What is known by now of the answers that were posted; those that may be lost are posted again."""
        if not self._posted:
            return
        try:
            del self._posted[: len(self.store.posted())]
        except StoreUnavailable:
            self._unfinished = self._posted + self._unfinished
            self._posted = []

    def _store_failed(self, now_ms: int) -> None:
        self.store_breaker.failed(now_ms)
        self.gauge.forget()


_KINDS: Final = {"label": Kind.LABEL, "event": Kind.EVENT}


def _recorded(work: Work, record: Mapping[str, Any], *, replay: bool) -> Answer:
    if work.kind == "transaction":
        return Decided(record, replay)
    return Accepted(record, replay)


def _key(event: Transaction | LabelEvent | LifecycleEvent) -> str:
    if isinstance(event, Transaction):
        return f"tx:{event.id}"
    return f"{'label' if isinstance(event, LabelEvent) else 'event'}:{event.id}"
