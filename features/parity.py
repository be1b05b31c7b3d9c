"""Comparing vectors: what differs, what is missing, and which features could not differ at all.

`compare` judges two float32 matrices bit by bit. `published` judges the offline builder against features that
others computed: the 14 of the Fraud Detection Handbook, with windows of exact seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.catalogue import Catalogue
from features.column import InvalidHistory
from features.feature import Feature, Ratio, Window, hour, weekday
from features.formula import Ints
from features.handbook import SCHEMA
from features.history import History, load_history
from features.measure import FRAUD
from features.offline import columns
from features.tier import DAY

HISTORY: Final = "fdh/fdh_dev_2018-04-01_2018-09-04.parquet"
PUBLISHED: Final = "fdh/fdh_transformed_published_dev.parquet"
TOLERANCE: Final = 1e-9
TIED_ROWS_MAX: Final = 41
_WEEK: Final = 7 * DAY


@dataclass(frozen=True, slots=True)
class Report:
    """Result of a comparison.

    `decisions`, `features`: how many were compared. `mismatch`, `missing`, `extra`: features per name whose
    values differ, are absent where expected, are there where none is expected. `excluded`: decisions that
    were not compared. `null_share`, `distinct`: of the expected values, per feature.
    """

    decisions: int
    features: int
    mismatch: Mapping[str, int]
    missing: Mapping[str, int]
    extra: Mapping[str, int]
    excluded: int
    null_share: Mapping[str, float]
    distinct: Mapping[str, int]

    @property
    def constant(self) -> tuple[str, ...]:
        """Features with one value or none: equality of such a feature proves nothing."""
        return tuple(name for name, count in self.distinct.items() if count < 2)

    @property
    def holds(self) -> bool:
        """Whether everything was compared, equal and able to differ."""
        differs = any(self.mismatch.values()) or any(self.missing.values()) or any(self.extra.values())
        return self.decisions > 0 and not differs and self.excluded == 0 and not self.constant

    def as_json(self) -> dict[str, Any]:
        """The line that `cordon parity --json` prints: totals, and what each feature is like."""
        return {
            "decisions": self.decisions,
            "features": self.features,
            "mismatch": sum(self.mismatch.values()),
            "missing": sum(self.missing.values()),
            "extra": sum(self.extra.values()),
            "excluded": self.excluded,
            "null_share": dict(self.null_share),
            "distinct": dict(self.distinct),
        }


def compare(
    names: Sequence[str], expected: NDArray[np.float32], actual: NDArray[np.float32], excluded: int = 0
) -> Report:
    """Compare two matrices `[decisions, features]` bit by bit; NaN is absent and equals NaN only."""
    if expected.shape != actual.shape or expected.shape[1:] != (len(names),):
        raise ValueError(f"{expected.shape} against {actual.shape} for {len(names)} features")
    mismatch, missing, extra, null_share, distinct = {}, {}, {}, {}, {}
    for place, name in enumerate(names):
        a, b = expected[:, place], actual[:, place]
        absent, absent_actual = np.isnan(a), np.isnan(b)
        missing[name] = int((~absent & absent_actual).sum())
        extra[name] = int((absent & ~absent_actual).sum())
        both = ~absent & ~absent_actual
        mismatch[name] = int((both & (a.view(np.uint32) != b.view(np.uint32))).sum())
        null_share[name] = round(float(absent.mean()), 6) if len(a) else 1.0
        distinct[name] = len(np.unique(a[~absent]))
    shape = expected.shape
    return Report(shape[0], shape[1], mismatch, missing, extra, excluded, null_share, distinct)


@dataclass(frozen=True, slots=True)
class Published:
    """`rows`: compared transactions. `mismatch`: rows that differ in some feature; `tied`: those of them that
    share their second with another event of the same entity, whose order nobody published. `columns`: by
    feature."""

    rows: int
    mismatch: int
    tied: int
    columns: Mapping[str, int]

    @property
    def holds(self) -> bool:
        """Whether the reference is reproduced, same-second ties apart."""
        return self.rows > 0 and self.mismatch == self.tied <= TIED_ROWS_MAX

    def as_json(self) -> dict[str, Any]:
        """The line that `cordon parity --published --json` prints."""
        return {
            "rows": self.rows,
            "mismatch": self.mismatch,
            "tied": self.tied,
            "columns": dict(self.columns),
        }


def published(data: Path) -> Published:
    """Recompute the handbook's published features from its raw transactions in `data`.

    Raises `InvalidHistory` if a file is missing or does not fit.
    """
    history = load_history(data / HISTORY, SCHEMA, label_delay_ms=_WEEK)
    path = data / PUBLISHED
    if not path.is_file():
        raise InvalidHistory(f"{path}: there is no such file")
    reference = pq.read_table(path)
    ids = np.asarray(reference["TRANSACTION_ID"].to_numpy())
    order = np.argsort(ids)
    own = history.ids.astype(np.int64)
    at = order[np.searchsorted(ids, own, sorter=order).clip(max=len(ids) - 1)]
    if len(ids) != len(own) or not np.array_equal(ids[at], own):
        raise InvalidHistory(f"{path}: its transactions are not those of {HISTORY}")
    wrong = np.zeros(len(own), np.bool_)
    by_column = {}
    for place, column in columns(_CATALOGUE, history, exact=True):
        name, written = _REFERENCE[place][1]
        value = written(column)
        differs = ~(np.abs(value - reference[name].to_numpy()[at]) <= TOLERANCE)
        by_column[name] = int(differs.sum())
        wrong |= differs
    tied = wrong & _tied(history)
    return Published(len(own), int(wrong.sum()), int(tied.sum()), by_column)


def _tied(history: History) -> NDArray[np.bool_]:
    """Rows in the same second as another transaction, or a label, of their customer or terminal."""
    found = np.zeros(len(history), np.bool_)
    second = history.time_ms // 1000
    for entity, delays_s in (("customer", (0,)), ("terminal", (0, _WEEK // 1000))):
        key = history.entity(entity) << 34 | second
        for delay_s in delays_s:
            found |= np.isin(key - delay_s, key) if delay_s else np.isin(key, _repeated(key))
    return found


def _repeated(keys: Ints) -> Ints:
    values, counts = np.unique(keys, return_counts=True)
    return values[counts > 1]


def _flag(name: str, least: float, most: float) -> tuple[str, Any]:
    return name, lambda column: ((column >= least) & (column <= most)).astype(np.float64)


def _same(name: str, scale: float = 1.0) -> tuple[str, Any]:
    return name, lambda column: column / scale


def _share(name: str) -> tuple[str, Any]:
    return name, lambda column: np.nan_to_num(column, nan=0.0)


def _fraud_share(days: int) -> Feature:
    frauds = Window("terminal", "count", days * DAY, source=FRAUD)
    return Ratio(f"share_{days}", frauds, Window("terminal", "count", days * DAY, delay_ms=_WEEK))


# The reference's column, what it is in the catalogue's language, and how it was written down (units of money,
# flags, 0 for the share of no transaction).
_REFERENCE: Final[tuple[tuple[Feature, tuple[str, Any]], ...]] = (
    (weekday(), _flag("TX_DURING_WEEKEND", 5, 6)),
    (hour(), _flag("TX_DURING_NIGHT", 0, 6)),
    *((Window("customer", "count", d * DAY), _same(f"CUSTOMER_ID_NB_TX_{d}DAY_WINDOW")) for d in (1, 7, 30)),
    *(
        (Window("customer", "mean", d * DAY, "amount"), _same(f"CUSTOMER_ID_AVG_AMOUNT_{d}DAY_WINDOW", 100.0))
        for d in (1, 7, 30)
    ),
    *(
        (Window("terminal", "count", d * DAY, delay_ms=_WEEK), _same(f"TERMINAL_ID_NB_TX_{d}DAY_WINDOW"))
        for d in (1, 7, 30)
    ),
    *((_fraud_share(d), _share(f"TERMINAL_ID_RISK_{d}DAY_WINDOW")) for d in (1, 7, 30)),
)
_CATALOGUE: Final = Catalogue("published", SCHEMA, tuple(feature for feature, _ in _REFERENCE))
