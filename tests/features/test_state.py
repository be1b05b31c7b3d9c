"""Laws of the online state: a join-semilattice, whatever the order and however often."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.layout import Layout, Observation
from features.measure import Head, Measure, SeenMap, Where, pack_place, place_of
from features.state import RING, Assertion, DamagedState, State
from features.tier import DAY, HOUR, MINUTE, TIERS

LAYOUT = Layout(
    "card",
    (
        Measure("transaction", "count"),
        Measure("transaction", "sumsq", "amount"),
        Measure("transaction", "max", "amount"),
    ),
    ((0, 1, 2), (0, 2), (1,)),
    (2 * HOUR, 2 * DAY, 9 * DAY),
    (Head("time"),),
    (SeenMap("device", 3, 2 * DAY),),
)
TIMES = st.integers(min_value=20_000 * DAY, max_value=20_003 * DAY)
AMOUNTS = st.integers(min_value=0, max_value=10**8)


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    amount = draw(AMOUNTS)
    time_ms = draw(TIMES)
    deltas = draw(st.sampled_from([(1, amount * amount, amount + 1), (0, 0, 0)]))
    return Observation(
        draw(st.integers(1, 2**63 - 1)), time_ms, deltas, (time_ms,), (draw(st.integers(0, 6)),)
    )


@st.composite
def assertions(draw: st.DrawFn) -> Assertion:
    tiles = []
    for tier, slots in enumerate(LAYOUT.tiers):
        for _ in range(draw(st.integers(0, 3))):
            tile = TIERS[tier].tile(draw(TIMES))
            tiles.append((tier, tile, tuple(draw(st.integers(0, 2**62)) for _ in slots)))
    seen = draw(st.lists(st.tuples(st.just(0), st.integers(1, 6), TIMES), max_size=4))
    return Assertion((draw(TIMES),), tuple(tiles), tuple(seen))


def built(*parts: Observation | Assertion) -> State:
    state = State(LAYOUT)
    for part in parts:
        if isinstance(part, Observation):
            state.observe(part)
        else:
            state.merge(part)
    return state


@given(st.lists(st.one_of(observations(), assertions()), max_size=12))
def test_bytes_round_trip(parts: list[Observation | Assertion]) -> None:
    state = built(*parts)
    assert State.decode(LAYOUT, state.encode()) == state


@given(st.lists(assertions(), min_size=2, max_size=6), st.randoms())
def test_merging_does_not_depend_on_order_or_repetition(parts: list[Assertion], random: Random) -> None:
    shuffled = [*parts, *parts]
    random.shuffle(shuffled)
    assert built(*shuffled).encode() == built(*parts).encode()


@given(st.lists(observations(), max_size=10), assertions())
def test_a_value_never_goes_backwards(parts: list[Observation], asserted: Assertion) -> None:
    state = built(*parts)
    before = State.decode(LAYOUT, state.encode())
    state.merge(asserted)
    for old, new in zip(before.heads, state.heads, strict=True):
        assert new >= old
    for tiles, later in zip(before.tiers, state.tiers, strict=True):
        for tile, slots in tiles.items():
            assert tile not in later or all(b >= a for a, b in zip(slots, later[tile], strict=True))


@given(st.lists(observations(), min_size=1, max_size=10, unique_by=lambda o: o.event))
def test_an_authoritative_recount_completes_what_the_fast_lane_missed(parts: list[Observation]) -> None:
    whole = built(*parts)
    recount = Assertion(
        tuple(whole.heads),
        tuple(
            (i, tile, tuple(slots)) for i, tiles in enumerate(whole.tiers) for tile, slots in tiles.items()
        ),
        tuple((i, mark, last) for i, entries in enumerate(whole.maps) for mark, last in entries.items()),
    )
    missed_half = built(*parts[::2])
    missed_half.merge(recount)
    missed_half.newest_ms = whole.newest_ms  # not asserted: retention may only lag behind
    missed_half.merge(Assertion())
    assert (missed_half.tiers, missed_half.heads, missed_half.maps) == (whole.tiers, whole.heads, whole.maps)
    whole_again = built(*parts, recount)
    assert whole_again.encode() == whole.encode()


def test_an_event_in_the_ring_is_not_counted_twice() -> None:
    state = State(LAYOUT)
    event = Observation(7, 20_000 * DAY, (1, 4, 3), (20_000 * DAY,), (5,))
    assert state.observe(event)
    before = state.encode()
    assert not state.observe(event)
    assert state.encode() == before
    for other in range(8, 8 + RING):
        state.observe(Observation(other, 20_000 * DAY, (1, 4, 3), (0,), (0,)))
    assert state.observe(event), "the ring is short on purpose: it remembers the last four"


def test_old_tiles_and_values_leave_as_the_newest_event_moves_on() -> None:
    #  day 0: 1 event          day 1 ...          day 10: 1 event
    #  kept: minutes 2 h, hours 2 d, days 9 d, values 2 d
    state = State(LAYOUT)
    for number, day in enumerate((20_000, 20_010), start=1):
        state.observe(Observation(number, day * DAY, (1, 4, 3), (day * DAY,), (number,)))
    assert [sorted(t) for t in state.tiers] == [[20_010 * 1440], [20_010 * 24], [20_010]]
    assert list(state.maps[0]) == [2]


def test_the_map_keeps_the_most_recent_values() -> None:
    state = State(LAYOUT)
    for number in range(1, 6):
        at = 20_000 * DAY + number * MINUTE
        state.observe(Observation(number, at, (1, 1, 2), (at,), (number,)))
    assert sorted(state.maps[0]) == [3, 4, 5]


def test_an_event_that_matches_no_measure_leaves_no_tile() -> None:
    state = built(Observation(1, 20_000 * DAY, (0, 0, 0), (20_000 * DAY,), (0,)))
    assert state.n == 1
    assert state.tiers == [{}, {}, {}]


def test_damaged_bytes_are_named() -> None:
    good = built(Observation(1, 20_000 * DAY, (1, 4, 3), (1,), (2,))).encode()
    for bad in (good[:-1], good + b"x", b"\x09" + good[1:], b""):
        with pytest.raises(DamagedState, match="card"):
            State.decode(LAYOUT, bad)


def test_a_maximum_tells_zero_from_nothing() -> None:
    measure = Measure("transaction", "max", "amount", (Where("channel", ("ecom",)),))
    assert measure.delta("transaction", {"amount": 0, "channel": "ecom"}) == 1
    assert measure.delta("transaction", {"amount": 0, "channel": "pos"}) == 0
    assert measure.delta("transaction", {"channel": "ecom"}) == 0


@given(st.floats(-90, 90), st.floats(-180, 180), TIMES)
def test_a_packed_place_orders_by_time_and_fits_a_signed_word(
    latitude: float, longitude: float, at: int
) -> None:
    place = place_of(latitude, longitude)
    assert 0 < place < 2**30
    assert pack_place(at, place) < pack_place(at + 1000, 1) < 2**63
