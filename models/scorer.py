"""One protocol for scoring, several machines behind it.

* `CpuScorer`: in this process, one thread, XGBoost's own kernels. The reference.
* `KernelScorer`: in this process, the compiled kernel (`models.kernel`), checked against the reference when
  it is made. The choice wherever a C compiler is, for trees of at most 6 levels.
* `CudaScorer`: in this process on a CUDA device; batches below `rows_min` go to the CPU.

Margins of a row do not depend on the batch that it came in. Both on the CPU give the same bits; CPU and CUDA
agree within 1e-5. Where it runs is declared by `mode`; `open_scorer` falls back and says why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from models.ensemble import Ensemble, blend
from models.kernel.errors import KernelError, NotEqual
from models.kernel.forest import Forest

Matrix = NDArray[np.float32]
Mode = Literal["cpu", "cuda", "remote"]

CUDA_ROWS_MIN: Final = 256
"""Below this a batch is scored on the CPU: starting a kernel costs more than the batch."""


PROOF_ROWS: Final = 128
CONTRIBUTION_TOLERANCE: Final = 1e-5


class ScorerUnavailable(RuntimeError):
    """This machine cannot run this scorer: use the CPU scorer."""


class Scorer(Protocol):
    """Scores vectors. `matrix` is C-contiguous float32 [n, f], NaN = absent, in the model's order."""

    @property
    def mode(self) -> Mode:
        """Where it runs."""
        ...

    @property
    def width(self) -> int:
        """f, the number of features."""
        ...

    def score(self, matrix: Matrix) -> NDArray[np.float64]:
        """Margins (log-odds before calibration), float64 [n]; higher is more suspicious."""
        ...

    def contributions(self, matrix: Matrix) -> NDArray[np.float64]:
        """Exact SHAP values of the margin, float64 [n, f + 1]; the last column is the base value.

        Each row sums to its margin within 1e-4 (the members' values are float32).
        """
        ...


class CpuScorer:
    """XGBoost in this process, one thread: no DMatrix and no validation on the way of a score."""

    mode: Mode = "cpu"

    def __init__(self, ensemble: Ensemble) -> None:
        self.width = len(ensemble.features)
        self._weights = tuple(m.weight for m in ensemble.members)
        self._boosters = _boosters(ensemble, "cpu")

    def score(self, matrix: Matrix) -> NDArray[np.float64]:
        _check_width(matrix, self.width)
        if not len(matrix):
            return np.zeros(0)
        parts = [
            b.inplace_predict(matrix, predict_type="margin", validate_features=False) for b in self._boosters
        ]
        return blend(parts, self._weights)

    def contributions(self, matrix: Matrix) -> NDArray[np.float64]:
        _check_width(matrix, self.width)
        return _contributions(self._boosters, self._weights, matrix)


class KernelScorer:
    """The compiled kernel in this process, all members in one call. Raises `KernelError`: use `CpuScorer`.

    Made in about a second for three members of 300 trees, with 20 MB of tables for each; it is compiled
    before where it was not yet (some seconds).
    """

    mode: Mode = "cpu"

    def __init__(self, ensemble: Ensemble) -> None:
        self.width = len(ensemble.features)
        self._forest = Forest([m.model for m in ensemble.members], [m.weight for m in ensemble.members])
        _prove(self._forest, CpuScorer(ensemble))
        # the protocol's two methods are the forest's own: no frame in between
        self.score = self._forest.score
        self.contributions = self._forest.contributions


class CudaScorer:
    """XGBoost on a CUDA device. Raises `ScorerUnavailable` where there is none.

    Host memory goes through a DMatrix, which XGBoost moves to the device; contributions use GPUTreeShap.
    """

    mode: Mode = "cuda"

    def __init__(self, ensemble: Ensemble, *, rows_min: int = CUDA_ROWS_MIN) -> None:
        if not xgb.build_info().get("USE_CUDA"):
            raise ScorerUnavailable("this XGBoost has no CUDA: install xgboost instead of xgboost-cpu")
        self.width = len(ensemble.features)
        self._rows_min = rows_min
        self._small = open_cpu(ensemble).scorer
        self._weights = tuple(m.weight for m in ensemble.members)
        try:
            self._boosters = _boosters(ensemble, "cuda")
            self._device_score(np.full((1, self.width), np.nan, dtype=np.float32))
        except xgb.core.XGBoostError as error:
            raise ScorerUnavailable(f"no usable CUDA device: {str(error).splitlines()[0]}") from error

    def score(self, matrix: Matrix) -> NDArray[np.float64]:
        _check_width(matrix, self.width)
        if len(matrix) < self._rows_min:
            return self._small.score(matrix)
        return self._device_score(matrix)

    def contributions(self, matrix: Matrix) -> NDArray[np.float64]:
        _check_width(matrix, self.width)
        if len(matrix) < self._rows_min:
            return self._small.contributions(matrix)
        return _contributions(self._boosters, self._weights, matrix)

    def _device_score(self, matrix: Matrix) -> NDArray[np.float64]:
        data = xgb.DMatrix(matrix)
        return blend([b.predict(data, output_margin=True) for b in self._boosters], self._weights)


@dataclass(frozen=True, slots=True)
class OpenedScorer:
    """A scorer and, where it is not the one that was asked for or the fast one, the reason."""

    scorer: Scorer
    fallback: str | None = None


def open_scorer(ensemble: Ensemble, device: Literal["auto", "cpu", "cuda"] = "auto") -> OpenedScorer:
    """The scorer for `device`; `auto` takes CUDA where there is one. Never fails for want of a device."""
    if device == "cpu":
        return open_cpu(ensemble)
    try:
        return OpenedScorer(CudaScorer(ensemble))
    except ScorerUnavailable as error:
        opened = open_cpu(ensemble)
        return OpenedScorer(opened.scorer, fallback=str(error) if device == "cuda" else opened.fallback)


def open_cpu(ensemble: Ensemble) -> OpenedScorer:
    """The compiled kernel, or XGBoost where it cannot be built or does not know this kind of model."""
    try:
        return OpenedScorer(KernelScorer(ensemble))
    except KernelError as error:
        return OpenedScorer(CpuScorer(ensemble), fallback=f"XGBoost scores, not the compiled kernel: {error}")


def _prove(forest: Forest, reference: CpuScorer) -> None:
    """Raises `NotEqual` unless rows on the model's own thresholds get the reference's margins, bit by bit."""
    if forest.width != reference.width:
        raise NotEqual(f"the members take {forest.width} features, the ensemble has {reference.width}")
    rows = forest.probes(PROOF_ROWS)
    found, expected = forest.score(rows), reference.score(rows)
    if found.tobytes() != expected.tobytes():
        raise NotEqual(f"margins differ from XGBoost's by {np.abs(found - expected).max():.3g}")
    explained = np.abs(forest.contributions(rows[:8]) - reference.contributions(rows[:8])).max()
    if not explained <= CONTRIBUTION_TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise NotEqual(f"contributions differ from XGBoost's by {explained:.3g}")


def _boosters(ensemble: Ensemble, device: str) -> tuple[xgb.Booster, ...]:
    opened = []
    for member in ensemble.members:
        booster = xgb.Booster({"nthread": 1, "device": device})
        booster.load_model(bytearray(member.model))
        booster.set_param({"nthread": 1, "device": device})
        opened.append(booster)
    return tuple(opened)


def _check_width(matrix: Matrix, width: int) -> None:
    if matrix.ndim != 2 or matrix.shape[1] != width or matrix.dtype != np.float32:
        raise ValueError(f"expected float32 [n, {width}], got {matrix.dtype} {list(matrix.shape)}")


def _contributions(
    boosters: Sequence[xgb.Booster], weights: Sequence[float], matrix: Matrix
) -> NDArray[np.float64]:
    if not len(matrix):
        return np.zeros((0, matrix.shape[1] + 1))
    data = xgb.DMatrix(matrix, nthread=1)
    parts = [b.predict(data, pred_contribs=True, validate_features=False) for b in boosters]
    return blend(parts, weights)
