"""The generated SQL: sources, the fan-out and its slots."""

from dataclasses import dataclass

import pytest

from features import sql
from features.catalogue import Catalogue, load
from features.feature import Gap, Speed, Window
from features.measure import FRAUD, Measure, Where
from features.schema import Entity, Field, Schema
from features.tier import DAY, HOUR, TIERS

SHOP = Schema(
    name="shop",
    fields=(
        Field("amount", "amount", required=True),
        Field("buyer", "text"),
        Field("way", "category", values=("it's", "post")),
        Field("gift", "boolean"),
        Field("latitude", "number"),
        Field("longitude", "number"),
    ),
    entities=(Entity("buyer", ("buyer",)),),
    primary="buyer",
    subject="buyer",
    latitude="latitude",
    longitude="longitude",
    lifecycle=("returned",),
)
CATALOGUE = Catalogue(
    "shop",
    SHOP,
    (
        Window("buyer", "count", HOUR, where=(Where("way", ("it's",)), Where("gift", (True,)))),
        Window("buyer", "max", 30 * DAY, "amount"),
        Window("buyer", "sum", 30 * DAY, "amount", source="returned"),
        Gap("buyer"),
        Speed("buyer"),
    ),
)
EVERY = [CATALOGUE, load("handbook"), load("payments")]


def split(text: str) -> list[str]:
    """The top-level parts of a comma-separated list."""
    parts, depth, quoted = [""], 0, False
    for character in text:
        quoted ^= character == "'"
        depth += 0 if quoted else (character in "([") - (character in ")]")
        if character == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


@dataclass(frozen=True)
class Element:
    """One element of the fan-out, as expressions: `slots` are deltas, heads and marks."""

    code: int
    who: str
    time: str
    slots: list[str]


def elements(catalogue: Catalogue, topic: sql.Topic, lanes: sql.Lanes | None = None) -> list[Element]:
    """The elements of the fan-out in their order."""
    text = sql.grouping(catalogue, (topic,), lanes)
    inside = text[text.index("UNNEST(ARRAY[") + 13 : text.index("]) AS r (")]
    found = []
    for element in split(inside):
        code, who, time, slots = split(element.removeprefix("ROW(").removesuffix(")"))
        found.append(Element(int(code), who, time, split(slots.removeprefix("ARRAY[").removesuffix("]"))))
    return found


def element(catalogue: Catalogue, topic: sql.Topic, entity: str) -> Element:
    """The element of an entity."""
    return next(e for e in elements(catalogue, topic) if e.code == sql.code(catalogue, entity))


def test_a_source_reads_only_what_some_slot_needs() -> None:
    text = sql.source(CATALOGUE, "decisions", "tenant.decisions", {"properties.bootstrap.servers": "b:1"})
    assert "`entities` ROW<`buyer` STRING>" in text
    assert "`transaction` ROW<`amount` BIGINT, `way` STRING, `gift` BOOLEAN>" in text
    assert "`marks` ROW<`place` BIGINT>" in text
    assert "'topic' = 'tenant.decisions'" in text
    assert "'properties.isolation.level' = 'read_committed'" in text
    assert "'properties.bootstrap.servers' = 'b:1'" in text
    assert "WATERMARK FOR `at` AS `at` - INTERVAL '10' SECOND" in text
    assert "`alive` AS `type` IN ('decision', 'abandoned') AND `time_ms` BETWEEN 0 AND" in text
    assert "latitude" not in text


def test_a_lifecycle_event_has_its_own_amount() -> None:
    text = sql.source(CATALOGUE, "events", "events", {})
    assert "`amount` BIGINT" in text
    assert "`transaction`" not in text
    returned = CATALOGUE.layouts["buyer"].measures.index(Measure("returned", "sum", "amount"))
    expected = "CAST(CASE WHEN `kind` = 'returned' THEN COALESCE(`amount`, 0) ELSE 0 END AS BIGINT)"
    row = element(CATALOGUE, "events", "buyer")
    assert row.slots[returned] == expected
    assert "CASE WHEN `alive` AND (`kind` = 'returned') THEN `entities`.`buyer`" in row.who


def test_filters_quote_text_and_compare_booleans() -> None:
    slots = element(CATALOGUE, "decisions", "buyer").slots
    assert any("`transaction`.`way` IN ('it''s') AND `transaction`.`gift` IN (TRUE)" in s for s in slots)


def test_a_place_is_packed_with_its_time() -> None:
    layout = CATALOGUE.layouts["buyer"]
    kinds = [head.kind for head in layout.heads]
    heads = element(CATALOGUE, "decisions", "buyer").slots[len(layout.measures) :]
    place = heads[kinds.index("place")]
    assert "COALESCE(`time_ms`, 0) / 1000 * 2147483648 + `marks`.`place`" in place
    assert heads[kinds.index("time")] == "CAST(COALESCE(`time_ms`, 0) AS BIGINT)"


@pytest.mark.parametrize("catalogue", EVERY, ids=lambda c: c.name)
def test_slots_stand_in_the_layouts_order(catalogue: Catalogue) -> None:
    for topic in sql.TOPICS:
        for row in elements(catalogue, topic):
            if row.code < sql.FIRST_ENTITY:
                continue
            layout = catalogue.layouts[catalogue.entities[row.code - sql.FIRST_ENTITY]]
            assert row.time == "COALESCE(`time_ms`, 0)"
            marks = row.slots[len(layout.measures) + len(layout.heads) :]
            assert len(marks) == len(layout.maps)
            for mark, remembered in zip(marks, layout.maps, strict=True):
                assert (f"`marks`.`{remembered.field}`" in mark) == (topic == "decisions")
            for expression, measure in zip(row.slots, layout.measures, strict=False):
                check_slot(expression, topic, measure)


def check_slot(expression: str, topic: sql.Topic, measure: Measure) -> None:
    """An expression adds what the measure says, where the event is of its kind, and nothing elsewhere."""
    on_this_topic = {"decisions": "transaction", "labels": None, "events": measure.source}[topic]
    if topic == "labels":
        on_this_topic = measure.source if measure.source in (FRAUD, "withdrawn") else None
    elif topic == "events" and measure.source in ("transaction", FRAUD, "withdrawn"):
        on_this_topic = None
    if measure.source != on_this_topic:
        assert expression == "CAST(0 AS BIGINT)"
        return
    shape = {"count": "CAST(1 AS BIGINT)", "sum": ", 0)", "sumsq": " * ", "max": " + 1, 0)"}
    assert shape[measure.aggregate] in expression
    for where in measure.where:
        assert f"`{where.field}` IN (" in expression
    if topic == "events":
        assert f"`kind` = '{measure.source}'" in expression


@pytest.mark.parametrize("catalogue", EVERY, ids=lambda c: c.name)
def test_an_entity_has_one_row_and_positions_leave_last(catalogue: Catalogue) -> None:
    for topic in sql.TOPICS:
        codes = [row.code for row in elements(catalogue, topic)]
        assert codes[-1] == sql.TOPICS.index(topic)
        assert all(code >= sql.FIRST_ENTITY for code in codes[:-1])
        assert len(set(codes)) == len(codes)


def test_every_lane_gets_its_own_position_row() -> None:
    last = elements(CATALOGUE, "decisions", sql.Lanes(("a", "b")))[-2:]
    assert [row.who for row in last] == ["CAST('a' AS STRING)", "CAST('b' AS STRING)"]
    assert last[0].slots == [
        "CAST(`event_partition` AS BIGINT)",
        "CAST(`event_offset` + 1 AS BIGINT)",
        "CAST(COALESCE(`time_ms`, 0) AS BIGINT)",
    ]


@pytest.mark.parametrize("catalogue", EVERY, ids=lambda c: c.name)
def test_layouts_are_told_whole(catalogue: Catalogue) -> None:
    first, *told = sql.layouts(catalogue).split("/")
    assert first == "1"
    for (entity, layout), text in zip(catalogue.layouts.items(), told, strict=True):
        code, measures, heads, maps, *tiers = text.split(":")
        assert int(code) == sql.code(catalogue, entity)
        counts = len(layout.measures), len(layout.heads), len(layout.maps)
        assert (int(measures), int(heads), int(maps)) == counts
        kept = [tier for tier in TIERS if layout.tiers[tier.index]]
        for tier, words in zip(kept, tiers, strict=True):
            index, length_ms, keep_ms, slots = words.split(",")
            assert (int(index), int(length_ms)) == (tier.index, tier.length_ms)
            assert int(keep_ms) == layout.keep_ms[tier.index]
            assert [int(slot.strip("^")) for slot in slots.split("+")] == list(layout.tiers[tier.index])
            largest = [layout.measures[m].grows_by == "max" for m in layout.tiers[tier.index]]
            assert [slot.endswith("^") for slot in slots.split("+")] == largest


def test_jobs_read_what_the_catalogue_needs() -> None:
    assert sql.topics(CATALOGUE, "features") == ("decisions", "events")
    assert sql.topics(CATALOGUE, "labels") == ()
    assert sql.topics(load("handbook"), "features") == ("decisions",)
    assert sql.topics(load("handbook"), "labels") == ("labels",)


def test_an_entity_without_tiles_keeps_its_heads() -> None:
    catalogue = Catalogue("gaps", SHOP, (Gap("buyer"),))
    assert sql.layouts(catalogue) == "1/8:0:1:0"
    assert element(catalogue, "decisions", "buyer").slots == ["CAST(COALESCE(`time_ms`, 0) AS BIGINT)"]
