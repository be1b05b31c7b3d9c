"""What would have had to be different for a milder outcome: searched, and each finding decided again.

Nothing is estimated: every candidate is decided by the model, the rules and the policy that decided, and only
what really gives a milder outcome is reported. One thing is changed at a time, with everything that follows
from it (features/altered.py): the amount, a device that is new, earlier payments, failures, where a
connection comes from. What belongs to others (a merchant's frauds, a terminal's traffic) is not searched.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from msgspec import structs

from api.decide import Case, Context
from api.judge import Judge
from api.outcome import BY_WORD, Outcome
from api.replay import case_of, circumstances, context_of
from features.altered import (
    ENDS,
    End,
    Past,
    Undetermined,
    with_amount,
    with_fewer,
    with_field,
    with_known,
    without_failures,
)
from features.feature import Gap, Novelty, Own, Window
from features.measure import TRANSACTION, Scalar

Kind = Literal["amount", "known", "fewer", "without", "field"]
KINDS: Final[tuple[Kind, ...]] = ("amount", "known", "fewer", "without", "field")
FAILURES: Final = ("issuer_declined", "challenge_failed")
GRID: Final = 24
SECTIONS: Final = 12
FEWER_MAX: Final = 4_096
STEPS: Final = (1, 2, 3, 5, 8, 13, 25, 50, 100, 250, 1_000)
FOUND_MAX: Final = 6
Vector = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """One change, and the outcome that it gives. `subject`: the field, the entity, or the event of an entity.

    `limit`: of an amount, the largest that passes (minor units); of earlier payments, how many fewer.
    `below`: every smaller amount that was tried passes too. `changes`: features before and after.
    """

    kind: Kind
    subject: str
    outcome: Outcome
    limit: int | None
    below: bool
    changes: Mapping[str, tuple[float | None, float | None]]

    def to_json(self) -> dict[str, Any]:
        """A JSON object, without words."""
        return {
            "kind": self.kind,
            "subject": self.subject,
            "outcome": self.outcome.word,
            "limit": self.limit,
            "below": self.below,
            "changes": [
                {"feature": name, "from": one, "to": other} for name, (one, other) in self.changes.items()
            ],
        }


def search(record: Mapping[str, Any], judge: Judge) -> Iterator[Counterfactual | None]:
    """What would have given a milder outcome, the kinds in turn; `None` between two pieces of work.

    Nothing for what was approved. Raises `ModelFailed`.
    """
    if record["outcome"] == Outcome.APPROVE.word:
        return
    asker = Asker(record, judge)
    yield from _amount(asker)
    for field in _novel_fields(asker.past):
        yield from _single(asker, "known", field, with_known(asker.past, field))
    for entity in _own_entities(asker.past):
        yield from _fewer(asker, entity)
        for source in FAILURES:
            changed = without_failures(asker.past, entity, source)
            yield from _single(asker, "without", f"{entity}/{source}", changed)
    for field, other in _mismatches(asker.past):
        try:
            changed, values = with_field(asker.past, field, asker.past.values[other])
        except Undetermined:
            continue
        yield from _single(asker, "field", f"{field}/{other}", changed, values)


class Asker:
    """Decides variants of one recorded decision."""

    def __init__(self, record: Mapping[str, Any], judge: Judge) -> None:
        self._judge = judge
        self._case = case_of(record, judge.catalogue)
        self._about: Context = context_of(record, circumstances(record, record["decided_ms"]))
        self.was = BY_WORD[record["outcome"]]
        self.past = Past(judge.catalogue, self._case.features, self._case.fields)

    def outcomes(self, cases: Sequence[Case]) -> list[Outcome]:
        """What each would have been."""
        return [decision.outcome for decision in self._judge.what_if(cases, self._about)]

    def case(self, vector: Vector, values: Mapping[str, Scalar] | None = None) -> Case:
        """The transaction with another vector, and other fields."""
        return structs.replace(
            self._case, features=vector, fields=self._case.fields if values is None else values
        )

    def with_amounts(self, amounts: Sequence[int]) -> list[Outcome | None]:
        """The worse outcome of both ends, for each amount; `None` where the vector does not tell."""
        found: list[Outcome | None] = [None] * len(amounts)
        places: list[int] = []
        cases: list[Case] = []
        for place, amount in enumerate(amounts):
            try:
                cases += [self._over(amount, end) for end in ENDS]
                places.append(place)
            except Undetermined:
                continue
        outcomes = self.outcomes(cases) if cases else []
        for place, pair in zip(places, zip(outcomes[::2], outcomes[1::2], strict=True), strict=True):
            found[place] = max(pair)
        return found

    def _over(self, amount: int, end: End) -> Case:
        name = str(self._judge.catalogue.schema.amount)
        case = self.case(with_amount(self.past, amount, end), {**self._case.fields, name: amount})
        return structs.replace(case, amount=amount)

    def changes(self, vector: Vector) -> dict[str, tuple[float | None, float | None]]:
        """Features that are not what they were."""
        was = self.past.vector
        return {name: (was[name], value) for name, value in vector.items() if value != was[name]}


def _single(
    asker: Asker, kind: Kind, subject: str, vector: Vector, values: Mapping[str, Scalar] | None = None
) -> Iterator[Counterfactual | None]:
    changes = asker.changes(vector)
    if changes:
        (outcome,) = asker.outcomes([asker.case(vector, values)])
        if outcome < asker.was:
            yield Counterfactual(kind, subject, outcome, None, False, changes)
    yield None


def _amount(asker: Asker) -> Iterator[Counterfactual | None]:
    """The largest smaller amount with the mildest outcome that any amount has."""
    top = asker.past.amount
    name = asker.past.catalogue.schema.amount
    grid = sorted({round(top * step / GRID) for step in range(GRID)} | {1, top // 50, top // 200})
    grid = [amount for amount in grid if 0 < amount < top]
    if name is None or not grid:
        return
    found = asker.with_amounts(grid)
    yield None
    mildest = min((outcome for outcome in found if outcome is not None), default=asker.was)
    if mildest < asker.was:
        best = max(a for a, outcome in zip(grid, found, strict=True) if outcome == mildest)
        ceiling = next((a for a in grid if a > best), top)
        while ceiling - best > 1:
            tried = _between(best, ceiling)
            outcomes = asker.with_amounts(tried)
            yield None
            passing = [a for a, o in zip(tried, outcomes, strict=True) if o is not None and o <= mildest]
            best = max(passing, default=best)
            ceiling = min((a for a in tried if a > best), default=ceiling)
        vector = with_amount(asker.past, best, "high")
        below = all(o is None or o <= mildest for a, o in zip(grid, found, strict=True) if a <= best)
        yield Counterfactual("amount", name, mildest, best, below, asker.changes(vector))


def _between(low: int, high: int) -> list[int]:
    """Up to `SECTIONS` amounts strictly between two that are not neighbours."""
    steps = range(1, SECTIONS + 1)
    return sorted({low + max(1, (high - low) * step // (SECTIONS + 1)) for step in steps} - {high})


def _fewer(asker: Asker, entity: str) -> Iterator[Counterfactual | None]:
    """The smallest number of earlier payments less that gives the mildest outcome."""
    counts = [
        asker.past.vector[f.name]
        for f in asker.past.catalogue.features
        if isinstance(f, Window) and f.of == entity and f.aggregate == "count" and f.source == TRANSACTION
    ]
    earlier = min(FEWER_MAX, int(max((c for c in counts if c is not None), default=1.0)) - 1)
    steps = sorted(
        {n for n in (1, 2, 3, 5, 8, 13, 25, 50, 100, 250, 1_000, FEWER_MAX) if n < earlier} | {earlier}
    )
    if earlier < 1:
        return
    outcomes = asker.outcomes([asker.case(with_fewer(asker.past, entity, n)) for n in steps])
    yield None
    mildest = min(outcomes)
    if mildest >= asker.was:
        return
    high = next(n for n, outcome in zip(steps, outcomes, strict=True) if outcome == mildest)
    low = max((n for n in steps if n < high), default=0)
    while high - low > 1:
        middle = (low + high) // 2
        (outcome,) = asker.outcomes([asker.case(with_fewer(asker.past, entity, middle))])
        low, high = (low, middle) if outcome <= mildest else (middle, high)
    changes = asker.changes(with_fewer(asker.past, entity, high))
    yield Counterfactual("fewer", entity, mildest, high, False, changes)


def _novel_fields(past: Past) -> list[str]:
    """Fields whose value is new to an entity of the customer, and whose history we could have known."""
    features = past.catalogue.features
    novel = [f for f in features if isinstance(f, Novelty) and past.vector[f.name] == 1 and past.own(f.of)]
    paired = {
        f.field
        for f in novel
        for e in past.catalogue.schema.entities
        if len(e.fields) > 1 and f.field in e.fields and f.of in e.fields
    }
    return list(dict.fromkeys(f.field for f in novel if f.field not in paired))


def _own_entities(past: Past) -> list[str]:
    """Entities of the customer that the vector says something of, in the schema's order."""
    read = {f.of for f in past.catalogue.features if isinstance(f, Window | Gap)}
    return [e.name for e in past.catalogue.schema.entities if e.name in read and past.own(e.name)]


def _mismatches(past: Past) -> list[tuple[str, str]]:
    """Pairs of fields that differ and could have been equal."""
    terms = [f.term for f in past.catalogue.features if isinstance(f, Own) and f.term.kind == "mismatch"]
    fields = past.catalogue.schema.by_name
    return [
        (t.field, t.other)
        for t in terms
        if past.values.get(t.field) is not None
        and past.values.get(t.other) is not None
        and past.values[t.field] != past.values[t.other]
        # Where a merchant sells from is nothing that a customer can change.
        and t.field.startswith("ip")
        and t.field in fields
    ]


def nearest(found: Sequence[Counterfactual]) -> list[Counterfactual]:
    """The mildest first, then in the order of the search; a few."""
    return sorted(found, key=lambda c: c.outcome)[:FOUND_MAX]
