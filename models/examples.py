"""Labelled transactions as plain arrays: what training and evaluation work on, and what was known when.

    transaction                         label arrives
    time_ms ------- maturity ---------> time_ms + maturity_ms
       \\-------------> label_time_ms (frauds only)

Training at a cut-off uses transactions that are mature by then (old enough for their label to have
arrived), with the labels that had arrived by then and no others.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

NEVER_MS = np.iinfo(np.int64).max


class InvalidExamples(ValueError):
    """The arrays contradict each other or hold what a model cannot take: fix the data, then train again."""


class TooFewFrauds(InvalidExamples):
    """Too few labelled frauds to learn from: train on a longer history, or wait for more labels."""


@dataclass(frozen=True, slots=True)
class Examples:
    """`n` transactions in time order with `f` features.

    `matrix`: float32 [n, f], NaN = absent, never infinite. `features`: names of the columns.
    `time_ms`: int64 [n], event time, not decreasing. `fraud`: bool [n], as it was finally known.
    `label_time_ms`: int64 [n], when the fraud was reported; `NEVER_MS` for genuine ones.
    `amount_minor`: int64 [n], base currency. `label_derived`: names of features made from labels.
    """

    matrix: NDArray[np.float32]
    features: tuple[str, ...]
    time_ms: NDArray[np.int64]
    fraud: NDArray[np.bool_]
    label_time_ms: NDArray[np.int64]
    amount_minor: NDArray[np.int64]
    label_derived: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        rows, columns = self.matrix.shape
        if columns != len(self.features) or len(set(self.features)) != columns:
            raise InvalidExamples(f"{columns} columns but {len(set(self.features))} distinct feature names")
        for name in ("time_ms", "fraud", "label_time_ms", "amount_minor"):
            if getattr(self, name).shape != (rows,):
                raise InvalidExamples(f"{name} has shape {getattr(self, name).shape}, not ({rows},)")
        if self.matrix.dtype != np.float32:
            raise InvalidExamples(f"the matrix is {self.matrix.dtype}, not float32")
        if rows and (np.diff(self.time_ms) < 0).any():
            raise InvalidExamples("transactions are not in time order")
        infinite = np.isinf(self.matrix).any(axis=0)
        if infinite.any():
            names = [n for n, bad in zip(self.features, infinite, strict=True) if bad]
            raise InvalidExamples(f"infinite values in {', '.join(names)}: absent is NaN")
        unknown = self.label_derived - set(self.features)
        if unknown:
            raise InvalidExamples(f"label-derived features that are no columns: {', '.join(sorted(unknown))}")

    def __len__(self) -> int:
        return len(self.time_ms)

    def rows(self, index: NDArray[np.int64] | slice) -> "Examples":
        """The examples at `index` (ascending)."""
        return replace(
            self,
            matrix=self.matrix[index],
            time_ms=self.time_ms[index],
            fraud=self.fraud[index],
            label_time_ms=self.label_time_ms[index],
            amount_minor=self.amount_minor[index],
        )

    def between(self, start_ms: int, end_ms: int) -> "Examples":
        """Those with `start_ms <= time_ms < end_ms`."""
        first, last = np.searchsorted(self.time_ms, [start_ms, end_ms])
        return self.rows(slice(int(first), int(last)))

    def known_at(self, cutoff_ms: int, maturity_ms: int) -> "Examples":
        """The mature ones at `cutoff_ms`, with the labels that had arrived by then.

        A fraud that was reported later is a genuine transaction here, as it was then.
        """
        mature = self.rows(slice(0, int(np.searchsorted(self.time_ms, cutoff_ms - maturity_ms, "right"))))
        known = mature.fraud & (mature.label_time_ms <= cutoff_ms)
        return replace(mature, fraud=known, label_time_ms=np.where(known, mature.label_time_ms, NEVER_MS))

    @property
    def label_columns(self) -> NDArray[np.int64]:
        """Numbers of the columns made from labels."""
        return np.flatnonzero([name in self.label_derived for name in self.features])

    @property
    def data_hash(self) -> str:
        """SHA-256 over names, matrix, times and labels: the data lineage of a manifest."""
        digest = hashlib.sha256("\n".join(self.features).encode())
        for column in (self.time_ms, self.fraud, self.label_time_ms, self.amount_minor):
            digest.update(np.ascontiguousarray(column).data)
        # NaN has many bit patterns, absence has one meaning
        digest.update(np.where(np.isnan(self.matrix), np.float32(np.nan), self.matrix).data)
        return digest.hexdigest()
