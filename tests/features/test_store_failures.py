"""What breaks under an online store, and how it shows: real servers stopped, flushed, filled, restarted."""

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cordon.stack.port import Ports
from cordon.stack.supervisor import Stack, paused
from cordon.stack.valkey import Valkey
from features.cluster_store import SLOTS, slot
from features.command import TAKEN
from features.handbook import CATALOGUE
from features.library import Keys, function_name
from features.node import Limits
from features.redis_store import addresses, connect
from features.resp import PAUSE_S, Address, Connection, FunctionMissing, Redirected, fault
from features.state import Assertion
from features.store import Arrival, Observed, OnlineStore, Status, StoreMisused, StoreUnavailable
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


@pytest.fixture
def raw(valkey: Valkey) -> Iterator[Connection]:
    connection = Connection(Address.parse(valkey.url))
    yield connection
    connection.close()


@contextmanager
def configured(connection: Connection, name: str, value: str, usual: str) -> Iterator[None]:
    connection.call("CONFIG", "SET", name, value)
    try:
        yield
    finally:
        connection.call("CONFIG", "SET", name, usual)


def patiently(store: OnlineStore, *arrivals: Arrival) -> list[Observed]:
    """Ask until the store is there again."""
    until_s = time.monotonic() + 20
    while True:
        try:
            return arrive(store, *arrivals)
        except StoreUnavailable:
            assert time.monotonic() < until_s
            time.sleep(0.1)


def test_lost_functions_are_loaded_again(valkey: Valkey, raw: Connection) -> None:
    store = server(valkey.url).open(2_000)
    arrive(store, purchase("a"))
    for i, use in enumerate([
        lambda: arrive(store, purchase("b"))[0].status,
        lambda: store.complete([("tx:b", b"first attempt 00", b"done")]),
        lambda: store.merge("customer", [(pseudonym("anna"), Assertion((NOON,)))]),
        lambda: [key for key, _ in store.open_claims(wall_ms() + 1_000, 5)],
    ]):  # fmt: skip
        raw.call("FUNCTION", "FLUSH")
        assert use() == [Status.NEW, [True], None, ["tx:a"]][i]
    assert state(store, "customer", "anna").n == 2
    store.close()


def test_answers_that_were_posted_to_a_server_that_died_are_unknown_and_posted_again(
    make_stack: Callable[..., Stack], ports: Ports, tmp_path_factory: pytest.TempPathFactory
) -> None:
    node = Valkey(tmp_path_factory.mktemp("dying") / "data", ports.take())
    stack = make_stack(node.part())
    raw = Connection(Address.parse(node.url))
    raw.call("CONFIG", "SET", "appendfsync", "always")  # what it has answered outlives it
    raw.close()
    store = server(node.url).open(2_000)
    event = purchase("a")
    arrive(store, event)
    with paused(stack, "valkey"):
        store.post([(event.key, event.owner, b"approve")])
        stack.kill("valkey", hold=True)
        with pytest.raises(StoreUnavailable):
            store.posted(wait=True)
    assert store.posted(wait=True) == []
    stack.restart("valkey")
    patiently(store, purchase("b"))
    store.post([(event.key, event.owner, b"approve")])
    assert store.posted(wait=True) == [True]
    assert arrive(store, event)[0].answer == b"approve"
    store.close()


def test_lost_functions_are_loaded_again_on_every_node(redis_cluster: RunningCluster) -> None:
    store = server(cluster_url([node.port for node in redis_cluster.nodes])).open(2_000)
    arrive(store, *[purchase(f"a{i}", customer=f"c{i}") for i in range(20)])
    for node in redis_cluster.nodes:
        connection = Connection(Address.parse(node.url))
        connection.call("FUNCTION", "FLUSH")
        connection.close()
    results = arrive(store, *[purchase(f"b{i}", customer=f"c{i}") for i in range(20)])
    assert [(r.status, r.numbers[0]) for r in results] == [(Status.NEW, 2)] * 20
    store.close()


def test_a_restart_is_a_new_generation_with_functions_loaded_and_data_kept(
    make_stack: Callable[..., Stack], ports: Ports, tmp_path_factory: pytest.TempPathFactory
) -> None:
    node = Valkey(tmp_path_factory.mktemp("restarted") / "data", ports.take())
    stack = make_stack(node.part())
    store = server(node.url).open(2_000)
    arrive(store, purchase("a"))
    before = store.generation()
    stack.restart("valkey")
    assert arrive(store, purchase("b"))[0].numbers == (2, 2)
    kept = store.generation()
    assert kept != before
    stack.kill("valkey", hold=True)
    with pytest.raises(StoreUnavailable):
        arrive(store, purchase("c"))
    with pytest.raises(StoreUnavailable):
        store.generation()
    shutil.rmtree(node.directory)
    stack.restart("valkey")
    # No client noticed yet; the first call finds a new and empty server.
    assert arrive(store, purchase("d"))[0].numbers == (1, 1)
    assert store.generation() not in (before, kept)
    store.close()


def test_a_flushed_store_is_a_new_generation(valkey: Valkey, raw: Connection) -> None:
    store, other = server(valkey.url).open(2_000), server(valkey.url).open(2_000)
    arrive(store, purchase("a"))
    arrive(other, purchase("b"))
    before = store.generation()
    assert other.generation() == before
    raw.call("FLUSHALL")
    assert arrive(store, purchase("c"))[0].numbers == (1, 1)
    after = store.generation()
    assert after != before
    arrive(other, purchase("d"))
    assert other.generation() == after
    store.close()
    other.close()


def test_out_of_memory_is_a_failure_that_shows(valkey: Valkey, raw: Connection) -> None:
    store = server(valkey.url).open(2_000)
    arrive(store, purchase("a"))
    with configured(raw, "maxmemory", "1mb", "0"):
        with pytest.raises(StoreUnavailable, match="OOM"):
            arrive(store, purchase("b"))
        with pytest.raises(StoreUnavailable, match="OOM"):
            store.merge("customer", [(pseudonym("anna"), Assertion((NOON,)))])
        assert store.read("customer", [pseudonym("anna")]) != [None]
    assert store.claim("tx:b") is None
    assert arrive(store, purchase("b"))[0].numbers == (2, 2)
    store.close()


def test_a_server_that_would_evict_is_refused(valkey: Valkey, raw: Connection) -> None:
    store = server(valkey.url).open(2_000)
    with (
        configured(raw, "maxmemory-policy", "allkeys-lru", "noeviction"),
        pytest.raises(StoreMisused, match="CONFIG SET maxmemory-policy noeviction"),
    ):
        arrive(store, purchase("a"))
    assert arrive(store, purchase("a"))[0].status is Status.NEW
    store.close()


def test_a_call_that_its_sender_gave_up_on_is_never_executed(
    make_stack: Callable[..., Stack], ports: Ports, tmp_path_factory: pytest.TempPathFactory
) -> None:
    node = Valkey(tmp_path_factory.mktemp("frozen") / "data", ports.take())
    stack = make_stack(node.part())
    store = connect(node.url, CATALOGUE, TENANT, Limits(read_s=0.3))
    arrive(store, purchase("a"))
    stack.pause("valkey")
    now_ms, started_s = wall_ms(), time.monotonic()
    with pytest.raises(StoreUnavailable):
        store.arrive([purchase("b")], now_ms=now_ms, deadline_ms=now_ms + 50)
    assert time.monotonic() - started_s < 0.25
    time.sleep(PAUSE_S)
    with pytest.raises(StoreUnavailable, match="timed out"):
        store.read("customer", [pseudonym("anna")])
    # A server that hangs is left alone for a while: the next callers are told at once.
    started_s = time.monotonic()
    with pytest.raises(StoreUnavailable, match="a moment ago"):
        store.read("customer", [pseudonym("anna")])
    assert time.monotonic() - started_s < 0.1
    stack.resume("valkey")
    late = connect(node.url, CATALOGUE, TENANT)
    assert late.claim("tx:b") is None
    assert state(late, "customer", "anna").n == 1
    assert patiently(store, purchase("b"))[0].numbers == (2, 2)
    store.close()
    late.close()


def test_a_server_that_is_not_there_is_unavailable(ports: Ports) -> None:
    for url in (f"redis://127.0.0.1:{ports.take()}", "unix:///nowhere.sock", cluster_url([ports.take()])):
        store = server(url).open(2_000)
        with pytest.raises(StoreUnavailable):
            arrive(store, purchase("a"))
        with pytest.raises(StoreUnavailable):
            store.generation()
        store.close()


def test_damaged_state_is_misuse_and_nothing_is_claimed(valkey: Valkey, raw: Connection) -> None:
    store = server(valkey.url).open(2_000)
    key = KEYS.state("terminal", pseudonym("till"))
    for damage in (b"short", b"\2\0\0\0" + b"\0" * 200):
        raw.call("SET", key, damage)
        with pytest.raises(StoreMisused):
            arrive(store, purchase("a"))
        assert store.claim("tx:a") is None
        assert store.read("customer", [pseudonym("anna")]) == [None]
    store.close()


def test_rows_of_another_layout_are_misuse(valkey: Valkey, raw: Connection) -> None:
    store = server(valkey.url).open(2_000)
    arrive(store, purchase("a"))
    held = store.read("customer", [pseudonym("anna")])
    merge = function_name(CATALOGUE, "merge", "customer")
    for rows in (b"\0\1\2", b"\xff" + b"\0" * 60):
        with pytest.raises(StoreMisused, match="no row of this layout"):
            raw.call("FCALL", merge, 1, KEYS.state("customer", pseudonym("anna")), rows)
    assert store.read("customer", [pseudonym("anna")]) == held
    store.close()


def test_a_server_that_speaks_something_else_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(100)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        store = server(f"redis://127.0.0.1:{listener.getsockname()[1]}").open(2_000)
        with pytest.raises(StoreUnavailable, match="Protocol error"):
            arrive(store, purchase("a"))
        thread.join()
        store.close()


def test_part_of_a_cluster_that_is_gone_is_expired_for_those_whom_it_concerns(
    redis_cluster: RunningCluster,
) -> None:
    url = cluster_url([node.port for node in redis_cluster.nodes])
    store = connect(url, CATALOGUE, TENANT, Limits(read_s=0.3, connect_s=0.3))
    events = [purchase(f"p{i}", customer=f"c{i}", terminal=f"t{i}") for i in range(60)]
    arrive(store, *[purchase(f"warm {i}", customer=f"w{i}") for i in range(30)])
    owner = slot(KEYS.open_claims) * len(redis_cluster.nodes) // SLOTS
    with paused(redis_cluster.stack, f"redis-{owner}"), pytest.raises(StoreUnavailable):
        store.arrive(events, now_ms=wall_ms(), deadline_ms=wall_ms() + 800)
    patiently(store, *[purchase(f"warmer {i}", customer=f"w{i}") for i in range(30)])
    with paused(redis_cluster.stack, f"redis-{(owner + 1) % 3}"):
        results = store.arrive(events, now_ms=wall_ms(), deadline_ms=wall_ms() + 800)
    assert {r.status for r in results} == {Status.NEW, Status.EXPIRED}
    # Whoever was not served asks again and is counted once.
    waiting = [e for e, r in zip(events, results, strict=True) if r.status is Status.EXPIRED]
    while waiting:
        again = patiently(store, *waiting)
        waiting = [e for e, r in zip(waiting, again, strict=True) if r.status not in TAKEN]
    for i in range(60):
        assert state(store, "customer", f"c{i}").n == 1
        assert state(store, "terminal", f"t{i}").n == 1
    store.close()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreUnavailable),
        ("LOADING Valkey is loading the dataset in memory", StoreUnavailable),
        ("READONLY You can't write against a read only replica.", StoreUnavailable),
        ("BUSY Valkey is busy running a script.", StoreUnavailable),
        ("CLUSTERDOWN The cluster is down", StoreUnavailable),
        ("MISCONF Errors writing to the AOF file", StoreUnavailable),
        ("ERR max number of clients reached", StoreUnavailable),
        ("ERR Function not found", FunctionMissing),
        ("MOVED 866 127.0.0.1:7001", Redirected),
        ("ASK 866 127.0.0.1:7001", Redirected),
        ("NOAUTH Authentication required.", StoreMisused),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", StoreMisused),
        ("ERR unknown command 'FCALL'", StoreMisused),
    ],
)
def test_an_error_says_what_to_do(text: str, kind: type[Exception]) -> None:
    assert type(fault(text)) is kind


@pytest.mark.parametrize("url", ["http://host", "redis://", "unix://", "valkey.sock", "redis://host/x"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(StoreMisused, match="redis"):
        connect(url, CATALOGUE, TENANT)


def test_addresses() -> None:
    assert Address.parse("redis://:p%40ss@host:7000/2") == Address("", "host", 7000, "p@ss", 2)
    assert Address.parse("unix:///run/a%20b.sock") == Address("/run/a b.sock")
    assert [str(a) for a in addresses("cluster://:secret@a:1,b:2,c")] == ["a:1", "b:2", "c:6379"]
    assert addresses("cluster://:secret@a:1,b:2")[1].password == "secret"
    with pytest.raises(ValueError, match="no braces"):
        Keys("a}b", "0")
