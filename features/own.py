"""The event's own numbers, a column at a time: `features.plan.reader` for whole histories."""

from collections.abc import Mapping

import numpy as np

from features.column import Numbers, Words
from features.feature import FieldTerm
from features.formula import Floats
from features.history import History
from features.tier import DAY, HOUR


def field_term(history: History, term: FieldTerm) -> Floats:
    """A number of the event itself, per row; NaN where absent."""
    local_ms = history.time_ms + term.offset_ms
    if term.kind == "hour":
        return (local_ms // HOUR % 24).astype(np.float64)
    if term.kind == "weekday":
        return ((local_ms // DAY + 3) % 7).astype(np.float64)
    if term.kind == "time_of_day":
        return local_ms % DAY / HOUR
    column = history.fields[term.field]
    absent = column.codes() < 0 if isinstance(column, Words) else column.absent
    if term.kind == "present":
        return (~absent).astype(np.float64)
    if term.kind == "reference":
        known = dict(term.table.values) if term.table is not None else {}
        return _look_up(column, known)
    if term.kind == "mismatch":
        return _mismatch(column, history.fields[term.other])
    if isinstance(column, Words):
        values = history.schema.by_name[term.field].values
        return _look_up(column, {w: float(i) for i, w in enumerate(values)})
    return np.where(absent, np.nan, column.numbers.astype(np.float64))


def _look_up(column: Words | Numbers, known: Mapping[str, float]) -> Floats:
    codes = column.codes()
    if isinstance(column, Words):
        words = list(column.words)
    else:
        _, first = np.unique(codes, return_index=True)
        words = [str(column.value(int(row))) for row in first if codes[row] >= 0]
    table = np.array([*(known.get(w, np.nan) for w in words), np.nan], np.float64)
    return table[codes]


def _mismatch(a: Words | Numbers, b: Words | Numbers) -> Floats:
    if isinstance(a, Words) and isinstance(b, Words):
        places = {word: i for i, word in enumerate(a.words)}
        other = np.array([*(places.get(w, -2) for w in b.words), -1], np.int64)[b.numbers]
        absent = (a.numbers < 0) | (b.numbers < 0)
        return np.where(absent, np.nan, (a.numbers != other).astype(np.float64))
    if isinstance(a, Numbers) and isinstance(b, Numbers):
        return np.where(a.absent | b.absent, np.nan, (a.numbers != b.numbers).astype(np.float64))
    absent = (a.codes() < 0) | (b.codes() < 0)
    return np.where(absent, np.nan, 1.0)
