"""The online store as a table of Flink, and what it is told (stream/java, `StoreTable`).

A row `(code, id, argument)` of the grouping is a merge call of one entity, or a position. The sink sends the
calls that gathered within a few milliseconds, waits for every answer and only then publishes the positions
among them; on a checkpoint nothing is left behind.
"""

from collections.abc import Mapping
from typing import Final

from features import sql
from features.catalogue import Catalogue
from features.library import Keys, function_name, library, sections
from stream.link import Place

NAME: Final = "store"
COLUMNS: Final = (
    "`code` INT",
    "`id` STRING",
    "`argument` BYTES",
    "PRIMARY KEY (`code`, `id`) NOT ENFORCED",
)


def options(
    catalogue: Catalogue,
    tenant: str,
    place: Place,
    generation: str,
    topics: Mapping[sql.Topic, str],
    lanes: sql.Lanes,
) -> Mapping[str, str]:
    """Options of the table. `generation`: the store's, under which positions are published; `topics`: those
    that the job reads, by their names in Kafka."""
    keys = Keys(tenant, catalogue.state_fingerprint)
    calls = []
    for entity, layout in catalogue.layouts.items():
        before, after = keys.state(entity, "\0").split("\0")
        sizes = ",".join(f"{section.code}={section.size}" for section in sections(layout))
        function = function_name(catalogue, "merge", entity)
        calls.append(f"{sql.code(catalogue, entity)} {function} {before} {after} {sizes}")
    first = place.seeds[0]
    return {
        "connector": "cordon-store",
        "nodes": first.path or ",".join(f"{seed.host}:{seed.port}" for seed in place.seeds),
        "cluster": str(place.cluster).lower(),
        "username": first.username,
        "password": first.password,
        "database": str(first.database),
        "generation": generation,
        "functions": library(catalogue),
        "entities": "\n".join(calls),
        "topics": ",".join(f"{sql.TOPICS.index(topic)}={name}" for topic, name in topics.items()),
        "watermark": keys.watermark,
        "lanes-key": keys.lanes,
        "lanes": ",".join(lanes.ids),
    }
