"""The fixtures of real parts do what they say."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer, Producer

from cordon.stack.port import Ports
from cordon.stack.supervisor import Stack
from cordon.stack.valkey import Valkey, jemalloc
from tests.parts import RunningCluster, RunningFlink, RunningKafka


def test_a_valkey_node_keeps_what_it_is_told_and_evicts_nothing(valkey: Valkey):
    with redis.Redis.from_url(valkey.url) as client:
        client.set("card-1", 7)
        assert client.get("card-1") == b"7"
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        client.zadd("claims", {"tx:1": 1})
        assert client.object("encoding", "claims") == b"skiplist"


def test_a_valkey_node_answers_on_its_socket(valkey: Valkey):
    assert valkey.socket is not None
    with redis.Redis(unix_socket_path=str(valkey.socket)) as client:
        assert client.ping()


def test_a_valkey_node_runs_on_jemalloc(make_stack: Callable[..., Stack], ports: Ports, tmp_path: Path):
    assert jemalloc() is not None, "install jemalloc (Debian: libjemalloc2)"
    node = Valkey(tmp_path / "data", ports.take())
    (server,) = make_stack(node.part()).processes(node.name)
    assert "/libjemalloc.so" in Path(f"/proc/{server}/maps").read_text()


@pytest.mark.parametrize("allocator", [None, "libnowhere.so.9"])
def test_a_valkey_node_serves_without_jemalloc(
    allocator: str | None, make_stack: Callable[..., Stack], ports: Ports, tmp_path: Path
):
    node = Valkey(tmp_path / "data", ports.take(), allocator=allocator)
    (server,) = make_stack(node.part()).processes(node.name)
    assert "jemalloc" not in Path(f"/proc/{server}/maps").read_text()
    with redis.Redis.from_url(node.url) as client:
        assert client.ping()


def test_a_cluster_of_three_primaries_owns_all_slots(redis_cluster: RunningCluster):
    for node in redis_cluster.nodes:
        with redis.Redis(host="127.0.0.1", port=node.port) as client:
            slots = sorted(client.execute_command("CLUSTER SLOTS"))
        assert [tuple(each)[:2] for each in slots] == [(0, 5460), (5461, 10921), (10922, 16383)]


def test_a_broker_keeps_an_old_record(kafka: RunningKafka):
    topic = kafka.topic("old")
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    producer.produce(topic, b"a", timestamp=1_000_000_000_000)
    assert producer.flush(10) == 0
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap, "group.id": topic, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    message = consumer.poll(20)
    consumer.close()
    assert message is not None
    assert message.value() == b"a"


def test_the_topics_of_two_tests_are_never_the_same(kafka: RunningKafka):
    assert kafka.settings(partitions=2).decisions != kafka.settings(partitions=2).decisions


def test_a_flink_cluster_has_four_slots(flink: RunningFlink):
    with urllib.request.urlopen(f"{flink.rest}/overview") as answer:
        overview = json.load(answer)
    assert overview["slots-total"] == 4
