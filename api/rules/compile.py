"""Tree of a rule -> static types -> one closure.

The closure takes a row (one value per used word, `None` where absent; slot 0 is the time in epoch ms) and
returns True, False, or None when a value that the rule mentions is missing. It never raises: a division by
zero is "could not be evaluated" too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from api.rules.lists import WatchList
from api.rules.syntax import Binary, Call, Member, Name, Node, Number, RuleError, Sentence, Text, Truth, Unary
from api.rules.vocabulary import Type, Vocabulary, Word, suggestion

Row = Sequence[Any]
Condition = Callable[[Row], bool | None]
_NUMERIC = (Type.NUMBER, Type.MONEY)


@dataclass(frozen=True, slots=True)
class Compiled:
    """`words[name]` is the row slot of each word; `required` must be there, others may be absent."""

    condition: Condition
    required: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class _Code:
    text: str
    type: Type
    literal: Decimal | None = None
    word: Word | None = None


def compile_rule(
    sentence: Sentence,
    vocabulary: Vocabulary,
    slots: dict[str, int],
    lists: Mapping[str, WatchList],
) -> Compiled:
    """Check and compile; `slots` grows by the words that the rule uses. Raises `RuleError`."""
    compiler = _Compiler(sentence.text, vocabulary, slots, lists)
    code = compiler.visit(sentence.condition)
    if code.type is not Type.FLAG:
        raise RuleError(f"the condition is {code.type}, it must be true or false", sentence.text, 0)
    required = tuple(dict.fromkeys(compiler.required))
    missing = " or ".join(f"x[{slots[name]}] is None" for name in required)
    guard = f"    if {missing}:\n        return None\n" if missing else ""
    source = (
        f"def condition(x):\n{guard}    try:\n        return {code.text}\n"
        "    except ArithmeticError:\n        return None\n"
    )
    space: dict[str, Any] = {"__builtins__": {}, "abs": abs, "min": min, "max": max}
    space |= {"ArithmeticError": ArithmeticError, **compiler.constants}
    exec(compile(source, "<rule>", "exec"), space)
    return Compiled(space["condition"], required, source)


class _Compiler:
    def __init__(
        self, text: str, vocabulary: Vocabulary, slots: dict[str, int], lists: Mapping[str, WatchList]
    ) -> None:
        self.text = text
        self.vocabulary = vocabulary
        self.slots = slots
        self.lists = lists
        self.required: list[str] = []
        self.constants: dict[str, Any] = {}

    def visit(self, node: Node) -> _Code:
        match node:
            case Number(value):
                return _Code(_number(value), Type.NUMBER, value)
            case Text(value):
                return _Code(repr(value), Type.TEXT)
            case Truth(value):
                return _Code(repr(value), Type.FLAG)
            case Name():
                return self._name(node)
            case Unary():
                return self._unary(node)
            case Member():
                return self._member(node)
            case Call():
                return self._call(node)
            case Binary(operator):
                if operator in ("and", "or"):
                    return self._logic(node)
                if operator in ("+", "-", "*", "/"):
                    return self._arithmetic(node)
                return self._comparison(node)

    def _name(self, node: Name, *, required: bool = True) -> _Code:
        word = self.vocabulary.words.get(node.name)
        if word is None:
            raise self._error(f"unknown name {node.name!r}{self.vocabulary.suggest(node.name)}", node)
        slot = self.slots.setdefault(node.name, len(self.slots) + 1)
        if required:
            self.required.append(node.name)
        text = f"(x[{slot}] != 0)" if word.type is Type.FLAG else f"x[{slot}]"
        return _Code(text, word.type, word=word)

    def _unary(self, node: Unary) -> _Code:
        inner = self.visit(node.operand)
        if node.operator == "not":
            self._want(inner, (Type.FLAG,), node.operand)
            return _Code(f"(not {inner.text})", Type.FLAG)
        self._want(inner, _NUMERIC, node.operand)
        literal = None if inner.literal is None else -inner.literal
        return _Code(f"(-{inner.text})", inner.type, literal)

    def _logic(self, node: Binary) -> _Code:
        left, right = self.visit(node.left), self.visit(node.right)
        self._want(left, (Type.FLAG,), node.left)
        self._want(right, (Type.FLAG,), node.right)
        return _Code(f"({left.text} {node.operator} {right.text})", Type.FLAG)

    def _arithmetic(self, node: Binary) -> _Code:
        left, right = self.visit(node.left), self.visit(node.right)
        self._want(left, _NUMERIC, node.left)
        self._want(right, _NUMERIC, node.right)
        if node.operator in ("+", "-"):
            left, right = self._same(left, right, node)
            kind = left.type
        elif node.operator == "*":
            if left.type is right.type is Type.MONEY:
                raise self._error("money times money means nothing", node)
            kind = Type.MONEY if Type.MONEY in (left.type, right.type) else Type.NUMBER
        elif right.type is Type.MONEY:
            left, right = self._same(left, right, node)
            kind = Type.NUMBER
        else:
            kind = left.type
        return _Code(f"({left.text} {node.operator} {right.text})", kind)

    def _comparison(self, node: Binary) -> _Code:
        left, right = self.visit(node.left), self.visit(node.right)
        if left.type in _NUMERIC and right.type in _NUMERIC:
            left, right = self._same(left, right, node)
        elif left.type is not right.type:
            raise self._error(f"{left.type} cannot be compared with {right.type}", node)
        elif left.type is Type.ID:
            raise self._error("ids are looked up in lists: write `in @list`", node)
        elif node.operator not in ("==", "!="):
            raise self._error(f"{left.type} has no order; use == or !=", node)
        elif left.type is Type.TEXT:
            self._choice(left, node.right)
            self._choice(right, node.left)
        return _Code(f"({left.text} {node.operator} {right.text})", Type.FLAG)

    def _member(self, node: Member) -> _Code:
        operand = self.visit(node.operand)
        if isinstance(node.listed, str):
            text = self._in_list(operand, node, node.listed)
        else:
            text = self._in_values(operand, node, node.listed)
        return _Code(f"(not {text})" if node.negated else text, Type.FLAG)

    def _in_list(self, operand: _Code, node: Member, name: str) -> str:
        listed = self.lists.get(name)
        if listed is None:
            raise self._error(f"unknown list @{name}{suggestion(name, self.lists)}", node)
        if operand.word is None or operand.word.name != listed.of:
            raise self._error(f"@{name} lists values of {listed.of}", node)
        self.constants[f"list_{name}"] = listed.until_ms.get
        return f"(list_{name}({operand.text}, 0) > x[0])"

    def _in_values(self, operand: _Code, node: Member, values: tuple[Number | Text, ...]) -> str:
        if operand.type is Type.ID:
            raise self._error("ids are looked up in lists: write `in @list`", node)
        texts = []
        for value in values:
            item = self.visit(value)
            if operand.type in _NUMERIC and item.type in _NUMERIC:
                item = self._same(operand, item, node)[1]
            elif item.type is not operand.type:
                raise self._error(f"{operand.type} cannot be among values that are {item.type}", value)
            self._choice(operand, value)
            texts.append(item.text)
        return f"({operand.text} in ({', '.join(texts)},))"

    def _call(self, node: Call) -> _Code:
        if node.function in ("present", "value_or"):
            return self._optional(node)
        parts = [self.visit(a) for a in node.arguments]
        for part, argument in zip(parts, node.arguments, strict=True):
            self._want(part, _NUMERIC, argument)
        if len(parts) == 2:
            parts = list(self._same(parts[0], parts[1], node))
        return _Code(f"{node.function}({', '.join(p.text for p in parts)})", parts[0].type)

    def _optional(self, node: Call) -> _Code:
        name = node.arguments[0]
        if not isinstance(name, Name):
            raise self._error(f"{node.function} takes a name", node)
        word = self._name(name, required=False)
        slot = f"x[{self.slots[name.name]}]"
        if node.function == "present":
            return _Code(f"({slot} is not None)", Type.FLAG)
        other = self.visit(node.arguments[1])
        if not isinstance(node.arguments[1], Number | Text | Truth):
            raise self._error("value_or takes a literal as its second argument", node)
        if word.type in _NUMERIC and other.type in _NUMERIC:
            other = self._same(word, other, node)[1]
        elif word.type is not other.type or word.type is Type.ID:
            raise self._error(f"{name.name} is {word.type}, not {other.type}", node.arguments[1])
        return _Code(f"({word.text} if {slot} is not None else {other.text})", word.type)

    def _same(self, left: _Code, right: _Code, node: Node) -> tuple[_Code, _Code]:
        """Both sides in one unit: a literal beside money becomes minor units."""
        if left.type is right.type:
            return left, right
        if left.literal is not None:
            return self._minor(left.literal, node), right
        if right.literal is not None:
            return left, self._minor(right.literal, node)
        raise self._error("money and a plain number do not mix; compare money with money", node)

    def _minor(self, value: Decimal, node: Node) -> _Code:
        scaled = value * 10**self.vocabulary.minor_digits
        if scaled != scaled.to_integral_value():
            digits = self.vocabulary.minor_digits
            raise self._error(f"{value} has more than {digits} digits behind the point", node)
        return _Code(str(int(scaled)), Type.MONEY)

    def _choice(self, code: _Code, other: Node) -> None:
        choices = code.word.choices if code.word is not None else ()
        if choices and isinstance(other, Text) and other.value not in choices:
            name = code.word.name if code.word is not None else ""
            raise self._error(f"{name} is never {other.value!r}{suggestion(other.value, choices)}", other)

    def _want(self, code: _Code, types: tuple[Type, ...], node: Node) -> None:
        if code.type not in types:
            raise self._error(f"this is {code.type}, but {types[0]} is needed", node)

    def _error(self, message: str, node: Node) -> RuleError:
        return RuleError(message, self.text, node.at)


def _number(value: Decimal) -> str:
    return str(int(value)) if value == value.to_integral_value() else repr(float(value))
