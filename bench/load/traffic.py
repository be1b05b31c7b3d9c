"""Realistic traffic for the doors: payments of a generated world, in its order, as request bodies."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from features import Catalogue
from stream.replay.history import History, extent, transactions
from stream.replay.item import Item
from stream.world.spec import WorldSpec
from stream.world.world import generate, write_history

SEED: Final = 303
CUSTOMERS: Final = 4_000
PER_CUSTOMER_AND_DAY: Final = 1.4
DAYS_MIN: Final = 7
# Denser in attacks than life, so that the share of answers that are explained is that of a bad day.
FRAUD_SHARE: Final = 0.03
WORLD: Final = "world.parquet"


@dataclass(slots=True)
class Traffic:
    """Transactions, each taken once."""

    _items: Iterator[Item]

    def take(self, count: int) -> list[Item]:
        """The next ones. Raises `StopIteration` where the world has fewer."""
        found = list(islice(self._items, count))
        if len(found) < count:
            raise StopIteration
        return found


def traffic(catalogue: Catalogue, count: int, directory: Path) -> Traffic:
    """At least `count` transactions; the world is written to `directory` as `WORLD`."""
    days = max(DAYS_MIN, int(count / (CUSTOMERS * PER_CUSTOMER_AND_DAY)) + 2)
    path = directory / WORLD
    write_history(generate(WorldSpec(CUSTOMERS, days, fraud_share=FRAUD_SHARE, captures=False), SEED), path)
    history = History(path, catalogue.schema)
    return Traffic(transactions(history, extent(history)))
