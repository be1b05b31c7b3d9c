"""The sink against real servers: states by maximum, then the watermark behind them."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from cordon.stack.supervisor import Stack
from cordon.stack.valkey import Valkey
from features import sql
from features.catalogue import load
from features.cluster_store import ClusterStore
from features.library import Keys, library
from features.redis_store import connect
from features.state import Assertion, State
from features.store import OnlineStore
from stream import block
from stream.link import Connection, Patience, Place, StoreLost, StoreRefused, command, parse_place
from stream.sink import LanesCrossed, Sink, Spec
from tests.parts import RunningCluster

pytestmark = pytest.mark.parts
CATALOGUE = load("handbook")
SUMS, GREATEST = sql.columns(CATALOGUE)
NAMES = (*SUMS, *GREATEST)
WHO = [f"{number:032x}" for number in range(50)]
QUICK = Patience(answer_s=2.0, lost_after_s=0.3, first_pause_s=0.01)


def spec(place: Place, lanes: sql.Lanes | None = None, life: str = "g1", patience: Patience = QUICK) -> Spec:
    return Spec(
        plan=block.plan(CATALOGUE, "demo"),
        tenant="demo",
        fingerprint=CATALOGUE.state_fingerprint,
        generation=life,
        topics={0: "decisions", 2: "labels"},
        library=library(CATALOGUE),
        place=place,
        lanes=lanes or sql.Lanes(),
        patience=patience,
    )


def sink(of: Spec) -> Sink:
    return Sink(of, lambda: 12.345, time.monotonic, time.sleep)


@pytest.fixture
def place(valkey: Valkey) -> Place:
    return parse_place(valkey.url)


@pytest.fixture
def store(valkey: Valkey) -> Iterator[OnlineStore]:
    opened = connect(valkey.url, CATALOGUE, "demo")
    yield opened
    opened.close()


def row(code: int, who: str, key: int, **slots: int) -> tuple[int, str, int, list[int]]:
    return code, who, key, [slots.get(name, 0) for name in NAMES]


def write(to: Sink, rows: list[tuple[int, str, int, list[int]]]) -> None:
    code, ids, key, slots = zip(*rows, strict=True)
    to.write(np.array(code), list(ids), np.array(key), np.array(slots, dtype=np.int64))


def position(partition: int, offset: int, time_ms: int, lane: str = "0") -> tuple[int, str, int, list[int]]:
    return row(0, lane, partition, x0=offset, x1=time_ms)


def section(entity: str, tier: int) -> sql.Section:
    return next(s for s in sql.sections(CATALOGUE) if s.entity == entity and s.tier == tier)


def some_rows() -> tuple[list[tuple[int, str, int, list[int]]], dict[str, bytes]]:
    """Rows of the day and of a map for fifty customers, and the states that they make."""
    layout = CATALOGUE.layouts["customer"]
    day = section("customer", 2)
    seen = next(s for s in sql.sections(CATALOGUE) if s.entity == "customer" and s.map is not None)
    rows, states = [], {}
    for number, who in enumerate(WHO):
        slots = {c: number + i + 1 for i, c in enumerate(day.slots)}
        head = {day.heads[0]: 1_700_000_000_000 + number}
        rows.append(row(day.code, who, 19_000, **slots, **head))
        rows.append(row(seen.code, who, 77 + number, x0=1_700_000_000_000))
        state = State(layout)
        state.merge(
            Assertion(
                (head[day.heads[0]],),
                ((2, 19_000, tuple(slots[c] for c in day.slots)),),
                ((0, 77 + number, 1_700_000_000_000),),
            )
        )
        states[who] = state.encode()
    return rows, states


def test_states_are_the_merged_rows_however_often_they_come(place: Place, store: OnlineStore) -> None:
    rows, states = some_rows()
    to = sink(spec(place))
    for _ in range(2):
        write(to, rows)
        assert store.read("customer", WHO) == [states[who] for who in WHO]
    less = [(code, who, key, [value // 2 for value in slots]) for code, who, key, slots in rows]
    write(to, less)
    assert store.read("customer", WHO) == [states[who] for who in WHO]
    to.close()


def test_lost_functions_are_loaded_again(place: Place, store: OnlineStore, valkey: Valkey) -> None:
    rows, states = some_rows()
    to = sink(spec(place))
    write(to, rows)
    with redis.Redis(port=valkey.port) as client:
        client.flushall()
        client.function_flush()
    write(to, rows)
    assert store.read("customer", WHO) == [states[who] for who in WHO]
    to.close()


def test_a_unix_socket_will_do(valkey: Valkey, store: OnlineStore) -> None:
    rows, states = some_rows()
    to = sink(spec(parse_place(f"unix://{valkey.socket}")))
    write(to, rows)
    assert store.read("customer", WHO) == [states[who] for who in WHO]
    to.close()


def test_a_tile_in_which_nothing_was_counted_is_not_made(place: Place, store: OnlineStore) -> None:
    day = section("customer", 2)
    to = sink(spec(place))
    write(to, [row(day.code, WHO[0], 19_000, **{day.heads[0]: 5_000}), row(day.code, WHO[1], 19_000)])
    held, nothing = store.read("customer", WHO[:2])
    state = State.decode(CATALOGUE.layouts["customer"], held)
    assert (state.heads, state.tiers) == ([5_000], [{}, {}, {}])
    assert nothing is None
    to.close()


def test_a_watermark_only_goes_forward_within_a_generation(place: Place, store: OnlineStore) -> None:
    first = sink(spec(place))
    write(first, [position(0, 10, 500), position(3, 7, 400), position(0, 12, 600)])
    assert store.watermark() == {
        ("decisions", 0): ("g1", 12, 600, 12_345),
        ("decisions", 3): ("g1", 7, 400, 12_345),
    }
    write(first, [position(0, 11, 550)])
    assert store.watermark()["decisions", 0] == ("g1", 12, 600, 12_345)
    second = sink(spec(place, life="g2"))
    write(second, [position(0, 2, 100)])
    assert store.watermark()["decisions", 0] == ("g2", 2, 100, 12_345)
    first.close()
    second.close()


def test_the_watermark_of_several_subtasks_is_the_least(place: Place, store: OnlineStore) -> None:
    lanes = sql.Lanes((("a", "b"),))
    left, right = sink(spec(place, lanes)), sink(spec(place, lanes))
    write(left, [position(0, 50, 900, "a")])
    assert store.watermark() == {}
    write(right, [position(0, 20, 300, "b")])
    assert store.watermark()["decisions", 0][1:3] == (20, 300)
    write(right, [position(0, 60, 950, "b")])
    assert store.watermark()["decisions", 0][1:3] == (50, 900)
    with pytest.raises(LanesCrossed):
        write(right, [position(0, 70, 990, "a")])
    again = sink(spec(place, lanes, life="g2"))
    write(again, [position(0, 1, 100, "a")])
    assert store.watermark()["decisions", 0][:2] == ("g1", 50)
    for one in (left, right, again):
        one.close()


def test_no_position_before_its_rows(place: Place, valkey: Valkey, store: OnlineStore) -> None:
    rows, _ = some_rows()
    with redis.Redis(port=valkey.port) as client:
        key = Keys("demo", CATALOGUE.state_fingerprint).state("customer", WHO[7])
        client.set(key, b"damaged")
    to = sink(spec(place))
    with pytest.raises(StoreRefused):
        write(to, [*rows, position(0, 10, 500)])
    assert store.watermark() == {}
    to.close()


def test_a_store_that_stays_away_is_given_up(ports) -> None:
    rows, _ = some_rows()
    to = sink(spec(parse_place(f"redis://127.0.0.1:{ports.take()}")))
    with pytest.raises(StoreLost, match=r"no answer for 0\.3 s"):
        write(to, rows)


def test_a_store_that_comes_back_in_time_gets_everything(tmp_path: Path, ports) -> None:
    rows, states = some_rows()
    node = Valkey(tmp_path / "data", ports.take())
    patient = Patience(answer_s=2.0, lost_after_s=60.0)
    with Stack([node.part()], tmp_path) as stack:
        to = sink(spec(parse_place(node.url), patience=patient))
        write(to, rows[:10])
        stack.kill("valkey")
        write(to, [*rows, position(0, 10, 500)])
        stack.wait_ready()
        reader = connect(node.url, CATALOGUE, "demo")
        assert reader.read("customer", WHO) == [states[who] for who in WHO]
        assert reader.watermark()["decisions", 0][1] == 10
        reader.close()
        to.close()


def test_a_cluster_gets_every_row_on_its_node(redis_cluster: RunningCluster) -> None:
    rows, states = some_rows()
    urls = ",".join(f"127.0.0.1:{node.port}" for node in redis_cluster.nodes)
    store = connect(f"cluster://{urls}", CATALOGUE, "demo")
    assert isinstance(store, ClusterStore)
    for place in (parse_place(f"cluster://{urls}"), parse_place(redis_cluster.url, cluster=True)):
        to = sink(spec(place, patience=Patience(answer_s=2.0, lost_after_s=10.0)))
        write(to, [*rows, position(0, 10, 500)])
        to.close()
        assert store.read("customer", WHO) == [states[who] for who in WHO]
        assert store.watermark()["decisions", 0][1] == 10
        for node in redis_cluster.nodes:
            with redis.Redis(port=node.port) as client:
                client.flushall()
                client.function_flush()
    store.close()


def test_replies_of_every_kind_are_read(valkey: Valkey) -> None:
    connection = Connection(parse_place(valkey.url).seeds[0], 2.0)
    assert connection.ask("SET", "a", 1) == b"OK"
    assert connection.ask("INCR", "a") == 2
    assert connection.ask("GET", "nothing") is None
    assert connection.ask("MGET", "a", "nothing") == [b"2", None]
    with pytest.raises(StoreRefused, match="unknown command"):
        connection.ask("NONSENSE")
    connection.close()


def test_addresses() -> None:
    assert parse_place("redis://user:p%40ss@host:7000/2").seeds[0].password == "p@ss"
    assert [s.port for s in parse_place("cluster://a:1,b:2").seeds] == [1, 2]
    assert parse_place("cluster://a:1,b:2").cluster
    assert parse_place("unix:///tmp/x.sock").seeds[0].path == "/tmp/x.sock"
    assert parse_place("redis://host").seeds[0].port == 6379
    with pytest.raises(ValueError, match="store address"):
        parse_place("http://host")
    assert command("SET", b"k", 12) == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n12\r\n"
