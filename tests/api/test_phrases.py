"""Members of records that were kept are what the encoder writes, byte by byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.decide import Decision, Verdict, Voice
from api.intake.compiled import ordering
from api.outcome import Outcome
from api.phrases import Order, Phrases, brief_of, rest_of
from api.record import encode_json, members
from features.store import Target

NAMES = st.sampled_from(["band", "rule_a", 'a"b', "größer"])
VOICES = st.builds(Voice, st.sampled_from(["rule", "model", "policy"]), NAMES, st.sampled_from(Outcome))
NUMBERS = st.floats(allow_infinity=True, allow_nan=True)
VERDICTS = st.none() | st.builds(
    Verdict,
    st.sampled_from(["model", "scorecard"]),
    NUMBERS,
    NUMBERS,
    st.integers(0, 1_000),
    st.sampled_from(Outcome),
    st.integers(0, 2**53),
)
DECISIONS = st.builds(
    Decision,
    outcome=st.sampled_from(Outcome),
    winner=VOICES,
    others=st.lists(VOICES, max_size=3).map(tuple),
    verdict=VERDICTS,
    rules=st.just(()),
    degraded=st.lists(st.sampled_from(["model", "features", "stale"]), max_size=2).map(tuple),
    guard=st.none() | st.sampled_from(["on", "limited"]),
)
REASONS = st.lists(st.fixed_dictionaries({"code": NAMES, "text": st.text(), "weight": NUMBERS}), max_size=2)


@given(drawn=st.lists(st.tuples(DECISIONS, REASONS), max_size=12), limit=st.integers(1, 3))
def test_what_is_said_of_decisions_is_what_the_encoder_writes(
    drawn: list[tuple[Decision, list[dict[str, object]]]], limit: int
) -> None:
    phrases = Phrases(limit)
    for _ in range(2):
        assert phrases.rests([decision for decision, _ in drawn]) == [members(rest_of(d)) for d, _ in drawn]
        for decision, reasons in drawn:
            said = brief_of(decision, reasons)
            values, text = phrases.brief(decision, reasons)
            # As text: what is not a number equals nothing.
            assert (repr(values), text) == (repr(said), members(said))


@pytest.mark.parametrize("compiled", [None, ordering()], ids=["reference", "compiled"])
@given(
    seen=st.lists(st.tuples(st.sampled_from(["card", "device", 'x"']), st.integers(0, 2**64)), max_size=6),
    generations=st.lists(st.sampled_from(["a1", "b2"]), min_size=1, max_size=4),
)
def test_running_numbers_are_told_for_what_was_observed(
    seen: list[tuple[str, int]], generations: list[str], compiled: Order | None
) -> None:
    phrases = Phrases(compiled=compiled)
    numbers = dict(seen)
    targets = tuple(Target(entity, "p", b"") for entity in numbers)
    for generation in generations:
        expected = {entity: (generation, number) for entity, number in numbers.items() if number}
        assert phrases.order(targets, tuple(numbers.values()), generation) == encode_json(expected)


def test_running_numbers_are_told_by_compiled_code() -> None:
    written = ordering()
    assert written is not None
    targets = tuple(Target(entity, "p", b"") for entity in ("card", "device", "ip"))
    known = {"card": b'"card":["g",', "ip": b'"ip":["g",'}
    assert written(targets, (7, 0, 2**63 - 1), known) == b'{"card":["g",7],"ip":["g",9223372036854775807]}'
    # What is not plainly regular is left to the reference.
    for numbers in [(1, 1, 1), (1, 0, 2**63), (-1, 0, 1), (True, 0, 1), (1, 0)]:
        assert written(targets, numbers, known) is None
    assert written(targets, (1, 0, 1), {**known, "ip": b"x" * 5_000}) is None
