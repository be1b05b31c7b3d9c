"""Rules as values: what an analyst publishes, and what a set of them answers."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

from msgspec import Struct

from api.outcome import Outcome
from api.rules.check import Checked
from api.rules.compile import Condition
from api.rules.lists import WatchList
from api.rules.manifest import Manifest
from api.rules.program import NEVER_MS, Part, Program, compile_set
from api.rules.syntax import Sentence
from api.rules.vocabulary import Source
from features.schema import Schema

Mode = Literal["off", "shadow", "live"]
Answer = Literal["hit", "no_hit", "not_evaluated"]
Held = Literal["tripped", "snoozed", "amount", "rollout"]
"""Why a live hit does not count: dropped to shadow by its breaker, snoozed for this entity, above the rule's
largest amount, outside its rollout."""
OUTCOME_OF_ACTION: Mapping[str, Outcome] = {
    "allow": Outcome.APPROVE,
    "challenge": Outcome.CHALLENGE,
    "review": Outcome.REVIEW,
    "decline": Outcome.DECLINE,
}


@dataclass(frozen=True, slots=True)
class Example:
    """A test that travels with its rule: values of words (money in minor units) and the result."""

    given: Mapping[str, Any]
    result: Answer


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `rollout_percent`: share of subjects (stable hash) to which a live rule applies.

    `amount_max`: an `allow` rule never lets more than this pass (minor units of the base currency).
    `declines_max`, `declines_within_ms`: its own cap (api/brakes); `None`: the installation's.
    """

    id: str
    version: int
    sentence: Sentence
    reason: str
    owner: str
    mode: Mode = "live"
    rollout_percent: float = 100.0
    expires_ms: int | None = None
    amount_max: int | None = None
    examples: tuple[Example, ...] = ()
    description: str = ""
    declines_max: int | None = None
    declines_within_ms: int | None = None

    @property
    def action(self) -> str:
        """allow, challenge, review or decline."""
        return self.sentence.action

    @property
    def outcome(self) -> Outcome:
        """What a hit asks for."""
        return OUTCOME_OF_ACTION[self.action]


@dataclass(frozen=True, slots=True)
class RuleResult:
    """What one rule said of one transaction.

    `counts`: whether it took part in the decision: a live hit within its rollout, neither snoozed nor
    tripped. `held`: why a hit of a live rule did not count. `missing`: words without a value, or
    `expired`, when it could not be evaluated.
    """

    id: str
    version: int
    result: Answer
    mode: Mode
    action: str
    counts: bool
    missing: tuple[str, ...] = ()
    held: Held | None = None
    shown: Mapping[str, Any] = field(init=False, repr=False, compare=False)
    """What a record says of a hit; made once, since results are."""

    def __post_init__(self) -> None:
        found: dict[str, Any] = {
            "id": self.id, "result": self.result, "mode": self.mode, "action": self.action,
        }  # fmt: skip
        if self.held is not None:
            found["held"] = self.held
        object.__setattr__(self, "shown", found)


class Vector(Mapping[str, float | None]):
    """A vector by name without a dictionary of its own. `values`: in the order of `places`, absent ones
    `None`."""

    __slots__ = ("_places", "_values")

    def __init__(self, places: Mapping[str, int], values: Sequence[float | None]) -> None:
        self._places = places
        self._values = values

    def __getitem__(self, name: str) -> float | None:
        return self._values[self._places[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def values_by(self, places: Mapping[str, int] | None) -> Sequence[float | None] | None:
        """Its values, if this very object orders them."""
        return self._values if self._places is places else None


class Facts(Struct, frozen=True, gc=False):
    """What rules look at. `features`: by name, absent ones `None`; money in minor units.

    `unit`: the id (pseudonym) whose stable hash decides a rollout.
    """

    features: Mapping[str, float | None]
    fields: Mapping[str, Any]
    entities: Mapping[str, str]
    score: int | None
    probability: float | None
    expected_loss: int | None
    amount: int
    unit: str


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else rules depend on: the time (epoch ms), rules that a breaker dropped to shadow, snoozes
    as `(rule id, entity pseudonym)`."""

    now_ms: int
    tripped: frozenset[str] = frozenset()
    snoozed: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Snooze:
    """A rule that rests for one entity (pseudonym) until a time."""

    rule: str
    entity: str
    until_ms: int
    by: str
    reason: str


class _Ready:
    """A rule with its results made ahead: they are values, and making one costs more than a condition."""

    __slots__ = (
        "_absent",
        "_held",
        "condition",
        "counts",
        "expires_ms",
        "idle",
        "no_hit",
        "required",
        "rule",
    )

    def __init__(self, rule: Rule, condition: Condition, required: tuple[tuple[str, int], ...]) -> None:
        self.rule = rule
        self.condition = condition
        self.required = required
        self.expires_ms = rule.expires_ms if rule.expires_ms is not None else NEVER_MS
        self.no_hit = self._result("no_hit")
        self.counts = self._result("hit", counts=True)
        self.idle = self._result("hit")
        self._held: dict[Held, RuleResult] = {why: self._result("hit", held=why) for why in get_args(Held)}
        self._absent: dict[tuple[str, ...], RuleResult] = {}

    def hit(self, facts: Facts, circumstances: Circumstances) -> RuleResult:
        """The condition holds: does it count?"""
        if self.rule.mode != "live":
            return self.idle
        why = held(self.rule, facts, circumstances)
        return self.counts if why is None else self._held[why]

    def missing(self, names: tuple[str, ...]) -> RuleResult:
        """Could not be evaluated, because of `names`."""
        found = self._absent.get(names)
        if found is None:
            found = self._absent[names] = self._result("not_evaluated", names=names)
        return found

    def _result(
        self, answer: Answer, *, counts: bool = False, names: tuple[str, ...] = (), held: Held | None = None
    ) -> RuleResult:
        rule = self.rule
        return RuleResult(rule.id, rule.version, answer, rule.mode, rule.action, counts, names, held)


class _Programs:
    """A set's compiled functions: for features by name, and for vectors in one order."""

    __slots__ = ("_by_name", "_by_place", "_make", "_places")

    def __init__(
        self, parts: Sequence[Part], words: Sequence[tuple[str, Source]], lists: Mapping[str, WatchList]
    ) -> None:
        self._make = partial(compile_set, parts, words, lists)
        self._by_name: Program = self._make(None)
        self._by_place: Program = self._by_name
        self._places: Mapping[str, int] | None = None

    def order_by(self, places: Mapping[str, int]) -> None:
        self._by_place, self._places = self._make(places), places

    def run(
        self, facts: Facts, circumstances: Circumstances
    ) -> tuple[tuple[RuleResult, ...], list[RuleResult]]:
        features = facts.features
        if type(features) is Vector and (values := features.values_by(self._places)) is not None:
            return self._by_place(values, facts, circumstances)
        return self._by_name(features.get, facts, circumstances)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """An immutable, versioned set. `words`: row slot and source of every word that some rule uses."""

    manifest: Manifest
    rules: tuple[Rule, ...]
    checked: tuple[Checked, ...]
    conditions: tuple[Condition, ...]
    words: Mapping[str, tuple[int, Source]]
    lists: Mapping[str, WatchList]
    version: str = field(init=False)
    lists_version: str = field(init=False)
    _row: tuple[tuple[str, Source], ...] = field(init=False, repr=False, compare=False)
    _ready: tuple["_Ready", ...] = field(init=False, repr=False, compare=False)
    _by_id: Mapping[str, Rule] = field(init=False, repr=False, compare=False)
    _programs: "_Programs" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ordered = sorted(self.words, key=lambda name: self.words[name][0])
        parts = zip(self.rules, self.conditions, self.checked, strict=True)
        ready = [
            _Ready(rule, condition, tuple((name, self.words[name][0]) for name in checked.required))
            for rule, condition, checked in parts
            if rule.mode != "off"
        ]
        row = tuple((name, self.words[name][1]) for name in ordered)
        live = [checked for rule, checked in zip(self.rules, self.checked, strict=True) if rule.mode != "off"]
        together = [Part(one, checked) for one, checked in zip(ready, live, strict=True)]
        derived = {
            "version": self.manifest.version,
            "lists_version": self.manifest.lists_version,
            "_row": row,
            "_ready": tuple(ready),
            "_by_id": {rule.id: rule for rule in self.rules},
            "_programs": _Programs(together, row, self.lists),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def order_by(self, places: Mapping[str, int]) -> None:
        """Compile for vectors in this order too; `places` itself is what recognises them."""
        self._programs.order_by(places)

    def assess(
        self, facts: Facts, circumstances: Circumstances
    ) -> tuple[tuple[RuleResult, ...], list[RuleResult]]:
        """Every rule that is not off says something; then, which of that counts. Nothing raises."""
        return self._programs.run(facts, circumstances)

    def evaluate(self, facts: Facts, circumstances: Circumstances) -> tuple[RuleResult, ...]:
        """What `assess` says of every rule."""
        return self._programs.run(facts, circumstances)[0]

    def one_by_one(self, facts: Facts, circumstances: Circumstances) -> tuple[RuleResult, ...]:
        """`evaluate` in its obvious form, each rule by its own closure: tests hold the program to it."""
        now_ms = circumstances.now_ms
        row = self.row(facts, now_ms)
        found = []
        for ready in self._ready:
            if ready.expires_ms <= now_ms:
                found.append(ready.missing(("expired",)))
                continue
            answer = ready.condition(row)
            if answer is None:
                absent = tuple(name for name, slot in ready.required if row[slot] is None)
                found.append(ready.missing(absent or ("division by zero",)))
            elif answer:
                found.append(ready.hit(facts, circumstances))
            else:
                found.append(ready.no_hit)
        return tuple(found)

    def row(self, facts: Facts, now_ms: int) -> list[Any]:
        """Values of the used words in slot order; slot 0 is the time."""
        row: list[Any] = [now_ms]
        features, fields, entities = facts.features, facts.fields, facts.entities
        for name, source in self._row:
            if source == "feature":
                row.append(features.get(name))
            elif source == "field":
                row.append(fields.get(name))
            elif source == "entity":
                row.append(entities.get(name))
            else:
                row.append(getattr(facts, name))
        return row

    def rule(self, rule_id: str) -> Rule | None:
        """The rule of that id."""
        return self._by_id.get(rule_id)


EMPTY = RuleSet(Manifest("none"), (), (), (), {}, {})


def held(rule: Rule, facts: Facts, circumstances: Circumstances) -> Held | None:
    """Why a hit of a live rule does not count; `None` if it does."""
    if rule.id in circumstances.tripped:
        return "tripped"
    if circumstances.snoozed and any((rule.id, e) in circumstances.snoozed for e in facts.entities.values()):
        return "snoozed"
    if rule.amount_max is not None and facts.amount > rule.amount_max:
        return "amount"
    if rule.rollout_percent < 100 and share(rule.id, facts.unit) >= rule.rollout_percent:
        return "rollout"
    return None


def unit_of(id_: str, entities: Mapping[str, str], schema: Schema) -> str:
    """The id that rollouts hash: the subject's, else the primary entity's, else the transaction's."""
    return entities.get(schema.subject) or entities.get(schema.primary) or id_


def share(salt: str, unit: str) -> float:
    """Stable hash of `unit` in [0, 100): the same unit stays in a growing rollout."""
    digest = hashlib.blake2b(f"{salt}\x1f{unit}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64 * 100
