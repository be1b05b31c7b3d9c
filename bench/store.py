"""What an observed transaction costs a Valkey node, and what an entity's state weighs.

    .venv/bin/python -m bench.store [--catalogue payments] [--cards 300] [--transactions 20000]
        [--lua] [--json] [--write]

Starts a node of its own, gives every card a hundred transactions in ninety days, then observes more in
batches of 1, 16 and 64, and merges what Flink asserts of some (`bench.merges`). CPU is the server's main
thread (`INFO cpu`) and this process's own. Every transaction must have been observed.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any, Final

from bench.command import arguments, teller, terms
from bench.merges import merge_costs
from cordon.evidence import Evidence
from cordon.stack.port import Ports
from cordon.stack.supervisor import Stack
from cordon.stack.valkey import Valkey
from features.catalogue import Catalogue, load
from features.library import Packing
from features.measure import Scalar
from features.redis_store import connect
from features.resp import Address, Connection
from features.store import Arrival, OnlineStore
from features.tier import DAY

START_MS = 19_700 * DAY
DAYS = 90
PER_CARD = 100
ROUNDS = 8
MERGED = 256
# How many there are of an entity for each card; what is not named follows the card.
SHARE = {"merchant": 0.3, "terminal": 0.5, "device": 1.2, "ip": 2.0}


RECEIPT_BYTES: Final = 1_420  # of a payments transaction
SERVER_US_MAX: Final = 125.0
"""Of the server, for a transaction in a batch of 64: one core of Redis carries the 8,000/s of a door then."""


def main() -> None:
    """Measures; the status says whether the server needs no more than it may."""
    parser = arguments(__doc__)
    parser.add_argument("--catalogue", default="payments")
    parser.add_argument("--cards", type=int, default=300)
    parser.add_argument("--transactions", type=int, default=20_000)
    parser.add_argument("--entities", default="", help="names, separated by commas; all if empty")
    parser.add_argument("--lua", action="store_true", help="a server without the module")
    options = parser.parse_args()
    catalogue = load(options.catalogue)
    entities = tuple(options.entities.split(",")) if options.entities else catalogue.entities
    name = "store" if options.catalogue == "payments" else f"store_{options.catalogue}"
    evidence = Evidence.begin(f"{name}_lua" if options.lua else name)
    say = teller(options, evidence)
    with tempfile.TemporaryDirectory() as directory:
        node = Valkey(Path(directory) / "data", Ports().take())
        if options.lua:
            node = replace(node, module=None)
        with Stack([node.part()], Path(directory)):
            report = measure(node, catalogue, entities, options.cards, options.transactions, say)
    evidence.end(report, holds=report["server_us"] <= SERVER_US_MAX, write=options.write)


def measure(
    node: Valkey,
    catalogue: Catalogue,
    entities: tuple[str, ...],
    cards: int,
    transactions: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The figures as one object."""
    began_s = time.monotonic()
    url = f"unix://{node.socket}" if node.socket else node.url
    store = connect(url, catalogue, "bench")
    server = Connection(Address.parse(url))
    server.call("CONFIG", "SET", "appendonly", "no")
    rng = Random(1)
    pace_ms = DAYS * DAY // (cards * PER_CARD)
    events = purchases(catalogue, entities, cards, pace_ms, rng)
    observe(store, events, cards * PER_CARD, 64)
    results: dict[str, Any] = {}
    for append_only in (False, True):
        server.call("CONFIG", "SET", "appendonly", "yes" if append_only else "no")
        settle(server)
        for batch in (1, 16, 64):
            label = f"batch {batch}{', append-only file' if append_only else ''}"
            runs = [timed(server, store, events, transactions // ROUNDS, batch) for _ in range(ROUNDS)]
            # The least of several rounds: whatever else runs on the machine only adds.
            results[label] = {name: min(run[name] for run in runs) for name in runs[0]}
            say(f"{label}: {results[label]}")
    appended = append_bytes(server, store, events, transactions // ROUNDS)
    say(f"{appended} bytes of append-only file per transaction")
    parts = [
        merge_costs(store, catalogue, events, MERGED, lambda: server_cpu_s(server)) for _ in range(ROUNDS)
    ]
    merges = {name: min(part[name] for part in parts) for name in parts[0]}
    say(f"merges: {merges}")
    store.close()
    weights = bytes_per_entity(server, catalogue, entities)
    version = info(server, "server")
    server.close()
    return {
        "server_us": results["batch 64"]["server_us"],
        "server": version.get("valkey_version", version["redis_version"]),
        "allocator": node.allocator or "libc",
        "functions": "Lua" if node.module is None else "compiled",
        "catalogue": catalogue.name,
        "entities_per_transaction": len(entities),
        "cards": cards,
        "transactions": transactions,
        "cpu_us_per_transaction": results,
        "merges_us_per_transaction": merges,
        "append_bytes_per_transaction": appended,
        "state": weights,
        **terms(seconds=time.monotonic() - began_s, runs=ROUNDS, connections=1),
    }


def timed(
    server: Connection, store: OnlineStore, events: Iterator[Arrival], count: int, batch: int
) -> dict[str, float]:
    """Microseconds per transaction: claimed, observed and answered."""
    busy_s, own_s, wall_s = server_cpu_s(server), time.process_time(), time.monotonic()
    making_s = observe(store, events, count, batch)
    return {
        "server_us": per(server_cpu_s(server) - busy_s, count),
        "client_us": per(time.process_time() - own_s - making_s, count),
        "wall_us": per(time.monotonic() - wall_s - making_s, count),
    }


def append_bytes(server: Connection, store: OnlineStore, events: Iterator[Arrival], count: int) -> int:
    """By which the append-only file grows for a transaction."""
    before = int(info(server, "persistence")["aof_current_size"])
    observe(store, events, count, 64)
    return (int(info(server, "persistence")["aof_current_size"]) - before) // count


def purchases(
    catalogue: Catalogue, entities: tuple[str, ...], cards: int, pace_ms: int, rng: Random
) -> Iterator[Arrival]:
    """Endless transactions, one every `pace_ms` of event time, cards in turn at random."""
    packing, number, time_ms = Packing(catalogue), 0, START_MS
    while True:
        number, time_ms = number + 1, time_ms + pace_ms
        card = rng.randrange(cards)
        who = {name: str(card) for name in entities}
        for name, share in SHARE.items():
            # Half of the time the card's usual one.
            usual = card if rng.random() < 0.5 else rng.randrange(cards)
            who[name] = str(usual % max(1, int(cards * share)))
        who["card_merchant"] = f"{card} {who['merchant']}"
        amount = int(rng.lognormvariate(8, 1))
        values: dict[str, Scalar] = {
            "amount": amount,
            "channel": rng.choice(["ecom", "pos"]),
            "entry": "chip",
        }
        marks = {f: rng.randrange(1, 9) << 40 for f in catalogue.mark_fields}
        marks["place"] = rng.randrange(2**30)
        targets = tuple(
            packing.target(
                name,
                pseudonym(name, who[name]),
                catalogue.layouts[name].observation(number << 20 | 1, "transaction", time_ms, values, marks),
            )
            for name in entities
        )
        yield Arrival(f"tx:{number}", b"c" * 16, b"o" * 16, b"p" * 1_200, targets)


def pseudonym(entity: str, id_: str) -> str:
    """As long as a real one."""
    return blake2b(f"{entity} {id_}".encode(), digest_size=16).hexdigest()


def observe(store: OnlineStore, events: Iterator[Arrival], count: int, batch: int) -> float:
    """Claim, observe and answer `count` events; seconds of own CPU spent on making them."""
    making_s, left = 0.0, count
    while left > 0:
        started_s = time.process_time()
        arrivals = [next(events) for _ in range(min(batch, left))]
        making_s += time.process_time() - started_s
        now_ms = time.time_ns() // 1_000_000
        results = store.arrive(arrivals, now_ms=now_ms, deadline_ms=now_ms + 10_000)
        assert all(len(r.states) == len(a.targets) for r, a in zip(results, arrivals, strict=True))
        store.complete([(a.key, a.owner, b"a" * RECEIPT_BYTES) for a in arrivals])
        left -= len(arrivals)
    return making_s


def bytes_per_entity(
    server: Connection, catalogue: Catalogue, entities: tuple[str, ...]
) -> dict[str, dict[str, int]]:
    """Mean bytes of an entity's state, and of the memory that its key takes in all."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    cursor = 0
    while True:
        reply = server.call("SCAN", cursor, "MATCH", f"*:s:{catalogue.state_fingerprint}", "COUNT", 1_000)
        match reply:
            case [bytes(after), [*keys]]:
                for key in keys:
                    assert isinstance(key, bytes)
                    length, memory = server.call("STRLEN", key), server.call("MEMORY", "USAGE", key)
                    assert isinstance(length, int)
                    assert isinstance(memory, int)
                    found[key.decode().split(":")[1]].append((length, memory))
                cursor = int(after)
        if cursor == 0:
            break
    return {
        name: {
            "keys": len(found[name]),
            "bytes": sum(length for length, _ in found[name]) // len(found[name]),
            "memory": sum(memory for _, memory in found[name]) // len(found[name]),
        }
        for name in entities
    }


def settle(server: Connection) -> None:
    """Wait until the server has no rewrite in its background."""
    while "aof_rewrite_in_progress:0" not in text(server, "persistence"):
        time.sleep(0.1)


def server_cpu_s(server: Connection) -> float:
    """CPU seconds of the server's main thread so far."""
    cpu = info(server, "cpu")
    return float(cpu["used_cpu_user_main_thread"]) + float(cpu["used_cpu_sys_main_thread"])


def info(server: Connection, section: str) -> dict[str, str]:
    """One section of `INFO`."""
    return dict(line.split(":", 1) for line in text(server, section).splitlines() if ":" in line)


def text(server: Connection, section: str) -> str:
    """One section of `INFO` as it comes."""
    reply = server.call("INFO", section)
    return reply.decode() if isinstance(reply, bytes) else ""


def per(seconds: float, count: int) -> float:
    """Microseconds each."""
    return round(seconds / count * 1e6, 1)


if __name__ == "__main__":
    main()
