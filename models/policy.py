"""From probability and money to an outcome: the model's own band.

What is at stake is the amount, at least `exposure_minor` (a stolen card does not stop at one coffee).
Expected loss = probability x stake. The costs say what each outcome costs; the thresholds are those that
cost least on a validation slice, within the capacity of the review desk::

    expected loss   0 ......... challenge_loss ......... review_loss ............
    outcome           approve   |      challenge         |       review
                                and from decline_probability upwards: decline

All money is in minor units of the base currency.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Outcome = Literal["approve", "challenge", "review", "decline"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("approve", "challenge", "review", "decline")

CANDIDATES: Final = 48
"""Thresholds tried per band: quantiles of the slice's riskier part."""

ROUNDS_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Costs:
    """What outcomes cost a business, minor units and shares in [0, 1].

    `friction_minor`: a good customer who is challenged (time, some give up). `review_minor`: an analyst's
    work on one case. `decline_minor` and `decline_share`: a good customer who is declined, fixed and per
    amount. `challenge_stops`, `review_stops`: share of frauds that the measure stops.
    `review_capacity`: largest share of transactions that the desk can review.
    """

    friction_minor: int = 50
    review_minor: int = 400
    decline_minor: int = 1500
    decline_share: float = 0.10
    challenge_stops: float = 0.85
    review_stops: float = 0.95
    review_capacity: float = 0.005
    exposure_minor: int = 5000

    def __post_init__(self) -> None:
        money = (self.friction_minor, self.review_minor, self.decline_minor, self.exposure_minor)
        shares = (self.decline_share, self.challenge_stops, self.review_stops, self.review_capacity)
        if min(money) < 0 or not all(0 <= share <= 1 for share in shares):
            raise ValueError("costs must be >= 0 and shares within [0, 1]")


@dataclass(frozen=True, slots=True)
class Policy:
    """Thresholds of the bands. `challenge_loss_minor <= review_loss_minor`; infinity switches a band off."""

    challenge_loss_minor: float
    review_loss_minor: float
    decline_probability: float
    exposure_minor: int
    costs: Costs

    def __post_init__(self) -> None:
        if not 0 <= self.challenge_loss_minor <= self.review_loss_minor:
            raise ValueError("challenge_loss_minor must be between 0 and review_loss_minor")
        if not self.decline_probability > 0:
            raise ValueError("decline_probability must be above 0")

    def to_json(self) -> dict[str, Any]:
        """A JSON object; a band that is switched off is null."""
        value = asdict(self)
        for name in ("challenge_loss_minor", "review_loss_minor", "decline_probability"):
            value[name] = value[name] if np.isfinite(value[name]) else None
        return value

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Policy":
        def threshold(name: str) -> float:
            return float("inf") if value[name] is None else float(value[name])

        return Policy(
            threshold("challenge_loss_minor"),
            threshold("review_loss_minor"),
            threshold("decline_probability"),
            int(value["exposure_minor"]),
            Costs(**value["costs"]),
        )


def expected_loss_minor(probability: float, amount_minor: int) -> int:
    """Probability x amount, rounded half up to whole minor units: what a decision records."""
    return int(probability * amount_minor + 0.5)


def band(probability: float, amount_minor: int, policy: Policy) -> Outcome:
    """The outcome that the model alone would choose. Pure."""
    if probability >= policy.decline_probability:
        return "decline"
    loss = probability * max(amount_minor, policy.exposure_minor)
    if loss >= policy.review_loss_minor:
        return "review"
    return "challenge" if loss >= policy.challenge_loss_minor else "approve"


def bands(probability: ArrayLike, amount_minor: ArrayLike, policy: Policy) -> NDArray[np.int8]:
    """`band` of many: places in `OUTCOMES`, int8 [n]."""
    p = np.asarray(probability, dtype=np.float64)
    loss = p * np.maximum(np.asarray(amount_minor, dtype=np.float64), policy.exposure_minor)
    outcome = (loss >= policy.challenge_loss_minor).astype(np.int8)
    outcome[loss >= policy.review_loss_minor] = 2
    outcome[p >= policy.decline_probability] = 3
    return outcome


def cost_minor(
    outcomes: NDArray[np.int8], fraud: NDArray[np.bool_], amount_minor: NDArray[np.int64], costs: Costs
) -> float:
    """Total cost of `outcomes` (places in `OUTCOMES`) on transactions whose truth is known."""
    return float(_cost_table(fraud, amount_minor, costs)[outcomes, np.arange(len(outcomes))].sum())


def _cost_table(
    fraud: NDArray[np.bool_], amount_minor: NDArray[np.int64], costs: Costs
) -> NDArray[np.float64]:
    """Cost of each outcome for each transaction, float64 [4, n]."""
    amount = amount_minor.astype(np.float64)
    stake = np.where(fraud, np.maximum(amount, costs.exposure_minor), 0.0)
    good = ~fraud
    return np.stack(
        [
            stake,
            stake * (1 - costs.challenge_stops) + costs.friction_minor * good,
            stake * (1 - costs.review_stops) + costs.review_minor,
            (costs.decline_minor + costs.decline_share * amount) * good,
        ]
    )


def choose_policy(probability: ArrayLike, fraud: ArrayLike, amount_minor: ArrayLike, costs: Costs) -> Policy:
    """Thresholds with the least cost on a validation slice, the review desk's capacity kept.

    Coordinate descent over quantiles, from "approve everything"; equal costs go to the milder threshold,
    so that nobody is bothered for nothing. Deterministic.
    """
    p = np.asarray(probability, dtype=np.float64)
    amount = np.asarray(amount_minor, dtype=np.int64)
    table = _cost_table(np.asarray(fraud).astype(bool), amount, costs)
    rows, reviews_max = np.arange(len(p)), costs.review_capacity * len(p)

    def cost(policy: Policy) -> float:
        outcome = bands(p, amount, policy)
        return np.inf if (outcome == 2).sum() > reviews_max else float(table[outcome, rows].sum())

    losses, chances = _candidates(p * np.maximum(amount, costs.exposure_minor)), _candidates(p)
    best = Policy(np.inf, np.inf, np.inf, costs.exposure_minor, costs)
    lowest = cost(best)
    moves: tuple[Callable[[Policy], Iterator[Policy]], ...] = (
        lambda now: (replace(now, decline_probability=c) for c in chances),
        lambda now: (
            replace(now, challenge_loss_minor=c, review_loss_minor=max(c, now.review_loss_minor))
            for c in losses
        ),
        lambda now: (
            replace(now, challenge_loss_minor=min(c, now.challenge_loss_minor), review_loss_minor=c)
            for c in losses
        ),
    )
    for move in moves * ROUNDS_MAX:
        for trial in move(best):
            if (value := cost(trial)) < lowest:
                best, lowest = trial, value
    return best


def _candidates(values: NDArray[np.float64]) -> list[float]:
    """Descending: "off", then quantiles ever deeper into the riskier part (each half as rare as the next)."""
    depth = np.concatenate([[0.0], np.geomspace(1.0 / max(2, len(values)), 0.3, CANDIDATES)])
    found = np.unique(np.quantile(values, 1.0 - depth)) if len(values) else np.zeros(0)
    return [float("inf"), *(float(v) for v in found[::-1] if v > 0)]
