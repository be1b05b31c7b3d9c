"""Static types: the tree as it was written -> a typed tree, or an error with a place and a suggestion."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal, cast

from api.rules import tree
from api.rules.lists import WatchList
from api.rules.syntax import Binary, Call, Member, Name, Node, Number, RuleError, Sentence, Text, Truth, Unary
from api.rules.vocabulary import Type, Vocabulary, Word, suggestion

DIGITS_MAX = 15
_NUMERIC = (Type.NUMBER, Type.MONEY)


@dataclass(frozen=True, slots=True)
class Checked:
    """A rule that may be compiled. `required`: words that must have a value; others may be absent.
    `lists`: names of the lists that it looks into."""

    condition: tree.Node
    required: tuple[str, ...]
    lists: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Typed:
    node: tree.Node
    type: Type
    literal: Decimal | None = None
    word: Word | None = None


def check(
    sentence: Sentence, vocabulary: Vocabulary, slots: dict[str, int], lists: Mapping[str, WatchList]
) -> Checked:
    """Types of a rule; `slots` grows by the words that it uses. Raises `RuleError`."""
    checker = _Checker(sentence.text, vocabulary, slots, lists)
    found = checker.visit(sentence.condition)
    if found.type is not Type.FLAG:
        raise RuleError(
            f"the condition is {found.type}, it must be true or false", sentence.text, sentence.condition.at
        )
    return Checked(found.node, _once(checker.required), _once(checker.used))


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


class _Checker:
    def __init__(
        self, text: str, vocabulary: Vocabulary, slots: dict[str, int], lists: Mapping[str, WatchList]
    ) -> None:
        self.text = text
        self.vocabulary = vocabulary
        self.slots = slots
        self.lists = lists
        self.required: list[str] = []
        self.used: list[str] = []

    def visit(self, node: Node) -> _Typed:
        match node:
            case Number():
                return self._number(node)
            case Text(value):
                return _Typed(tree.Constant(value), Type.TEXT)
            case Truth(value):
                return _Typed(tree.Constant(value), Type.FLAG)
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

    def _number(self, node: Number) -> _Typed:
        if len(node.value.as_tuple().digits) > DIGITS_MAX or abs(node.value) >= 10**DIGITS_MAX:
            raise self._error(f"a number has at most {DIGITS_MAX} digits", node)
        return _Typed(_constant(node.value), Type.NUMBER, node.value)

    def _name(self, node: Name, *, required: bool = True) -> _Typed:
        word = self.vocabulary.words.get(node.name)
        if word is None:
            raise self._error(f"unknown name {node.name!r}{self.vocabulary.suggest(node.name)}", node)
        slot = self.slots.setdefault(node.name, len(self.slots) + 1)
        if required:
            self.required.append(node.name)
        form: tree.Form = "flag" if word.type is Type.FLAG else "number" if word.type in _NUMERIC else "text"
        return _Typed(tree.Value(node.name, slot, form, word.whole, word.wide), word.type, word=word)

    def _unary(self, node: Unary) -> _Typed:
        inner = self.visit(node.operand)
        if node.operator == "not":
            self._want(inner, (Type.FLAG,), node.operand)
            return _Typed(tree.Not(inner.node), Type.FLAG)
        self._want(inner, _NUMERIC, node.operand)
        if inner.literal is not None:
            return _Typed(_constant(-inner.literal), inner.type, -inner.literal)
        return _Typed(tree.Negative(inner.node), inner.type)

    def _logic(self, node: Binary) -> _Typed:
        left, right = self.visit(node.left), self.visit(node.right)
        self._want(left, (Type.FLAG,), node.left)
        self._want(right, (Type.FLAG,), node.right)
        operator = cast(Literal["and", "or"], node.operator)
        return _Typed(tree.Logic(operator, left.node, right.node), Type.FLAG)

    def _arithmetic(self, node: Binary) -> _Typed:
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
        return _Typed(tree.Arithmetic(node.operator, _double(left.node), _double(right.node)), kind)

    def _comparison(self, node: Binary) -> _Typed:
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
        parts = _alike(left.node, right.node), _alike(right.node, left.node)
        return _Typed(tree.Compare(node.operator, *parts), Type.FLAG)

    def _member(self, node: Member) -> _Typed:
        operand = self.visit(node.operand)
        if isinstance(node.listed, str):
            found: tree.Node = self._in_list(operand, node, node.listed)
        else:
            found = self._in_values(operand, node, node.listed)
        return _Typed(tree.Not(found) if node.negated else found, Type.FLAG)

    def _in_list(self, operand: _Typed, node: Member, name: str) -> tree.Listed:
        listed = self.lists.get(name)
        if listed is None:
            raise self._error(f"unknown list @{name}{suggestion(name, self.lists)}", node)
        if not isinstance(operand.node, tree.Value) or operand.node.name != listed.of:
            raise self._error(f"@{name} lists values of {listed.of}", node)
        self.used.append(name)
        return tree.Listed(operand.node, name)

    def _in_values(self, operand: _Typed, node: Member, values: tuple[Number | Text, ...]) -> tree.Among:
        if operand.type is Type.ID:
            raise self._error("ids are looked up in lists: write `in @list`", node)
        found = []
        for value in values:
            item = self.visit(value)
            if operand.type in _NUMERIC and item.type in _NUMERIC:
                item = self._same(operand, item, node)[1]
            elif item.type is not operand.type:
                raise self._error(f"{operand.type} cannot be among values that are {item.type}", value)
            self._choice(operand, value)
            found.append(_alike(item.node, operand.node))
        return tree.Among(operand.node, tuple(c for c in found if isinstance(c, tree.Constant)))

    def _call(self, node: Call) -> _Typed:
        if node.function in ("present", "value_or"):
            return self._optional(node)
        parts = [self.visit(a) for a in node.arguments]
        for part, argument in zip(parts, node.arguments, strict=True):
            self._want(part, _NUMERIC, argument)
        if len(parts) == 1:
            return _Typed(tree.Absolute(parts[0].node), parts[0].type)
        left, right = self._same(parts[0], parts[1], node)
        function = cast(Literal["min", "max"], node.function)
        picked = tree.Pick(function, _alike(left.node, right.node), _alike(right.node, left.node))
        return _Typed(picked, left.type)

    def _optional(self, node: Call) -> _Typed:
        name = node.arguments[0]
        if not isinstance(name, Name):
            raise self._error(f"{node.function} takes a name", node)
        word = self._name(name, required=False)
        if not isinstance(word.node, tree.Value):
            raise self._error(f"{node.function} takes a name", node)
        if node.function == "present":
            return _Typed(tree.Present(word.node), Type.FLAG)
        given = node.arguments[1]
        other = self.visit(given)
        if not isinstance(other.node, tree.Constant):
            raise self._error("value_or takes a literal as its second argument", given)
        if word.type in _NUMERIC and other.type in _NUMERIC:
            other = self._same(word, other, node)[1]
        elif word.type is not other.type or word.type is Type.ID:
            raise self._error(f"{name.name} is {word.type}, not {other.type}", given)
        self._choice(word, given)
        constant = _alike(other.node, word.node)
        if not isinstance(constant, tree.Constant):
            raise self._error("value_or takes a literal as its second argument", given)
        return _Typed(tree.Otherwise(word.node, constant), word.type)

    def _same(self, left: _Typed, right: _Typed, node: Node) -> tuple[_Typed, _Typed]:
        """Both sides in one unit: a literal beside money becomes minor units."""
        if left.type is right.type:
            return left, right
        if left.literal is not None:
            return self._minor(left.literal, node), right
        if right.literal is not None:
            return left, self._minor(right.literal, node)
        raise self._error("money and a plain number do not mix; compare money with money", node)

    def _minor(self, value: Decimal, node: Node) -> _Typed:
        scaled = value * 10**self.vocabulary.minor_digits
        if scaled != scaled.to_integral_value():
            digits = self.vocabulary.minor_digits
            raise self._error(f"{value} has more than {digits} digits behind the point", node)
        return _Typed(tree.Constant(int(scaled)), Type.MONEY)

    def _choice(self, code: _Typed, other: Node) -> None:
        choices = code.word.choices if code.word is not None else ()
        if choices and isinstance(other, Text) and other.value not in choices:
            name = code.word.name if code.word is not None else ""
            raise self._error(f"{name} is never {other.value!r}{suggestion(other.value, choices)}", other)

    def _want(self, code: _Typed, types: tuple[Type, ...], node: Node) -> None:
        if code.type not in types:
            raise self._error(f"this is {code.type}, but {types[0]} is needed", node)

    def _error(self, message: str, node: Node) -> RuleError:
        return RuleError(message, self.text, node.at)


def _constant(value: Decimal) -> tree.Constant:
    return tree.Constant(int(value) if value == value.to_integral_value() else float(value))


def _double(node: tree.Node) -> tree.Node:
    """A number that is calculated with is a double."""
    if isinstance(node, tree.Constant) and isinstance(node.value, int):
        return tree.Constant(float(node.value))
    return node


def _alike(node: tree.Node, other: tree.Node) -> tree.Node:
    """A constant as the double or integer that it meets: comparing equals of one kind is faster."""
    if isinstance(node, tree.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool):
        return node if tree.may_be_whole(other) else replace(node, value=float(node.value))
    return node
