"""The measurement of rules, small: it compares before it times, and refuses where the forms differ."""

from copy import copy

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


def test_a_program_that_says_otherwise_is_found(tmp_path):
    measure(tmp_path, 500, lambda _: None)
    text = bench_rules(WORDS, CATALOGUE)
    before, rule, after = text.partition('id = "rule_7"\n')
    rules, other = (
        build(before + rule + rest, WORDS, lambda _, v: v)
        for rest in (after, after.replace(" and ", " or ", 1))
    )
    table = next(tables(sorted((tmp_path / "decisions").glob("*")), rules))
    assert compare(rules, table, list(facts_of(table, rules))) == 15_000
    wrong = copy(rules)
    object.__setattr__(wrong, "_programs", other._programs)
    with pytest.raises(FormsDiffer, match="rule_7: row"):
        compare(wrong, table, list(facts_of(table, wrong)))
