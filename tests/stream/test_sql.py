"""The generated SQL: sources, the fan-out and its slots."""

import re

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
        depth += 0 if quoted else (character == "(") - (character == ")")
        if character == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def rows(catalogue: Catalogue, topic: sql.Topic) -> dict[int, dict[str, str]]:
    """The elements of the fan-out by code, as expressions by column."""
    text = sql.grouping(catalogue, (topic,))
    inside = text[text.index("ARRAY[") + 6 : text.index("]) AS r (")]
    names = re.findall(r"`(\w+)`", text[text.index("]) AS r (") : text.index("WHERE r.")])
    found = {}
    for element in split(inside):
        parts = split(element.removeprefix("ROW(").removesuffix(")"))
        found[int(parts[0])] = dict(zip(names, parts, strict=True))
    return found


def test_a_source_reads_only_what_some_slot_needs() -> None:
    text = sql.source(CATALOGUE, "decisions", "tenant.decisions", {"properties.bootstrap.servers": "b:1"})
    assert "`entities` ROW<`buyer` STRING>" in text
    assert "`transaction` ROW<`amount` BIGINT, `way` STRING, `gift` BOOLEAN>" in text
    assert "`marks` ROW<`place` BIGINT>" in text
    assert "'topic' = 'tenant.decisions'" in text
    assert "'properties.isolation.level' = 'read_committed'" in text
    assert "'properties.bootstrap.servers' = 'b:1'" in text
    assert "WATERMARK FOR `at` AS `at` - INTERVAL '10' SECOND" in text
    assert "`alive` AS `type` IN ('decision', 'abandoned') AND `time_ms` IS NOT NULL" in text
    assert "latitude" not in text


def test_a_lifecycle_event_has_its_own_amount() -> None:
    text = sql.source(CATALOGUE, "events", "events", {})
    assert "`amount` BIGINT" in text
    assert "`transaction`" not in text
    day = next(s for s in sql.sections(CATALOGUE) if s.tier == 2)
    returned = CATALOGUE.layouts["buyer"].measures.index(Measure("returned", "sum", "amount"))
    column = day.slots[CATALOGUE.layouts["buyer"].tiers[2].index(returned)]
    expected = "CAST(CASE WHEN `kind` = 'returned' THEN COALESCE(`amount`, 0) ELSE 0 END AS BIGINT)"
    assert rows(CATALOGUE, "events")[day.code][column] == expected


def test_filters_quote_text_and_compare_booleans() -> None:
    minute = next(s for s in sql.sections(CATALOGUE) if s.tier == 0)
    element = rows(CATALOGUE, "decisions")[minute.code]
    assert "`transaction`.`way` IN ('it''s') AND `transaction`.`gift` IN (TRUE)" in element[minute.slots[0]]


def test_a_place_is_packed_with_its_time() -> None:
    largest = next(s for s in sql.sections(CATALOGUE) if s.heads)
    kinds = [head.kind for head in CATALOGUE.layouts["buyer"].heads]
    element = rows(CATALOGUE, "decisions")[largest.code]
    place = element[largest.heads[kinds.index("place")]]
    assert "COALESCE(`time_ms`, 0) / 1000 * 2147483648 + `marks`.`place`" in place
    assert element[largest.heads[kinds.index("time")]] == "CAST(COALESCE(`time_ms`, 0) AS BIGINT)"


@pytest.mark.parametrize("catalogue", EVERY, ids=lambda c: c.name)
def test_slots_stand_in_the_layouts_order(catalogue: Catalogue) -> None:
    sums, greatest = sql.columns(catalogue)
    for topic in sql.TOPICS:
        elements = rows(catalogue, topic)
        for section in sql.sections(catalogue):
            layout = catalogue.layouts[section.entity]
            columns = (*section.slots, *section.heads)
            assert len(set(columns)) == len(columns)
            assert set(columns) <= {*sums, *greatest}
            if section.tier is None:
                continue
            measures = [layout.measures[slot] for slot in layout.tiers[section.tier]]
            assert [c[0] for c in section.slots] == ["x" if m.aggregate == "max" else "s" for m in measures]
            if section.code not in elements:
                continue
            element = elements[section.code]
            assert element["key"].endswith(f"/ {TIERS[section.tier].length_ms} AS BIGINT)")
            for column, measure in zip(section.slots, measures, strict=True):
                check_slot(element[column], topic, measure)


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
def test_heads_ride_on_one_section_and_positions_leave_last(catalogue: Catalogue) -> None:
    found = sql.sections(catalogue)
    assert [s.code for s in found] == list(range(sql.FIRST_SECTION, sql.FIRST_SECTION + len(found)))
    for entity, layout in catalogue.layouts.items():
        carriers = [s for s in found if s.entity == entity and s.heads]
        assert len(carriers) == bool(layout.heads)
        assert [s.map for s in found if s.entity == entity and s.map is not None] == list(
            range(len(layout.maps))
        )
    for topic in sql.TOPICS:
        elements = list(rows(catalogue, topic))
        assert elements[-1] == sql.TOPICS.index(topic)
        assert all(code >= sql.FIRST_SECTION for code in elements[:-1])


def test_every_lane_gets_its_own_position_row() -> None:
    lanes = sql.Lanes((("a", "b"), ("c", "d")))
    text = sql.grouping(CATALOGUE, ("decisions",), lanes)
    assert "CASE `event_partition` WHEN 0 THEN 'a' WHEN 1 THEN 'c' END" in text
    assert "CASE `event_partition` WHEN 0 THEN 'b' WHEN 1 THEN 'd' END" in text


def test_jobs_read_what_the_catalogue_needs() -> None:
    assert sql.topics(CATALOGUE, "features") == ("decisions", "events")
    assert sql.topics(CATALOGUE, "labels") == ()
    assert sql.topics(load("handbook"), "features") == ("decisions",)
    assert sql.topics(load("handbook"), "labels") == ("labels",)


def test_an_entity_without_tiles_keeps_its_heads() -> None:
    catalogue = Catalogue("gaps", SHOP, (Gap("buyer"),))
    assert sql.sections(catalogue) == (sql.Section(8, "buyer", heads=("x0",)),)
    element = rows(catalogue, "decisions")[8]
    assert element["key"] == "CAST(0 AS BIGINT)"
