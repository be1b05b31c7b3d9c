"""Several partitions taken in one order."""

from hypothesis import given
from hypothesis import strategies as st

from api.alignment import Aligner

STREAMS = st.lists(st.lists(st.integers(0, 50), max_size=12), min_size=1, max_size=4)


@given(STREAMS, st.integers(1, 8))
def test_ordered_partitions_come_out_in_one_order_and_whole(streams: list[list[int]], limit: int) -> None:
    aligner: Aligner[int, tuple[int, int]] = Aligner(100)
    aligner.assign(range(len(streams)))
    for partition, times in enumerate(streams):
        for time_ms in sorted(times):
            aligner.put(partition, time_ms, (time_ms, partition))
        aligner.end(partition)
    found: list[tuple[int, int]] = []
    while taken := aligner.take(limit):
        found += taken
    assert [t for t, _ in found] == sorted(t for times in streams for t in times)
    assert not len(aligner)


@given(STREAMS)
def test_a_partition_keeps_its_own_order(streams: list[list[int]]) -> None:
    aligner: Aligner[int, tuple[int, int]] = Aligner(100)
    for partition, times in enumerate(streams):
        for place, time_ms in enumerate(times):
            aligner.put(partition, time_ms, (partition, place))
    found = aligner.take(1_000, impatient=True)
    for partition, times in enumerate(streams):
        assert [place for p, place in found if p == partition] == list(range(len(times)))


def test_a_partition_of_which_more_is_to_come_is_waited_for() -> None:
    #   partition 0:  1  2  3          partition 1:  (nothing read yet)
    aligner: Aligner[str, int] = Aligner(100)
    aligner.assign(["a", "b"])
    for time_ms in (1, 2, 3):
        aligner.put("a", time_ms, time_ms)
    assert aligner.take(10) == []
    assert aligner.take(1, impatient=True) == [1]
    aligner.end("b")
    assert aligner.take(10) == [2, 3]
    aligner.put("b", 9, 9)
    assert aligner.take(10) == [], "a has nothing here and was not read to its end"
    aligner.end("a")
    assert aligner.take(10) == [9]


def test_revoked_partitions_are_forgotten_and_full_ones_named() -> None:
    aligner: Aligner[str, int] = Aligner(2)
    aligner.assign(["a", "b"])
    aligner.put("a", 1, 1)
    aligner.put("a", 2, 2)
    assert aligner.full() == {"a"}
    aligner.revoke(["a"])
    aligner.end("b")
    assert aligner.take(10) == []
