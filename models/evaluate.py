"""Evaluation from a history: any schema by dates, and the handbook by its four folds.

Features come from the offline builder, point in time: a row's vector holds what was known when it happened,
labels by their arrival. What a model learns from was known when it would have gone live.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features import Catalogue
from features.column import Numbers
from features.history import NEVER, History, load_history
from features.offline import build
from features.tier import DAY
from models.ensemble import Ensemble
from models.examples import NEVER_MS, Examples, InvalidExamples
from models.metrics import average_precision, lift, recall_at_fpr, roc_auc
from models.protocol import (
    HANDBOOK_ORIGIN,
    HANDBOOK_TEST,
    HANDBOOK_VALIDATION,
    FoldResult,
    ProtocolResult,
    folds,
    measure_fold,
)
from models.scorer import CpuScorer
from models.train import TrainingPlan, train

HANDBOOK_HISTORY_DAYS: Final = 84
HANDBOOK_ORIGIN_MS: Final = 1_522_540_800_000
"""2018-04-01, the first day of the simulation (`protocol.HANDBOOK_ORIGIN`)."""

HANDBOOK_BAR: Final = {"auc": 0.880, "ap": 0.717, "cp100": 0.309}

Progress = Callable[[str], None]


def examples_of(
    catalogue: Catalogue, history: History, *, progress: Progress = lambda line: None
) -> tuple[Examples, NDArray[np.int64]]:
    """The catalogue's vectors of all transactions with their labels, in time order (ties in file order).

    Also returns, per example, its row in `history`. Blocks for about a second per hundred thousand rows.
    """
    order = np.argsort(history.time_ms, kind="stable")
    matrix = build(catalogue, history).values
    progress(f"{len(history)} transactions, {len(catalogue.features)} features")
    amount = np.zeros(len(history), dtype=np.int64)
    if catalogue.schema.amount is not None:
        column = history.fields[catalogue.schema.amount]
        if isinstance(column, Numbers):
            amount = np.where(column.absent, 0, column.numbers).astype(np.int64)
    reported = history.label & (history.label_time_ms != NEVER)
    examples = Examples(
        np.ascontiguousarray(matrix[order]),
        catalogue.names,
        history.time_ms[order].astype(np.int64),
        history.label[order].astype(np.bool_),
        np.where(reported, history.label_time_ms, NEVER_MS)[order],
        amount[order],
        label_derived=frozenset(f.name for f in catalogue.features if f.uses_labels),
    )
    return examples, order


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`train`, `test`: transactions learned from and scored. `young`: before `train_until`, but too young at
    `test_from` for their labels to have arrived, and so not learned from.
    """

    train: int
    test: int
    young: int
    train_frauds: int
    test_frauds: int
    auc: float
    ap: float
    recall_at_1pct_fpr: float
    lift_at_20pct: float
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "notes": list(self.notes)}


def evaluate(
    catalogue: Catalogue,
    history: History,
    *,
    train_until_ms: int,
    test_from_ms: int,
    label_delay_ms: int,
    plan: TrainingPlan | None = None,
    progress: Progress = lambda line: None,
) -> Evaluation:
    """Train on transactions before `train_until_ms`, as it would have been done at `test_from_ms`, and score
    every transaction from `test_from_ms` on.

    Raises `InvalidExamples` (with `TooFewFrauds`) and `MetricUndefined`; their messages say what to do.
    """
    if test_from_ms < train_until_ms:
        raise InvalidExamples("the test begins before the training ends: move one of the dates")
    examples, _ = examples_of(catalogue, history, progress=progress)
    before = examples.rows(slice(0, int(np.searchsorted(examples.time_ms, train_until_ms))))
    test = examples.rows(slice(int(np.searchsorted(examples.time_ms, test_from_ms)), len(examples)))
    chosen = replace(plan or TrainingPlan(label_delay_ms), maturity_ms=label_delay_ms)
    trained = train(before, test_from_ms, chosen, progress)
    margins = CpuScorer(trained.ensemble).score(np.ascontiguousarray(test.matrix))
    return Evaluation(
        train=len(trained.window),
        test=len(test),
        young=len(before) - len(trained.window),
        train_frauds=int(trained.window.fraud.sum()),
        test_frauds=int(test.fraud.sum()),
        auc=roc_auc(test.fraud, margins),
        ap=average_precision(test.fraud, margins),
        recall_at_1pct_fpr=recall_at_fpr(test.fraud, margins),
        lift_at_20pct=lift(test.fraud, margins),
        notes=trained.notes,
    )


@dataclass(frozen=True, slots=True)
class HandbookEvaluation:
    """Four folds of the ensemble, and of each member alone (by name)."""

    result: ProtocolResult
    members: dict[str, ProtocolResult]
    features: int

    @property
    def holds(self) -> bool:
        """Whether every mean reaches the bar."""
        return all(self.result.mean(metric) >= bar for metric, bar in HANDBOOK_BAR.items())

    def as_json(self) -> dict[str, Any]:
        summary = {metric: round(self.result.mean(metric), 4) for metric in HANDBOOK_BAR}
        spread = {f"{metric}_sd": round(self.result.sd(metric), 4) for metric in HANDBOOK_BAR}
        return {
            **summary,
            **spread,
            "bar": HANDBOOK_BAR,
            "features": self.features,
            "folds": [_fold_json(fold) for fold in self.result.folds],
            "members": {
                name: {metric: round(alone.mean(metric), 4) for metric in HANDBOOK_BAR}
                for name, alone in self.members.items()
            },
        }


def _fold_json(fold: FoldResult) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(fold).items()}


def evaluate_handbook(
    catalogue: Catalogue,
    path: Path,
    *,
    validation: bool = False,
    plan: TrainingPlan | None = None,
    progress: Progress = lambda line: None,
) -> HandbookEvaluation:
    """The prequential protocol on the handbook's transactions; `validation` takes the folds on which
    settings are chosen instead of the four test folds. Raises `InvalidHistory`.
    """
    delay_ms = 7 * DAY
    history = load_history(path, catalogue.schema, label_delay_ms=delay_ms)
    examples, rows = examples_of(catalogue, history, progress=progress)
    day = (examples.time_ms - HANDBOOK_ORIGIN_MS) // DAY
    customer = history.entity("customer")[rows]
    starts = HANDBOOK_VALIDATION if validation else HANDBOOK_TEST
    results: dict[str, list[FoldResult]] = {}
    for fold in folds(starts, HANDBOOK_ORIGIN, HANDBOOK_HISTORY_DAYS):
        learned = examples.between(
            HANDBOOK_ORIGIN_MS + fold.train_first * DAY, HANDBOOK_ORIGIN_MS + (fold.train_last + 1) * DAY
        )
        live_ms = HANDBOOK_ORIGIN_MS + fold.test_first * DAY
        trained = train(learned, live_ms, plan or TrainingPlan(delay_ms), progress)
        for name, ensemble in _with_members(trained.ensemble):
            score = partial(_score_rows, CpuScorer(ensemble), examples)
            found = measure_fold(fold, day, customer, examples.fraud, score)
            results.setdefault(name, []).append(found)
        progress(f"fold {fold.start}: {_fold_json(results['ensemble'][-1])}")
    return HandbookEvaluation(
        _summary(results.pop("ensemble")),
        {name: _summary(alone) for name, alone in results.items()},
        len(catalogue.features),
    )


def _score_rows(scorer: CpuScorer, examples: Examples, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return scorer.score(examples.matrix[rows])


def _with_members(ensemble: Ensemble) -> list[tuple[str, Ensemble]]:
    """The ensemble and each member alone."""
    alone = [(m.name, Ensemble(ensemble.features, (replace(m, weight=1.0),))) for m in ensemble.members]
    return [("ensemble", ensemble), *alone]


def _summary(found: Sequence[FoldResult]) -> ProtocolResult:
    return ProtocolResult(tuple(found))
