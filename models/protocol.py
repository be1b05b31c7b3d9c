"""The prequential protocol: train on the past, wait for the labels, test on the week after.

Day index = whole days since `Protocol.origin_day` (any fixed day). For a train start `s`::

    s - ...      s       s + 7      s + 14     s + 21
    | (history)  | train | delay    | test     |
                         (labels    (scored once,
                          arrive)    never fitted on)

On test day T every transaction of an entity (customer) with a known fraud dated in [s, T - 8] is dropped:
that fraud's label arrived, the card is blocked. Pure functions of day indices; no clock, no data access.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.metrics import average_precision, card_precision, roc_auc

TRAIN_DAYS: Final = 7
DELAY_DAYS: Final = 7
TEST_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class Fold:
    """One step of the protocol; `start` is the day index of the first day of its training week."""

    start: int
    history_days: int = TRAIN_DAYS

    @property
    def train_first(self) -> int:
        """First day trained on: `history_days` days that end on `train_last`."""
        return self.train_last - self.history_days + 1

    @property
    def train_last(self) -> int:
        return self.start + TRAIN_DAYS - 1

    @property
    def test_first(self) -> int:
        return self.start + TRAIN_DAYS + DELAY_DAYS

    @property
    def test_last(self) -> int:
        return self.test_first + TEST_DAYS - 1

    def train_rows(self, day: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers to train on, in file order."""
        return np.flatnonzero((day >= self.train_first) & (day <= self.train_last))

    def test_rows(
        self, day: NDArray[np.int64], entity: NDArray[np.int64], fraud: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Row numbers to score, in file order within each day, entities with a known fraud dropped."""
        rows = []
        for today in range(self.test_first, self.test_last + 1):
            known = fraud & (day >= self.start) & (day <= today - DELAY_DAYS - 1)
            blocked = np.unique(entity[known])
            of_today = np.flatnonzero(day == today)
            rows.append(of_today[~np.isin(entity[of_today], blocked)])
        return np.concatenate(rows)


def folds(starts: Sequence[date], origin: date, history_days: int = TRAIN_DAYS) -> tuple[Fold, ...]:
    """Folds whose training weeks start on `starts`."""
    return tuple(Fold((start - origin).days, history_days) for start in starts)


HANDBOOK_ORIGIN: Final = date(2018, 4, 1)
HANDBOOK_TEST: Final = (date(2018, 8, 15), date(2018, 8, 8), date(2018, 8, 1), date(2018, 7, 25))
HANDBOOK_VALIDATION: Final = (date(2018, 7, 11), date(2018, 7, 4), date(2018, 6, 27), date(2018, 6, 20))


@dataclass(frozen=True, slots=True)
class FoldResult:
    """Metrics on one pooled test week, with its size."""

    start: int
    transactions: int
    frauds: int
    auc: float
    ap: float
    cp100: float


@dataclass(frozen=True, slots=True)
class ProtocolResult:
    """Mean and standard deviation (population, as in the handbook) over folds."""

    folds: tuple[FoldResult, ...]

    def mean(self, metric: str) -> float:
        return float(np.mean([getattr(f, metric) for f in self.folds]))

    def sd(self, metric: str) -> float:
        return float(np.std([getattr(f, metric) for f in self.folds]))


def measure_fold(
    fold: Fold,
    day: NDArray[np.int64],
    entity: NDArray[np.int64],
    fraud: NDArray[np.bool_],
    score: Callable[[NDArray[np.int64]], NDArray[np.float64]],
) -> FoldResult:
    """Score the fold's test rows with `score(rows)` and measure the pooled week."""
    rows = fold.test_rows(day, entity, fraud)
    scores, labels = score(rows), fraud[rows]
    return FoldResult(
        start=fold.start,
        transactions=len(rows),
        frauds=int(labels.sum()),
        auc=roc_auc(labels, scores),
        ap=average_precision(labels, scores),
        cp100=card_precision(labels, scores, entity[rows], day[rows]),
    )
