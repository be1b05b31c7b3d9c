"""Routing of position rows: the hash is Flink's own."""

import pytest

from features.sql import Lanes
from stream.lane import lanes, subtask


@pytest.mark.parametrize("parallelism", [2, 3, 8])
def test_every_subtask_has_one_lane(parallelism: int) -> None:
    found = lanes((0, 1), parallelism)
    for code in (0, 1):
        assert [subtask(code, name, parallelism) for name in found.ids] == list(range(parallelism))


def test_one_subtask_has_the_only_lane() -> None:
    assert lanes((2,), 1) == Lanes(("0",))


def test_ids_are_spread_evenly() -> None:
    counts = [0, 0, 0, 0]
    for number in range(4_000):
        counts[subtask(0, f"{number:x}", 4)] += 1
    assert min(counts) > 800
