"""The hot routes' short way through HTTP, on a real service: the same answers as the usual way, in order."""

import json
import re
import socket
from typing import Any

import pytest

from cordon.stack.supervisor import Stack
from cordon.stack.valkey import Valkey
from tests.api.processes import Processes, body

pytestmark = pytest.mark.parts
KEY = "Authorization: Bearer dev-key"
# A request that asks whether to go on takes uvicorn's own way.
USUAL = "Expect: 100-continue"


@pytest.fixture(scope="module")
def port(tmp_path_factory, ports):
    directory = tmp_path_factory.mktemp("service")
    node = Valkey(directory / "valkey", ports.take())
    with Stack([node.part()], directory / "parts"):
        made = Processes(directory, node.url)
        taken = ports.take()
        made.service(taken, CORDON_SERVICE__BODY_BYTES_MAX="4096")
        yield taken
        made.close()


def request(path, payload, *headers, method="POST", version="1.1"):
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    lines = (f"{method} {path} HTTP/{version}", "Host: here", f"Content-Length: {len(raw)}", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


class Caller:
    """One connection, read answer by answer."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_: object):
        self.file.close()
        self.socket.close()

    def send(self, *raw):
        self.socket.sendall(b"".join(raw))

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self.file.readline().split()[1])
        headers = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(": ")
            assert name not in headers
            headers[name] = value
        if status == 100:
            return self.answer()
        return status, headers, self.file.read(int(headers["content-length"]))

    def ended(self):
        return self.file.read(1) == b""


def once(port, *raw):
    with Caller(port) as caller:
        caller.send(*raw)
        return caller.answer()


def told(found: tuple[int, dict[str, str], bytes]) -> Any:
    """An answer without what differs between two decisions of the same."""
    status, headers, raw = found
    text = re.sub(rb'"(transaction_id|decided_ms|flink_lag_ms)":("[^"]*"|\d+|null)', b"", raw)
    return status, {**headers, "content-length": ""}, text


@pytest.mark.parametrize(
    ("path", "payload", "headers"),
    [
        ("/v1/decisions", "new", [KEY]),
        ("/v1/decisions", "new", ["X-API-Key: dev-key", "Connection: close"]),
        ("/v1/decisions", "new", []),
        ("/v1/decisions", "new", ["Authorization: Bearer wrong"]),
        ("/v1/decisions", b"{", [KEY]),
        ("/v1/decisions", b"", [KEY]),
        ("/v1/decisions", b"\xff", [KEY]),
        ("/v1/decisions", {"transaction_id": "x", "card": "4111111111111111"}, [KEY]),
        ("/v1/decisions", b"[" * 4097, [KEY]),
        ("/v1/labels", {"label_id": "l", "transaction_id": "nobody", "time": 1, "fraud": True}, [KEY]),
        ("/v1/events", {"event_id": "e", "kind": "none"}, [KEY]),
    ],
)  # fmt: skip
def test_both_ways_answer_the_same(port, path, payload, headers):
    made = [body("short"), body("usual")] if payload == "new" else [payload, payload]
    short = once(port, request(path, made[0], *headers))
    usual = once(port, request(path, made[1], *headers, USUAL))
    if payload == "new" and KEY in headers:
        assert json.loads(short[2])["transaction_id"] == "short"
    assert told(short) == told(usual)


def test_answers_come_in_the_order_of_the_requests(port):
    several = [
        request("/v1/decisions", body("p1", 1), KEY),
        request("/v1/decisions", body("p2", 2), KEY),
        request("/v1/decisions/p1", b"", KEY, method="GET"),
        request("/v1/decisions", b"{", KEY),
        request("/v1/decisions", body("p3", 3), KEY),
    ]
    with Caller(port) as caller:
        caller.send(*several)
        found = [caller.answer() for _ in several]
        caller.send(request("/v1/decisions", body("p4", 4), KEY))
        found.append(caller.answer())
    assert [status for status, _, _ in found] == [200, 200, 200, 422, 200, 200]
    decided = [json.loads(found[i][2])["transaction_id"] for i in (0, 1, 4, 5)]
    assert json.loads(found[2][2])["id"] == "p1"
    assert decided == ["p1", "p2", "p3", "p4"]


def test_a_body_may_come_in_pieces_and_chunks(port):
    raw = request("/v1/decisions", body("slow", 1), KEY)
    with Caller(port) as caller:
        for at in range(0, len(raw), 40):
            caller.send(raw[at : at + 40])
        assert caller.answer()[0] == 200
        piece = json.dumps(body("chunked", 2)).encode()
        head = f"POST /v1/decisions HTTP/1.1\r\nHost: here\r\n{KEY}\r\nTransfer-Encoding: chunked\r\n\r\n"
        caller.send(head.encode(), b"%x\r\n" % 10, piece[:10], b"\r\n")
        caller.send(b"%x\r\n" % len(piece[10:]), piece[10:], b"\r\n0\r\n\r\n")
        status, _, answer = caller.answer()
    assert (status, json.loads(answer)["transaction_id"]) == (200, "chunked")


def test_a_body_beyond_the_limit_is_refused_at_once_and_the_connection_goes_on(port):
    with Caller(port) as caller:
        head = f"POST /v1/decisions HTTP/1.1\r\nHost: here\r\n{KEY}\r\nContent-Length: 100000\r\n\r\n"
        caller.send(head.encode(), b" " * 5_000)
        assert caller.answer()[0] == 413
        caller.send(b" " * 95_000, request("/v1/decisions", body("after", 1), KEY))
        assert caller.answer()[0] == 200


@pytest.mark.parametrize(("version", "more"), [("1.0", []), ("1.1", ["Connection: close"])])
def test_a_connection_is_closed_where_the_caller_asks_for_it(port, version, more):
    with Caller(port) as caller:
        caller.send(request("/v1/decisions", body(f"last{version}", 1), KEY, *more, version=version))
        assert caller.answer()[0] == 200
        assert caller.ended()
