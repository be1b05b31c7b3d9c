"""The one function of a whole set says what each rule by itself says."""

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from api.rules.check import check
from api.rules.compile import compile_rule
from api.rules.load import load
from api.rules.manifest import Manifest
from api.rules.rule import Circumstances, Facts, Rule, RuleSet, Vector
from api.rules.syntax import parse
from api.rules.vocabulary import vocabulary_of
from features import load as load_catalogue
from tests.api.test_rule_forms import LISTS, ROW, WORDS, condition

NAMES = load_catalogue("payments").names
PLACES = {name: place for place, name in enumerate(NAMES)}

RULE = st.fixed_dictionaries({
    "text": condition,
    "action": st.sampled_from(["allow", "challenge", "review", "decline"]),
    "mode": st.sampled_from(["live", "live", "shadow", "off"]),
    "rollout_percent": st.sampled_from([100.0, 50.0, 0.0]),
    "expires_ms": st.sampled_from([None, 1, 100]),
    "amount_max": st.sampled_from([None, 5]),
})  # fmt: skip


def rule_set(drawn: list[dict[str, Any]]) -> RuleSet:
    """Rules of these texts and modes, as loading makes them."""
    rules, checked, slots = [], [], dict[str, int]()
    for number, one in enumerate(drawn):
        sentence = parse(f"{one['action']} if {one['text']}")
        kept = {name: value for name, value in one.items() if name not in ("text", "action")}
        rules.append(Rule(f"r{number}", 1, sentence, "why", "owner", **kept))
        checked.append(check(sentence, WORDS, slots, LISTS))
    return RuleSet(
        Manifest("none"),
        tuple(rules),
        tuple(checked),
        tuple(compile_rule(c, slots, LISTS) for c in checked),
        {name: (slot, WORDS.words[name].source) for name, slot in slots.items()},
        LISTS,
    )


def facts_of(row: dict[str, Any], *, ordered: bool) -> Facts:
    """The row as rules see it; `ordered`: its features as a vector in the catalogue's order."""
    by_source: dict[str, dict[str, Any]] = {"feature": {}, "field": {}, "entity": {}}
    for name, value in row.items():
        source = WORDS.words[name].source if name in WORDS.words else ""
        if source in by_source and (source != "entity" or value is not None):
            by_source[source][name] = value
    features: Any = by_source["feature"]
    if ordered:
        features = Vector(PLACES, [features.get(name) for name in NAMES])
    amount = row["amount"] or 0
    decided = row["score"], row["probability"], row["expected_loss"]
    return Facts(features, by_source["field"], by_source["entity"], *decided, amount, f"u{amount}")


@settings(max_examples=600, deadline=None)
@given(
    drawn=st.lists(RULE, max_size=6),
    rows=st.lists(ROW, min_size=1, max_size=4),
    tripped=st.frozensets(st.sampled_from(["r0", "r1"])),
    snoozed=st.frozensets(st.sampled_from([("r0", "p1"), ("r2", "p3")])),
)
def test_the_set_says_what_its_rules_say(drawn, rows, tripped, snoozed):
    rules = rule_set(drawn)
    rules.order_by(PLACES)
    for row in rows:
        about = Circumstances(row["now_ms"], tripped, snoozed)
        expected = rules.one_by_one(facts_of(row, ordered=False), about)
        for ordered in (False, True):
            results, counted = rules.assess(facts_of(row, ordered=ordered), about)
            assert results == expected
            assert counted == [result for result in expected if result.counts]
        assert rules.evaluate(facts_of(row, ordered=False), about) == expected


def test_a_vector_in_another_order_is_looked_up_by_name():
    rules = rule_set([{"text": "hour == 3", "action": "review"}])
    rules.order_by(PLACES)
    turned = {name: place for place, name in enumerate(reversed(NAMES))}
    row = dict.fromkeys(["amount", "score", "probability", "expected_loss"])
    facts = facts_of(row, ordered=False)
    values: list[float | None] = [None] * len(NAMES)
    values[turned["hour"]] = 3.0
    (result,), _ = rules.assess(structs.replace(facts, features=Vector(turned, values)), Circumstances(1))
    assert result.counts


def test_a_vector_is_a_mapping():
    vector = Vector({"a": 0, "b": 1}, [1.5, None])
    assert dict(vector) == {"a": 1.5, "b": None}
    assert (len(vector), vector.get("a"), vector.get("c"), "c" in vector) == (2, 1.5, None, False)


def test_a_set_of_the_largest_size_compiles():
    drawn = [{"text": f"score > {n} and present(card)", "action": "review"} for n in range(500)]
    rules = rule_set(drawn)
    facts = facts_of({"score": 250, "amount": 1, "probability": 0.1, "expected_loss": 1}, ordered=False)
    assert rules.evaluate(facts, Circumstances(1)) == rules.one_by_one(facts, Circumstances(1))


def test_the_shipped_set_without_any_value():
    rules = load(
        Path("deploy/rules/payments.toml"), vocabulary_of(load_catalogue("payments")), lambda e, v: v
    )
    rules.order_by(PLACES)
    nothing = Facts(Vector(PLACES, [None] * len(NAMES)), {}, {}, None, None, None, 0, "u")
    about = Circumstances(1)
    assert rules.evaluate(nothing, about) == rules.one_by_one(nothing, about)
