"""A Redis Cluster: keys find their node, and slots may move while transactions are observed."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.cluster_store import SLOTS, slot
from features.handbook import CATALOGUE
from features.library import Keys
from features.resp import Address, Connection
from features.store import Status
from tests.features.stores import (
    NOON,
    TENANT,
    arrive,
    cluster_url,
    pseudonym,
    purchase,
    server,
    state,
    wall_ms,
)
from tests.parts import RunningCluster

KEYS = Keys(TENANT, CATALOGUE.state_fingerprint)


class Nodes:
    """Connections to the nodes of a cluster, by port, for moving slots."""

    def __init__(self, cluster: RunningCluster) -> None:
        self.ports = [node.port for node in cluster.nodes]
        self.by_port = {port: Connection(Address(host="127.0.0.1", port=port)) for port in self.ports}
        self.ids = {port: self.text(port, "CLUSTER", "MYID") for port in self.ports}

    def text(self, port: int, *words: str | int) -> str:
        reply = self.by_port[port].call(*words)
        assert isinstance(reply, bytes)
        return reply.decode()

    def owner(self, number: int) -> int:
        """Port of the node that owns the slot, as the first node sees it."""
        ranges = self.by_port[self.ports[0]].call("CLUSTER", "SLOTS")
        assert isinstance(ranges, list)
        for item in ranges:
            match item:
                case [int(first), int(last), [_, int(port), *_], *_] if first <= number <= last:
                    return port
        raise AssertionError(f"nobody owns slot {number}")

    def open(self, number: int, source: int, target: int) -> None:
        """From now on keys that the source does not have are asked of the target."""
        self.by_port[target].call("CLUSTER", "SETSLOT", number, "IMPORTING", self.ids[source])
        self.by_port[source].call("CLUSTER", "SETSLOT", number, "MIGRATING", self.ids[target])

    def carry(self, number: int, source: int, target: int) -> int:
        """Move the keys that are there; their number."""
        moved = 0
        while keys := self.by_port[source].call("CLUSTER", "GETKEYSINSLOT", number, 10):
            assert isinstance(keys, list)
            words = [key for key in keys if isinstance(key, bytes)]
            self.by_port[source].call("MIGRATE", "127.0.0.1", target, "", 0, 5_000, "KEYS", *words)
            moved += len(words)
        return moved

    def settle(self, number: int, target: int) -> None:
        """Everybody learns the new owner."""
        for port in sorted(self.ports, key=lambda port: port != target):
            self.by_port[port].call("CLUSTER", "SETSLOT", number, "NODE", self.ids[target])

    def close(self) -> None:
        for connection in self.by_port.values():
            connection.close()


@pytest.fixture
def nodes(redis_cluster: RunningCluster):
    opened = Nodes(redis_cluster)
    yield opened
    opened.close()


@given(text=st.text(max_size=20))
def test_a_slot_is_a_number_of_the_tag(text: str) -> None:
    assert 0 <= slot(text) < SLOTS
    if text and "}" not in text and "{" not in text:
        assert slot("{" + text + "}:s:1") == slot(text)


def test_slots_are_those_of_the_server(nodes: Nodes) -> None:
    odd = ["a}b", "{}x", "{a", "{a}{b}", "é", ""]
    keys = [KEYS.generation, KEYS.claim("tx:1"), *map(KEYS.claim, odd), *odd]
    for key in keys:
        assert nodes.by_port[nodes.ports[0]].call("CLUSTER", "KEYSLOT", key) == slot(key)


def test_entities_of_a_transaction_live_on_several_nodes(redis_cluster: RunningCluster) -> None:
    owners = {slot(KEYS.state("customer", pseudonym(f"c{i}"))) * 3 // SLOTS for i in range(20)}
    assert owners == {0, 1, 2}


def test_slots_that_move_while_observing_lose_and_double_nothing(
    redis_cluster: RunningCluster, nodes: Nodes
) -> None:
    """Slots of customers, terminals and claims go to another node and back, under traffic."""
    customers, terminals = [f"c{i}" for i in range(4)], [f"t{i}" for i in range(3)]
    moving = [slot(KEYS.state("customer", pseudonym(who))) for who in customers]
    moving += [slot(KEYS.state("terminal", pseudonym(who))) for who in terminals]
    moving += [slot(KEYS.claim(f"tx:p{i}")) for i in range(0, 60, 6)]
    moving.append(slot(KEYS.open_claims))
    url = cluster_url(nodes.ports)
    finished = threading.Event()

    def traffic(writer: int) -> tuple[list[str], Counter[Status]]:
        store = server(url).open(60_000)
        sent: list[str] = []
        statuses: Counter[Status] = Counter()
        while not finished.is_set() or len(sent) < 200:
            names = [f"p{2 * i + writer}" for i in range(len(sent), len(sent) + 5)]
            events = [
                purchase(n, customer=customers[int(n[1:]) % 4], terminal=terminals[int(n[1:]) % 3])
                for n in names
            ]
            statuses.update(r.status for r in arrive(store, *events))
            assert store.complete([(e.key, e.owner, b"done") for e in events]) == [True] * 5
            sent += names
        store.close()
        return sent, statuses

    for port in nodes.ports:
        nodes.by_port[port].call("CONFIG", "RESETSTAT")
    origins = {number: nodes.owner(number) for number in moving}
    moved = 0
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(traffic, writer) for writer in (0, 1)]
        try:
            for back in (False, True):
                for number, origin in origins.items():
                    away = next(port for port in nodes.ports if port != origin)
                    source, target = (away, origin) if back else (origin, away)
                    nodes.open(number, source, target)
                    time.sleep(0.02)
                    moved += nodes.carry(number, source, target)
                    time.sleep(0.02)
                    nodes.settle(number, target)
        finally:
            finished.set()
        ended = [job.result(30) for job in jobs]
    names = [name for sent, _ in ended for name in sent]
    statuses = ended[0][1] + ended[1][1]
    assert moved > len(moving)
    # The traffic did meet slots in both states: half moved, and gone.
    errors = "".join(nodes.text(port, "INFO", "errorstats") for port in nodes.ports)
    assert "errorstat_ASK" in errors
    assert "errorstat_MOVED" in errors
    assert statuses == Counter({Status.NEW: len(names)})
    store = server(url).open(60_000)
    for entity, people in (("customer", customers), ("terminal", terminals)):
        layout = CATALOGUE.layouts[entity]
        for i, who in enumerate(people):
            mine = [n for n in names if int(n[1:]) % len(people) == i]
            held = state(store, entity, who)
            assert held.n == len(mine)
            minute = held.tiers[0][NOON // 60_000]
            assert minute[layout.tiers[0].index(0)] == len(mine)
    replays = arrive(store, *map(purchase, names[:20]))
    assert {r.status for r in replays} == {Status.REPLAY}
    assert store.open_claims(wall_ms() + 1_000, 10) == []
    store.close()
