"""A Redis Cluster of three primaries on one machine: the tests' stand-in for a production cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis

from cordon.failure import Failure
from cordon.stack.part import Part
from cordon.stack.port import HOST, Ports
from cordon.stack.valkey import Valkey

SLOTS = 16_384


class ClusterNotFormed(Failure):
    """The nodes do not agree on the slots in time: read their logs."""


def cluster_nodes(directory: Path, ports: Ports, *, count: int = 3) -> tuple[Valkey, ...]:
    """Nodes not yet joined; each in its own directory."""
    return tuple(
        Valkey(
            directory=directory / f"redis-{index}",
            port=ports.take(),
            name=f"redis-{index}",
            cluster_bus_port=ports.take(),
        )
        for index in range(count)
    )


def cluster_parts(nodes: Sequence[Valkey]) -> tuple[Part, ...]:
    """The nodes as parts of a stack."""
    return tuple(node.part() for node in nodes)


def form_cluster(
    nodes: Sequence[Valkey], *, seconds: float = 30.0, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Joins running nodes, deals out all slots evenly and waits until every node sees all of them.

    Raises `ClusterNotFormed`.
    """
    clients = [redis.Redis(host=HOST, port=node.port, decode_responses=True) for node in nodes]
    try:
        for index, client in enumerate(clients):
            first, last = SLOTS * index // len(nodes), SLOTS * (index + 1) // len(nodes) - 1
            ask(client, "CLUSTER", "ADDSLOTSRANGE", first, last)
        for node in nodes[1:]:
            ask(clients[0], "CLUSTER", "MEET", HOST, node.port, node.cluster_bus_port)
        for _ in range(int(seconds / 0.05)):
            if all(agrees(client, len(nodes)) for client in clients):
                return
            sleep(0.05)
        raise ClusterNotFormed(f"{len(nodes)} nodes do not agree after {seconds:.0f} s")
    finally:
        for client in clients:
            client.close()


def agrees(client: redis.Redis, count: int) -> bool:
    """Whether this node knows `count` nodes and an owner of every slot."""
    answer = ask(client, "CLUSTER INFO")
    return (
        answer["cluster_state"] == "ok"
        and int(answer["cluster_slots_ok"]) == SLOTS
        and int(answer["cluster_known_nodes"]) == count
        and int(answer["cluster_size"]) == count
    )


def ask(client: redis.Redis, *command: object) -> Any:
    """Sends one command. redis-py leaves the general call untyped."""
    return client.execute_command(*command)  # type: ignore[no-untyped-call]
