"""The measurement of rules, small: it compares before it times, and refuses where the forms differ."""

from dataclasses import replace

import pytest

from api.backtest import tables
from api.rules.load import build
from api.rules.vocabulary import vocabulary_of
from api.stored import facts_of
from cordon.rule_bench import FormsDiffer, bench_rules, compare, measure
from features import load

CATALOGUE = load("payments")
WORDS = vocabulary_of(CATALOGUE)


def test_forms_are_compared_and_timed(tmp_path):
    found = measure(tmp_path, 3_000, lambda _: None)
    assert (found.rules, found.features, found.decisions) == (30, 60, 3_000)
    assert found.checked == 30 * 2_000
    assert 0 < found.ns_per_rule < 20_000


def test_a_closure_that_says_otherwise_is_found(tmp_path):
    measure(tmp_path, 500, lambda _: None)
    rules = build(bench_rules(WORDS, CATALOGUE), WORDS, lambda _, v: v)
    table = next(tables(sorted((tmp_path / "decisions").glob("*")), rules))
    conditions = (*rules.conditions[:7], lambda row: False, *rules.conditions[8:])
    wrong = replace(rules, conditions=conditions)
    assert compare(rules, table, list(facts_of(table, rules))) == 15_000
    with pytest.raises(FormsDiffer, match="rule_7: row"):
        compare(wrong, table, list(facts_of(table, wrong)))
