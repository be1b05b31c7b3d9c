"""Typed tree over whole columns: the form that backtests use, equal to the compiled closure row by row.

Absent numbers are NaN, absent texts have the code -1. Every node gives its values and where it faulted (a
division by zero); `and` and `or` look at their right side's faults only where the left side does not decide,
as the closure does.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, assert_never

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from api.rules.check import Checked
from api.rules.lists import WatchList
from api.rules.tree import (
    Absolute,
    Among,
    Arithmetic,
    Compare,
    Constant,
    Listed,
    Logic,
    Negative,
    Node,
    Not,
    Otherwise,
    Pick,
    Present,
    Value,
)

Flags = NDArray[np.bool_]
Doubles = NDArray[np.float64]
_Faults = Any
"""Flags, one for all rows, or `None`: nowhere."""
_OPERATORS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


@dataclass(frozen=True, slots=True)
class Texts:
    """A column of texts: places in `words`, int32 [n], -1 where absent."""

    codes: NDArray[np.int32]
    words: pa.StringArray


class Columns(Protocol):
    """Stored decisions, column by column."""

    @property
    def rows(self) -> int:
        """How many decisions."""

    @property
    def now_ms(self) -> NDArray[np.int64]:
        """When each was decided."""

    def numbers(self, name: str) -> Doubles:
        """A word that is a number, an amount or a flag; NaN where absent."""

    def texts(self, name: str) -> Texts:
        """A word that is a text or an id."""

    def present(self, name: str) -> Flags:
        """Where the word has a value."""


def evaluate(checked: Checked, lists: Mapping[str, WatchList], columns: Columns) -> tuple[Flags, Flags]:
    """Where the rule hits, and where it could be evaluated."""
    with np.errstate(all="ignore"):
        values, faults = _Walk(lists, columns).flags(checked.condition)
    able = np.ones(columns.rows, np.bool_)
    for name in checked.required:
        able &= columns.present(name)
    if faults is not None:
        able &= ~np.asarray(faults)
    return able & values, able


class _Walk:
    def __init__(self, lists: Mapping[str, WatchList], columns: Columns) -> None:
        self.lists = lists
        self.columns = columns

    def flags(self, node: Node) -> tuple[Any, _Faults]:
        match node:
            case Constant(value):
                return np.bool_(value), None
            case Value(name):
                return self.columns.numbers(name) != 0, None
            case Not(operand):
                values, faults = self.flags(operand)
                return ~values, faults
            case Logic():
                return self._logic(node)
            case Compare():
                return self._compare(node)
            case Among():
                return self._among(node)
            case Listed(operand, name):
                return self._listed(operand, self.lists[name]), None
            case Present(operand):
                return self.columns.present(operand.name), None
            case Otherwise(operand, other):
                values = self.columns.numbers(operand.name) != 0
                return np.where(self.columns.present(operand.name), values, np.bool_(other.value)), None
            case Negative() | Absolute() | Pick() | Arithmetic():
                raise TypeError(node)
        assert_never(node)

    def _logic(self, node: Logic) -> tuple[Any, _Faults]:
        left, before = self.flags(node.left)
        right, after = self.flags(node.right)
        if after is not None:
            after = after & (left if node.operator == "and" else ~left)
        values = left & right if node.operator == "and" else left | right
        return values, _either(before, after)

    def _compare(self, node: Compare) -> tuple[Any, _Faults]:
        form = _form(node.left)
        if form == "text":
            same = self._same_text(node.left, node.right)
            return same if node.operator == "==" else ~same, None
        part = self.flags if form == "flag" else self.numbers
        left, before = part(node.left)
        right, after = part(node.right)
        return _OPERATORS[node.operator](left, right), _either(before, after)

    def numbers(self, node: Node) -> tuple[Any, _Faults]:
        match node:
            case Constant(value):
                return np.float64(value), None
            case Value(name):
                return self.columns.numbers(name), None
            case Negative(operand):
                values, faults = self.numbers(operand)
                return -values, faults
            case Absolute(operand):
                values, faults = self.numbers(operand)
                return np.abs(values), faults
            case Pick(function, left_node, right_node):
                left, before = self.numbers(left_node)
                right, after = self.numbers(right_node)
                # Python's own choice between equals and beside NaN.
                second = right < left if function == "min" else right > left
                return np.where(second, right, left), _either(before, after)
            case Arithmetic(sign, left_node, right_node):
                left, before = self.numbers(left_node)
                right, after = self.numbers(right_node)
                if sign == "/":
                    after = _either(after, right == 0)
                return _OPERATORS[sign](left, right), _either(before, after)
            case Otherwise(operand, other):
                values = self.columns.numbers(operand.name)
                return np.where(self.columns.present(operand.name), values, np.float64(other.value)), None
            case Not() | Logic() | Compare() | Among() | Listed() | Present():
                raise TypeError(node)
        assert_never(node)

    def _among(self, node: Among) -> tuple[Any, _Faults]:
        if _form(node.operand) == "text":
            wanted = pa.array([str(v.value) for v in node.values], pa.string())
            if isinstance(node.operand, Constant):
                return np.bool_(node.operand.value in wanted.to_pylist()), None
            texts = self._texts(node.operand)
            return _of_words(texts, pc.is_in(texts.words, wanted).to_numpy(zero_copy_only=False)), None
        values, faults = self.numbers(node.operand)
        found = np.bool_(False)
        for value in node.values:
            found = found | (values == np.float64(value.value))
        return found, faults

    def _listed(self, operand: Value, listed: WatchList) -> Flags:
        texts = self._texts(operand)
        keys = pa.array(listed.until_ms.keys(), pa.string())
        until = np.array([*listed.until_ms.values(), 0], np.int64)
        places = pc.fill_null(pc.index_in(texts.words, keys), len(keys)).to_numpy(zero_copy_only=False)
        # Absent ones look at the last entry, 0: never listed.
        found: Flags = np.append(until[places], 0)[texts.codes] > self.columns.now_ms
        return found

    def _texts(self, node: Node) -> Texts:
        if isinstance(node, Otherwise):
            texts, word = self.columns.texts(node.operand.name), str(node.other.value)
            words = pa.concat_arrays([texts.words, pa.array([word], pa.string())])
            place = pc.index(words, word).as_py()
            return Texts(np.where(texts.codes < 0, np.int32(place), texts.codes), words)
        if isinstance(node, Value):
            return self.columns.texts(node.name)
        raise TypeError(node)

    def _same_text(self, left: Node, right: Node) -> Any:
        if isinstance(left, Constant):
            if isinstance(right, Constant):
                return np.bool_(left.value == right.value)
            left, right = right, left
        texts = self._texts(left)
        if isinstance(right, Constant):
            # Nowhere is -1, and so is absent: but neither equals the word.
            place = pc.index(texts.words, str(right.value)).as_py()
            return texts.codes == (place if place >= 0 else -2)
        others = self._texts(right)
        places = pc.fill_null(pc.index_in(texts.words, others.words), -2).to_numpy(zero_copy_only=False)
        return np.append(places, -3)[texts.codes] == others.codes


def _of_words(texts: Texts, flags: Flags) -> Flags:
    """Flags of words as flags of rows; absent ones are none of them."""
    found: Flags = np.append(flags, False)[texts.codes]
    return found


def _either(before: _Faults, after: _Faults) -> _Faults:
    if before is None or after is None:
        return before if after is None else after
    return before | after


def _form(node: Node) -> str:
    match node:
        case Constant(value):
            return "text" if isinstance(value, str) else "flag" if isinstance(value, bool) else "number"
        case Value():
            return node.form
        case Otherwise(operand):
            return operand.form
        case Negative() | Absolute() | Pick() | Arithmetic():
            return "number"
    return "flag"
