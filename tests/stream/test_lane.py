"""Routing of position rows: the hash is Flink's own."""

import pytest

from stream.lane import lanes, subtask


@pytest.mark.parametrize("parallelism", [2, 3, 8])
def test_every_subtask_has_one_lane_at_every_partition(parallelism: int) -> None:
    found = lanes((0, 1), 4, parallelism)
    assert found.count == parallelism
    for partition, ids in enumerate(found.ids):
        for code in (0, 1):
            assert [subtask(code, name, partition, parallelism) for name in ids] == list(range(parallelism))


def test_one_subtask_needs_no_lanes() -> None:
    assert lanes((2,), 4, 1).ids == ()


def test_keys_are_spread_evenly() -> None:
    counts = [0, 0, 0, 0]
    for key in range(4_000):
        counts[subtask(0, "a", key, 4)] += 1
    assert min(counts) > 800
