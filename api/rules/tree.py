"""A rule after its types were checked: a small tree that two compilers read (compile.py, columns.py).

Numbers are IEEE doubles in both. `whole` says that a value may arrive as a Python integer (amounts, the
score); the scalar form compares those as they are and turns them into doubles before it calculates.
"""

from dataclasses import dataclass
from typing import Literal

Form = Literal["number", "flag", "text"]


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal in the unit of what it meets: money in minor units."""

    value: int | float | str | bool


@dataclass(frozen=True, slots=True)
class Value:
    """A word's value. `wide`: a 64-bit integer, which a double may not hold exactly."""

    name: str
    slot: int
    form: Form
    whole: bool = False
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Not:
    """`not x`."""

    operand: "Node"


@dataclass(frozen=True, slots=True)
class Logic:
    """`and`, `or`: the right side counts only where the left does not decide."""

    operator: Literal["and", "or"]
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Negative:
    """`-x`."""

    operand: "Node"


@dataclass(frozen=True, slots=True)
class Absolute:
    """`abs(x)`."""

    operand: "Node"


@dataclass(frozen=True, slots=True)
class Pick:
    """`min(a, b)`, `max(a, b)`."""

    function: Literal["min", "max"]
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`+ - * /`. A division by zero is a fault: the rule could not be evaluated."""

    operator: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Compare:
    """`< <= > >= == !=` of two numbers, flags or texts."""

    operator: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Among:
    """`x in [..]`."""

    operand: "Node"
    values: tuple[Constant, ...]


@dataclass(frozen=True, slots=True)
class Listed:
    """`x in @name`: the entry has not expired at the time of the decision."""

    operand: Value
    name: str


@dataclass(frozen=True, slots=True)
class Present:
    """`present(x)`."""

    operand: Value


@dataclass(frozen=True, slots=True)
class Otherwise:
    """`value_or(x, literal)`."""

    operand: Value
    other: Constant


Node = (
    Constant | Value | Not | Logic | Negative | Absolute | Pick | Arithmetic | Compare | Among | Listed
    | Present | Otherwise
)  # fmt: skip


def may_be_whole(node: Node) -> bool:
    """Whether the scalar form may hold a Python integer here."""
    match node:
        case Constant(value):
            return isinstance(value, int)
        case Value():
            return node.whole and not node.wide
        case Negative(operand) | Absolute(operand):
            return may_be_whole(operand)
        case Pick(_, left, right):
            return may_be_whole(left) or may_be_whole(right)
        case Otherwise(operand, other):
            return may_be_whole(operand) or may_be_whole(other)
    return False
