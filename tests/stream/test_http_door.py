"""The replay against a real HTTP server: order, retries, concurrency, rate."""

import asyncio
from collections import Counter

import pytest

from client.retry import Retry
from stream.replay.http_client import Address, Connection, ConnectionLost
from stream.replay.http_door import DoorRefused, HttpDoor
from stream.replay.injection import Injection
from stream.replay.lockstep import Lookahead
from stream.replay.pace import Pace
from stream.replay.run import Replay, to_http
from tests.stream.door import Door, serving
from tests.stream.histories import parcels


def replay(tmp_path, door, *, connections=16, count=300, answered=None, attempts=8, **options):
    async def run():
        async with serving(door) as url:
            plan = Replay(parcels(tmp_path, count), quiet=True, **options)
            target = HttpDoor(url, connections=connections, retry=Retry(attempts, base_s=0.01))
            return await to_http(plan, target, answered=answered)

    return asyncio.run(run())


def test_everything_arrives_once_and_events_after_their_transactions(tmp_path):
    door = Door(wait_s=0.002)
    manifest = replay(tmp_path, door)
    sent = manifest.sent
    assert (sent["transaction"], sent["event"], sent["label"]) == (300, 99 + 1, 299)
    assert manifest.answers == {"transaction:200": 300, "event:202": 100, "label:202": 299}
    assert len(door.known) == 300
    assert 1 < door.under_way_max <= 16
    assert len(door.connections) <= 16, "connections are kept"


def test_busy_answers_are_repeated_until_they_are_taken(tmp_path):
    manifest = replay(tmp_path, Door(busy=20))
    assert manifest.retries == 20
    assert manifest.answers["transaction:200"] == 300


def test_a_door_that_never_answers_stops_the_replay(tmp_path):
    with pytest.raises(DoorRefused, match="status 503 after 3 attempts"):
        replay(tmp_path, Door(status=503), attempts=3)


def test_duplicates_conflicts_and_garbage_are_answered_as_counted(tmp_path):
    manifest = replay(tmp_path, Door(), injection=Injection(0.1, 0.1, 0.1, 0.1, disorder_ms=5_000, seed=2))
    assert manifest.duplicates["transaction"] > 5
    assert manifest.conflicts["transaction"] > 5
    assert manifest.answers["transaction:409"] == manifest.conflicts["transaction"]
    assert manifest.answers["transaction:422"] == manifest.malformed.total() > 5
    assert manifest.answers["transaction:200"] == 300 + manifest.duplicates["transaction"]
    assert not manifest.answers["event:404"]
    assert not manifest.answers["label:404"]


def test_the_rate_is_kept_and_latency_counts_from_the_due_time(tmp_path):
    latencies = []
    door = Door(wait_s=0.001)
    manifest = replay(
        tmp_path,
        door,
        count=200,
        pace=Pace(rate=200),
        answered=lambda item, response, seconds: latencies.append((item.kind, response.status, seconds)),
    )
    arrivals = [at for path, _, at in door.arrivals if path == "/v1/decisions"]
    behind_s = manifest.behind_ms_max / 1000
    assert 0.95 - behind_s <= arrivals[-1] - arrivals[0] < 1.5 + behind_s
    assert 0.99 <= manifest.seconds < 1.5 + behind_s, "never faster, slower only by what it owns up to"
    assert Counter(kind for kind, _, _ in latencies)["transaction"] == 200
    assert all(seconds >= 0.001 for _, _, seconds in latencies)


def test_lockstep_waits_after_each_batch_for_what_it_recorded(tmp_path):
    class Recorder:
        def __init__(self):
            self.waits: list[list[str]] = []

        def wait(self, items):
            self.waits.append([item.id for item in items])

    passage = Recorder()
    door = Door()
    manifest = replay(tmp_path, door, count=60, passage=passage, lookahead=Lookahead(span_ms=3_600_000),
                      injection=Injection(duplicates=0.2))  # fmt: skip
    assert manifest.batches == len(passage.waits) > 1
    waited = [name for batch in passage.waits for name in batch]
    assert len(waited) == len(set(waited)) == manifest.sent.total()
    for batch in passage.waits:
        senders = [int(name) % 7 for name in batch if name.isdigit()]
        assert len(senders) == len(set(senders))


def test_a_server_that_speaks_no_http_or_is_silent_is_a_lost_connection():
    async def run(handler):
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connection = Connection(Address.parse(f"http://127.0.0.1:{port}"), timeout_s=0.2)
        try:
            with pytest.raises(ConnectionLost):
                await connection.post("/x", b"{}")
        finally:
            await connection.close()
            server.close()
            await server.wait_closed()

    async def nonsense(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-nothing\r\n\r\n")
        await writer.drain()
        writer.close()

    async def silence(reader, writer):
        await reader.read()
        writer.close()

    asyncio.run(run(nonsense))
    asyncio.run(run(silence))


def test_an_address_is_http():
    assert Address.parse("https://door.example/base/") == Address("door.example", 443, True, "/base")
    with pytest.raises(ValueError, match="write http://"):
        Address.parse("door.example:80")
