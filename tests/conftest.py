"""Real parts for the tests: started at the first use, shared by the session, stopped at its end.

valkey         a Valkey node, empty at the start of every test
valkey_lua     another one, without the module: it runs the store's functions in Lua
redis_cluster  three primaries that own all slots, empty at the start of every test
kafka          a broker; `kafka.topic("name")` and `kafka.settings()` give topics that no other test has
flink          a session cluster of Flink with the Kafka connector
postgres       a PostgreSQL server; `postgres.database()` gives the address of an empty database
make_stack     starts any parts and stops them after the test: for tests that kill, pause and restart
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from cordon.stack.cluster import cluster_nodes, cluster_parts, form_cluster
from cordon.stack.flink import Flink
from cordon.stack.kafka import Kafka
from cordon.stack.part import Part
from cordon.stack.port import HOST, Ports
from cordon.stack.supervisor import Stack
from cordon.stack.valkey import Valkey
from tests.parts import FLINK_PYTHON, ROOT, RunningCluster, RunningFlink, RunningKafka
from tests.postgres import Postgres, RunningPostgres

# A shell that starts tests in its background has them ignore interrupts, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def ports() -> Ports:
    """Free ports, each given once."""
    return Ports()


@pytest.fixture
def make_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Stack]]:
    """`make_stack(*parts)` starts them and returns their stack."""
    stacks: list[Stack] = []

    def make(*parts: Part) -> Stack:
        stack = Stack(parts, tmp_path_factory.mktemp("stack"))
        stacks.append(stack)
        stack.start()
        return stack

    yield make
    for stack in stacks:
        stack.stop()


def running(node: Valkey) -> Iterator[Valkey]:
    """The node, as long as a fixture lives."""
    with Stack([node.part()], node.directory.parent):
        yield node


@pytest.fixture(scope="session")
def _valkey(tmp_path_factory: pytest.TempPathFactory, ports: Ports) -> Iterator[Valkey]:
    yield from running(Valkey(tmp_path_factory.mktemp("valkey") / "data", ports.take()))


@pytest.fixture
def valkey(_valkey: Valkey) -> Valkey:
    """A Valkey node without keys and functions: `.url`, `.port`, `.socket`."""
    empty(_valkey)
    return _valkey


@pytest.fixture(scope="session")
def _valkey_lua(tmp_path_factory: pytest.TempPathFactory, ports: Ports) -> Iterator[Valkey]:
    yield from running(Valkey(tmp_path_factory.mktemp("valkey-lua") / "data", ports.take(), module=None))


@pytest.fixture
def valkey_lua(_valkey_lua: Valkey) -> Valkey:
    """As `valkey`, without the module."""
    empty(_valkey_lua)
    return _valkey_lua


@pytest.fixture(scope="session")
def _redis_cluster(tmp_path_factory: pytest.TempPathFactory, ports: Ports) -> Iterator[RunningCluster]:
    directory = tmp_path_factory.mktemp("cluster")
    nodes = cluster_nodes(directory, ports)
    with Stack(cluster_parts(nodes), directory) as stack:
        form_cluster(nodes)
        yield RunningCluster(url=nodes[0].url, nodes=nodes, stack=stack)


@pytest.fixture
def redis_cluster(_redis_cluster: RunningCluster) -> RunningCluster:
    """Three primaries without keys and functions: `.url`, `.nodes`."""
    for node in _redis_cluster.nodes:
        empty(node)
    return _redis_cluster


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, ports: Ports) -> Iterator[RunningKafka]:
    """A broker: `.bootstrap`, `.topic(name, partitions=1)`, `.settings()`."""
    directory = tmp_path_factory.mktemp("kafka")
    broker = Kafka(directory / "data", ROOT / ".jars" / "kafka", ports.take(), ports.take())
    with Stack([broker.part()], directory) as stack:
        yield RunningKafka(bootstrap=broker.bootstrap, stack=stack)


@pytest.fixture(scope="session")
def flink(tmp_path_factory: pytest.TempPathFactory, ports: Ports) -> Iterator[RunningFlink]:
    """A session cluster of four slots: `.rest`, `.python`, `.environment`."""
    directory = tmp_path_factory.mktemp("flink")
    cluster = Flink(
        directory / "flink", FLINK_PYTHON, ROOT / ".jars" / "flink", ports.take(), ports.take(), slots=4
    )
    with Stack(cluster.parts(), directory) as stack:
        yield RunningFlink(
            rest=cluster.rest,
            python=FLINK_PYTHON,
            environment=cluster.environment(),
            flink=cluster,
            stack=stack,
        )


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory, ports: Ports) -> Iterator[RunningPostgres]:
    """A server: `.database()`."""
    # Not below pytest's directories: the account that runs the server may not enter them.
    directory = Path(tempfile.mkdtemp(prefix="cordon-postgres-"))
    server = Postgres(directory, ports.take())
    try:
        server.initialise()
        with Stack([server.part()], tmp_path_factory.mktemp("postgres")):
            yield RunningPostgres(server)
    finally:
        shutil.rmtree(directory)


def empty(node: Valkey) -> None:
    """Forgets every key and function of a node."""
    with redis.Redis(host=HOST, port=node.port) as client:
        client.flushall()
        client.function_flush()
