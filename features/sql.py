"""Flink SQL of a catalogue: sources over the log and one grouping that asserts absolute slots.

Every event fans out into rows `(code, id, key, s0.., x0..)`; one GROUP BY over `(code, id, key)` sums the
`s` columns and takes the maximum of the `x` columns, for all entities at once. `code` names a section::

    code 0, 1, 2            how far a topic's partition was read; key = partition, x0 = next offset, x1 = time
    one per entity, tier    key = tile number; the largest tier's rows carry the entity's heads as well
    one per entity, map     key = mark, x0 = last seen ms

The rows of one event leave one operator in this order, its position last: on the way to any one grouping
subtask nothing overtakes, so a position that arrives says that all before it has arrived there too. With
several subtasks each of them gets its own position row (a *lane*).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from features.catalogue import Catalogue
from features.layout import Layout
from features.measure import FRAUD, PLACE_BITS, TRANSACTION, WITHDRAWN, Head, Measure, Where
from features.schema import Kind, Schema
from features.tier import TIERS

Topic = Literal["decisions", "events", "labels"]
TOPICS: Final[tuple[Topic, ...]] = ("decisions", "events", "labels")
FIRST_SECTION: Final = 8
_TYPES: Final[Mapping[Topic, tuple[str, ...]]] = {
    "decisions": ("decision", "abandoned"),
    "events": ("event",),
    "labels": ("label",),
}
_SQL_TYPES: Final[Mapping[Kind, str]] = {
    "amount": "BIGINT",
    "integer": "BIGINT",
    "number": "DOUBLE",
    "text": "STRING",
    "category": "STRING",
    "boolean": "BOOLEAN",
}
_LIVE: Final = "alive"


@dataclass(frozen=True, slots=True)
class Section:
    """What the rows of one code hold.

    `tier`: index of the tier whose tiles they are, `None` if they hold heads or a map only. `slots`: columns
    of that tier's slots, in the layout's order. `heads`: columns of the entity's heads, empty if another
    section carries them. `map`: index of the map.
    """

    code: int
    entity: str
    tier: int | None = None
    slots: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    map: int | None = None


@dataclass(frozen=True, slots=True)
class Lanes:
    """Where position rows go: `ids[partition][subtask]` is an id whose row that grouping subtask gets.

    Without `ids` there is one subtask and any id will do.
    """

    ids: tuple[tuple[str, ...], ...] = ()

    @property
    def count(self) -> int:
        """Number of grouping subtasks."""
        return len(self.ids[0]) if self.ids else 1

    def expression(self, lane: int) -> str:
        """SQL of the id of a lane; NULL for a partition that was not known: it publishes no position."""
        if not self.ids:
            return "'0'"
        whens = " ".join(f"WHEN {p} THEN '{ids[lane]}'" for p, ids in enumerate(self.ids))
        return f"CASE `event_partition` {whens} END"


def topics(catalogue: Catalogue, job: Literal["features", "labels"]) -> tuple[Topic, ...]:
    """Topics that a job of this catalogue reads; empty if the catalogue needs no such job."""
    if job == "labels":
        return ("labels",) if catalogue.sources & {FRAUD, WITHDRAWN} else ()
    return ("decisions", "events") if catalogue.sources & set(catalogue.schema.lifecycle) else ("decisions",)


def sections(catalogue: Catalogue) -> tuple[Section, ...]:
    """All sections, by code."""
    found: list[Section] = []
    for layout in catalogue.layouts.values():
        kept = [tier.index for tier in TIERS if layout.tiers[tier.index]]
        for tier in kept:
            slots = _slot_columns(layout, tier)
            heads = _head_columns(layout, slots) if tier == kept[-1] else ()
            found.append(Section(FIRST_SECTION + len(found), layout.entity, tier, slots, heads))
        if layout.heads and not kept:
            found.append(Section(FIRST_SECTION + len(found), layout.entity, heads=_head_columns(layout, ())))
        for index, _ in enumerate(layout.maps):
            found.append(Section(FIRST_SECTION + len(found), layout.entity, map=index))
    return tuple(found)


def columns(catalogue: Catalogue) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the summed and of the greatest columns of every row."""
    used = {name for section in sections(catalogue) for name in (*section.slots, *section.heads)}
    sums = sum(name.startswith("s") for name in used)
    greatest = max(2, sum(name.startswith("x") for name in used))
    return tuple(f"s{i}" for i in range(sums)), tuple(f"x{i}" for i in range(greatest))


def source(
    catalogue: Catalogue, topic: Topic, name: str, properties: Mapping[str, str], lateness_s: int = 10
) -> str:
    """CREATE TABLE of one topic of the log, called `topic`; `name`: of the Kafka topic.

    `properties`: further options of the connector (`properties.bootstrap.servers` …). Only the columns that
    some slot needs are read; a record that is no JSON is skipped, a mistyped field is NULL.
    """
    schema = catalogue.schema
    body = [
        "`type` STRING",
        "`time_ms` BIGINT",
        f"`entities` ROW<{', '.join(f'{_quoted(e)} STRING' for e in catalogue.entities)}>",
    ]
    fields = _fields(catalogue, topic)
    if fields:
        inner = ", ".join(f"{_quoted(f)} {_SQL_TYPES[schema.by_name[f].kind]}" for f in fields)
        body.append(f"`transaction` ROW<{inner}>")
    marks = _marks(catalogue) if topic == "decisions" else ()
    if marks:
        body.append(f"`marks` ROW<{', '.join(f'{_quoted(m)} BIGINT' for m in marks)}>")
    own = {"decisions": [], "events": ["`kind` STRING", "`amount` BIGINT"], "labels": ["`fraud` BOOLEAN"]}
    body += own[topic]
    body += [
        "`event_partition` INT METADATA FROM 'partition' VIRTUAL",
        "`event_offset` BIGINT METADATA FROM 'offset' VIRTUAL",
        f"`{_LIVE}` AS `type` IN ({_literals(_TYPES[topic])}) AND `time_ms` IS NOT NULL",
        "`at` AS TO_TIMESTAMP_LTZ(COALESCE(`time_ms`, 0), 3)",
        f"WATERMARK FOR `at` AS `at` - INTERVAL '{lateness_s}' SECOND",
    ]
    options = {
        "connector": "kafka",
        "topic": name,
        "format": "json",
        "json.ignore-parse-errors": "true",
        "scan.startup.mode": "earliest-offset",
        "properties.isolation.level": "read_committed",
        **properties,
    }
    listed = ",\n  ".join(f"{_literal(k)} = {_literal(v)}" for k, v in options.items())
    inner = ",\n  ".join(body)
    return f"CREATE TEMPORARY TABLE `{topic}` (\n  {inner}\n) WITH (\n  {listed}\n)"


def grouping(catalogue: Catalogue, read: tuple[Topic, ...], lanes: Lanes | None = None) -> str:
    """The query over the sources `read`: rows `(code, id, key, s.., x..)` of absolute values."""
    sums, greatest = columns(catalogue)
    names = ["code", "id", "key", *sums, *greatest]
    fanned = [_fan_out(catalogue, topic, names, lanes or Lanes()) for topic in read]
    totals = [*(f"SUM({c}) AS {c}" for c in sums), *(f"MAX({c}) AS {c}" for c in greatest)]
    union = "\nUNION ALL\n".join(fanned)
    group = "`code`, `id`, `key`"
    return f"SELECT {group}, {', '.join(totals)}\nFROM (\n{union}\n)\nGROUP BY {group}"


def _fan_out(catalogue: Catalogue, topic: Topic, names: list[str], lanes: Lanes) -> str:
    rows = [
        row for section in sections(catalogue) if (row := _row(catalogue, topic, section, names)) is not None
    ]
    for lane in range(lanes.count):
        values = {"x0": "`event_offset` + 1", "x1": "COALESCE(`time_ms`, 0)"}
        rows.append(_record(names, TOPICS.index(topic), lanes.expression(lane), "`event_partition`", values))
    listed = ",\n    ".join(rows)
    quoted = ", ".join(_quoted(n) for n in names)
    return (
        f"  SELECT r.* FROM `{topic}` CROSS JOIN UNNEST(ARRAY[\n    {listed}\n  ]) AS r ({quoted})\n"
        "  WHERE r.`id` IS NOT NULL"
    )


def _row(catalogue: Catalogue, topic: Topic, section: Section, names: list[str]) -> str | None:
    """One element of the fan-out; its id is NULL where the event does not enter the section."""
    layout = catalogue.layouts[section.entity]
    schema = catalogue.schema
    who = f"`entities`.{_quoted(section.entity)}"
    if section.map is not None:
        if topic != "decisions":
            return None
        mark = f"`marks`.{_quoted(layout.maps[section.map].field)}"
        met = _when(f"`{_LIVE}` AND {mark} > 0", who, "NULL")
        return _record(names, section.code, met, f"COALESCE({mark}, 0)", {"x0": _time()})
    conditions, values = _entries(schema, topic, section, layout)
    if not values:
        return None
    key = "0" if section.tier is None else f"{_time()} / {TIERS[section.tier].length_ms}"
    applies = f"`{_LIVE}`" if "TRUE" in conditions else f"`{_LIVE}` AND ({' OR '.join(conditions)})"
    return _record(names, section.code, _when(applies, who, "NULL"), key, values)


def _entries(
    schema: Schema, topic: Topic, section: Section, layout: Layout
) -> tuple[list[str], dict[str, str]]:
    """Conditions under which an event enters the section, and SQL of each column that it then grows."""
    slots = () if section.tier is None else layout.tiers[section.tier]
    measures = [layout.measures[slot] for slot in slots]
    parts = [
        *(
            (c, m.source, m.where, _delta(schema, topic, m))
            for c, m in zip(section.slots, measures, strict=True)
        ),
        *((c, h.source, h.where, _head(h)) for c, h in zip(section.heads, layout.heads, strict=False)),
    ]
    conditions: dict[str, None] = {}
    values: dict[str, str] = {}
    for column, of, where, expression in parts:
        condition = _condition(schema, topic, of, where)
        if condition is not None:
            conditions[condition] = None
            values[column] = _when(condition, expression, "0")
    return list(conditions), values


def _condition(schema: Schema, topic: Topic, of: str, where: tuple[Where, ...]) -> str | None:
    """When an event of the topic is of this source and passes the filters; `None` if it never is."""
    if topic == "labels":
        kind = {FRAUD: "`fraud`", WITHDRAWN: "NOT `fraud`"}.get(of)
    elif topic == "events":
        kind = f"`kind` = {_literal(of)}" if of in schema.lifecycle else None
    else:
        kind = "TRUE" if of == TRANSACTION else None
    if kind is None:
        return None
    parts = [kind, *(_filter(schema, topic, w) for w in where)]
    return " AND ".join(p for p in parts if p != "TRUE") or "TRUE"


def _filter(schema: Schema, topic: Topic, where: Where) -> str:
    fits = {"boolean": (bool,), "amount": (int,), "integer": (int,), "number": (int, float)}
    expected = fits.get(schema.by_name[where.field].kind, (str,))
    values = [v for v in where.values if type(v) in expected]
    if not values:
        return "FALSE"
    literals = ", ".join(_literal(v) if isinstance(v, str) else str(v).upper() for v in values)
    return f"{_value(schema, topic, where.field)} IN ({literals})"


def _value(schema: Schema, topic: Topic, field: str) -> str:
    """A field of the event: a lifecycle event has its own amount, all else is its transaction's."""
    return "`amount`" if topic == "events" and field == schema.amount else f"`transaction`.{_quoted(field)}"


def _delta(schema: Schema, topic: Topic, measure: Measure) -> str:
    if measure.aggregate == "count":
        return "CAST(1 AS BIGINT)"
    field = _value(schema, topic, measure.field or "")
    shape = {"sum": "{0}", "sumsq": "{0} * {0}", "max": "{0} + 1"}[measure.aggregate]
    return f"COALESCE({shape.format(field)}, 0)"


def _head(head: Head) -> str:
    if head.kind == "time":
        return _time()
    place = "`marks`.`place`"
    return f"CASE WHEN {place} > 0 THEN {_time()} / 1000 * {1 << PLACE_BITS} + {place} ELSE 0 END"


def _record(names: list[str], code: int, who: str, key: str, values: Mapping[str, str]) -> str:
    slots = [_whole(values.get(name, "0")) for name in names[3:]]
    return f"ROW({code}, CAST({who} AS STRING), {_whole(key)}, {', '.join(slots)})"


def _whole(expression: str) -> str:
    return f"CAST({expression} AS BIGINT)"


def _when(condition: str, then: str, otherwise: str) -> str:
    return then if condition == "TRUE" else f"CASE WHEN {condition} THEN {then} ELSE {otherwise} END"


def _time() -> str:
    return "COALESCE(`time_ms`, 0)"


def _slot_columns(layout: Layout, tier: int) -> tuple[str, ...]:
    named = []
    used = {"s": 0, "x": 0}
    for slot in layout.tiers[tier]:
        letter = "s" if layout.measures[slot].grows_by == "add" else "x"
        named.append(f"{letter}{used[letter]}")
        used[letter] += 1
    return tuple(named)


def _head_columns(layout: Layout, slots: tuple[str, ...]) -> tuple[str, ...]:
    first = sum(name.startswith("x") for name in slots)
    return tuple(f"x{first + i}" for i, _ in enumerate(layout.heads))


def _fields(catalogue: Catalogue, topic: Topic) -> list[str]:
    """Fields of the transaction that some slot grown by this topic reads, in the schema's order."""
    needed: set[str] = set()
    for layout in catalogue.layouts.values():
        readers: list[Measure | Head] = [*layout.measures, *layout.heads]
        for what in readers:
            if _condition(catalogue.schema, topic, what.source, what.where) is not None:
                needed.update(w.field for w in what.where)
                if isinstance(what, Measure) and what.field is not None and what.aggregate != "count":
                    needed.add(what.field)
    if topic == "events":
        needed.discard(catalogue.schema.amount or "")
    return [name for name in catalogue.schema.by_name if name in needed]


def _marks(catalogue: Catalogue) -> tuple[str, ...]:
    places = any(h.kind == "place" for layout in catalogue.layouts.values() for h in layout.heads)
    return (*catalogue.mark_fields, *(("place",) if places else ()))


def _quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _literals(values: tuple[str, ...]) -> str:
    return ", ".join(map(_literal, values))
