"""Instants and durations as people type them."""

import pytest

from cordon.failure import Failure
from cordon.when import duration_ms, instant_ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-02", 86_400_000),
        ("2024-02-25", 1_708_819_200_000),
        ("2024-02-25T01:00:00+01:00", 1_708_819_200_000),
        ("2024-02-25T00:00:00Z", 1_708_819_200_000),
        ("1708819200000", 1_708_819_200_000),
        ("20240225", 20_240_225),
    ],
)
def test_instants(text, ms):
    assert instant_ms(text) == ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [("7d", 604_800_000), ("36h", 129_600_000), ("90m", 5_400_000), ("45s", 45_000), ("5ms", 5)],
)
def test_durations(text, ms):
    assert duration_ms(text) == ms


@pytest.mark.parametrize("text", ["tomorrow", "2024-13-01", ""])
def test_no_time_says_what_to_write(text):
    with pytest.raises(Failure, match="2024-02-25"):
        instant_ms(text)


@pytest.mark.parametrize("text", ["7", "d", "-7d", "1.5h"])
def test_no_duration_says_what_to_write(text):
    with pytest.raises(Failure, match="such as 7d"):
        duration_ms(text)
