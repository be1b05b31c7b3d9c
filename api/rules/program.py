"""A whole rule set as one generated function: what it costs to decide is calls and look-ups, not comparisons.

The function takes the used words as local names and asks every rule in turn, in straight-line code.
Conditions are the text that `compile.py` makes of each rule; results are values made ahead.
`RuleSet.one_by_one` is the obvious form; a test holds both equal.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import compress
from typing import Any, Final, NamedTuple, Protocol

from api.rules.check import Checked
from api.rules.compile import namespace, text_of
from api.rules.lists import WatchList
from api.rules.vocabulary import Source

Program = Callable[[Any, Any, Any], tuple[tuple[Any, ...], list[Any]]]
"""`(features, facts, circumstances)`: every rule's result, and those that count, in order."""
NEVER_MS: Final = 2**62
"""Expiry of a rule without one."""
_SOURCES: Final[Mapping[Source, str]] = {
    "field": "fields({name!r})",
    "entity": "entities({name!r})",
    "decision": "facts.{name}",
}


class Results(Protocol):
    """What a rule may answer: its results, made ahead."""

    required: tuple[tuple[str, int], ...]
    expires_ms: int
    no_hit: Any

    def hit(self, facts: Any, circumstances: Any) -> Any:
        """The condition holds: does it count?"""

    def missing(self, names: tuple[str, ...]) -> Any:
        """Could not be evaluated, because of `names`."""


class Part(NamedTuple):
    """One rule of a set."""

    results: Results
    checked: Checked


class _Absent(dict[Any, Any]):
    """Results of one rule by which of its required words have no value, made when they are first needed."""

    def __init__(self, results: Results) -> None:
        super().__init__()
        self._results = results

    def __missing__(self, absent: Any) -> Any:
        names = tuple(compress((name for name, _ in self._results.required), absent))
        found = self[absent] = self._results.missing(names)
        return found


def compile_set(
    parts: Sequence[Part],
    words: Sequence[tuple[str, Source]],
    lists: Mapping[str, WatchList],
    places: Mapping[str, int] | None,
) -> Program:
    """The function of a set. `words`: of the row's slots from 1. With `places` features come as a sequence
    in that order, else by name."""
    used = {name for part in parts for name in part.checked.lists}
    space = namespace({name: lists[name] for name in used})
    for i, part in enumerate(parts):
        results = part.results
        space |= {
            f"hit_{i}": results.hit,
            f"not_{i}": results.no_hit,
            f"absent_{i}": _Absent(results),
            f"lacking_{i}": results.missing(tuple(name for name, _ in results.required[:1])),
            f"expired_{i}": results.missing(("expired",)),
            f"fault_{i}": results.missing(("division by zero",)),
        }
    lines = [
        "def program(features, facts, about):",
        "    x0 = about.now_ms",
        "    fields, entities = facts.fields.get, facts.entities.get",
        *(f"    x{i} = {_word(name, source, places)}" for i, (name, source) in enumerate(words, 1)),
        "    counted = []",
        *(line for i, part in enumerate(parts) for line in _rule(i, part)),
        f"    return ({''.join(f'r{i}, ' for i in range(len(parts)))}), counted",
    ]
    exec(compile("\n".join(lines), "<rules>", "exec"), space)
    program: Program = space["program"]
    return program


def _word(name: str, source: Source, places: Mapping[str, int] | None) -> str:
    if source != "feature":
        return _SOURCES[source].format(name=name)
    if places is None:
        return f"features({name!r})"
    return f"features[{places[name]}]" if name in places else "None"


def _rule(i: int, part: Part) -> Iterator[str]:
    slots = [slot for _, slot in part.results.required]
    branch = "if"
    if part.results.expires_ms < NEVER_MS:
        yield f"    if x0 >= {part.results.expires_ms}:"
        yield f"        r{i} = expired_{i}"
        branch = "elif"
    if slots:
        absent = [f"x{slot} is None" for slot in slots]
        yield f"    {branch} {' or '.join(absent)}:"
        yield f"        r{i} = " + (f"absent_{i}[{', '.join(absent)}]" if len(slots) > 1 else f"lacking_{i}")
        branch = "elif"
    yield "    else:" if branch == "elif" else "    if True:"
    yield "        try:"
    yield f"            holds = {text_of(part.checked, 'x{}')}"
    yield "        except ArithmeticError:"
    yield f"            r{i} = fault_{i}"
    yield "        else:"
    yield "            if holds:"
    yield f"                r{i} = hit_{i}(facts, about)"
    yield f"                if r{i}.counts:"
    yield f"                    counted.append(r{i})"
    yield "            else:"
    yield f"                r{i} = not_{i}"
