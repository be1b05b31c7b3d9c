"""The sink of the Flink jobs against real servers: states by maximum, then the watermark behind them."""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import redis

from cordon.stack.supervisor import Stack
from cordon.stack.valkey import Valkey
from features import sql
from features.catalogue import load
from features.library import Keys, pack_assertion
from features.redis_store import connect
from features.state import Assertion, State
from features.store import OnlineStore
from stream.link import Connection, Place, parse_place, slot
from stream.store_table import options
from tests.parts import RunningCluster
from tests.stream.drive import Drive

pytestmark = pytest.mark.parts
CATALOGUE = load("handbook")
LAYOUT = CATALOGUE.layouts["customer"]
CODE = sql.code(CATALOGUE, "customer")
WHO = [f"{number:032x}" for number in range(50)]
QUICK = {"answer-ms": "2000", "lost-after-ms": "300", "first-pause-ms": "10"}
NOON_MS = 1_641_643_200_000
Row = tuple[object, ...]


def told(place: Place, life: str = "g1", lanes: tuple[str, ...] = ("0",)) -> dict[str, str]:
    """Options of the store's table."""
    topics: Mapping[sql.Topic, str] = {"decisions": "decisions", "labels": "labels"}
    return {**options(CATALOGUE, "demo", place, life, topics, sql.Lanes(lanes)), **QUICK}


@pytest.fixture(scope="module")
def drive() -> Iterator[Drive]:
    with Drive() as one:
        yield one


@pytest.fixture
def place(valkey: Valkey) -> Place:
    return parse_place(valkey.url)


@pytest.fixture
def store(valkey: Valkey) -> Iterator[OnlineStore]:
    opened = connect(valkey.url, CATALOGUE, "demo")
    yield opened
    opened.close()


def asserted(number: int, share: int = 1) -> Assertion:
    """What one customer's day, its last time and a remembered terminal hold; `share`: so much less."""
    slots = tuple((number + i + 1) // share for i, _ in enumerate(LAYOUT.tiers[2]))
    last_ms = NOON_MS + number // share
    return Assertion((last_ms,) * len(LAYOUT.heads), ((2, 19_000, slots),), ((0, 77 + number, last_ms),))


def rows(share: int = 1) -> list[Row]:
    """One row for each of fifty customers."""
    packed = [pack_assertion(LAYOUT, asserted(number, share)) for number, _ in enumerate(WHO)]
    return [("row", CODE, who, argument.hex()) for who, argument in zip(WHO, packed, strict=True)]


def states() -> list[bytes]:
    """The states that these rows make."""
    found = []
    for number, _ in enumerate(WHO):
        state = State(LAYOUT)
        state.merge(asserted(number))
        found.append(state.encode())
    return found


def position(partition: int, offset: int, time_ms: int, lane: str = "0") -> Row:
    return "row", 0, lane, struct.pack("<3Q", partition, offset, time_ms).hex()


def write(drive: Drive, some: list[Row]) -> str:
    """Feeds rows and waits until the store has them; what the feeder answered last."""
    assert set(drive.ask_all(some)) <= {"ok"}
    return drive.ask("flush")


def test_states_are_the_merged_rows_however_often_they_come(
    drive: Drive, place: Place, store: OnlineStore
) -> None:
    drive.open(told(place))
    for some in (rows(), rows(), rows(share=2), [*rows(), *rows(share=2), *rows()]):
        assert write(drive, some) == "ok"
        assert store.read("customer", WHO) == states()
    drive.ask("close")


def test_an_entity_gets_one_call_a_batch(drive: Drive, place: Place, store: OnlineStore) -> None:
    with redis.Redis(port=place.seeds[0].port) as client:
        drive.open({**told(place), "linger-ms": "1000"})
        assert write(drive, rows()) == "ok"

        def calls() -> int:
            # In C on a node with the module, in Lua on one without.
            stats = client.info("commandstats")
            return sum(stats[name]["calls"] for name in stats if name.endswith("fcall"))

        before = calls()
        assert write(drive, rows() * 4) == "ok"
        assert calls() - before == len(WHO)
    drive.ask("close")


def test_rows_wait_for_no_more_than_their_time(drive: Drive, place: Place, store: OnlineStore) -> None:
    drive.open({**told(place), "batch-rows-max": "10"})
    assert set(drive.ask_all(rows())) == {"ok"}
    while store.read("customer", WHO) != states():
        pass
    drive.ask("close")


def test_lost_functions_are_loaded_again(drive: Drive, place: Place, store: OnlineStore) -> None:
    drive.open(told(place))
    assert write(drive, rows()) == "ok"
    with redis.Redis(port=place.seeds[0].port) as client:
        client.flushall()
        client.function_flush()
    assert write(drive, rows()) == "ok"
    assert store.read("customer", WHO) == states()
    drive.ask("close")


def test_a_unix_socket_will_do(drive: Drive, valkey: Valkey, store: OnlineStore) -> None:
    drive.open(told(parse_place(f"unix://{valkey.socket}")))
    assert write(drive, rows()) == "ok"
    assert store.read("customer", WHO) == states()
    drive.ask("close")


def test_a_watermark_only_goes_forward_within_a_generation(
    drive: Drive, place: Place, store: OnlineStore
) -> None:
    drive.open(told(place))
    assert write(drive, [position(0, 10, 500), position(3, 7, 400), position(0, 12, 600)]) == "ok"
    marks = {at: mark[:3] for at, mark in store.watermark().items()}
    assert marks == {("decisions", 0): ("g1", 12, 600), ("decisions", 3): ("g1", 7, 400)}
    assert write(drive, [position(0, 11, 550)]) == "ok"
    assert store.watermark()["decisions", 0][:3] == ("g1", 12, 600)
    drive.ask("close")
    drive.open(told(place, life="g2"))
    assert write(drive, [position(0, 2, 100)]) == "ok"
    assert store.watermark()["decisions", 0][:3] == ("g2", 2, 100)
    drive.ask("close")


def test_the_watermark_of_several_subtasks_is_the_least(
    drive: Drive, place: Place, store: OnlineStore
) -> None:
    lanes = ("a", "b")
    with Drive() as right:
        drive.open(told(place, lanes=lanes))
        right.open(told(place, lanes=lanes))
        write(drive, [position(0, 50, 900, "a")])
        assert store.watermark() == {}
        write(right, [position(0, 20, 300, "b")])
        assert store.watermark()["decisions", 0][1:3] == (20, 300)
        write(right, [position(0, 60, 950, "b")])
        assert store.watermark()["decisions", 0][1:3] == (50, 900)
        assert write(right, [position(0, 70, 990, "a")]).startswith("LanesCrossed: subtask of lane b")
        drive.ask("close")
        drive.open(told(place, life="g2", lanes=lanes))
        write(drive, [position(0, 1, 100, "a")])
        assert store.watermark()["decisions", 0][:2] == ("g1", 50)
        drive.ask("close")


def test_no_position_before_its_rows(drive: Drive, place: Place, store: OnlineStore) -> None:
    with redis.Redis(port=place.seeds[0].port) as client:
        client.set(Keys("demo", CATALOGUE.state_fingerprint).state("customer", WHO[7]), b"damaged")
    drive.open({**told(place), "linger-ms": "1000"})
    assert write(drive, [*rows(), position(0, 10, 500)]).startswith("StoreRefused: ")
    assert store.watermark() == {}
    assert drive.ask(*rows()[0]).startswith("StoreRefused: ")
    drive.ask("close")


def test_a_store_that_stays_away_is_given_up(drive: Drive, ports) -> None:
    drive.open(told(parse_place(f"redis://127.0.0.1:{ports.take()}")))
    assert write(drive, rows()[:1]).startswith("StoreLost: no answer for 0.3 s")
    drive.ask("close")


def test_a_store_that_comes_back_in_time_gets_everything(drive: Drive, tmp_path: Path, ports) -> None:
    node = Valkey(tmp_path / "data", ports.take())
    with Stack([node.part()], tmp_path) as stack:
        drive.open({**told(parse_place(node.url)), "lost-after-ms": "60000"})
        assert write(drive, rows()[:10]) == "ok"
        stack.kill("valkey")
        assert write(drive, [*rows(), position(0, 10, 500)]) == "ok"
        drive.ask("close")
        stack.wait_ready()
        reader = connect(node.url, CATALOGUE, "demo")
        assert reader.read("customer", WHO) == states()
        assert reader.watermark()["decisions", 0][1] == 10
        reader.close()


def test_a_cluster_gets_every_row_on_its_node(drive: Drive, redis_cluster: RunningCluster) -> None:
    urls = ",".join(f"127.0.0.1:{node.port}" for node in redis_cluster.nodes)
    store = connect(f"cluster://{urls}", CATALOGUE, "demo")
    for place in (parse_place(f"cluster://{urls}"), parse_place(redis_cluster.url, cluster=True)):
        drive.open({**told(place), "lost-after-ms": "10000"})
        assert write(drive, [*rows(), position(0, 10, 500)]) == "ok"
        drive.ask("close")
        assert store.read("customer", WHO) == states()
        assert store.watermark()["decisions", 0][1] == 10
        for node in redis_cluster.nodes:
            with redis.Redis(port=node.port) as client:
                client.flushall()
                client.function_flush()
    store.close()


def test_a_slot_that_moves_takes_its_rows_along(drive: Drive, redis_cluster: RunningCluster) -> None:
    place = parse_place(redis_cluster.url, cluster=True)
    nodes = {node.port: Connection(parse_place(node.url).seeds[0], 5.0) for node in redis_cluster.nodes}
    names = {port: node.ask("CLUSTER", "MYID") for port, node in nodes.items()}
    moving = slot(Keys("demo", CATALOGUE.state_fingerprint).state("customer", WHO[7]))
    source, target = redis_cluster.nodes[moving * 3 // 16_384].port, redis_cluster.nodes[0].port
    if source == target:
        target = redis_cluster.nodes[1].port

    def move(to: int) -> None:
        for node in (nodes[to], *nodes.values()):
            name = names[to]
            assert isinstance(name, bytes)
            node.ask("CLUSTER", "SETSLOT", moving, "NODE", name)

    drive.open({**told(place), "lost-after-ms": "20000"})
    others = [row for row in rows() if row[2] != WHO[7]]
    assert write(drive, others) == "ok"
    move(target)
    assert write(drive, [*rows(), position(0, 10, 500)]) == "ok"
    assert nodes[target].ask("CLUSTER", "COUNTKEYSINSLOT", moving) == 1
    drive.ask("close")
    reader = connect(redis_cluster.url.replace("redis://", "cluster://"), CATALOGUE, "demo")
    assert reader.read("customer", WHO) == states()
    reader.close()
    nodes[target].ask("FLUSHALL")
    move(source)
    for node in nodes.values():
        node.close()
