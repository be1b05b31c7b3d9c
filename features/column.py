"""Columns of a history file: the same types, limits and refusals as at the door, a column at a time."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.event import ID_LENGTH_MAX, TIME_MS_MAX, holds_card_number
from features.measure import Scalar
from features.schema import Field, Kind, Schema

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_CONTROL: Final = r"[\x00-\x1f\x7f]"


class InvalidHistory(ValueError):
    """The file does not fit the schema; the message names row and column. Fix the file or the mapping."""


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """Text or categories: `numbers[n]` are places in `words`, -1 where absent."""

    numbers: Ints
    words: tuple[str, ...]

    def value(self, row: int) -> Scalar:
        """The field of one row; `None` where absent."""
        code = int(self.numbers[row])
        return None if code < 0 else self.words[code]

    def codes(self) -> Ints:
        """A number per distinct value, from 0; -1 where absent."""
        return self.numbers


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Amounts, integers and booleans as int64, numbers as float64; 0 where absent."""

    numbers: NDArray[Any]
    absent: Bools
    kind: Kind

    def value(self, row: int) -> Scalar:
        """The field of one row; `None` where absent."""
        if self.absent[row]:
            return None
        if self.kind == "boolean":
            return bool(self.numbers[row])
        return float(self.numbers[row]) if self.kind == "number" else int(self.numbers[row])

    def codes(self) -> Ints:
        """A number per distinct value, from 0; -1 where absent."""
        encoded = pa.array(self.numbers, mask=self.absent).dictionary_encode()
        found: Ints = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return found


Column = Words | Numbers


def read_column(table: Any, spec: Field, schema: Schema, scale: int | None = None) -> Column:
    """The column of one field. Raises `InvalidHistory` for the first row that the door would refuse.

    `scale`: minor units per unit of an amount (default: the schema's). Empty text and NaN are absent.
    """
    name = spec.source
    if name not in table.column_names:
        if spec.required:
            raise InvalidHistory(f"there is no column {name}, which field {spec.name} needs")
        return _absent(spec, table.num_rows)
    array = table[name].combine_chunks()
    if pa.types.is_null(array.type):
        array = array.cast(pa.string() if spec.kind in ("text", "category") else pa.int64())
    if spec.kind in ("text", "category"):
        column: Column = _words(array, spec)
        absent = column.numbers < 0
    else:
        column = _numbers(array, spec, schema, schema.amount_scale if scale is None else scale)
        absent = column.absent
    if spec.required:
        refuse(absent, name, "required")
    return column


def read_ids(table: Any, name: str) -> NDArray[np.object_]:
    """Identifiers as text. Raises `InvalidHistory`."""
    if name not in table.column_names:
        raise InvalidHistory(f"there is no column {name}")
    array = _text(table[name].combine_chunks())
    refuse(_mask(pc.fill_null(pc.equal(pc.utf8_length(array), 0), True)), name, "an id is required")
    refuse(_mask(pc.greater(pc.utf8_length(array), ID_LENGTH_MAX)), name, f"longer than {ID_LENGTH_MAX}")
    if not pa.types.is_integer(table[name].type):
        refuse(_mask(pc.match_substring_regex(array, _CONTROL)), name, "has control characters")
    suspects = np.flatnonzero(_mask(pc.match_substring_regex(array, r"(\d[ -]?){12}\d")))
    found: NDArray[np.object_] = array.to_numpy(zero_copy_only=False)
    for row in suspects:
        if holds_card_number(found[row]):
            raise InvalidHistory(f"row {row}, column {name}: looks like a card number; use a token")
    return found


def read_times(table: Any, name: str, absent: int | None = None) -> Ints:
    """Epoch milliseconds of a column of timestamps (UTC), integers (ms) or ISO 8601 texts with an offset.

    `absent`: what stands for a missing time; `None` refuses it. Raises `InvalidHistory`.
    """
    if name not in table.column_names:
        raise InvalidHistory(f"there is no column {name}")
    array = table[name].combine_chunks()
    if pa.types.is_null(array.type):
        array = array.cast(pa.int64())
    missing = _mask(pc.is_null(array, nan_is_null=True))
    if absent is None:
        refuse(missing, name, "a time is required")
    if pa.types.is_timestamp(array.type):
        per_ms = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 1_000_000)}[array.type.unit]
        times = _int64(array.cast(pa.int64())) * per_ms[0] // per_ms[1]
    elif pa.types.is_date(array.type):
        times = _int64(array.cast(pa.timestamp("ms")).cast(pa.int64()))
    elif pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        times = np.array([_iso(t, name, row) for row, t in enumerate(array.to_pylist())], np.int64)
    else:
        times = _whole(array, name, missing)
    refuse(~missing & ((times < 1) | (times > TIME_MS_MAX)), name, "is not an epoch time in milliseconds")
    return times if absent is None else np.where(missing, absent, times)


def refuse(wrong: Bools, name: str, reason: str) -> None:
    """Raises `InvalidHistory` for the first row where `wrong`."""
    if wrong.any():
        raise InvalidHistory(f"row {int(np.argmax(wrong))}, column {name}: {reason}")


def _absent(spec: Field, count: int) -> Column:
    if spec.kind in ("text", "category"):
        return Words(np.full(count, -1, np.int64), ())
    kind = np.float64 if spec.kind == "number" else np.int64
    return Numbers(np.zeros(count, kind), np.ones(count, np.bool_), spec.kind)


def _text(array: Any) -> Any:
    """As text: integers without a point, also where missing ones made them floats."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), None, array)
        try:
            array = array.cast(pa.int64())
        except pa.ArrowInvalid:
            return array.cast(pa.string())
    return array.cast(pa.string())


def _words(array: Any, spec: Field) -> Words:
    encoded = _text(array).dictionary_encode()
    numbers = _int64(encoded.indices, fill=-1)
    words = encoded.dictionary.to_pylist()
    wrong = {code: reason for code, word in enumerate(words) if (reason := _refusal(word, spec))}
    if wrong:
        row = int(np.argmax(np.isin(numbers, list(wrong))))
        raise InvalidHistory(f"row {row}, column {spec.source}: {wrong[int(numbers[row])]}")
    if "" in words:
        numbers = np.where(numbers == words.index(""), -1, numbers)
    return Words(numbers, tuple(words))


def _refusal(word: str, spec: Field) -> str | None:
    """Why the door would refuse the text; `None` if it would not."""
    if word == "":
        return None
    if spec.kind == "category" and word not in spec.values:
        return f"{word[:40]!r} is not one of: {', '.join(spec.values)}"
    if len(word) > spec.length_max:
        return f"{len(word)} characters, at most {spec.length_max}"
    if any(c < " " or c == "\x7f" for c in word):
        return "has control characters"
    if len(word) >= 13 and holds_card_number(word):
        return "looks like a card number; use a token"
    return None


def _numbers(array: Any, spec: Field, schema: Schema, scale: int) -> Numbers:
    name = spec.source
    if not (_is_number(array.type) or pa.types.is_boolean(array.type)):
        raise InvalidHistory(f"column {name}: is {array.type}, field {spec.name} is a number")
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    absent = _mask(pc.is_null(array, nan_is_null=True))
    if spec.kind == "number":
        reals: NDArray[np.float64] = array.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
        reals = np.where(absent, 0.0, reals)
        refuse(~np.isfinite(reals) | (np.abs(reals) > 1e15), name, "must be finite")
        _limit(reals, absent, name, spec.minimum, spec.maximum)
        return Numbers(reals, absent, spec.kind)
    if spec.kind == "amount":
        whole = _amounts(array, absent, scale, name)
        _limit(whole, absent, name, 0, schema.amount_max)
    else:
        whole = _whole(array, name, absent)
        low, high = (0, 1) if spec.kind == "boolean" else (-(2**53), 2**53)
        least = low if spec.minimum is None else spec.minimum
        _limit(whole, absent, name, least, high if spec.maximum is None else spec.maximum)
    return Numbers(whole, absent, spec.kind)


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _amounts(array: Any, absent: Bools, scale: int, name: str) -> Ints:
    """Minor units: the amount times `scale`, rounded half to even."""
    if pa.types.is_integer(array.type):
        return _int64(array) * scale
    units = array.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
    scaled = np.where(absent, 0.0, units) * scale
    refuse(~np.isfinite(scaled) | (np.abs(scaled) > 2**53), name, "must be finite")
    return np.rint(scaled).astype(np.int64)


def _whole(array: Any, name: str, absent: Bools) -> Ints:
    if pa.types.is_integer(array.type):
        return _int64(array)
    if not _is_number(array.type):
        raise InvalidHistory(f"column {name}: is {array.type}, integers are needed")
    reals = np.where(absent, 0.0, array.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False))
    refuse((reals != np.rint(reals)) | (np.abs(reals) > 2**53), name, "must be an integer")
    return reals.astype(np.int64)


def _limit(numbers: NDArray[Any], absent: Bools, name: str, low: float | None, high: float | None) -> None:
    if low is not None:
        refuse(~absent & (numbers < low), name, f"below {low:g}")
    if high is not None:
        refuse(~absent & (numbers > high), name, f"above {high:g}")


def _int64(array: Any, fill: int = 0) -> Ints:
    found: Ints = array.fill_null(fill).to_numpy(zero_copy_only=False).astype(np.int64)
    return found


def _mask(array: Any) -> Bools:
    found: Bools = np.asarray(pc.fill_null(array, False).to_numpy(zero_copy_only=False), np.bool_)
    return found


def _iso(text: str | None, name: str, row: int) -> int:
    if text is None:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidHistory(f"row {row}, column {name}: not ISO 8601") from None
    if moment.tzinfo is None:
        raise InvalidHistory(f"row {row}, column {name}: has no UTC offset")
    return round(moment.timestamp() * 1000)
