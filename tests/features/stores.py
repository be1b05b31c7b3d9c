"""Online stores of every kind under one name, and arrivals to give them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from features.catalogue import Catalogue
from features.handbook import CATALOGUE
from features.library import Packing
from features.memory_store import MemoryStore
from features.node import Limits
from features.redis_store import connect
from features.state import State
from features.store import Arrival, Observed, OnlineStore, Status
from features.tier import DAY

TENANT: Final = "acme"
# Noon of a day in 2024: event time, far from the wall clock that claims and deadlines go by.
NOON: Final = 19_800 * DAY + DAY // 2


def wall_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Backend:
    """`open` gives a client of one and the same store; `takeover_ms`: when open claims are taken over."""

    open: Callable[[int], OnlineStore]
    url: str = ""


def memory() -> Backend:
    """One store in memory, whichever client."""
    opened: dict[int, MemoryStore] = {}

    def open_store(takeover_ms: int) -> OnlineStore:
        store = opened.setdefault(0, MemoryStore(CATALOGUE.layouts, wall_ms, takeover_ms))
        store.takeover_ms = takeover_ms
        return store

    return Backend(open_store)


def server(url: str) -> Backend:
    """A store behind a URL."""
    return Backend(lambda takeover_ms: connect(url, CATALOGUE, TENANT, Limits(takeover_ms=takeover_ms)), url)


def cluster_url(ports: Sequence[int]) -> str:
    """URL of a cluster on this machine."""
    return "cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports)


def number(text: str) -> int:
    """A stable positive 63-bit number."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1 | 1


def pseudonym(text: str) -> str:
    """A stable pseudonym."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def purchase(
    name: str,
    *,
    time_ms: int = NOON,
    amount: int = 1_000,
    customer: str = "anna",
    terminal: str = "till",
    content: bytes | None = None,
    owner: bytes = b"first attempt 00",
    observe: bool = True,
    catalogue: Catalogue = CATALOGUE,
) -> Arrival:
    """A transaction of the handbook's schema."""
    who = {"customer": customer, "terminal": terminal}
    marks = {"terminal": number(terminal)}
    targets = tuple(
        Packing(catalogue).target(
            entity,
            pseudonym(who[entity]),
            layout.observation(number(name), "transaction", time_ms, {"amount": amount}, marks),
        )
        for entity, layout in catalogue.layouts.items()
    )
    digest = content or blake2b(f"{name} {amount}".encode(), digest_size=16).digest()
    return Arrival(f"tx:{name}", digest, owner, f"payload of {name}".encode(), targets, observe)


def arrive(store: OnlineStore, *arrivals: Arrival, now_ms: int | None = None) -> list[Observed]:
    """One batch with ten seconds to go."""
    now_ms = wall_ms() if now_ms is None else now_ms
    return store.arrive(arrivals, now_ms=now_ms, deadline_ms=wall_ms() + 10_000)


def state(store: OnlineStore, entity: str, who: str) -> State:
    """The decoded state of one entity."""
    return State.decode(CATALOGUE.layouts[entity], store.read(entity, [pseudonym(who)])[0])


def slots(store: OnlineStore, entity: str, who: str, tier: int) -> dict[int, list[int]]:
    """Tiles of one tier."""
    return state(store, entity, who).tiers[tier]


def writer(url: str, first: int, last: int, step: int, owner: bytes) -> tuple[list[str], int]:
    """Sends purchases `first <= i < last` in batches of `step`, again as long as they are pending.

    Statuses that were final, and the number of attempts. A function of a module, so that other processes
    can run it.
    """
    store = connect(url, CATALOGUE, TENANT, Limits(takeover_ms=60_000))
    final: list[str] = []
    attempts = 0
    for start in range(first, last, step):
        waiting = [
            purchase(f"shared {i}", customer=f"c{i % 3}", terminal=f"t{i % 2}", owner=owner, amount=i + 1)
            for i in range(start, min(last, start + step))
        ]
        while waiting:
            attempts += 1
            results = arrive(store, *waiting)
            mine = [a for a, r in zip(waiting, results, strict=True) if r.status is Status.NEW]
            store.complete([(a.key, a.owner, b"answer") for a in mine])
            final += [r.status.value for r in results if r.status is not Status.PENDING]
            waiting = [a for a, r in zip(waiting, results, strict=True) if r.status is Status.PENDING]
    store.close()
    return final, attempts
