"""What comes before a measured run: history, then the rate itself, with nothing left to do after either."""

from __future__ import annotations

import http.server
import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.load.course import Course, arrivals_s
from cordon.log import LogIncomplete
from cordon.pipeline import until_none
from cordon.settings import Settings
from cordon.stack.local import Options, local
from cordon.stack.supervisor import Stack
from stream.replay.item import Item

HOST = "127.0.0.1"


class Approving(http.server.BaseHTTPRequestHandler):
    """Approves whatever comes, and notes its id and when."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, float]]

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append((sent["id"], time.monotonic()))
        answer = {"transaction_id": sent["id"], "outcome": "approve", "score": 1, "reasons": []}
        body = json.dumps(
            {**answer, "decision": {}, "freshness": {}, "degraded": [], "replay": False}
        ).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Following:
    """Notes how much had been answered each time somebody waited, and of that how much was announced."""

    def __init__(self, seen: list[tuple[str, float]]) -> None:
        self._seen = seen
        self._expected = 0
        self.drained: list[tuple[int, int]] = []

    def expect(self, sent: Mapping[str, int]) -> None:
        self._expected += sent["transaction"]

    def drain(self, *, patience_s: float) -> None:
        assert patience_s > 0
        self.drained.append((len(self._seen), self._expected))


@pytest.fixture
def seen() -> list[tuple[str, float]]:
    return []


@pytest.fixture
def course(seen: list[tuple[str, float]], tmp_path: Path) -> Iterator[Course]:
    handler = type("Handler", (Approving,), {"seen": seen})
    server = http.server.ThreadingHTTPServer((HOST, 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    plan = local(
        Settings.load(service={"host": HOST, "port": server.server_address[1]}),
        tmp_path,
        Options(attach=True),
    )
    yield Course(plan, Stack((), tmp_path), connections=4, followers=Following(seen))
    server.shutdown()
    server.server_close()
    thread.join()


def items(*names: str) -> list[Item]:
    return [Item(0, "transaction", name, name, b"", json.dumps({"id": name}).encode()) for name in names]


def test_the_rate_begins_when_the_history_is_worked_off_and_leaves_nothing_behind(
    course: Course, seen: list[tuple[str, float]]
) -> None:
    #   h1 h2 h3 | drain | s1 .. s2 ........ s3 .... | drain | what is measured
    #                    |<----- 0.4 s ----------->|
    told = course.warm_up(items("h1", "h2", "h3"), items("s1", "s2", "s3"), 0.4)
    assert isinstance(course.followers, Following)
    assert course.followers.drained == [(3, 3), (6, 6)]
    assert {id for id, _ in seen[:3]} == {"h1", "h2", "h3"}
    assert [id for id, _ in seen[3:]] == ["s1", "s2", "s3"]
    due_s = arrivals_s(3, 0.4, 1_000)
    assert seen[5][1] - seen[3][1] >= 0.5 * (due_s[2] - due_s[0])
    assert (told["warm"], told["warm_seconds"]) == (3, 0.4)
    assert set(course.answered) == {"h1", "h2", "h3", "s1", "s2", "s3"}


def test_without_seconds_there_is_only_history(course: Course, seen: list[tuple[str, float]]) -> None:
    told = course.warm_up(items("h1"), [], 0.0)
    assert [id for id, _ in seen] == ["h1"]
    assert told["warm_seconds"] == 0.0


def test_no_run_has_the_arrivals_of_another() -> None:
    runs = [arrivals_s(100, 10.0, seed) for seed in (0, 1, 1_000)]
    assert all(due_s == sorted(due_s) and due_s[0] >= 0.0 and due_s[-1] < 10.0 for due_s in runs)
    assert all(one != other for one, other in itertools.combinations(runs, 2))
    assert runs[0] == arrivals_s(100, 10.0, 0)


def test_whoever_lags_is_waited_for() -> None:
    left = iter([{("decisions", 0): 2}, {("decisions", 0): 1}, {}])
    until_none("the projector", lambda: next(left), patience_s=30.0)
    assert list(left) == []


def test_whoever_never_comes_is_named() -> None:
    with pytest.raises(LogIncomplete, match=r"the projector did not pass \{\('decisions', 0\): 2\}"):
        until_none("the projector", lambda: {("decisions", 0): 2}, patience_s=0.0)
