"""`decide` is pure, and its precedence is fixed and short."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.decide import Case, Context, Freshness, Policy, Verdict, decide
from api.outcome import BY_WORD, Outcome
from api.rules.load import build
from api.rules.rule import Circumstances
from api.rules.vocabulary import vocabulary_of
from features import load

WORDS = vocabulary_of(load("payments"))
RULE = """
[[rule]]
id = "{id}"
text = "{action} if hour == {hour}"
reason = "r"
owner = "o"
expires = 2100-01-01
amount_max = 1_000_000
example = [{{ given = {{ hour = {hour} }}, result = "hit" }}]
"""
FRESH = Freshness("fresh", "g", 5)
CONTEXT = Context(Circumstances(1), FRESH)
POLICY = Policy("p", 10_000, "score_anyway")


def rules_for(*actions: str, hour: int = 1):
    text = "".join(RULE.format(id=f"r{i}", action=a, hour=hour) for i, a in enumerate(actions))
    return build(text, WORDS, lambda e, v: v)


def case(amount: int = 100) -> Case:
    return Case("t", 1, amount, {}, {"card": "c"}, {"hour": 1.0}, "u")


def verdict(band: Outcome, source="model") -> Verdict:
    return Verdict(source, 0.5, 0.6, 600, band, 60)


ACTIONS = st.lists(st.sampled_from(["allow", "challenge", "review", "decline"]), max_size=5)


@given(actions=ACTIONS, band=st.sampled_from(Outcome))
def test_allow_wins_else_the_most_severe(actions, band):
    found = decide(case(), verdict(band), rules_for(*actions), POLICY, CONTEXT)
    if "allow" in actions:
        assert (found.outcome, found.winner.id) == (Outcome.APPROVE, f"r{actions.index('allow')}")
    else:
        assert found.outcome == max([band, *(BY_WORD[a] for a in actions)])
    assert len(found.others) == len(actions)
    assert found.winner not in found.others or len(set(actions)) < len(actions)
    assert found == decide(case(), verdict(band), rules_for(*actions), POLICY, CONTEXT)


@given(amount=st.integers(0, 100_000), band=st.sampled_from(Outcome), scorecard=st.booleans())
def test_nothing_above_the_limit_is_approved_unseen(amount, band, scorecard):
    seen = verdict(band, "scorecard") if scorecard else None
    found = decide(case(amount), seen, rules_for(), POLICY, CONTEXT)
    if amount > POLICY.unseen_amount_max:
        assert found.outcome >= Outcome.REVIEW
    else:
        assert found.outcome == (band if scorecard else Outcome.APPROVE)


@pytest.mark.parametrize(("stale", "outcome", "scored"), [
    ("score_anyway", Outcome.CHALLENGE, True),
    ("rules_only", Outcome.APPROVE, False),
    ("review", Outcome.REVIEW, True),
])  # fmt: skip
def test_what_a_stale_store_means_is_a_policy(stale, outcome, scored):
    context = CONTEXT._replace(freshness=Freshness("stale", "g", 99_000))
    found = decide(case(), verdict(Outcome.CHALLENGE), rules_for(), replace(POLICY, stale=stale), context)
    assert (found.outcome, found.verdict is not None, found.degraded) == (outcome, scored, ("stale",))


def test_a_rule_that_does_not_hit_has_no_voice():
    found = decide(case(), verdict(Outcome.APPROVE), rules_for("decline", hour=2), POLICY, CONTEXT)
    assert (found.outcome, found.others) == (Outcome.APPROVE, ())
    assert found.rules[0].result == "no_hit"
