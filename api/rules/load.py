"""A rule set from its file (TOML): everything is checked before anything is live."""

import hashlib
import tomllib
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

from api.rules.compile import compile_rule
from api.rules.lists import FOREVER_MS, WatchList
from api.rules.rule import Example, Facts, Mode, Rule, RuleSet
from api.rules.syntax import RuleError, parse
from api.rules.vocabulary import Type, Vocabulary, suggestion

RULES_MAX = 500
Pseudonym = Callable[[str, str], str]
_RULE_KEYS = {
    "id", "version", "text", "reason", "owner", "mode", "rollout_percent", "expires", "amount_max", "example",
    "description",
}  # fmt: skip


class RuleSetError(ValueError):
    """The set is refused as a whole; the live set is untouched. The message names file and rule."""


def load(path: Path, vocabulary: Vocabulary, pseudonym: Pseudonym) -> RuleSet:
    """The set in `path`; `pseudonym(entity, id)` hides listed ids. Raises `RuleSetError`."""
    try:
        text = path.read_text()
    except OSError as error:
        raise RuleSetError(f"{path}: {error.strerror}") from error
    return build(text, vocabulary, pseudonym, origin=path.name)


def build(text: str, vocabulary: Vocabulary, pseudonym: Pseudonym, *, origin: str = "rules") -> RuleSet:
    """The set described by TOML `text`. Raises `RuleSetError`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RuleSetError(f"{origin}: {error}") from error
    lists = _lists(document.get("lists", {}), vocabulary, pseudonym, origin)
    entries = document.get("rule", [])
    if len(entries) > RULES_MAX:
        raise RuleSetError(f"{origin}: {len(entries)} rules, at most {RULES_MAX}")
    slots: dict[str, int] = {}
    rules, conditions, required = [], [], []
    for entry in entries:
        name = str(entry.get("id", "without id"))
        try:
            rule = _rule(entry)
            compiled = compile_rule(rule.sentence, vocabulary, slots, lists)
        except RuleError as error:
            raise RuleSetError(f"{origin}: rule {name}: {error}") from error
        except (TypeError, ValueError) as error:
            raise RuleSetError(f"{origin}: rule {name}: {error}") from error
        rules.append(rule)
        conditions.append(compiled.condition)
        required.append(compiled.required)
    ids = [r.id for r in rules]
    if twice := {i for i in ids if ids.count(i) > 1}:
        raise RuleSetError(f"{origin}: two rules are called {', '.join(sorted(twice))}")
    name = str(document.get("name", origin))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    listed = hashlib.sha256(repr(sorted(document.get("lists", {}).items())).encode()).hexdigest()[:12]
    sources = {n: vocabulary.words[n].source for n in slots}
    found = RuleSet(
        name, f"{name}-{digest}", tuple(rules), tuple(conditions), tuple(required), slots, sources, listed
    )
    for rule in rules:
        _try_examples(found, rule, vocabulary, pseudonym, origin)
    return found


def _rule(entry: Mapping[str, Any]) -> Rule:
    for key in entry:
        if key not in _RULE_KEYS:
            raise ValueError(f"unknown key {key!r}{suggestion(key, _RULE_KEYS)}")
    for key in ("id", "text", "reason", "owner"):
        if not isinstance(entry.get(key), str) or not entry[key]:
            raise ValueError(f"{key} is missing")
    mode = entry.get("mode", "live")
    if mode not in ("off", "shadow", "live"):
        raise ValueError(f"mode is {mode!r}; use off, shadow or live")
    percent = float(entry.get("rollout_percent", 100))
    if not 0 <= percent <= 100:
        raise ValueError("rollout_percent goes from 0 to 100")
    examples = tuple(Example(e["given"], e["result"]) for e in entry.get("example", []))
    rule = Rule(
        entry["id"], int(entry.get("version", 1)), parse(entry["text"]), entry["reason"], entry["owner"],
        cast(Mode, mode), percent, _moment(entry.get("expires")), entry.get("amount_max"), examples,
        entry.get("description", ""),
    )  # fmt: skip
    if rule.action == "allow" and (rule.expires_ms is None or rule.amount_max is None):
        raise ValueError("an allow rule needs expires and amount_max: it overrules everything else")
    if not examples:
        raise ValueError('a rule needs at least one example: [[rule.example]] given = {…}, result = "hit"')
    return rule


def _moment(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, datetime) and value.tzinfo is not None:
        return int(value.timestamp() * 1000)
    if isinstance(value, date) and not isinstance(value, datetime):
        return int(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp() * 1000)
    raise ValueError("expires is a date or a time with an offset, for example 2027-01-01")


def _lists(
    document: Mapping[str, Any], vocabulary: Vocabulary, pseudonym: Pseudonym, origin: str
) -> dict[str, WatchList]:
    found = {}
    for name, entry in document.items():
        of = str(entry.get("of", ""))
        word = vocabulary.words.get(of)
        if word is None or word.type not in (Type.ID, Type.TEXT):
            raise RuleSetError(f"{origin}: list {name}: of = {of!r} is no id or text{vocabulary.suggest(of)}")
        until = {}
        for item in entry.get("entry", []):
            if not {"value", "reason", "author"} <= set(item):
                raise RuleSetError(f"{origin}: list {name}: an entry needs value, reason and author")
            value = pseudonym(of, item["value"]) if word.type is Type.ID else item["value"]
            until[value] = _moment(item.get("expires")) or FOREVER_MS
        found[name] = WatchList(name, of, until)
    return found


def _try_examples(
    rules: RuleSet, rule: Rule, vocabulary: Vocabulary, pseudonym: Pseudonym, origin: str
) -> None:
    index = rules.rules.index(rule)
    for number, example in enumerate(rule.examples, 1):
        given = dict(example.given)
        for name in given:
            word = vocabulary.words.get(name)
            if word is None:
                hint = vocabulary.suggest(name)
                raise RuleSetError(f"{origin}: rule {rule.id}: example {number}: unknown {name!r}{hint}")
            if word.type is Type.ID:
                given[name] = pseudonym(name, given[name])
        answer = rules.conditions[index](rules.row(_facts(given), 1))
        result = "not_evaluated" if answer is None else "hit" if answer else "no_hit"
        if result != example.result:
            raise RuleSetError(
                f"{origin}: rule {rule.id}: example {number} gives {result}, not {example.result}"
            )


def _facts(given: Mapping[str, Any]) -> Facts:
    decided = (given.get("score"), given.get("probability"), given.get("expected_loss"))
    return Facts(given, given, given, *decided, amount=0, unit="")
