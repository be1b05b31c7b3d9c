"""Windows are composed of tiles; window bugs are picture bugs, so each test draws its own.

|--- day ---|--- day ---|- hour -|- hour -|-m-|-m-|
start                   |                     t  end
"""

from hypothesis import given
from hypothesis import strategies as st

from features.oracle import window_bounds
from features.tier import DAY, HOUR, MINUTE, TIERS, bounds, duration, pieces, reach_ms, resolution

TIMES = st.integers(min_value=400 * DAY, max_value=30_000 * DAY)
WINDOWS = st.integers(min_value=1, max_value=90 * 24 * 60).map(lambda minutes: minutes * MINUTE)
DELAYS = st.sampled_from([0, MINUTE, 90 * MINUTE, HOUR, DAY, 7 * DAY])


def test_a_window_starts_at_the_tile_that_holds_its_old_end() -> None:
    #  09:59:30     10:00:10                        10:59:50
    #     a            b                               c      <- c is being decided
    #  |--09:59--|--10:00--| ...                |--10:59--|   minute tiles
    #  [ 60 minutes before c is 09:59:50: its tile, 09:59, counts whole ]
    day = 20_000 * DAY
    decided = day + 10 * HOUR + 59 * MINUTE + 50_000
    start, end = bounds(decided, HOUR)
    assert (start, end) == (day + 9 * HOUR + 59 * MINUTE, day + 11 * HOUR)


def test_the_step_is_the_largest_tier_of_at_most_a_sixth() -> None:
    assert [resolution(w).name for w in (MINUTE, 6 * HOUR - MINUTE, 6 * HOUR, DAY, 6 * DAY - 1, 6 * DAY)] == [
        "minute", "minute", "hour", "hour", "hour", "day",
    ]  # fmt: skip


@given(TIMES, WINDOWS, DELAYS)
def test_pieces_tile_the_window_without_gap_or_overlap(time_ms: int, window_ms: int, delay_ms: int) -> None:
    start, end = bounds(time_ms, window_ms, delay_ms)
    at = start
    for tier, first, stop in pieces(time_ms, window_ms, delay_ms):
        assert first * tier.length_ms == at
        assert stop > first
        at = stop * tier.length_ms
    assert at == end


@given(TIMES, WINDOWS, DELAYS)
def test_bounds_are_those_of_the_oracle(time_ms: int, window_ms: int, delay_ms: int) -> None:
    assert bounds(time_ms, window_ms, delay_ms) == window_bounds(time_ms, window_ms, delay_ms)


@given(TIMES, WINDOWS, DELAYS)
def test_every_tile_of_a_window_lies_within_its_reach(time_ms: int, window_ms: int, delay_ms: int) -> None:
    for tier, first, _ in pieces(time_ms, window_ms, delay_ms):
        reach = reach_ms(tier, window_ms, delay_ms)
        assert reach is not None
        assert first * tier.length_ms > time_ms - reach - 1


def test_no_reach_means_never_read() -> None:
    assert reach_ms(TIERS[2], DAY) is None
    assert reach_ms(TIERS[1], HOUR) is None


def test_names_of_durations() -> None:
    assert [duration(ms) for ms in (MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, DAY, 7 * DAY, 1500)] == [
        "1m", "10m", "1h", "6h", "1d", "7d", "1500ms",
    ]  # fmt: skip
