"""Mean explanations over past decisions: what drove a set of them, per model version."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.model import ServingModel
from features.catalogue import Catalogue


@dataclass(slots=True)
class Sums:
    """Running sums of one model's contributions, base value last."""

    model: ServingModel
    rows: int = 0
    signed: NDArray[np.float64] = field(init=False)
    absolute: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        width = len(self.model.features) + 1
        self.signed, self.absolute = np.zeros(width), np.zeros(width)

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Explain these stored vectors. Raises `ModelFailed`."""
        stored = [[math.nan if v is None else v for v in record["features"]] for record in records]
        found = self.model.contributions(np.array(stored, np.float32))
        self.rows += len(found)
        self.signed += found.sum(axis=0)
        self.absolute += np.abs(found).sum(axis=0)

    def to_json(self) -> dict[str, Any]:
        """Means in log-odds; features by their mean size, reasons by what they add."""
        mean, size = self.signed / self.rows, self.absolute / self.rows
        names = self.model.features
        features = [
            {"feature": name, "mean": float(mean[i]), "mean_absolute": float(size[i])}
            for i, name in enumerate(names)
        ]
        features.sort(key=lambda one: -float(one["mean_absolute"]))  # type: ignore[arg-type]
        reasons = self.model.explainer.top(mean[None, :], count=len(names), audience="analyst")[0]
        return {
            "model": self.model.version,
            "decisions": self.rows,
            "base_value": float(mean[-1]),
            "features": features,
            "reasons": [{"code": r.code, "text": r.text, "weight": round(r.weight, 6)} for r in reasons],
        }


def explainable(record: Mapping[str, Any], catalogue: Catalogue) -> bool:
    """Whether a model decided it on today's vector."""
    scored = record.get("scored_by") == "model" and record.get("features") is not None
    return scored and record["versions"]["catalogue"] == catalogue.vector_fingerprint
