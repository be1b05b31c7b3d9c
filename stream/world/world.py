"""A payments world: one call makes its whole history, the same bytes for the same specification and seed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stream.world.ground import Ground
from stream.world.labels import report
from stream.world.lifecycle import live
from stream.world.merchants import found_merchants
from stream.world.people import Network, settle_people
from stream.world.routine import everyday, standing
from stream.world.schedule import RESERVES_PER_RING, campaigns, occasions, rings_at_most
from stream.world.spec import WorldSpec
from stream.world.tables import event_table, transaction_table

_OWNER_KINDS = ("bust_out", "refund_abuse", "mule_chain")
_ROW_GROUP = 65_536


@dataclass(frozen=True, slots=True)
class World:
    """The history of one world; both tables in time order, columns as in `stream.world.tables`."""

    spec: WorldSpec
    seed: int
    transactions: pa.Table
    events: pa.Table


def generate(spec: WorldSpec, seed: int) -> World:
    """Makes a world. Pure: no clock, no randomness but `seed` (a non-negative integer).

    Takes about 1.5 us and 500 bytes per transaction.
    """
    streams = [np.random.Generator(np.random.PCG64([seed, 0, part])) for part in range(9)]
    network = Network(mailbox_count=0)
    people = settle_people(spec, streams[0], network, rings_at_most(spec) * RESERVES_PER_RING)
    network.mailboxes(len(people.country))
    ground = Ground(spec, found_merchants(spec, streams[1]), people, network)
    attacks, attack_rows = campaigns(ground, streams[2], seed)
    fraud_rows = sum(len(block) for block in attack_rows)
    benign, benign_rows = occasions(ground, streams[3], seed, fraud_rows)
    blocks = [everyday(ground, streams[4]), standing(ground, streams[5]), *attack_rows, *benign_rows]
    rows = np.concatenate(blocks)
    rows = rows[np.argsort(rows["time"], kind="stable")]

    of_owner = np.array([event.kind in _OWNER_KINDS for event in attacks] + [True])
    life = live(ground, streams[6], rows, by_owner=of_owner[rows["campaign"]])
    labels = report(spec, streams[7], rows, life.declined)
    names, looks = [event.name for event in attacks], [event.name for event in benign]
    table = transaction_table(ground, rows, seed, labels, names, looks)
    return World(spec, seed, table, event_table(life, table, seed))


def events_path(history: Path) -> Path:
    """Where the lifecycle events of a history lie: `<name>.events.parquet` beside `<name>.parquet`."""
    return history.with_name(history.stem + ".events.parquet")


def write_history(world: World, path: Path) -> tuple[Path, Path]:
    """Writes `<name>.parquet` and `<name>.events.parquet` (fixed settings: same world, same bytes).

    Returns both paths. May raise OSError.
    """
    for table, target in ((world.transactions, path), (world.events, events_path(path))):
        pq.write_table(
            table,
            target,
            row_group_size=_ROW_GROUP,
            compression="zstd",
            compression_level=3,
            version="2.6",
            store_schema=False,
            write_statistics=True,
        )
    return path, events_path(path)
