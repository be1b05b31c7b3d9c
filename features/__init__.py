"""What a feature is: schema, events, tiles, the catalogue language and its executions.

The public language for a catalogue file::

    from features import Catalogue, Entity, Field, Schema, Window, HOUR, DAY
"""

from features.catalogue import Catalogue, load
from features.feature import (
    Distinct,
    Feature,
    Gap,
    Novelty,
    Own,
    Ratio,
    ReferenceTable,
    Speed,
    Window,
    ZScore,
    hour,
    mismatch,
    present,
    reference,
    time_of_day,
    value,
    weekday,
)
from features.measure import FRAUD, Where
from features.schema import Entity, Field, Label, Schema, SchemaError
from features.tier import DAY, HOUR, MINUTE, SECOND

__all__ = [
    "DAY",
    "FRAUD",
    "HOUR",
    "MINUTE",
    "SECOND",
    "Catalogue",
    "Distinct",
    "Entity",
    "Feature",
    "Field",
    "Gap",
    "Label",
    "Novelty",
    "Own",
    "Ratio",
    "ReferenceTable",
    "Schema",
    "SchemaError",
    "Speed",
    "Where",
    "Window",
    "ZScore",
    "hour",
    "load",
    "mismatch",
    "present",
    "reference",
    "time_of_day",
    "value",
    "weekday",
]
