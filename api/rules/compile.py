"""Typed tree -> one closure, as served.

The closure takes a row (one value per used word, `None` where absent; slot 0 is the time in epoch ms) and
returns True, False, or None when a value that the rule mentions is missing. It never raises: a division by
zero is "could not be evaluated" too.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, assert_never

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
    may_be_whole,
)

FEW: Final = 4
Row = Sequence[Any]
Condition = Callable[[Row], bool | None]
Slot = Callable[[int], str]


def compile_rule(checked: Checked, slots: Mapping[str, int], lists: Mapping[str, WatchList]) -> Condition:
    """The closure of a checked rule."""
    missing = " or ".join(f"x[{slots[name]}] is None" for name in checked.required)
    guard = f"    if {missing}:\n        return None\n" if missing else ""
    source = (
        f"def condition(x):\n{guard}    try:\n        return {text_of(checked)}\n"
        "    except ArithmeticError:\n        return None\n"
    )
    space = namespace({name: lists[name] for name in checked.lists})
    exec(compile(source, "<rule>", "exec"), space)
    condition: Condition = space["condition"]
    return condition


def text_of(checked: Checked, slot: str = "x[{}]") -> str:
    """The condition as an expression over the row `x`, of which all required words have values.

    `slot`: how the text names a slot of the row.
    """
    return _text(checked.condition, slot.format)


def namespace(lists: Mapping[str, WatchList]) -> dict[str, Any]:
    """What the text of conditions over these lists may name."""
    space: dict[str, Any] = {"__builtins__": {}, "abs": abs, "min": min, "max": max}
    space["ArithmeticError"] = ArithmeticError
    return space | {f"list_{name}": found.until_ms.get for name, found in lists.items()}


def _text(node: Node, at: Slot) -> str:
    match node:
        case Constant(value):
            return repr(value)
        case Value():
            return _value(node, at)
        case Not(operand):
            return f"(not {_text(operand, at)})"
        case Logic(operator, left, right) | Compare(operator, left, right):
            return f"({_text(left, at)} {operator} {_text(right, at)})"
        case Negative(operand):
            return f"(-{_text(operand, at)})"
        case Absolute(operand):
            return f"abs({_text(operand, at)})"
        case Pick(function, left, right):
            return f"{function}({_text(left, at)}, {_text(right, at)})"
        case Arithmetic(operator, left, right):
            # Two integers would be calculated without rounding, a double with another one would not.
            lifted = " * 1.0" if may_be_whole(left) and may_be_whole(right) else ""
            return f"({_text(left, at)}{lifted} {operator} {_text(right, at)})"
        case Among(operand, values):
            # Python makes a constant set of braces: one hash instead of many comparisons.
            texts = ", ".join(repr(v.value) for v in values)
            among = f"({texts},)" if len(values) <= FEW else f"{{{texts}}}"
            return f"({_text(operand, at)} in {among})"
        case Listed(operand, name):
            return f"(list_{name}({_text(operand, at)}, 0) > {at(0)})"
        case Present(operand):
            return f"({at(operand.slot)} is not None)"
        case Otherwise(operand, other):
            return f"({_value(operand, at)} if {at(operand.slot)} is not None else {other.value!r})"
    assert_never(node)


def _value(value: Value, at: Slot) -> str:
    text = at(value.slot)
    if value.form == "flag":
        return f"({text} != 0)"
    return f"({text} * 1.0)" if value.wide else text
