"""Metrics of a ranking of transactions, higher score = more suspicious.

Every function takes `labels` (bool or 0/1, length n) and `scores` (finite floats, length n). Equal scores
are one threshold: no metric depends on the order of tied rows, except `card_precision`, whose ties go to
the smaller entity number, so that it is deterministic too.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


class MetricUndefined(ValueError):
    """The slice cannot be measured: take a longer one (no fraud, or nothing but fraud, or empty)."""


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    y, s = np.asarray(labels).astype(bool), np.asarray(scores, dtype=np.float64)
    if y.shape != s.shape or y.ndim != 1:
        raise ValueError(f"labels {y.shape} and scores {s.shape} must be two vectors of one length")
    if not np.isfinite(s).all():
        raise ValueError("scores must be finite")
    if not y.any() or y.all():
        raise MetricUndefined(f"{len(y)} transactions, {int(y.sum())} fraud: both kinds are needed")
    return y, s


def _steps(y: NDArray[np.bool_], s: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cumulative (true positives, false positives) at each distinct score, from the highest down."""
    order = np.argsort(-s, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(s[order])), len(s) - 1)
    hits = np.cumsum(y[order], dtype=np.int64)[ends]
    return hits, ends.astype(np.int64) + 1 - hits


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Probability that a random fraud ranks above a random genuine transaction, ties counting half."""
    y, s = _checked(labels, scores)
    hits, false = _steps(y, s)
    hits, false = np.insert(hits, 0, 0), np.insert(false, 0, 0)
    area = np.sum(np.diff(false) * (hits[1:] + hits[:-1]) / 2.0)
    return float(area / (hits[-1] * false[-1]))


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Sum over thresholds of precision times the recall gained there (no interpolation)."""
    hits, false = _steps(*_checked(labels, scores))
    gained = np.diff(hits, prepend=0) / hits[-1]
    return float(np.sum(gained * hits / (hits + false)))


def recall_at_fpr(labels: ArrayLike, scores: ArrayLike, fpr_max: float = 0.01) -> float:
    """Largest share of frauds found by a threshold with a false positive rate of at most `fpr_max`."""
    hits, false = _steps(*_checked(labels, scores))
    allowed = hits[false <= fpr_max * false[-1]]
    return float(allowed[-1] / hits[-1]) if len(allowed) else 0.0


def lift(labels: ArrayLike, scores: ArrayLike, share: float = 0.2) -> float:
    """Fraud rate among the riskiest `share` of transactions over the fraud rate of all.

    Tied rows at the cut count in expectation (each with the same chance to be inside).
    """
    y, s = _checked(labels, scores)
    hits, false = _steps(y, s)
    size = max(1.0, share * len(y))
    taken = np.insert(hits + false, 0, 0)
    found = np.interp(size, taken.astype(np.float64), np.insert(hits, 0, 0).astype(np.float64))
    return float(found / size / y.mean())


def card_precision(
    labels: ArrayLike, scores: ArrayLike, cards: ArrayLike, days: ArrayLike, k: int = 100
) -> float:
    """Card precision@k (models.md, section 2): the mean over days of the share of fraud cards among k.

    Per day, in time order: cards detected on earlier days are dropped, each card is ranked by its highest
    score of the day, the first `k` are investigated, the fraud cards among them are detected; always
    divided by `k`. `cards` and `days` are integers, one per transaction.
    """
    y, s = np.asarray(labels).astype(bool), np.asarray(scores, dtype=np.float64)
    card, day = np.asarray(cards), np.asarray(days)
    if not len(y):
        raise MetricUndefined("no transactions")
    detected = np.zeros(0, dtype=card.dtype)
    daily = []
    for today in np.unique(day):
        rows = np.flatnonzero((day == today) & ~np.isin(card, detected))
        unique, place = np.unique(card[rows], return_inverse=True)
        best = np.full(len(unique), -np.inf)
        np.maximum.at(best, place, s[rows])
        fraud = np.zeros(len(unique), dtype=bool)
        np.logical_or.at(fraud, place, y[rows])
        first = np.argsort(-best, kind="stable")[:k]
        found = unique[first[fraud[first]]]
        daily.append(len(found) / k)
        detected = np.concatenate([detected, found])
    return float(np.mean(daily))


def bootstrap_interval(
    metric: Callable[[NDArray[np.bool_], NDArray[np.float64]], float],
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    seed: int,
    draws: int = 200,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of `metric` over `draws` stratified resamples (frauds and genuine apart)."""
    y, s = _checked(labels, scores)
    random = np.random.default_rng(seed)
    groups: Sequence[NDArray[np.int64]] = (np.flatnonzero(y), np.flatnonzero(~y))
    values = []
    for _ in range(draws):
        rows = np.concatenate([random.choice(group, len(group)) for group in groups])
        values.append(metric(y[rows], s[rows]))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
