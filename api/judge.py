"""From observed states to decision records: vectors, verdicts, rules, reasons. No I/O."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

import numpy as np
from msgspec import Struct, structs

from api.brakes.brake import Brake
from api.brakes.cap import UNLIMITED
from api.breaker import Breaker
from api.decide import Case, Context, Decision, Freshness, Policy, Verdict, decide
from api.intake.compiled import ordering
from api.model import ModelFailed, ServingModel
from api.outcome import Outcome
from api.phrases import Phrases, brief_of, rest_of
from api.record import DECISION_VERSION, Kind, members
from api.rules.feed import Update
from api.rules.rule import Circumstances, RuleSet, Vector, unit_of
from api.rules.told import Telling, told
from api.shared import Shared
from api.work import Work
from features.catalogue import Catalogue
from features.evaluate import Row
from features.state import DamagedState
from features.store import Observed
from models.kernel.vectors import Columns, Lists, Matrix, Sight, Texts, Vectors
from models.reasons import Reason, load_reasons

REASONS_MAX: Final = 4
_NONE: Final[frozenset[tuple[str, str]]] = frozenset()


class Read(Struct, frozen=True, gc=False):
    """A work with what the store said of it; `None`: the store said nothing."""

    work: Work
    seen: Observed | None

    @property
    def claim(self) -> str:
        """new, recovered, or unclaimed."""
        return "unclaimed" if self.seen is None else self.seen.status.value

    def order(self, generation: str) -> dict[str, tuple[str, int]]:
        """Running number of each entity that was observed."""
        if self.seen is None:
            return {}
        targets = zip(self.work.arrival.targets, self.seen.numbers, strict=True)
        return {target.entity: (generation, n) for target, n in targets if n}

    @property
    def sight(self) -> Sight:
        """What vectors need."""
        work, seen = self.work, self.seen
        if seen is None:
            return work.time_ms, work.values, work.identity, (), (), ()
        return (
            work.time_ms, work.values, work.identity, work.arrival.targets, seen.states, seen.repeated
        )  # fmt: skip

    def row(self, *, history: bool = True) -> Row:
        """`sight` with dictionaries, for the evaluator."""
        states: dict[str, bytes | None] = {}
        repeated: dict[str, bool] = {}
        if history and self.seen is not None:
            targets = [target.entity for target in self.work.arrival.targets]
            states = dict(zip(targets, self.seen.states, strict=True))
            if True in self.seen.repeated:
                repeated = dict(zip(targets, self.seen.repeated, strict=True))
        work = self.work
        return Row(work.time_ms, work.values, work.identity, states, repeated)


class Judged(Struct, frozen=True, gc=False):
    """A record: its kind, what an answer takes of it, its JSON in one line, and how many bytes of that a
    receipt keeps."""

    kind: Kind
    record: dict[str, Any]
    payload: bytes
    kept: int


class Judge:
    """Decides what was read. Model, rules and snoozes may be replaced between batches.

    `code`: version of the code, as decisions name it.
    `snoozes`: until when a rule rests for an entity, by rule id and pseudonym.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        tenant: str,
        model: ServingModel | None,
        rules: RuleSet,
        policy: Policy,
        code: str,
        timer: Callable[[], int],
        brake: Brake | None = None,
    ) -> None:
        self.brake = brake if brake is not None else Brake(UNLIMITED)
        self.catalogue = catalogue
        self.tenant = tenant
        self.model = model
        self.policy = policy
        self.snoozes: Mapping[tuple[str, str], int] = {}
        self.model_breaker = Breaker(rest_ms=1_000, rest_ms_max=30_000)
        self._names = catalogue.names
        self._follow(rules)
        self._telling = Telling()
        self._phrases = Phrases(compiled=ordering())
        self.code = code
        self._shared = Shared(
            {"catalogue": catalogue.vector_fingerprint, "state": catalogue.state_fingerprint, "code": code}
        )
        self._amount_name = catalogue.schema.amount
        self._timer = timer

    @cached_property
    def _evaluator(self) -> Vectors:
        return Vectors(self.catalogue)

    def adopt(self, update: Update) -> None:
        """From the next batch on: what is live now."""
        self.snoozes = update.snoozes
        self.brake.adopt(update.trips)
        if update.rules is not None:
            self._follow(update.rules)

    def _follow(self, rules: RuleSet) -> None:
        """Decide by these rules; of a vector they are given what they use."""
        used = [name for name in self._names if name in rules.words]
        self.rules = rules
        self._places = {name: place for place, name in enumerate(used)}
        self._used = Columns([self._names.index(name) for name in used])
        rules.order_by(self._places)

    def warm_up(self) -> None:
        """Compile kernels before the first transaction waits for them."""
        self._evaluator.warm_up()
        if self.model is not None:
            blank = np.full((1, len(self._names)), np.nan, np.float32)
            self.model.verdicts(blank, [0])
            self.model.contributions(blank)

    def records(
        self,
        reads: Sequence[Read],
        freshness: Freshness,
        now_ms: int,
        stages: Mapping[str, int],
        *,
        abandoned: bool = False,
    ) -> list[Judged]:
        """One record per transaction, in order. `stages`: microseconds that the batch has taken so far."""
        if not reads:
            return []
        timer = self._timer
        clock = [timer()]
        matrix, values, texts, degraded = self._vectors(reads)
        clock.append(timer())
        amounts = [self._amount(read.work) for read in reads]
        verdicts = self._verdicts(matrix, amounts, degraded, now_ms)
        clock.append(timer())
        guard = self.brake.begin(len(reads), now_ms)
        context = Circumstances(now_ms, self.brake.tripped(now_ms), self._snoozed(now_ms))
        whole = Context(context, freshness, (), guard)
        decisions = []
        for i, read in enumerate(reads):
            case = self._case(read.work, amounts[i], values[i])
            about = whole._replace(degraded=tuple(degraded[i])) if degraded[i] else whole
            decision = decide(case, verdicts[i], self.rules, self.policy, about)
            decisions.append(decision)
            if decision.winner.outcome is Outcome.DECLINE and self.brake.note(decision, self.rules, now_ms):
                context = replace(context, tripped=self.brake.tripped(now_ms))
                whole = whole._replace(circumstances=context)
        clock.append(timer())
        reasons = self._reasons(matrix, decisions)
        clock.append(timer())
        shared = self._shared
        shared.of(self.model, self.rules, self.policy, freshness)
        taken = dict(stages)
        for place, stage in enumerate(("features", "score", "rules", "explain")):
            taken[stage] = (clock[place + 1] - clock[place]) // 1_000
        kind, generation = Kind.ABANDONED if abandoned else Kind.DECISION, freshness.generation
        opened = b"{%b," % members({"type": kind.name.lower(), "v": DECISION_VERSION, "tenant": self.tenant})
        dated = b",%b," % members(
            {"decided_ms": now_ms, "versions": shared.versions_raw, "freshness": shared.freshness_raw}
        )
        timed = b",%b}" % members({"stages_us": taken})
        rests, made = self._phrases.rests(decisions), []
        for i, read in enumerate(reads):
            decision, work = decisions[i], read.work
            said = self._telling.of(decision.rules)
            brief, kept = self._phrases.brief(decision, reasons[i])
            # What its receipt keeps comes first; what many records share was encoded once.
            payload = b"".join((
                opened, work.core, dated, kept,
                b",", work.own, b",", rests[i], b',"order":', self._order(read, generation),
                b',"claim":"', read.claim.encode(), b'",', said.members, b',"features":', texts[i], timed,
            ))  # fmt: skip
            head_bytes = len(opened) + len(work.core) + len(dated) + len(kept)
            record = {
                **brief, "id": work.id, "decided_ms": now_ms, "versions": shared.versions,
                "freshness": shared.freshness, "rules": said.hits,
            }  # fmt: skip
            made.append(Judged(kind, record, payload, head_bytes))
        return made

    def again(
        self, matrix: Matrix, case: Case, about: Context, *, failed: bool
    ) -> tuple[Decision, list[dict[str, Any]]]:
        """Decide a stored vector `[1, catalogue]`; `failed`: as if the model gave no answer."""
        parts = [part for part in about.degraded if part != "model"]
        if failed:
            fallback = self.model.fallback(matrix, [case.amount]) if self.model is not None else None
            verdict = fallback[0] if fallback else None
            parts.append("model")
        else:
            verdict = self._verdicts(matrix, [case.amount], [parts], about.circumstances.now_ms)[0]
        about = about._replace(degraded=tuple(parts))
        decision = decide(case, verdict, self.rules, self.policy, about)
        return decision, self._reasons(matrix, [decision])[0]

    def what_if(self, cases: Sequence[Case], about: Context) -> list[Decision]:
        """Decisions of transactions that never were, with all parts that decided; nothing is counted."""
        names = self._names
        stored = [[math.nan if (v := case.features[n]) is None else v for n in names] for case in cases]
        matrix = np.array(stored, np.float32)
        amounts = [case.amount for case in cases]
        if "model" in about.degraded:
            fallback = None if self.model is None else self.model.fallback(matrix, amounts)
            verdicts: list[Verdict | None] = [None] * len(cases) if fallback is None else [*fallback]
        else:
            degraded = [list(about.degraded) for _ in cases]
            verdicts = self._verdicts(matrix, amounts, degraded, about.circumstances.now_ms)
        # As the engine sees a vector: in single precision.
        rows = [[None if v != v else v for v in row] for row in matrix.tolist()]
        return [
            decide(
                structs.replace(case, features=dict(zip(names, row, strict=True))),
                verdict,
                self.rules,
                self.policy,
                about,
            )
            for case, row, verdict in zip(cases, rows, verdicts, strict=True)
        ]

    def _order(self, read: Read, generation: str) -> bytes:
        if read.seen is None:
            return b"{}"
        return self._phrases.order(read.work.arrival.targets, read.seen.numbers, generation)

    def _snoozed(self, now_ms: int) -> frozenset[tuple[str, str]]:
        if not self.snoozes:
            return _NONE
        return frozenset(who for who, until_ms in self.snoozes.items() if until_ms > now_ms)

    def _vectors(self, reads: Sequence[Read]) -> tuple[Matrix, Lists, Texts, list[list[str]]]:
        degraded: list[list[str]] = [["features"] if read.seen is None else [] for read in reads]
        try:
            made = self._evaluator.compiled([read.sight for read in reads], self._used)
            if made is None:
                made = self._evaluator.of([read.row() for read in reads], self._used)
            return *made, degraded
        except DamagedState:
            rows = [self._one_vector(read, parts) for read, parts in zip(reads, degraded, strict=True)]
            matrix = np.concatenate([row for row, _, _ in rows])
            return matrix, [one for _, (one,), _ in rows], [one for _, _, (one,) in rows], degraded

    def _one_vector(self, read: Read, degraded: list[str]) -> tuple[Matrix, Lists, Texts]:
        """One row by itself: a damaged state costs its own transaction the history, nobody else."""
        try:
            return self._evaluator.of([read.row()], self._used)
        except DamagedState:
            degraded.append("features")
            return self._evaluator.of([read.row(history=False)], self._used)

    def _verdicts(
        self,
        matrix: Matrix,
        amounts: list[int],
        degraded: list[list[str]],
        now_ms: int,
    ) -> list[Verdict | None]:
        model = self.model
        verdicts: list[Verdict | None] = [None] * len(amounts)
        usable = [i for i, parts in enumerate(degraded) if not parts or (model and model.allows_missing)]
        scored: list[Verdict] | None = []
        if usable and len(usable) == len(amounts):
            scored = self._scored(matrix, amounts, now_ms)
            if scored is not None:
                return [*scored]
        elif usable:
            scored = self._scored(matrix[usable], [amounts[i] for i in usable], now_ms)
        if model is not None and (scored is None or len(usable) < len(amounts)):
            verdicts = list(model.fallback(matrix, amounts) or verdicts)
        for place, i in enumerate(usable):
            if scored is None:
                degraded[i].append("model")
            else:
                verdicts[i] = scored[place]
        return verdicts

    def _scored(self, matrix: Matrix, amounts: list[int], now_ms: int) -> list[Verdict] | None:
        """The model's verdicts; `None` where there is no model, or it fails, or failed just now."""
        if self.model is None or not self.model_breaker.allows(now_ms):
            return None
        try:
            found = self.model.verdicts(matrix, amounts)
        except ModelFailed:
            self.model_breaker.failed(now_ms)
            return None
        self.model_breaker.worked()
        return found

    def _amount(self, work: Work) -> int:
        name = self._amount_name
        amount = work.values.get(name) if name is not None else None
        return amount if isinstance(amount, int) else 0

    def _case(self, work: Work, amount: int, values: list[float | None]) -> Case:
        schema = self.catalogue.schema
        entities = work.identity.entities
        unit = unit_of(work.id, entities, schema)
        features = Vector(self._places, values)
        return Case(work.id, work.time_ms, amount, work.values, entities, features, unit)

    def _reasons(self, matrix: Matrix, decisions: Sequence[Decision]) -> list[list[dict[str, Any]]]:
        """Reasons of everything that is not approved: its rules, then the model's strongest ideas."""
        found: list[list[dict[str, Any]]] = []
        explained = []
        for i, decision in enumerate(decisions):
            if decision.outcome is Outcome.APPROVE:
                found.append([])
                continue
            found.append(self._rule_reasons(decision))
            if decision.verdict is not None and decision.verdict.source == "model":
                explained.append(i)
        if not explained:
            return found
        rows = matrix if len(explained) == len(matrix) else matrix[explained]
        for i, reasons in zip(explained, self._model_reasons(rows), strict=True):
            known = {reason["code"] for reason in found[i]}
            found[i] += [r for r in reasons if r["code"] not in known][: REASONS_MAX - len(found[i])]
        return found

    def _rule_reasons(self, decision: Decision) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for result in decision.rules:
            rule = self.rules.rule(result.id) if result.counts else None
            if rule is not None and rule.outcome is not Outcome.APPROVE:
                text = rule.description or rule.reason.replace("_", " ")
                found.setdefault(rule.reason, {"code": rule.reason, "text": text, "weight": None})
        if decision.winner.by == "policy":
            code = decision.winner.id
            found.setdefault(code, {"code": code, "text": _POLICY_TEXTS[code], "weight": None})
        return list(found.values())[:REASONS_MAX]

    def _model_reasons(self, matrix: Matrix) -> list[list[dict[str, Any]]]:
        model = self.model
        if model is None or not len(matrix):
            return [[] for _ in matrix]
        try:
            contributions = model.contributions(matrix)
        except ModelFailed:
            return [[] for _ in matrix]
        found = model.explainer.top(contributions, count=REASONS_MAX, audience="analyst")
        return [[_reason(reason) for reason in reasons] for reasons in found]


_POLICY_TEXTS: Final = load_reasons().policies


def shown(decision: Decision) -> dict[str, Any]:
    """The decision's own part of a record, without its reasons."""
    brief = brief_of(decision, [])
    del brief["reasons"]
    return {**brief, **rest_of(decision), **told(decision.rules)}


def _reason(reason: Reason) -> dict[str, Any]:
    return {"code": reason.code, "text": reason.text, "weight": round(reason.weight, 4)}
