"""A head that was read before is not read again: whatever comes, the answers are the same."""

import asyncio
import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.server import ServerState

from api.access import AccessConfig
from api.answer import Conflicting
from api.gate import Gate
from api.heads import HEADS_MAX, Heads
from api.hot import HotRoutes
from api.hot_protocol import HotProtocol
from api.metrics import Metrics

KEY = "X-API-Key: dev-key"
METRICS = Metrics()
IDLE_S = 5


class Wire(asyncio.Transport):
    """What was written, and whether the connection was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data):
        self.written += data

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


class Echo:
    """In the batcher's place: refuses every event by its content, at once or later."""

    full = False

    def __init__(self) -> None:
        self.waiting: list[Any] = []
        self.holds = False

    def submit(self, inbound, waiter):
        self.waiting.append((waiter, Conflicting(f"{inbound.kind} {json.dumps(inbound.payload)}")))
        if not self.holds:
            self.answer()

    async def decide(self, inbound):
        future = asyncio.get_running_loop().create_future()
        self.submit(inbound, future)
        return await future

    def answer(self):
        for waiter, answer in self.waiting:
            waiter.set_result(answer)
        self.waiting.clear()


async def other(scope, receive, send):
    text = f"{scope['method']} {scope['path']} {scope['http_version']}".encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]}
    )
    await send({"type": "http.response.body", "body": text})


class Served:
    """One connection after the other, all with the same known heads."""

    def __init__(self, heads: Heads, body_bytes_max: int = 64) -> None:
        gate = Gate(AccessConfig(), "demo", lambda: 0)
        self.batcher = Echo()
        asked: Any = self.batcher
        app = HotRoutes(other, asked, gate, METRICS, body_bytes_max, lambda: 0)
        self.config = Config(app, log_config=None, lifespan="off", timeout_keep_alive=IDLE_S)
        self.config.load()
        self.config.loaded_app = app
        self.heads = heads

    def connect(self) -> tuple[HotProtocol, Wire]:
        protocol = HotProtocol(self.config, ServerState(), {}, asyncio.get_running_loop())
        protocol.heads = self.heads
        wire = Wire()
        protocol.connection_made(wire)
        return protocol, wire

    async def send(self, pieces, protocol, wire):
        for piece in pieces:
            if wire.closed:
                break
            protocol.data_received(piece)
            for _ in range(12):
                await asyncio.sleep(0)
        return wire.written, wire.closed


class Unknown(Heads):
    """Every head is read."""

    def find(self, data):
        return None


def request(path="/v1/decisions", payload: Any = 1, *headers, method="POST", raw=None):
    raw = json.dumps(payload).encode() if raw is None else raw
    lines = (f"{method} {path} HTTP/1.1", "Host: here", f"Content-Length: {len(raw)}", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


def chunked(payload):
    raw = json.dumps(payload).encode()
    head = f"POST /v1/decisions HTTP/1.1\r\nHost: here\r\n{KEY}\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(raw), raw)


INNER = request("/v1/decisions", 7, KEY)
REQUESTS = (
    request("/v1/decisions", 1, KEY),
    request("/v1/decisions", 2, KEY),
    request("/v1/decisions", [1, 2, 3], KEY),
    INNER,
    request("/v1/labels", 4, KEY),
    request("/v1/decisions", 5),
    request("/v1/decisions", 6, "X-API-Key: wrong"),
    request("/v1/decisions", KEY, KEY, raw=INNER[:50]),
    request("/v1/decisions", "", "X-API-Key: wrong", raw=INNER),
    request("/v1/decisions", "", KEY, raw=b" " * 70),
    request("/v1/decisions", "", KEY, raw=b""),
    request("/v1/decisions/x", "", KEY, method="GET", raw=b""),
    request("/v1/decisions", 1, KEY, "Expect: 100-continue"),
    request("/v1/decisions", 1, KEY, "Connection: close"),
    chunked([8]),
    b"POST /v1/decisions HTTP/1.1\r\nHost: here\r\n" + KEY.encode() + b"\r\n\r\n",
    b"\r\n",
    b"no HTTP at all\r\n\r\n",
)  # fmt: skip


@st.composite
def conversations(draw):
    """Connections in a row: pieces of requests, whole more often than not."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        sent = draw(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=6))
        if draw(st.booleans()):
            found.append(sent)
            continue
        whole = b"".join(sent)
        cuts = sorted(draw(st.sets(st.integers(1, len(whole) - 1), max_size=6))) if len(whole) > 1 else []
        edges = [0, *cuts, len(whole)]
        found.append([whole[a:b] for a, b in pairwise(edges)])
    return found


async def talk(heads, conversation):
    served = Served(heads)
    found = []
    for pieces in conversation:
        protocol, wire = served.connect()
        found.append(await served.send(pieces, protocol, wire))
        protocol.connection_lost(None)
    return found


@settings(max_examples=300, deadline=None)
@given(conversations())
def test_answers_do_not_depend_on_what_was_read_before(conversation):
    heads = Heads()
    again = asyncio.run(talk(heads, [*conversation, *conversation]))
    assert again == asyncio.run(talk(Unknown(), [*conversation, *conversation]))


def test_a_plain_request_is_read_once():
    heads = Heads()
    pieces = [request("/v1/decisions", 1, KEY), request("/v1/decisions", 2, KEY)]
    (first,) = asyncio.run(talk(heads, [pieces]))
    assert len(heads) == 1
    assert heads.find(pieces[1]) is not None
    assert first[0].count(b"HTTP/1.1 409") == 2


@pytest.mark.parametrize("raw", REQUESTS[5:])
def test_what_is_not_plain_is_not_kept(raw):
    heads = Heads()
    asyncio.run(talk(heads, [[raw]]))
    plain = raw in (REQUESTS[7], REQUESTS[9], REQUESTS[10], REQUESTS[15])
    assert len(heads) == (1 if plain else 0)


def test_kept_heads_are_few():
    heads = Heads(limit=2)
    asyncio.run(talk(heads, [[request("/v1/decisions", "a" * n, KEY) for n in range(20)]]))
    assert len(heads) <= 2 < HEADS_MAX


def test_the_key_is_asked_for_each_time():
    """A head is no credential: whoever lost theirs is refused with the next request."""

    async def asked():
        served = Served(Heads())
        protocol, wire = served.connect()
        await served.send([REQUESTS[0], REQUESTS[1]], protocol, wire)
        served.config.loaded_app._gate = Gate(AccessConfig(keys="other=admin"), "demo", lambda: 0)
        return await served.send([REQUESTS[1]], protocol, wire)

    written, _ = asyncio.run(asked())
    assert re.findall(rb"HTTP/1.1 (\d+)", written) == [b"409", b"409", b"401"]


def test_a_request_behind_another_waits_for_it():
    async def asked():
        served = Served(Heads())
        protocol, wire = served.connect()
        await served.send([REQUESTS[0], REQUESTS[1]], protocol, wire)
        before = len(wire.written)
        served.batcher.holds = True
        await served.send([REQUESTS[0], REQUESTS[1]], protocol, wire)
        assert len(wire.written) == before
        served.batcher.holds = False
        served.batcher.answer()
        return await served.send([b"\r\n"], protocol, wire), before

    (written, _), before = asyncio.run(asked())
    answers = written[before:].split(b"HTTP/1.1 409")[1:]
    assert [b"transaction 1" in answer for answer in answers] == [True, False]


def test_an_idle_connection_is_closed_and_one_in_use_is_not():
    async def asked():
        loop = asyncio.get_running_loop()
        served = Served(Heads())
        served.config.timeout_keep_alive = 1
        protocol, wire = served.connect()
        until = loop.time() + 1.5
        while loop.time() < until:
            await served.send([REQUESTS[0]], protocol, wire)
            await asyncio.sleep(0.05)
        assert not wire.closed
        served.batcher.holds = True
        await served.send([REQUESTS[0]], protocol, wire)
        await asyncio.sleep(1.5)
        assert not wire.closed
        served.batcher.answer()
        done = loop.time()
        while not wire.closed and loop.time() < done + 3:
            await asyncio.sleep(0.01)
        return wire.closed, loop.time() - done

    closed, after_s = asyncio.run(asked())
    assert closed
    assert after_s > 0.9
