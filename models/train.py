"""Training: members, blend, calibration, thresholds; each on its own slice of time, then a refit.

Forward chaining over the training window (only what was mature and labelled at the cut-off is in it)::

    |------------ members learn ------------|- blend -|- calibrate -|- thresholds, metrics -|  cut-off
                       |--------- members learn ------|             |
                       |--------- members learn --------------------|

Each later slice is predicted by members that were fitted on what was known before it, so weights,
calibration, thresholds and metrics all come from out-of-fold predictions, and no slice serves twice. At
last the members are fitted on the whole window. Deterministic: the same examples give the same bytes.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.booster import BoosterParameters, fit_booster
from models.calibration import Calibrator, fit_calibrator
from models.ensemble import Ensemble, Member, blend, fit_weights
from models.examples import Examples, TooFewFrauds
from models.policy import Costs, Policy, choose_policy
from models.scorecard import Scorecard, fit_scorecard
from models.scorer import CpuScorer

DAY_MS: Final = 86_400_000
FRAUDS_MIN: Final = 12
"""Fewest known frauds in a training window: three for each of four slices."""

SLICE_FRAUDS_WANTED: Final = 10
MEMBERS_AT_ONCE: Final = 2
"""Boosters fitted side by side; each is single-threaded and deterministic by itself."""

SLICES_AT: Final = (0.55, 0.70, 0.85)
"""Where blending, calibration and thresholds begin, as shares of the window."""


PARAMETERS: Final = BoosterParameters()
COSTS: Final = Costs()


@dataclass(frozen=True, slots=True)
class MemberPlan:
    """One member: `history_days` limits it to the most recent ones; `uses_labels` is about features."""

    name: str
    history_days: int | None = None
    uses_labels: bool = True
    parameters: BoosterParameters = PARAMETERS


MEMBERS: Final = (
    MemberPlan("full"),
    MemberPlan("recent", history_days=28),
    MemberPlan("behaviour", uses_labels=False),
)


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What to fit. `maturity_ms`: age at which a transaction's label has arrived (label delay)."""

    maturity_ms: int
    members: tuple[MemberPlan, ...] = MEMBERS
    costs: Costs = COSTS
    seed: int = 1
    chain_genuine_max: int = 60_000
    """Genuine rows per out-of-fold member; the refit sees all of them."""


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """A later slice, an ensemble of members that never saw it, and its margins there."""

    examples: Examples
    ensemble: Ensemble
    margins: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trained:
    """A fitted model and what its manifest says about the fit.

    `measured`: the slice that set nothing but the thresholds. `window_ms`: first and last transaction
    learned from. `notes`: where the data was too thin for the usual way, in words.
    """

    ensemble: Ensemble
    calibrator: Calibrator
    policy: Policy
    scorecard: Scorecard
    measured: OutOfFold
    window: Examples = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def window_ms(self) -> tuple[int, int]:
        return int(self.window.time_ms[0]), int(self.window.time_ms[-1])


def train(
    examples: Examples,
    cutoff_ms: int,
    plan: TrainingPlan,
    progress: Callable[[str], None] = lambda line: None,
) -> Trained:
    """Fit everything on what was known at `cutoff_ms`.

    Raises `TooFewFrauds` with the count and what to do. `progress` gets one line per step.
    """
    known = examples.known_at(cutoff_ms, plan.maturity_ms)
    frauds = int(known.fraud.sum())
    if frauds < FRAUDS_MIN or known.fraud.all():
        raise TooFewFrauds(
            f"{frauds} frauds among {len(known)} transactions that were labelled at the cut-off, "
            f"at least {FRAUDS_MIN} and some genuine ones are needed: train on a longer history"
        )
    notes: list[str] = []
    bounds = _slice_bounds(known, notes)
    slices, raw = [], []
    for start, end in pairwise([*bounds, len(known)]):
        learned = _before(examples, known, start, plan, notes)
        progress(f"members on {len(learned)} transactions ({int(learned.fraud.sum())} frauds)")
        members = fit_members(learned, plan, genuine_max=plan.chain_genuine_max)
        slices.append(known.rows(slice(start, end)))
        raw.append(member_margins(members, known.features, slices[-1].matrix))
    weights = fit_weights(raw[0], slices[0].fraud)
    calibrator = fit_calibrator(blend(raw[1], weights), slices[1].fraud)
    measured = OutOfFold(slices[2], _weighted(known.features, members, weights), blend(raw[2], weights))
    probability = calibrator.probability(measured.margins)
    policy = choose_policy(probability, slices[2].fraud, slices[2].amount_minor, plan.costs)
    progress(f"final members on {len(known)} transactions ({frauds} frauds), weights {weights}")
    final = fit_members(known, plan)
    return Trained(
        _weighted(known.features, final, weights),
        calibrator,
        policy,
        fit_scorecard(known.matrix, known.features, known.fraud),
        measured,
        known,
        tuple(dict.fromkeys(notes)),
    )


def fit_members(
    learned: Examples, plan: TrainingPlan, *, genuine_max: int | None = None
) -> tuple[Member, ...]:
    """Fit each member of the plan, all with the same weight. A recent one falls back to all of `learned`
    where its days hold fewer than `SLICE_FRAUDS_WANTED` frauds.
    """

    def fit(number: int) -> Member:
        return _fit_member(learned, plan, number, genuine_max)

    with ThreadPoolExecutor(max_workers=MEMBERS_AT_ONCE) as pool:  # XGBoost leaves the interpreter meanwhile
        return tuple(pool.map(fit, range(len(plan.members))))


def _fit_member(learned: Examples, plan: TrainingPlan, number: int, genuine_max: int | None) -> Member:
    member, rows = plan.members[number], learned
    if member.history_days is not None and len(learned):
        end_ms = int(learned.time_ms[-1]) + 1
        recent = learned.between(end_ms - member.history_days * DAY_MS, end_ms)
        rows = recent if recent.fraud.sum() >= SLICE_FRAUDS_WANTED else learned
    model = fit_booster(
        rows.matrix,
        rows.fraud,
        member.parameters,
        seed=plan.seed + number,
        absent_columns=None if member.uses_labels else rows.label_columns,
        genuine_max=genuine_max,
    )
    return Member(member.name, model, 1.0 / len(plan.members), member.uses_labels)


def member_margins(
    members: tuple[Member, ...], features: tuple[str, ...], matrix: NDArray[np.float32]
) -> list[NDArray[np.float64]]:
    """The margin of each member apart, one vector per member."""
    alone = (Ensemble(features, (replace(member, weight=1.0),)) for member in members)
    return [CpuScorer(ensemble).score(np.ascontiguousarray(matrix)) for ensemble in alone]


def _weighted(features: tuple[str, ...], members: tuple[Member, ...], weights: tuple[float, ...]) -> Ensemble:
    return Ensemble(features, tuple(replace(m, weight=w) for m, w in zip(members, weights, strict=True)))


def _slice_bounds(known: Examples, notes: list[str]) -> list[int]:
    """First rows of the three later slices: by time, or by frauds where time leaves one without enough."""
    first, last = int(known.time_ms[0]), int(known.time_ms[-1])
    at = [first + int((last - first) * share) for share in SLICES_AT]
    by_time = [int(b) for b in np.searchsorted(known.time_ms, at)]
    edges = [0, *by_time, len(known)]
    if all(_has_both(known.fraud[a:b], SLICE_FRAUDS_WANTED) for a, b in pairwise(edges)):
        return by_time
    notes.append("few frauds: slices hold equal shares of the frauds instead of equal times")
    rows = np.flatnonzero(known.fraud)
    return [int(rows[int(len(rows) * share)]) for share in SLICES_AT]


def _has_both(fraud: NDArray[np.bool_], frauds_min: int) -> bool:
    count = int(fraud.sum())
    return frauds_min <= count < len(fraud)


def _before(
    examples: Examples, known: Examples, start: int, plan: TrainingPlan, notes: list[str]
) -> Examples:
    """What a training at the slice's start would have known; without the delay where that is too little."""
    start_ms = int(known.time_ms[start])
    mature = examples.between(int(known.time_ms[0]), start_ms).known_at(start_ms, plan.maturity_ms)
    if _has_both(mature.fraud, SLICE_FRAUDS_WANTED):
        return mature
    notes.append("short history: out-of-fold members learned up to the slice, without the label delay")
    return known.rows(slice(0, start))
