"""Flink SQL of a catalogue: sources over the log and one grouping that asserts absolute slots.

Every event fans out into rows `(code, id, time_ms, slots)`, one for each entity that it touches; one GROUP
BY over `(code, id)` keeps their tiles and says what the event changed (`assertion`, in stream/java). `code`
names the kind of row::

    code 0, 1, 2         how far a topic's partition was read; slots = partition, next offset, event time ms
    one per entity       the event as the entity's state sees it (`features.layout.Observation`);
                         slots = deltas, heads, marks, aligned with the layout

The rows of one event leave one operator in this order, its position last: on the way to any one grouping
subtask nothing overtakes, so a position that arrives says that all before it has arrived there too. With
several subtasks each of them gets its own position row (a *lane*).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from features.catalogue import Catalogue
from features.layout import Layout
from features.measure import FRAUD, PLACE_BITS, TRANSACTION, WITHDRAWN, Head, Measure, Where
from features.schema import Kind, Schema
from features.tier import MINUTE, TIERS

Topic = Literal["decisions", "events", "labels"]
TOPICS: Final[tuple[Topic, ...]] = ("decisions", "events", "labels")
FIRST_ENTITY: Final = 8
# Of the layouts' text and of what the aggregate function keeps; counts up with either.
_FORMAT: Final = 1
# A tile's number has 32 bits in the store.
_TIME_MS_MAX: Final = 2**32 * MINUTE - 1
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
class Lanes:
    """Where position rows go: `ids[subtask]` is an id whose row that grouping subtask gets."""

    ids: tuple[str, ...] = ("0",)


def topics(catalogue: Catalogue, job: Literal["features", "labels"]) -> tuple[Topic, ...]:
    """Topics that a job of this catalogue reads; empty if the catalogue needs no such job."""
    if job == "labels":
        return ("labels",) if catalogue.sources & {FRAUD, WITHDRAWN} else ()
    return ("decisions", "events") if catalogue.sources & set(catalogue.schema.lifecycle) else ("decisions",)


def code(catalogue: Catalogue, entity: str) -> int:
    """Code of an entity's rows. Raises `ValueError` for one without state."""
    return FIRST_ENTITY + catalogue.entities.index(entity)


def layouts(catalogue: Catalogue) -> str:
    """The layouts as the aggregate function reads them (stream/java, `Layout`)."""
    found = [str(_FORMAT)]
    for entity, layout in catalogue.layouts.items():
        tiers = []
        for tier in TIERS:
            slots = layout.tiers[tier.index]
            named = "+".join(f"{m}{'^' if layout.measures[m].grows_by == 'max' else ''}" for m in slots)
            if slots:
                tiers.append(f"{tier.index},{tier.length_ms},{layout.keep_ms[tier.index]},{named}")
        counts = len(layout.measures), len(layout.heads), len(layout.maps)
        found.append(":".join(map(str, (code(catalogue, entity), *counts, *tiers))))
    return "/".join(found)


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
        f"`{_LIVE}` AS `type` IN ({_literals(_TYPES[topic])}) AND `time_ms` BETWEEN 0 AND {_TIME_MS_MAX}",
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
    return table(topic, body, options)


def table(name: str, columns: Iterable[str], options: Mapping[str, str]) -> str:
    """CREATE TABLE of a temporary table."""
    listed = ",\n  ".join(f"{_literal(k)} = {_literal(v)}" for k, v in options.items())
    inner = ",\n  ".join(columns)
    return f"CREATE TEMPORARY TABLE {_quoted(name)} (\n  {inner}\n) WITH (\n  {listed}\n)"


def grouping(catalogue: Catalogue, read: tuple[Topic, ...], lanes: Lanes | None = None) -> str:
    """The query over the sources `read`: rows `(code, id, argument)`, what each event asserts of an entity.

    `argument` is that of the entity's merge function (`features.library`); of a position its three numbers
    as u64; NULL where nothing is asserted.
    """
    fanned = [_fan_out(catalogue, topic, lanes or Lanes()) for topic in read]
    union = "\nUNION ALL\n".join(fanned)
    assertion = f"assertion(`code`, `time_ms`, `slots`, {_literal(layouts(catalogue))})"
    return f"SELECT `code`, `id`, {assertion} AS `argument`\nFROM (\n{union}\n)\nGROUP BY `code`, `id`"


def _fan_out(catalogue: Catalogue, topic: Topic, lanes: Lanes) -> str:
    rows = [row for entity in catalogue.layouts if (row := _row(catalogue, topic, entity)) is not None]
    position = ["`event_partition`", "`event_offset` + 1", _time()]
    rows += [_record(TOPICS.index(topic), _literal(lane), position) for lane in lanes.ids]
    listed = ",\n    ".join(rows)
    return (
        f"  SELECT r.* FROM `{topic}` CROSS JOIN UNNEST(ARRAY[\n    {listed}\n  ])"
        " AS r (`code`, `id`, `time_ms`, `slots`)\n"
        "  WHERE r.`id` IS NOT NULL"
    )


def _row(catalogue: Catalogue, topic: Topic, entity: str) -> str | None:
    """One element of the fan-out; its id is NULL where the event leaves no trace in the entity."""
    conditions, slots = _slots(catalogue.schema, topic, catalogue.layouts[entity])
    if not conditions:
        return None
    touched = f"`{_LIVE}`" if "TRUE" in conditions else f"`{_LIVE}` AND ({' OR '.join(conditions)})"
    who = f"`entities`.{_quoted(entity)}"
    return _record(code(catalogue, entity), _when(touched, who, "NULL"), slots)


def _slots(schema: Schema, topic: Topic, layout: Layout) -> tuple[list[str], list[str]]:
    """Conditions under which an event touches the entity, and SQL of deltas, heads and marks."""
    parts = [
        *((_condition(schema, topic, m.source, m.where), _delta(schema, topic, m)) for m in layout.measures),
        *((_condition(schema, topic, h.source, h.where), _head(h)) for h in layout.heads),
    ]
    for remembered in layout.maps:
        mark = f"`marks`.{_quoted(remembered.field)}"
        parts.append((f"{mark} > 0" if topic == "decisions" else None, mark))
    conditions = dict.fromkeys(condition for condition, _ in parts if condition is not None)
    slots = ["0" if when is None else _when(when, expression, "0") for when, expression in parts]
    return list(conditions), slots


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


def _record(number: int, who: str, slots: list[str]) -> str:
    listed = ", ".join(f"CAST({slot} AS BIGINT)" for slot in slots)
    return f"ROW({number}, CAST({who} AS STRING), {_time()}, ARRAY[{listed}])"


def _when(condition: str, then: str, otherwise: str) -> str:
    return then if condition == "TRUE" else f"CASE WHEN {condition} THEN {then} ELSE {otherwise} END"


def _time() -> str:
    return "COALESCE(`time_ms`, 0)"


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
