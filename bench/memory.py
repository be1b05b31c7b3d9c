"""Memory of an active card in the online store: a hundred transactions, on average, in ninety days.

    .venv/bin/python -m bench.memory [--cards 200] [--json] [--write]

Starts a node of its own and observes every transaction through the store, as the decision path does. Bytes
are what the server says of each key (`MEMORY USAGE`), its name and overhead included. Entities that a card
shares with others, and pairs, are shown apart. Before anything is reported, the cards' states must hold every
transaction.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

from bench.command import arguments, teller, terms
from bench.store import DAYS, PER_CARD, bytes_per_entity, info, observe, pseudonym, purchases
from cordon.evidence import Evidence
from cordon.failure import Failure
from cordon.stack.port import Ports
from cordon.stack.supervisor import Stack
from cordon.stack.valkey import Valkey
from features import DAY, load
from features.catalogue import Catalogue
from features.redis_store import connect
from features.resp import Address, Connection
from features.state import State

BYTES_MAX: Final = 4_096
BATCH: Final = 64


class WrongStates(Failure):
    """The store does not hold what was observed: nothing to report."""


def main() -> None:
    """Measures; the status says whether a card stays below the limit."""
    parser = arguments(__doc__)
    parser.add_argument("--cards", type=int, default=200)
    options = parser.parse_args()
    evidence = Evidence.begin("memory")
    say = teller(options, evidence)
    with tempfile.TemporaryDirectory() as name:
        node = Valkey(Path(name) / "data", Ports().take())
        with Stack([node.part()], Path(name)):
            report = measure(node.url, load("payments"), options.cards, say)
    evidence.end(report, holds=report["bytes_per_card"] < BYTES_MAX, write=options.write)


def measure(url: str, catalogue: Catalogue, cards: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The report. Raises `WrongStates`."""
    began_s = time.monotonic()
    store = connect(url, catalogue, "bench")
    server = Connection(Address.parse(url))
    server.call("CONFIG", "SET", "appendonly", "no")
    count = cards * PER_CARD
    events = purchases(catalogue, catalogue.entities, cards, DAYS * DAY // count, Random(1))
    observe(store, events, count, BATCH)
    held = store.read("card", [pseudonym("card", str(card)) for card in range(cards)])
    store.close()
    counted = [State.decode(catalogue.layouts["card"], state).n if state else 0 for state in held]
    if sum(counted) != count:
        raise WrongStates(f"the cards' states hold {sum(counted)} of {count} transactions")
    say(f"{count} transactions of {cards} cards observed")
    found = bytes_per_entity(server, catalogue, catalogue.entities)
    version = info(server, "server").get("valkey_version", "")
    server.close()
    return {
        "bytes_per_card": found["card"]["memory"],
        "state_bytes_per_card": found["card"]["bytes"],
        "transactions_per_card": round(sum(counted) / cards, 1),
        "days": DAYS,
        "cards": cards,
        "entities": found,
        "server": version,
        "catalogue": catalogue.name,
        **terms(seconds=time.monotonic() - began_s, connections=1),
    }


if __name__ == "__main__":
    main()
