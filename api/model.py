"""The model as the engine sees it: verdicts for vectors in the catalogue's order, exact contributions.

What can go wrong, and what the caller does about it:

* `ModelFailed`    decide without the model, declared degraded; try again later
* `ModelRefused`   do not start, or keep the model that serves: this one cannot be loaded here
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from api.decide import Verdict
from api.outcome import BY_WORD
from models.calibration import Calibrator, score_1000
from models.policy import Policy, band, expected_loss_minor
from models.reasons import Audience, Reason
from models.scorecard import Scorecard

if TYPE_CHECKING:
    # Importing XGBoost takes seconds; a process without a model does without.
    from models.scorer import Scorer

Matrix = NDArray[np.float32]


class ModelFailed(RuntimeError):
    """The scorer gave no usable answer."""


class ModelRefused(RuntimeError):
    """The artefact is missing, damaged, or of another catalogue."""


class Explainer(Protocol):
    """Groups exact contributions into reasons: `models.reasons.Reasons`."""

    def top(
        self, contributions: NDArray[np.float64], *, count: int, audience: Audience
    ) -> Sequence[Sequence[Reason]]:
        """For each row of `[n, own features + 1]` at most `count` reasons, strongest first."""


@dataclass(frozen=True, slots=True)
class ServingModel:
    """One loaded artefact. `columns`: places of its features in the catalogue's vector.

    `allows_missing`: whether it may score a vector whose history could not be read.
    """

    version: str
    features: tuple[str, ...]
    columns: NDArray[np.intp]
    scorer: "Scorer"
    calibrator: Calibrator
    policy: Policy
    explainer: Explainer
    allows_missing: bool = False
    scorecard: Scorecard | None = None
    _whole: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # The width of a vector that is the model's own as it stands, 0 where it takes another selection.
        width = len(self.columns)
        whole = np.array_equal(self.columns, np.arange(width))
        object.__setattr__(self, "_whole", width if whole else 0)

    def verdicts(self, matrix: Matrix, amounts: Sequence[int]) -> list[Verdict]:
        """Verdicts of catalogue vectors `[n, catalogue]`. Raises `ModelFailed`."""
        try:
            margins = self.scorer.score(self.own(matrix))
        except (RuntimeError, ValueError) as error:
            raise ModelFailed(f"{self.version}: {error}") from error
        found = margins.tolist()
        if not all(map(isfinite, found)):
            raise ModelFailed(f"{self.version}: margins are not finite")
        return self._verdicts("model", found, map(self.calibrator.probability_of, found), amounts)

    def fallback(self, matrix: Matrix, amounts: Sequence[int]) -> list[Verdict] | None:
        """What the scorecard says of catalogue vectors, where the artefact has one."""
        if self.scorecard is None:
            return None
        own = self.own(matrix)
        margins = self.scorecard.score(
            {name: own[:, i] for i, name in enumerate(self.features)}, rows=len(own)
        )
        probabilities = self.scorecard.probability(margins).tolist()
        return self._verdicts("scorecard", margins.tolist(), probabilities, amounts)

    def contributions(self, matrix: Matrix) -> NDArray[np.float64]:
        """Exact SHAP values of the margin `[n, own features + 1]`, base value last. Raises `ModelFailed`."""
        try:
            return self.scorer.contributions(self.own(matrix))
        except (RuntimeError, ValueError) as error:
            raise ModelFailed(f"{self.version}: {error}") from error

    def own(self, matrix: Matrix) -> Matrix:
        """The model's own features of catalogue vectors, contiguous."""
        if self._whole == matrix.shape[1]:
            return np.ascontiguousarray(matrix)
        return np.ascontiguousarray(matrix[:, self.columns])

    def _verdicts(
        self,
        source: Literal["model", "scorecard"],
        margins: Sequence[float],
        probabilities: Iterable[float],
        amounts: Sequence[int],
    ) -> list[Verdict]:
        policy = self.policy
        return [
            Verdict(
                source,
                margin,
                probability,
                score_1000(probability),
                BY_WORD[band(probability, amount, policy)],
                expected_loss_minor(probability, amount),
            )
            for margin, probability, amount in zip(margins, probabilities, amounts, strict=True)
        ]
