"""A rule set from its file (TOML): everything is checked before anything is live."""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

from api.rules.check import check
from api.rules.compile import compile_rule
from api.rules.lists import FOREVER_MS, WatchList
from api.rules.manifest import Manifest
from api.rules.rule import Answer, Example, Facts, Mode, Rule, RuleSet
from api.rules.syntax import RuleError, parse
from api.rules.vocabulary import Type, Vocabulary, Word, suggestion

RULES_MAX = 500
LISTED_MAX = 1_000_000
Pseudonym = Callable[[str, str], str]
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_WITHIN = re.compile(r"([0-9]{1,6})([smhd])")
UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SET_KEYS = {"name", "rule", "lists"}
_RULE_KEYS = {
    "id", "version", "text", "reason", "owner", "mode", "rollout_percent", "expires", "amount_max", "example",
    "description", "declines_max", "declines_within",
}  # fmt: skip
_LIST_KEYS = {"of", "entry", "description"}
_ENTRY_KEYS = {"value", "reason", "author", "expires"}


class RuleSetError(ValueError):
    """The set is refused as a whole; the live set is untouched. The message names file and rule."""


def load(path: Path, vocabulary: Vocabulary, pseudonym: Pseudonym) -> RuleSet:
    """The set in `path`; `pseudonym(entity, id)` hides listed ids. Raises `RuleSetError`."""
    try:
        text = path.read_text()
    except OSError as error:
        raise RuleSetError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RuleSetError(f"{path}: is no UTF-8 text") from error
    return build(text, vocabulary, pseudonym, origin=path.name)


def manifest_of(text: str) -> Manifest:
    """Digests of a set's parts, without checking what they mean. Raises `RuleSetError`."""
    document = _document(text, "rules")
    entries = [e for e in document.get("rule", []) if isinstance(e, dict) and "id" in e]
    return Manifest.of(str(document.get("name", "rules")), entries, document.get("lists", {}))


def build(text: str, vocabulary: Vocabulary, pseudonym: Pseudonym, *, origin: str = "rules") -> RuleSet:
    """The set described by TOML `text`. Raises `RuleSetError`."""
    document = _document(text, origin)
    lists = {}
    for name, entry in document.get("lists", {}).items():
        with _at(f"{origin}: list {name}"):
            lists[name] = _list(name, entry, vocabulary, pseudonym)
    entries = document.get("rule", [])
    if not isinstance(entries, list) or len(entries) > RULES_MAX:
        raise RuleSetError(f"{origin}: rules are written [[rule]], at most {RULES_MAX} of them")
    rules, checked, slots = [], [], dict[str, int]()
    for entry in entries:
        with _at(f"{origin}: rule {_id_of(entry)}"):
            rules.append(_rule(entry))
            checked.append(check(rules[-1].sentence, vocabulary, slots, lists))
    ids = [r.id for r in rules]
    if twice := {i for i in ids if ids.count(i) > 1}:
        raise RuleSetError(f"{origin}: two rules are called {', '.join(sorted(twice))}")
    name = str(document.get("name", "rules"))
    found = RuleSet(
        Manifest.of(name, entries, document.get("lists", {})),
        tuple(rules),
        tuple(checked),
        tuple(compile_rule(c, slots, lists) for c in checked),
        {n: (slots[n], vocabulary.words[n].source) for n in slots},
        lists,
    )
    for index, rule in enumerate(rules):
        for number, example in enumerate(rule.examples, 1):
            with _at(f"{origin}: rule {rule.id}: example {number}"):
                _try_example(found, index, example, vocabulary, pseudonym)
    return found


def _document(text: str, origin: str) -> Mapping[str, Any]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RuleSetError(f"{origin}: {error}") from error
    for key in document:
        if key not in _SET_KEYS:
            raise RuleSetError(f"{origin}: unknown key {key!r}{suggestion(key, _SET_KEYS)}")
    return document


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Puts the place in front of what is wrong there."""
    try:
        yield
    except (RuleError, TypeError, ValueError) as error:
        raise RuleSetError(f"{place}: {error}") from error


def _id_of(entry: object) -> str:
    return str(entry.get("id", "without id")) if isinstance(entry, dict) else "without id"


def _keys(entry: object, known: set[str], needed: Sequence[str]) -> Mapping[str, Any]:
    """A table with these keys and no others. Raises `ValueError`."""
    if not isinstance(entry, dict):
        raise ValueError("is no table")
    for key in entry:
        if key not in known:
            raise ValueError(f"unknown key {key!r}{suggestion(key, known)}")
    for key in needed:
        if not isinstance(entry.get(key), str) or not entry[key]:
            raise ValueError(f"{key} is missing")
    return entry


def _rule(given: object) -> Rule:
    entry = _keys(given, _RULE_KEYS, ("id", "text", "reason", "owner"))
    for key in ("id", "reason"):
        if not _NAME.fullmatch(entry[key]):
            raise ValueError(f"{key} = {entry[key]!r}: lower case letters, digits and _, at most 64")
    mode = entry.get("mode", "live")
    if mode not in ("off", "shadow", "live"):
        raise ValueError(f"mode is {mode!r}; use off, shadow or live")
    percent = entry.get("rollout_percent", 100)
    if isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 <= percent <= 100:
        raise ValueError("rollout_percent goes from 0 to 100")
    for key, least in (("version", 0), ("amount_max", 0), ("declines_max", 1)):
        if key in entry and (type(entry[key]) is not int or entry[key] < least):
            raise ValueError(f"{key} is a whole number{', at least 1' if least else ''}")
    examples = tuple(_example(e) for e in entry.get("example", []))
    rule = Rule(
        entry["id"], entry.get("version", 1), parse(entry["text"]), entry["reason"], entry["owner"],
        cast(Mode, mode), float(percent), _moment(entry.get("expires")), entry.get("amount_max"), examples,
        str(entry.get("description", "")), entry.get("declines_max"), _within(entry.get("declines_within")),
    )  # fmt: skip
    if rule.action == "allow" and (rule.expires_ms is None or rule.amount_max is None):
        raise ValueError("an allow rule needs expires and amount_max: it overrules everything else")
    if rule.action != "decline" and {"declines_max", "declines_within"} & set(entry):
        raise ValueError("only a decline rule has declines_max and declines_within")
    if "declines_within" in entry and rule.declines_max is None:
        raise ValueError("declines_within needs declines_max beside it")
    if not examples:
        raise ValueError('a rule needs at least one example: [[rule.example]] given = {…}, result = "hit"')
    return rule


def _example(given: object) -> Example:
    entry = _keys(given, {"given", "result"}, ("result",))
    if entry["result"] not in ("hit", "no_hit", "not_evaluated") or not isinstance(entry.get("given"), dict):
        raise ValueError('an example is given = {…}, result = "hit", "no_hit" or "not_evaluated"')
    return Example(entry["given"], cast(Answer, entry["result"]))


def _within(value: object) -> int | None:
    """Milliseconds of `10m`, `2h`, `1d`. Raises `ValueError`."""
    if value is None:
        return None
    found = _WITHIN.fullmatch(value) if isinstance(value, str) else None
    within_ms = int(found[1]) * UNITS_MS[found[2]] if found is not None else 0
    if not UNITS_MS["m"] <= within_ms <= UNITS_MS["d"]:
        raise ValueError('declines_within is a time from "1m" to "1d", for example "10m"')
    return within_ms


def _moment(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, datetime) and value.tzinfo is not None:
        return int(value.timestamp() * 1000)
    if isinstance(value, date) and not isinstance(value, datetime):
        return int(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp() * 1000)
    raise ValueError("expires is a date or a time with an offset, for example 2027-01-01")


def _list(name: str, given: object, vocabulary: Vocabulary, pseudonym: Pseudonym) -> WatchList:
    if not _NAME.fullmatch(name):
        raise ValueError("a list's name has lower case letters, digits and _")
    entry = _keys(given, _LIST_KEYS, ("of",))
    word = vocabulary.words.get(entry["of"])
    if word is None or word.type not in (Type.ID, Type.TEXT):
        raise ValueError(f"of = {entry['of']!r} is no id or text{vocabulary.suggest(entry['of'])}")
    items = entry.get("entry", [])
    if not isinstance(items, list) or len(items) > LISTED_MAX:
        raise ValueError(f"entries are written entry = [{{ value = … }}], at most {LISTED_MAX}")
    until = {}
    for item in items:
        if not isinstance(item, dict) or not {"value", "reason", "author"} <= set(item):
            raise ValueError("an entry needs value, reason and author")
        _keys(item, _ENTRY_KEYS, ("value", "reason", "author"))
        value = pseudonym(word.name, item["value"]) if word.type is Type.ID else item["value"]
        until[value] = _moment(item.get("expires")) or FOREVER_MS
    return WatchList(name, word.name, until)


def _try_example(
    rules: RuleSet, index: int, example: Example, vocabulary: Vocabulary, pseudonym: Pseudonym
) -> None:
    given = {}
    for name, value in example.given.items():
        word = vocabulary.words.get(name)
        if word is None:
            raise ValueError(f"unknown {name!r}{vocabulary.suggest(name)}")
        given[name] = _given(word, value)
        if word.type is Type.ID:
            given[name] = pseudonym(name, value)
    decided = (given.get("score"), given.get("probability"), given.get("expected_loss"))
    facts = Facts(given, given, given, *decided, amount=0, unit="")
    answer = rules.conditions[index](rules.row(facts, 1))
    result = "not_evaluated" if answer is None else "hit" if answer else "no_hit"
    if result != example.result:
        raise ValueError(f"gives {result}, not {example.result}")


def _given(word: Word, value: object) -> Any:
    """An example's value as the service would have it. Raises `ValueError`."""
    if word.type in (Type.TEXT, Type.ID):
        if not isinstance(value, str):
            raise ValueError(f"{word.name} is {word.type}: write it in quotes")
        return value
    if isinstance(value, bool) and word.type is not Type.FLAG:
        raise ValueError(f"{word.name} is {word.type}")
    if not isinstance(value, bool | int | float):
        raise ValueError(f"{word.name} is {word.type}")
    if word.whole and value != int(value):
        raise ValueError(f"{word.name} is a whole number (money in minor units)")
    return int(value) if word.whole else float(value)
