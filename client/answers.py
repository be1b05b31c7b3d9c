"""What a service answers, as types. Fields that a newer service adds are ignored."""

from typing import Any, Literal

import msgspec

Outcome = Literal["approve", "challenge", "review", "decline"]


class Part(msgspec.Struct, frozen=True):
    """A part of an answer, or a whole one."""


class Reason(Part, frozen=True):
    """Why. `weight`: log-odds; `None` for a rule or a policy."""

    code: str
    text: str
    weight: float | None = None
    features: tuple[str, ...] = ()


class Freshness(Part, frozen=True):
    """How fresh the state behind a decision was. `flink_lag_ms`: `None` where it is unknown."""

    state: Literal["fresh", "stale", "rebuilding"]
    generation: str | None
    flink_lag_ms: int | None


class Decided(Part, frozen=True):
    """When and by what it was decided. `decided_ms`: epoch."""

    decided_ms: int
    versions: dict[str, str | None]


class Answer(Part, frozen=True):
    """A decision. `score`: 0 to 1000, `None` without a model. `replay`: it had been decided before.

    `guard`: the service declines nothing at present, because it declined too much; `None`: it is not guarded.
    """

    transaction_id: str
    outcome: Outcome
    score: int | None
    reasons: tuple[Reason, ...]
    decision: Decided
    freshness: Freshness
    degraded: tuple[str, ...]
    replay: bool
    guard: str | None = None


class Accepted(Part, frozen=True):
    """A label or event was recorded. `replay`: before already."""

    id: str
    transaction_id: str
    replay: bool


class Voice(Part, frozen=True):
    """One source's wish: a rule, the model, the scorecard or a policy, by id."""

    by: str
    id: str
    outcome: Outcome


class RuleResult(Part, frozen=True):
    """One rule's result. `missing`: features for want of which it could not be evaluated.

    `mode`, `action`: `None` where it did not hit and the set that decided is not at hand any more.
    """

    id: str
    result: Literal["hit", "no_hit", "not_evaluated"]
    mode: str | None = None
    action: str | None = None
    missing: tuple[str, ...] = ()
    held: str | None = None
    text: str | None = None
    reason: str | None = None


class Record(Part, frozen=True):
    """The whole record of a decision; ids are pseudonyms. `expected_loss`: minor units of base currency.

    `rules`: those that hit; `no_hit`: ids of those that did not; `not_evaluated`: by their ids what the
    others were missing. In records of version 1 `rules` has all of them. `guard`: what the guard of the
    declines did to it, `None` for nothing.
    """

    type: Literal["decision", "abandoned"]
    v: int
    tenant: str
    id: str
    decided_ms: int
    time_ms: int
    door: str
    transaction: dict[str, Any]
    entities: dict[str, str]
    outcome: Outcome
    score: int | None
    probability: float | None
    margin: float | None
    expected_loss: float | None
    scored_by: str | None
    winner: Voice
    others: tuple[Voice, ...]
    rules: tuple[RuleResult, ...]
    reasons: tuple[Reason, ...]
    features: tuple[float | None, ...]
    versions: dict[str, str | None]
    freshness: Freshness
    degraded: tuple[str, ...]
    claim: str
    stages_us: dict[str, int]
    no_hit: tuple[str, ...] = ()
    not_evaluated: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    guard: str | None = None


class Records(Part, frozen=True):
    """A page of decisions, newest first. `next`: the cursor of the following page, `None` at the end."""

    decisions: tuple[Record, ...]
    next: str | None


class Contribution(Part, frozen=True):
    """What one feature's value did to the margin, in log-odds."""

    feature: str
    value: float | None
    unit: str | None
    contribution: float


class ModelExplanation(Part, frozen=True):
    """The model's part: `base_value` and all contributions add up to `margin`, but for `additivity_error`."""

    version: str
    space: str
    base_value: float
    margin: float
    additivity_error: float
    contributions: tuple[Contribution, ...]


class Change(Part, frozen=True):
    """One feature's value as it was, and as it would have to be."""

    feature: str
    from_: float | None = msgspec.field(name="from")
    to: float | None


class Counterfactual(Part, frozen=True):
    """What would have passed, decided again.

    `limit`: of an amount, the largest that passes (minor units); of earlier payments, how many fewer.
    """

    kind: Literal["amount", "known", "fewer", "without", "field"]
    subject: str
    outcome: Outcome
    limit: int | None
    below: bool
    changes: tuple[Change, ...]
    text: str


class Hint(Part, frozen=True):
    """What would have passed, in words."""

    text: str


class Explanation(Part, frozen=True):
    """Why it was decided so. `model`: `None` where no model scored it."""

    transaction_id: str
    outcome: Outcome
    score: int | None
    probability: float | None
    expected_loss: float | None
    winner: Voice
    others: tuple[Voice, ...]
    reasons: tuple[Reason, ...]
    rules: tuple[RuleResult, ...]
    freshness: Freshness
    degraded: tuple[str, ...]
    versions: dict[str, str | None]
    language: str
    counterfactuals: tuple[Counterfactual, ...]
    model: ModelExplanation | None = None


class CustomerExplanation(Part, frozen=True):
    """What may be told to the customer: no numbers, thresholds or rules."""

    transaction_id: str
    outcome: Outcome
    summary: str
    language: str
    reasons: tuple[Reason, ...]
    counterfactuals: tuple[Hint, ...]


class Difference(Part, frozen=True):
    """A part that is not what it was when it was decided."""

    part: str
    name: str
    detail: str


class Replayed(Part, frozen=True):
    """A decision made again. `replayed`: `None` where it could not be."""

    transaction_id: str
    same: bool
    recorded: dict[str, Any]
    replayed: dict[str, Any] | None
    differences: tuple[Difference, ...]
    as_: Literal["stored", "current"] = msgspec.field(name="as")


class LineProblem(Part, frozen=True):
    """Why a line was refused."""

    code: str
    detail: str
    field: str | None = None


class BatchResult(Part, frozen=True):
    """What became of a line (from 1): `answer` or `problem`. `status`: as the interactive route answers."""

    line: int
    transaction_id: str | None
    status: int
    answer: Answer | None = None
    problem: LineProblem | None = None


class BatchResults(Part, frozen=True):
    """A page of results. `next`: cursor of the following one; `None` at the end of a batch that has ended."""

    results: tuple[BatchResult, ...]
    next: int | None


class Batch(Part, frozen=True):
    """How far a batch is. `errors`: the first of the `failed`. `replay`: it was submitted before."""

    id: str
    status: Literal["waiting", "running", "finished", "failed"]
    lines: int
    done: int
    outcomes: dict[Outcome, int]
    replays: int
    failed: int
    errors: tuple[BatchResult, ...]
    accepted_ms: int
    finished_ms: int | None
    why: str | None
    replay: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in ("finished", "failed")


class Entity(Part, frozen=True):
    """An entity's features as of `at_ms`; absent is `None`."""

    entity: str
    pseudonym: str
    at_ms: int
    features: dict[str, float | None]
    freshness: Freshness
