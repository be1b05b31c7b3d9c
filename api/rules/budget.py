"""What a set costs, measured before it goes live: a rule has one microsecond."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from api.rules.load import RuleSetError
from api.rules.rule import Circumstances, Facts, RuleSet

NS_PER_RULE_MAX: Final = 1_000
ROUNDS: Final = 25
TURNS: Final = 20
# Evaluating a set costs something before its first rule: a small set is not held to that.
SHARED_BY_MIN: Final = 10


def check_budget(rules: RuleSet, timer: Callable[[], int]) -> float:
    """Nanoseconds per rule of the set, as served, ten rules at least sharing what a set costs by itself; each
    rule alone is held to the budget as well.

    The fastest of some rounds counts: a machine that is busy makes no set slower. `timer`: monotonic
    nanoseconds. Raises `RuleSetError`.
    """
    for rule, condition in zip(rules.rules, rules.conditions, strict=True):
        for example in rule.examples:
            cost = _fastest(partial(condition, rules.row(_facts(example.given), 1)), timer)
            if cost > NS_PER_RULE_MAX:
                raise RuleSetError(
                    f"rule {rule.id}: {cost:.0f} ns, the budget is {NS_PER_RULE_MAX} ns: make it shorter"
                )
    about = Circumstances(1)
    given = [_facts(example.given) for rule in rules.rules for example in rule.examples]
    each = [_fastest(partial(rules.evaluate, facts, about), timer) for facts in given[:TURNS]]
    mean = max(each, default=0.0) / max(SHARED_BY_MIN, len(rules.rules))
    if mean > NS_PER_RULE_MAX:
        raise RuleSetError(f"the set costs {mean:.0f} ns per rule, the budget is {NS_PER_RULE_MAX} ns")
    return mean


def _fastest(step: Callable[[], object], timer: Callable[[], int]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        started = timer()
        for _ in range(TURNS):
            step()
        best = min(best, (timer() - started) / TURNS)
    return best


def _facts(given: Mapping[str, Any]) -> Facts:
    decided = given.get("score"), given.get("probability"), given.get("expected_loss")
    return Facts(given, given, given, *decided, 0, "")
