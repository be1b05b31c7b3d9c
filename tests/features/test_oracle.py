"""The oracle, checked by hand: each example is small enough to count on fingers."""

from collections.abc import Mapping
from typing import Any

import pytest

from features import (
    Catalogue,
    Distinct,
    Entity,
    Field,
    Gap,
    Novelty,
    Ratio,
    Schema,
    Speed,
    Where,
    Window,
    ZScore,
)
from features.feature import Feature, hour, time_of_day, value, weekday
from features.measure import FRAUD, TRANSACTION, WITHDRAWN, Scalar
from features.oracle import Happening, Oracle
from features.tier import DAY, HOUR, MINUTE

SCHEMA = Schema(
    "till",
    (
        Field("amount", "amount", required=True),
        Field("card", "text"),
        Field("shop", "text"),
        Field("how", "category", values=("chip", "web")),
        Field("latitude", "number"),
        Field("longitude", "number"),
    ),
    (Entity("card", ("card",)), Entity("pair", ("card", "shop"))),
    primary="card",
    subject="card",
    latitude="latitude",
    longitude="longitude",
    lifecycle=("declined",),
)
NOON = 20_000 * DAY + 12 * HOUR


def decide(
    feature: Feature, *events: tuple[str, int, Mapping[str, Scalar]], now: tuple[int, Mapping[str, Scalar]]
) -> float | None:
    """The feature's value at `now` after `events`, all of card `c`; times in ms after noon."""
    Catalogue("one", SCHEMA, (feature,))
    oracle = Oracle(SCHEMA)
    for source, at, values in events:
        fields = {"card": "c", "amount": 0, **values}
        oracle.observe(Happening(source, NOON + at, fields), oracle.keys(fields))
    fields = {"card": "c", "amount": 0, **now[1]}
    event = Happening(TRANSACTION, NOON + now[0], fields)
    keys = oracle.keys(fields)
    return oracle.vector([feature], event, keys, oracle.observe(event, keys))[0]


def paid(at: int, amount: int = 0, **values: Scalar) -> tuple[str, int, Mapping[str, Scalar]]:
    return TRANSACTION, at, {"amount": amount, **values}


def test_aggregates_count_the_transaction_itself() -> None:
    past = (paid(0, 100), paid(MINUTE, 200))
    found = [decide(Window("card", a, HOUR, "amount"), *past, now=(2 * MINUTE, {"amount": 600})) for a in
             ("count", "sum", "mean", "max")]  # fmt: skip
    assert found == [3.0, 900.0, 300.0, 600.0]
    deviation = decide(Window("card", "std", HOUR, "amount"), *past, now=(2 * MINUTE, {"amount": 600}))
    assert deviation == pytest.approx(216.0247)


def test_the_old_end_counts_its_whole_tile_and_nothing_before() -> None:
    #   11:59:59.999 | 12:00:00     ...      13:00:30
    #        out     |    in                   now: 1 h back is 12:00:30, its minute starts at 12:00:00
    count = Window("card", "count", HOUR)
    assert decide(count, paid(-1), paid(0), now=(HOUR + 30_000, {})) == 2.0


def test_what_arrived_earlier_but_happened_later_counts_in_its_minute_only() -> None:
    #   now 12:00:10 | seen before: 12:00:50 (same minute: in), 12:01:00 (later minute: out)
    assert decide(Window("card", "count", HOUR), paid(50_000), paid(MINUTE), now=(10_000, {})) == 2.0


def test_a_delay_shifts_both_ends() -> None:
    #   now is 7 d and 10 min after noon: [12:00 of the day before, 12:11)
    past = (paid(-DAY), paid(0), paid(10 * MINUTE + 30_000), paid(11 * MINUTE))
    delayed = Window("card", "count", DAY, delay_ms=7 * DAY)
    assert decide(delayed, *past, now=(7 * DAY + 10 * MINUTE, {})) == 3.0


def test_a_filter_keeps_matching_events() -> None:
    web = Window("card", "count", HOUR, where=(Where("how", ("web",)),))
    past = (paid(0, how="web"), paid(0, how="chip"), paid(0))
    assert decide(web, *past, now=(1, {"how": "chip"})) == 1.0
    assert decide(web, *past, now=(1, {"how": "web"})) == 2.0


def test_labels_count_by_arrival_less_what_was_withdrawn() -> None:
    labels = Window("card", "count", DAY, source=FRAUD)
    assert decide(labels, (FRAUD, 0, {}), (FRAUD, 1, {}), (WITHDRAWN, 2, {}), now=(3, {})) == 1.0
    assert decide(labels, (WITHDRAWN, 2, {}), now=(3, {})) == 0.0


def test_absent_is_none_and_never_zero() -> None:
    pair = Window("pair", "count", DAY)
    assert decide(pair, now=(0, {})) is None
    assert decide(pair, now=(0, {"shop": "s"})) == 1.0
    assert decide(Gap("card"), now=(0, {})) is None
    assert decide(Window("card", "mean", DAY, "amount", delay_ms=DAY), now=(0, {})) is None
    assert decide(Ratio("r", value("amount"), Window("card", "sum", DAY, "amount")), now=(0, {})) is None


def test_gaps_look_back_only() -> None:
    assert decide(Gap("card"), paid(0), paid(500), now=(2_000, {})) == 1.5
    assert decide(Gap("card"), paid(5_000), now=(2_000, {})) is None
    assert decide(Gap("card", source="declined"), paid(0), ("declined", 1_000, {}), now=(2_000, {})) == 1.0


def test_novelty_and_distinct() -> None:
    new, distinct = Novelty("card", "shop", DAY), Distinct("card", "shop", DAY)
    past = (paid(-2 * DAY, shop="old"), paid(0, shop="a"), paid(1, shop="b"))
    assert [decide(new, *past, now=(2, {"shop": s})) for s in ("a", "old", "c")] == [0.0, 1.0, 1.0]
    assert decide(new, *past, now=(2, {})) is None
    assert [decide(distinct, *past, now=(2, f)) for f in ({"shop": "a"}, {"shop": "c"}, {})] == [
        2.0,
        3.0,
        2.0,
    ]


def test_a_map_remembers_the_most_recent_values() -> None:
    past = [paid(i, shop=f"s{i}") for i in range(40)]
    assert decide(Distinct("card", "shop", DAY), *past, now=(100, {"shop": "s0"})) == 33.0
    assert decide(Novelty("card", "shop", DAY), *past, now=(100, {"shop": "s0"})) == 1.0


def test_speed_between_paris_and_london() -> None:
    paris: dict[str, Any] = {"latitude": 48.8566, "longitude": 2.3522}
    london = {"latitude": 51.5074, "longitude": -0.1278}
    speed = decide(Speed("card"), paid(0, **paris), now=(HOUR, london))
    assert speed == pytest.approx(343.6, abs=1.0)
    assert decide(Speed("card"), paid(0), now=(HOUR, london)) is None


def test_zscore_and_clock() -> None:
    past = (paid(0, 100), paid(1, 300))
    assert decide(ZScore("card", "amount", 30 * DAY), *past, now=(2, {"amount": 200})) == 0.0
    assert decide(hour(), now=(30 * MINUTE, {})) == 12.0
    assert decide(time_of_day(), now=(30 * MINUTE, {})) == 12.5
    assert decide(weekday(), now=(0, {})) == 4.0  # day 20,000 is Friday, 4 October 2024
