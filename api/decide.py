"""The decision itself: a pure function of its arguments. No I/O, no clock, no randomness.

Precedence, fixed and short: an `allow` rule wins over the rest; otherwise the most severe of the rules that
count and of what the model's band (or what stands in for it) asks for. At equal severity the first rule wins
over the model: a rule is easier to defend. A guarded service (api/brakes) declines nothing: it reviews.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, cast, get_args

from msgspec import Struct

from api.outcome import Outcome
from api.rules.rule import Circumstances, Facts, RuleResult, RuleSet
from features.measure import Scalar

StalePolicy = Literal["score_anyway", "rules_only", "review"]
FreshnessState = Literal["fresh", "stale", "rebuilding"]
Source = Literal["rule", "model", "scorecard", "policy"]


class Case(Struct, frozen=True, gc=False):
    """A transaction as the decision sees it: ids are pseudonyms, money in minor units of the base currency.

    `features`: the exact vector by name, absent values `None`. `unit`: the id that rollouts hash.
    """

    id: str
    time_ms: int
    amount: int
    fields: Mapping[str, Scalar]
    entities: Mapping[str, str]
    features: Mapping[str, float | None]
    unit: str


class Verdict(NamedTuple):
    """What the model said. `band`: the outcome its money-based thresholds ask for."""

    source: Literal["model", "scorecard"]
    margin: float
    probability: float
    score: int
    band: Outcome
    expected_loss: int


@dataclass(frozen=True, slots=True)
class Freshness:
    """How current the state was. `flink_lag_ms`: `None` when the authoritative lane has not reported."""

    state: FreshnessState
    generation: str
    flink_lag_ms: int | None


@dataclass(frozen=True, slots=True)
class Policy:
    """What happens when parts fail. `unseen_amount_max`: without a model nothing above it is approved."""

    version: str
    unseen_amount_max: int
    stale: StalePolicy

    @classmethod
    def of(cls, unseen_amount_max: int, stale: StalePolicy) -> "Policy":
        """A policy named by its content."""
        return cls(f"{stale}-{unseen_amount_max}", unseen_amount_max, stale)

    @classmethod
    def of_version(cls, version: str) -> "Policy":
        """The policy that `of` named so. Raises `ValueError`."""
        stale, _, amount = version.rpartition("-")
        if stale not in get_args(StalePolicy) or not amount.isdecimal():
            raise ValueError(f"no policy is named {version}")
        return cls.of(int(amount), cast(StalePolicy, stale))


class Context(NamedTuple):
    """What else a decision depends on, recorded with it. `degraded`: parts that did not take part; `guard`:
    the mode of a guarded service (api/brakes), in which nothing is declined: what would be is reviewed."""

    circumstances: Circumstances
    freshness: Freshness
    degraded: tuple[str, ...] = ()
    guard: str | None = None


class Voice(NamedTuple):
    """One source's wish: a rule (by id), the model, the scorecard, or a policy (by name)."""

    by: Source
    id: str
    outcome: Outcome


class Decision(Struct, frozen=True, gc=False):
    """One immutable decision. `others`: what the sources that did not win would have given. The voices say
    what they asked for, also where a guard softened the outcome."""

    outcome: Outcome
    winner: Voice
    others: tuple[Voice, ...]
    verdict: Verdict | None
    rules: tuple[RuleResult, ...]
    degraded: tuple[str, ...]
    guard: str | None = None


def decide(case: Case, verdict: Verdict | None, rules: RuleSet, policy: Policy, context: Context) -> Decision:
    """The outcome of one transaction. `verdict` is `None` where no model could be asked."""
    degraded = context.degraded
    if context.freshness.state != "fresh":
        degraded = (*degraded, context.freshness.state)
        if policy.stale == "rules_only":
            verdict = None
    results, counted = rules.assess(_facts(case, verdict), context.circumstances)
    winner, others = _own_voice(case, verdict, policy), tuple[Voice, ...]()
    review = context.freshness.state != "fresh" and policy.stale == "review"
    if counted or review:
        voices = [*(_rule_voice(rules, r) for r in counted), winner]
        if review:
            voices.append(Voice("policy", f"state_{context.freshness.state}", Outcome.REVIEW))
        winner = _winner(voices, {r.id for r in counted if r.action == "allow"})
        others = tuple(v for v in voices if v is not winner)
    outcome = winner.outcome
    if context.guard is not None and outcome is Outcome.DECLINE:
        outcome = Outcome.REVIEW
    return Decision(outcome, winner, others, verdict, results, degraded, context.guard)


_BANDS: Final = tuple(Voice("model", "band", outcome) for outcome in Outcome)


def _winner(voices: list[Voice], allowing: set[str]) -> Voice:
    for voice in voices:
        if voice.by == "rule" and voice.id in allowing:
            return voice
    worst = max(voice.outcome for voice in voices)
    return next(voice for voice in voices if voice.outcome == worst)


def _rule_voice(rules: RuleSet, result: RuleResult) -> Voice:
    rule = rules.rule(result.id)
    if rule is None:
        raise LookupError(result.id)
    return Voice("rule", result.id, rule.outcome)


def _own_voice(case: Case, verdict: Verdict | None, policy: Policy) -> Voice:
    """The model's band; nothing above the configured amount passes without the ensemble having seen it."""
    if verdict is not None and verdict.source == "model":
        return _BANDS[verdict.band]
    if case.amount > policy.unseen_amount_max and (verdict is None or verdict.band < Outcome.REVIEW):
        return Voice("policy", "unseen_amount", Outcome.REVIEW)
    if verdict is not None:
        return Voice("scorecard", "band", verdict.band)
    return Voice("policy", "no_model", Outcome.APPROVE)


def _facts(case: Case, verdict: Verdict | None) -> Facts:
    return Facts(
        case.features,
        case.fields,
        case.entities,
        None if verdict is None else verdict.score,
        None if verdict is None else verdict.probability,
        None if verdict is None else verdict.expected_loss,
        case.amount,
        case.unit,
    )
