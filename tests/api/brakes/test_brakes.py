"""Caps and guard: pure functions, one process to the declines, many processes to a stated bound."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.brakes.brake import Brake
from api.brakes.cap import (
    GUARD,
    SLOT_MS,
    Cap,
    Limits,
    RateLimit,
    counter,
    guarded_next,
    slot_of,
    total,
)
from api.brakes.patrol import Patrol
from api.brakes.shared import Exchange, RedisShared, Shared, SharedUnavailable
from api.decide import Case, Context, Decision, Freshness, Policy, decide
from api.outcome import Outcome
from api.rules.load import RuleSetError, build
from api.rules.registry import Registry
from api.rules.rule import Circumstances
from api.rules.vocabulary import vocabulary_of
from features import load

WORDS = vocabulary_of(load("payments"))
RULE = """
[[rule]]
id = "{id}"
text = "{action} if hour >= 0"
reason = "r"
owner = "o"
{more}
example = [{{ given = {{ hour = 1 }}, result = "hit" }}]
"""
NOW_MS = 1_800_000_000_000
FRESH = Freshness("fresh", "g", 5)
CASE = Case("t", 1, 100, {}, {"card": "c"}, {"hour": 1.0}, "u")


def rules_of(*rules: tuple[str, str, str]):
    text = "".join(RULE.format(id=id_, action=action, more=more) for id_, action, more in rules)
    return build(text, WORDS, lambda e, v: v)


BAD = rules_of(("bad", "decline", 'declines_max = 20\ndeclines_within = "10m"'), ("fine", "challenge", ""))


def decided(brake: Brake, rules, now_ms: int) -> Decision:
    """One decision by one process, as the judge makes it."""
    guard = brake.begin(1, now_ms)
    about = Context(Circumstances(now_ms, brake.tripped(now_ms)), FRESH, (), guard)
    found = decide(CASE, None, rules, Policy("p", 10_000, "score_anyway"), about)
    if found.winner.outcome is Outcome.DECLINE:
        brake.note(found, rules, now_ms)
    return found


class MemoryShared:
    """`Shared` in memory; `down` as an outage."""

    def __init__(self, table: dict[tuple[int, str, str], int], life: str) -> None:
        self.table = table
        self.life = life
        self.down = False

    def put(self, slot: int, counts) -> None:
        self._check()
        self.table |= {(slot, self.life, name): n for name, n in counts.items()}

    def read(self, slots: range) -> dict[int, dict[str, int]]:
        self._check()
        found: dict[int, dict[str, int]] = {slot: {} for slot in slots}
        for (slot, life, name), n in self.table.items():
            if slot in slots and life != self.life:
                found[slot][name] = found[slot].get(name, 0) + n
        return found

    def _check(self) -> None:
        if self.down:
            raise SharedUnavailable("down")


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(1, 5)), max_size=40),
    st.integers(1, 8),
    st.integers(0, 100),
)
def test_a_window_counts_its_slots_and_no_others(events, slots, ahead):
    #  |--s0--|--s1--|--s2--|--s3--|   now in s3, within two slots: s1, s2, s3
    counts = Counter[int]()
    for slot, n in events:
        counts[slot] += n
    now_ms = ahead * SLOT_MS + 1
    expected = sum(n for slot, n in events if slot >= slot_of(now_ms - slots * SLOT_MS))
    assert total(counts, slots * SLOT_MS, now_ms) == expected


def test_one_process_stops_at_its_cap_and_every_other_rule_goes_on():
    brake = Brake(Limits(None, None))
    outcomes = [decided(brake, BAD, NOW_MS).outcome for _ in range(50)]
    assert outcomes == [Outcome.DECLINE] * 20 + [Outcome.CHALLENGE] * 30
    late = decided(brake, BAD, NOW_MS)
    assert [(r.id, r.result, r.held) for r in late.rules] == [
        ("bad", "hit", "tripped"),
        ("fine", "hit", None),
    ]


@given(
    processes=st.integers(1, 4),
    moves=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["decide", "decide", "decide", "meet"])), max_size=300
    ),
)
def test_several_processes_overshoot_by_what_happened_since_they_met(processes, moves):
    table: dict[tuple[int, str, str], int] = {}
    brakes = [Brake(Limits(None, None)) for _ in range(processes)]
    exchanges = [Exchange(MemoryShared(table, f"p{n}")) for n in range(processes)]
    declined = 0
    unmet = [0] * processes
    name = counter("bad", 0)
    for who, what in moves:
        n = who % processes
        if what == "meet":
            exchanges[n].turn(brakes[n].counts(), 600_000, NOW_MS)
            brakes[n].others = {name: total(exchanges[n].others(name), 600_000, NOW_MS)}
            unmet[n] = 0
        elif decided(brakes[n], BAD, NOW_MS).outcome is Outcome.DECLINE:
            declined += 1
            unmet[n] += 1
    # Never more than every process its cap; never more than the cap, and what processes have not told yet
    # or not heard yet.
    assert declined <= 20 * processes
    told = sum(n for (_, _, counted), n in table.items() if counted == name)
    assert told <= declined == told + sum(unmet)
    for brake in brakes:
        own = sum(sum(slots.values()) for slots in brake.counts().values())
        assert own + brake.others.get(name, 0) <= 20 or own <= 20


def patrols(tmp_path, clock, shared: Sequence[Shared], limits: Limits, rules):
    registry = Registry(tmp_path / "rules")
    brakes = [Brake(limits) for _ in shared]
    made = [
        Patrol(b, Exchange(s), registry, lambda: rules, clock) for b, s in zip(brakes, shared, strict=True)
    ]

    def around() -> None:
        for patrol in made:
            patrol.step()
        for brake in brakes:
            brake.adopt({t.name: t for t in registry.trips()})

    return registry, brakes, around


@pytest.fixture(
    params=[
        "memory",
        pytest.param("redis", marks=pytest.mark.parts),
        pytest.param("cluster", marks=pytest.mark.parts),
    ]
)
def shared(request):
    if request.param == "memory":
        table: dict[tuple[int, str, str], int] = {}
        yield [MemoryShared(table, f"p{n}") for n in range(3)]
        return
    if request.param == "redis":
        url = request.getfixturevalue("valkey").url
    else:
        url = request.getfixturevalue("redis_cluster").url.replace("redis://", "cluster://").split("/0")[0]
    made = [RedisShared(url, "demo", f"p{n}", 1.0) for n in range(3)]
    yield made
    for each in made:
        each.close()


def test_a_rule_trips_once_over_all_processes_and_comes_back_after_its_time(tmp_path, shared):
    now = [NOW_MS]
    registry, brakes, around = patrols(tmp_path, lambda: now[0], shared, Limits(None, None), BAD)
    declined = 0
    for _ in range(30):
        declined += sum(decided(b, BAD, now[0]).outcome is Outcome.DECLINE for b in brakes)
        around()
    # Ten declines each would be thirty: they met after every third one.
    assert 20 <= declined <= 22
    assert [(s.kind, s.note.partition(": ")[0]) for s in registry.steps()] == [("tripped", "bad")]
    assert all(b.tripped(now[0]) == {"bad"} and not b.reached for b in brakes)
    # A process that starts now has forgotten nothing.
    young = Brake(Limits(None, None))
    young.adopt({t.name: t for t in registry.trips()})
    assert decided(young, BAD, now[0]).outcome is Outcome.CHALLENGE
    now[0] += 600_000
    assert decided(brakes[0], BAD, now[0]).outcome is Outcome.DECLINE
    around()
    assert len(registry.steps()) == 1
    # It trips again, and an approver brings it back: it counts from zero.
    for _ in range(19):
        decided(brakes[0], BAD, now[0])
    around()
    assert brakes[1].tripped(now[0]) == {"bad"}
    registry.reset("bad", "bo", now[0] + 1, "corrected")
    around()
    assert [decided(brakes[2], BAD, now[0] + 1).outcome for _ in range(21)][18:] == [
        Outcome.DECLINE, Outcome.DECLINE, Outcome.CHALLENGE,
    ]  # fmt: skip
    assert [s.kind for s in registry.steps()] == ["tripped", "tripped", "reset"]


def test_counts_survive_a_process_and_an_outage_of_the_exchange(tmp_path):
    now = [NOW_MS]
    table: dict[tuple[int, str, str], int] = {}
    both = [MemoryShared(table, "a"), MemoryShared(table, "b")]
    _, brakes, around = patrols(tmp_path, lambda: now[0], both, Limits(None, None), BAD)
    both[0].down = True
    for _ in range(12):
        decided(brakes[0], BAD, now[0])
    now[0] += 45_000
    around()
    assert not brakes[1].others
    both[0].down = False
    around()
    now[0] += 30_000
    around()
    assert brakes[1].others == {counter("bad", 0): 12}
    # The process dies; what starts in its place counts what it had counted.
    registry, (young,), around = patrols(
        tmp_path, lambda: now[0], [MemoryShared(table, "c")], Limits(None, None), BAD
    )
    around()
    assert young.others == {counter("bad", 0): 12}
    assert [decided(young, BAD, now[0]).outcome for _ in range(9)].count(Outcome.DECLINE) == 8
    around()
    assert [s.kind for s in registry.steps()] == ["tripped"]


RATE = RateLimit(50.0, 25.0, 40, 60_000)


@given(
    guarded=st.booleans(),
    age_ms=st.integers(0, 200_000),
    decisions=st.integers(0, 200),
    share=st.floats(0, 1),
)
def test_the_guard_has_two_thresholds_and_patience(guarded, age_ms, decisions, share):
    declines = int(decisions * share)
    found = guarded_next(
        RATE, guarded=guarded, since_ms=0, decisions=decisions, declines=declines, now_ms=age_ms
    )
    percent = 100 * declines / decisions if decisions else 0.0
    if not guarded:
        assert found == (decisions >= 40 and percent > 50)
    elif age_ms < 60_000:
        assert found
    else:
        assert found == (decisions > 0 and percent >= 25)


def test_a_guarded_service_reviews_what_it_would_decline_and_recovers(tmp_path):
    now = [NOW_MS]
    rules = rules_of(("all", "decline", ""))
    calm = rules_of(("fine", "challenge", ""))
    table: dict[tuple[int, str, str], int] = {}
    registry, (brake,), around = patrols(
        tmp_path, lambda: now[0], [MemoryShared(table, "a")], Limits(None, RATE), rules
    )
    for _ in range(39):
        assert decided(brake, rules, now[0]).outcome is Outcome.DECLINE
    around()
    assert brake.guard(now[0]) is None
    decided(brake, rules, now[0])
    around()
    softened = decided(brake, rules, now[0])
    assert (softened.outcome, softened.winner.outcome, softened.guard) == (
        Outcome.REVIEW, Outcome.DECLINE, "decline_rate",
    )  # fmt: skip
    # What would have been declined counts: it does not end because it works.
    for _ in range(12):
        now[0] += 10_000
        for _ in range(10):
            assert decided(brake, rules, now[0]).outcome is Outcome.REVIEW
        around()
    for _ in range(8):
        now[0] += 10_000
        for _ in range(10):
            decided(brake, calm, now[0])
        around()
    assert brake.guard(now[0]) is None
    assert [s.kind for s in registry.steps()] == ["tripped", "reset"]
    assert decided(brake, rules, now[0]).outcome is Outcome.DECLINE
    assert GUARD not in brake.tripped(now[0])


@pytest.mark.parametrize(
    ("action", "more", "why"),
    [
        ("decline", "declines_max = 0", "at least 1"),
        ("review", "declines_max = 5", "only a decline rule"),
        ("decline", 'declines_within = "5m"', "needs declines_max"),
        ("decline", 'declines_max = 5\ndeclines_within = "5s"', 'from "1m" to "1d"'),
        ("decline", 'declines_max = 5\ndeclines_within = "2d"', 'from "1m" to "1d"'),
    ],
)
def test_a_cap_that_is_none_is_refused(action, more, why):
    with pytest.raises(RuleSetError, match=why):
        rules_of(("r", action, more))


def test_a_rule_without_a_cap_has_the_installations():
    (rule,) = rules_of(("r", "decline", "")).rules
    limits = Limits(Cap(7, 60_000), None)
    assert limits.cap_of(rule) == Cap(7, 60_000)
    assert limits.cap_of(replace(rule, declines_max=3)) == Cap(3, 60_000)
    assert limits.cap_of(BAD.rules[0]) == Cap(20, 600_000)
    assert limits.cap_of(BAD.rules[1]) is None
