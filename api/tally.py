"""What a backtest counts, and its report."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from api.outcome import Outcome
from api.rules.columns import Flags
from api.rules.rule import Rule

TRUTHS: Final = ("fraud", "good", "open", "censored")
FRAUD, GOOD, OPEN, CENSORED = range(4)
CENSORED_SHARE_WARN: Final = 0.05
OPEN_SHARE_WARN: Final = 0.25


@dataclass(slots=True)
class Tally:
    """Decisions and their money (minor units) by truth, in the order of `TRUTHS`."""

    count: NDArray[np.int64] = field(default_factory=lambda: np.zeros(4, np.int64))
    money: NDArray[np.int64] = field(default_factory=lambda: np.zeros(4, np.int64))

    def add(self, where: Flags, truth: NDArray[np.int8], amount: NDArray[np.int64]) -> None:
        """Count these rows."""
        chosen, sums = truth[where], amount[where]
        self.count += np.bincount(chosen, minlength=4)
        # In integers: a sum of money is exact.
        for kind in range(4):
            self.money[kind] += sums[chosen == kind].sum()

    def to_json(self) -> dict[str, dict[str, int]]:
        """A JSON object."""
        return {
            name: {"count": int(self.count[i]), "money": int(self.money[i])} for i, name in enumerate(TRUTHS)
        }


@dataclass(slots=True)
class RuleTally:
    """One rule of the draft. `hits`: where it would count; `new`: hits on what was treated milder then;
    `beside`: live rules of that time that counted on the same decisions."""

    rule: Rule
    hits: Tally = field(default_factory=Tally)
    new: Tally = field(default_factory=Tally)
    not_evaluated: int = 0
    held: int = 0
    cost_us: float = 0.0
    beside: Counter[str] = field(default_factory=Counter)

    def to_json(self, days: float) -> dict[str, Any]:
        """A JSON object; rates per day over `days`."""
        caught, good = int(self.hits.count[FRAUD]), int(self.hits.count[GOOD])
        total = int(self.hits.count.sum())
        return {
            "id": self.rule.id,
            "action": self.rule.action,
            "mode": self.rule.mode,
            "hits": total,
            "hits_per_day": round(total / days, 2),
            "held": self.held,
            "not_evaluated": self.not_evaluated,
            "cost_us": round(self.cost_us, 3),
            "precision": round(caught / (caught + good), 4) if caught + good else None,
            "truth": self.hits.to_json(),
            "new": self.new.to_json(),
            "overlap": dict(self.beside.most_common()),
        }


@dataclass(slots=True)
class Backtest:
    """What was found. `before`, `after`: by outcome, in the order of severity."""

    draft: str
    rules: list[RuleTally]
    decisions: int = 0
    left_out: int = 0
    from_ms: int = 0
    to_ms: int = 0
    changed: int = 0
    before: list[Tally] = field(default_factory=lambda: [Tally() for _ in Outcome])
    after: list[Tally] = field(default_factory=lambda: [Tally() for _ in Outcome])

    @property
    def days(self) -> float:
        """Length of the data, at least one hour."""
        return max((self.to_ms - self.from_ms) / 86_400_000, 1 / 24)

    def warnings(self) -> list[str]:
        """What a reader must know before trusting the figures."""
        found = []
        for tally in self.rules:
            hidden, total = int(tally.hits.count[CENSORED]), int(tally.hits.count.sum())
            if total and hidden / total > CENSORED_SHARE_WARN:
                found.append(
                    f"{tally.rule.id}: {hidden} of {total} hits had been declined, their outcome is unknown;"
                    " precision is measured on the others"
                )
        waiting = sum(int(t.count[OPEN]) for t in self.before)
        if waiting > self.decisions * OPEN_SHARE_WARN:
            found.append(f"{waiting} of {self.decisions} decisions are too young to have a label")
        if self.left_out:
            found.append(f"{self.left_out} decisions were made on another vector and left out")
        return found

    def to_json(self) -> dict[str, Any]:
        """A JSON object; money in minor units of the base currency."""
        reviews = [int(side[Outcome.REVIEW].count.sum()) for side in (self.before, self.after)]
        return {
            "draft": self.draft,
            "decisions": self.decisions,
            "from_ms": self.from_ms,
            "to_ms": self.to_ms,
            "days": round(self.days, 2),
            "changed": self.changed,
            "reviews_per_day": {
                "before": round(reviews[0] / self.days, 2),
                "after": round(reviews[1] / self.days, 2),
            },
            "before": {o.word: self.before[o].to_json() for o in Outcome},
            "after": {o.word: self.after[o].to_json() for o in Outcome},
            "rules": [tally.to_json(self.days) for tally in self.rules],
            "warnings": self.warnings(),
        }
