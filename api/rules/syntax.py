"""Text of a rule -> tokens -> tree. The language has no loops, attributes, assignments or free calls.

::

    rule        action "if" either
    either      both ("or" both)*
    both        negation ("and" negation)*
    negation    "not" negation | comparison
    comparison  sum [("<" | "<=" | ">" | ">=" | "==" | "!=") sum | ["not"] "in" (list | "@" name)]
    sum         product (("+" | "-") product)*
    product     factor (("*" | "/") factor)*
    factor      "-" factor | number | text | "true" | "false" | name | call | "(" either ")"
    call        ("abs" | "min" | "max" | "present" | "value_or") "(" either ("," either)* ")"
    list        "[" literal ("," literal)* "]"
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

TEXT_LENGTH_MAX = 2_000
NODES_MAX = 200
DEPTH_MAX = 24
LINE_SHOWN = 60
FUNCTIONS = {"abs": 1, "min": 2, "max": 2, "present": 1, "value_or": 2}


ACTIONS = ("allow", "challenge", "review", "decline")


class RuleError(ValueError):
    """The rule is refused: `line` and `column` (from 1) say where, the message says why and what to do.

    Below the message stands the line itself with a caret under the place.
    """

    def __init__(self, message: str, text: str = "", at: int = 0) -> None:
        self.line = text.count("\n", 0, at) + 1
        self.column = at - (text.rfind("\n", 0, at) + 1) + 1
        self.reason = message
        shown = text.splitlines()[self.line - 1].expandtabs(1) if at < len(text) else text.rsplit("\n", 1)[-1]
        start = max(0, self.column - LINE_SHOWN)
        pointed = f"\n    {shown[start : start + 2 * LINE_SHOWN]}\n    {' ' * (self.column - 1 - start)}^"
        super().__init__(f"line {self.line}, column {self.column}: {message}{pointed if text else ''}")


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written: `500.00` may become minor units beside money."""

    value: Decimal
    at: int


@dataclass(frozen=True, slots=True)
class Text:
    """A text in quotes."""

    value: str
    at: int


@dataclass(frozen=True, slots=True)
class Truth:
    """`true` or `false`."""

    value: bool
    at: int


@dataclass(frozen=True, slots=True)
class Name:
    """A word of the vocabulary."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Unary:
    """`not x` or `-x`."""

    operator: str
    operand: "Node"
    at: int


@dataclass(frozen=True, slots=True)
class Binary:
    """`and or < <= > >= == != + - * /`."""

    operator: str
    left: "Node"
    right: "Node"
    at: int


@dataclass(frozen=True, slots=True)
class Member:
    """`x in [..]` or `x in @list`; `listed` is the list's name or the literals."""

    operand: "Node"
    listed: "str | tuple[Number | Text, ...]"
    negated: bool
    at: int


@dataclass(frozen=True, slots=True)
class Call:
    """One of the listed functions."""

    function: str
    arguments: tuple["Node", ...]
    at: int


Node = Number | Text | Truth | Name | Unary | Binary | Member | Call
_Part = Callable[[], Node]


@dataclass(frozen=True, slots=True)
class Sentence:
    """A whole rule: the action and its condition."""

    action: str
    condition: Node
    text: str


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d[\d_]*(?:\.\d+)?)|(?P<text>\"[^\"\n]*\"|'[^'\n]*')|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<list>@[A-Za-z_]\w*)|(?P<mark><=|>=|==|!=|[<>+\-*/(),\[\]]))"
)
_KEYWORDS = {"and", "or", "not", "in", "if", "true", "false"}


def parse(text: str) -> Sentence:
    """The tree of a rule. Raises `RuleError`."""
    if len(text) > TEXT_LENGTH_MAX:
        raise RuleError(f"the rule has {len(text)} characters, at most {TEXT_LENGTH_MAX}")
    return _Parser(text).sentence()


def _tokens(text: str) -> list[_Token]:
    found, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            hint = {"=": "; compare with ==", "&": "; write and", "|": "; write or", ".": "; no attributes"}
            raise RuleError(f"unexpected {text[at]!r}{hint.get(text[at], '')}", text, at)
        kind = match.lastgroup
        word = match.group(kind)
        if kind == "name" and word in _KEYWORDS:
            kind = "keyword"
        found.append(_Token(kind, word, match.start(kind if kind != "keyword" else "name")))
        at = match.end()
    found.append(_Token("end", "the end of the rule", len(text)))
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.next = 0
        self.nodes = 0
        self.depth = 0

    def sentence(self) -> Sentence:
        first = self._take()
        if first.kind != "name" or first.text not in ACTIONS:
            raise self._error(f"a rule starts with {', '.join(ACTIONS)}, not {first.text!r}", first)
        self._expect("if")
        condition = self._either()
        if self._peek().kind != "end":
            raise self._error(f"unexpected {self._peek().text!r}", self._peek())
        return Sentence(first.text, condition, self.text)

    def _either(self) -> Node:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise self._error(f"more than {DEPTH_MAX} levels of nesting", self._peek())
        found = self._chain(("or",), lambda: self._chain(("and",), self._negation))
        self.depth -= 1
        return found

    def _chain(self, operators: tuple[str, ...], part: _Part) -> Node:
        left = part()
        while (token := self._peek()).text in operators and token.kind in ("keyword", "mark"):
            self.next += 1
            left = self._count(Binary(token.text, left, part(), token.at))
        return left

    def _negation(self) -> Node:
        token = self._peek()
        if token.text == "not" and token.kind == "keyword":
            return self._nested("not", self._negation)
        return self._comparison()

    def _nested(self, operator: str, part: _Part) -> Node:
        token = self._take()
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise self._error(f"more than {DEPTH_MAX} levels of nesting", token)
        found = self._count(Unary(operator, part(), token.at))
        self.depth -= 1
        return found

    def _comparison(self) -> Node:
        left = self._sum()
        token = self._peek()
        if token.kind == "mark" and token.text in ("<", "<=", ">", ">=", "==", "!="):
            self.next += 1
            found = self._count(Binary(token.text, left, self._sum(), token.at))
            if self._peek().text in ("<", "<=", ">", ">=", "==", "!="):
                raise self._error("comparisons do not chain; write a < b and b < c", self._peek())
            return found
        if token.text in ("in", "not") and token.kind == "keyword":
            self.next += 1
            if token.text == "not":
                self._expect("in")
            return self._count(Member(left, self._listed(), token.text == "not", token.at))
        return left

    def _listed(self) -> "str | tuple[Number | Text, ...]":
        token = self._take()
        if token.kind == "list":
            return token.text[1:]
        if token.text != "[":
            raise self._error("after `in` comes @list or [value, …]", token)
        items: list[Number | Text] = []
        while True:
            item = self._factor()
            if not isinstance(item, Number | Text):
                raise self._error("a list holds numbers or texts", token)
            items.append(item)
            closing = self._take()
            if closing.text == "]":
                return tuple(items)
            if closing.text != ",":
                raise self._error(f"expected , or ] but found {closing.text!r}", closing)

    def _sum(self) -> Node:
        return self._chain(("+", "-"), lambda: self._chain(("*", "/"), self._factor))

    def _factor(self) -> Node:
        token = self._peek()
        if token.text == "-" and token.kind == "mark":
            return self._nested("-", self._factor)
        self.next += 1
        if token.kind == "number":
            return self._count(Number(Decimal(token.text.replace("_", "")), token.at))
        if token.kind == "text":
            return self._count(Text(token.text[1:-1], token.at))
        if token.text in ("true", "false") and token.kind == "keyword":
            return self._count(Truth(token.text == "true", token.at))
        if token.text == "(":
            inner = self._either()
            self._expect(")")
            return inner
        if token.kind == "name":
            if self._peek().text == "(":
                return self._call(token)
            return self._count(Name(token.text, token.at))
        raise self._error(f"expected a value but found {token.text!r}", token)

    def _call(self, name: _Token) -> Node:
        if name.text not in FUNCTIONS:
            raise self._error(f"no function {name.text!r}; there are {', '.join(FUNCTIONS)}", name)
        self.next += 1
        arguments = [self._either()]
        while self._peek().text == ",":
            self.next += 1
            arguments.append(self._either())
        self._expect(")")
        if len(arguments) != FUNCTIONS[name.text]:
            raise self._error(
                f"{name.text} takes {FUNCTIONS[name.text]} arguments, not {len(arguments)}", name
            )
        return self._count(Call(name.text, tuple(arguments), name.at))

    def _peek(self) -> _Token:
        return self.tokens[self.next]

    def _take(self) -> _Token:
        token = self.tokens[self.next]
        self.next = min(self.next + 1, len(self.tokens) - 1)
        return token

    def _expect(self, text: str) -> None:
        token = self._take()
        if token.text != text:
            raise self._error(f"expected {text!r} but found {token.text!r}", token)

    def _count(self, node: Node) -> Node:
        self.nodes += 1
        if self.nodes > NODES_MAX:
            raise RuleError(f"the rule has more than {NODES_MAX} parts", self.text, node.at)
        return node

    def _error(self, message: str, token: _Token) -> RuleError:
        return RuleError(message, self.text, token.at)
