"""When messages are due."""

from itertools import pairwise

import pytest

from stream.replay.injection import Placed
from stream.replay.item import Item
from stream.replay.pace import Pace, Timetable
from stream.replay.run import begun


def at(position_ms, kind="transaction"):
    return Placed(position_ms, Item(position_ms, kind, "x", "x", b"", b"{}"))


def due(pace, placed):
    timetable = Timetable(pace)
    return [timetable.due_s(p) for p in placed]


def test_a_rate_counts_transactions_and_takes_events_and_labels_along():
    stream = [at(0), at(5, "event"), at(10), at(10, "label"), at(99)]
    assert due(Pace(rate=4), stream) == [0.25, 0.25, 0.5, 0.5, 0.75]


def test_a_speed_up_follows_event_time_from_the_first_message():
    assert due(Pace(speed_up=10), [at(5_000), at(15_000), at(15_000), at(25_000)]) == [0.0, 1.0, 1.0, 2.0]


def test_without_either_everything_is_due_at_once():
    assert due(Pace(), [at(5_000), at(15_000)]) == [0.0, 0.0]
    assert not Pace().limited


def test_poisson_arrivals_have_the_rate_and_irregular_gaps_and_a_seed():
    times = due(Pace(rate=100, arrivals="poisson", seed=1), [at(n) for n in range(20_000)])
    gaps = [b - a for a, b in pairwise(times)]
    assert times[-1] == pytest.approx(200, rel=0.03)
    assert sum(gap > 0.02 for gap in gaps) / len(gaps) == pytest.approx(0.135, abs=0.02)  # exp(-2)
    assert times == due(Pace(rate=100, arrivals="poisson", seed=1), [at(n) for n in range(20_000)])


def test_a_pace_is_one_of_the_two_and_positive():
    with pytest.raises(ValueError, match="not both"):
        Pace(rate=1, speed_up=1)
    with pytest.raises(ValueError, match="positive"):
        Pace(rate=0)


def test_what_is_passed_over_is_passed_over_before_the_clock_starts():
    taken: list[int] = []

    def numbers():
        for number in range(3):
            taken.append(number)
            yield number

    stream = begun(numbers())
    assert taken == [0]
    assert list(stream) == [0, 1, 2]
    assert list(begun(iter(()))) == []
