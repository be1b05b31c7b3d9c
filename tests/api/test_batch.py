"""Batches: lines, files, the spare lane, and whole batches on a running service that is killed on the way."""

import asyncio
import concurrent.futures
import functools
import json
import os
import time
from typing import Any

import pytest

from api.answer import Unknown
from api.batch.result import ERRORS_SHOWN, Malformed, NotABatch, Sums, lines_of, payload_of, result_of
from api.batch.shelf import InputLost, Shelf, ShelfFull
from api.batcher import SPARE_BUSY, SPARE_IDLE, Batcher
from api.journal_reader import JournalReader
from api.record import decode_json, unpack
from tests.api.processes import Processes, body, kill, metric, wait_for
from tests.api.test_batcher import Counting, event

SECRET = b"0123456789abcdef"
NDJSON = {"content-type": "application/x-ndjson"}


def lines(*payloads):
    return b"\n".join(json.dumps(each).encode() for each in payloads)


def test_an_array_and_lines_are_the_same_batch():
    payloads = [{"transaction_id": "a", "n": "x\ny"}, 5, [1]]
    pretty = json.dumps(payloads, indent=2).encode()
    array = lines_of(pretty, "array")
    assert [payload_of(line) for line in array] == payloads
    assert not any(b"\n" in line for line in array)
    assert [payload_of(line) for line in lines_of(b"\n" + lines(*payloads) + b"\n\n", "lines")] == payloads
    for bad in (b"{}", b"[1", b"5", b"\xff", b"", b"[1] 2"):
        with pytest.raises(NotABatch, match="write an array"):
            lines_of(bad, "array")


def test_a_line_that_is_no_json_is_an_error_of_its_own_and_shows_no_card_number():
    payload = payload_of(b'{"card": 4111111111111111')
    assert isinstance(payload, Malformed)
    found = result_of(3, payload, payload)
    assert found is not None
    assert (found["line"], found["status"], found["problem"]["code"]) == (3, 422, "malformed")
    found = result_of(1, {"transaction_id": "4111111111111111"}, Unknown("4111111111111111"))
    assert "4111" not in json.dumps(found)


def test_sums_show_the_first_errors_only():
    sums = Sums()
    for number in range(ERRORS_SHOWN + 50):
        sums = sums.add({"line": number, "status": 422, "problem": {}})
    assert (sums.done, sums.failed, len(sums.errors)) == (ERRORS_SHOWN + 50, ERRORS_SHOWN + 50, ERRORS_SHOWN)
    sums = sums.add({"line": 1, "answer": {"outcome": "review", "replay": True}})
    assert (sums.outcomes["review"], sums.replays) == (1, 1)


def shelf(tmp_path, *, tenant="demo", secret=SECRET, open_max=2):
    return Shelf(tmp_path / "batches", tenant, secret, open_max=open_max)


def done(number):
    return {
        "line": number,
        "transaction_id": "t",
        "status": 200,
        "answer": {"outcome": "approve", "replay": False},
    }


def test_a_batch_is_kept_once_encrypted_and_for_its_tenant(tmp_path):
    kept = shelf(tmp_path)
    batch, known = kept.accept([b'{"card":"cd_secret"}', b"2"], now_ms=5, by="ada")
    assert (batch.lines, batch.status, known) == (2, "waiting", False)
    assert kept.accept([b'{"card":"cd_secret"}', b"2"], now_ms=6, by="bo") == (batch, True)
    stored = b"".join(path.read_bytes() for path in (tmp_path / "batches").rglob("*") if path.is_file())
    assert b"cd_secret" not in stored
    assert kept.unsealed(batch.id) == b'{"card":"cd_secret"}\n2'
    assert shelf(tmp_path, tenant="bank").find(batch.id) is None
    assert kept.find("../../etc") is None
    with pytest.raises(InputLost):
        shelf(tmp_path, secret=b"another secret!!").unsealed(batch.id)
    kept.accept([b"3"], now_ms=7, by="ada")
    with pytest.raises(ShelfFull):
        kept.accept([b"4"], now_ms=8, by="ada")
    assert [b.accepted_ms for b in kept.open()] == [5, 7]


def test_one_works_on_it_and_the_next_goes_on_behind_the_last_whole_result(tmp_path):
    kept = shelf(tmp_path)
    batch, _ = kept.accept([b"1", b"2", b"3"], now_ms=5, by="ada")
    held = kept.hold(batch.id)
    assert held is not None
    assert shelf(tmp_path).hold(batch.id) is None
    held.append([done(1)])
    with (tmp_path / "batches" / batch.id / "results").open("ab") as file:
        file.write(b'{"line": 2, "torn')
    held.close()
    page, next_ = kept.page(batch.id, 0, 10)
    assert [json.loads(line)["line"] for line in page] == [1]
    held = shelf(tmp_path).hold(batch.id)
    assert held is not None
    assert (held.batch.sums.done, held.batch.status) == (1, "running")
    assert held.lines() == [b"1", b"2", b"3"]
    held.append([done(2), done(3)])
    held.end(9)
    held.close()
    assert kept.hold(batch.id) is None
    ended = kept.find(batch.id)
    assert ended is not None
    assert (ended.status, ended.sums.done, ended.finished_ms) == ("finished", 3, 9)
    assert not (tmp_path / "batches" / batch.id / "input").exists()
    page, next_ = kept.page(batch.id, next_, 1)
    assert [json.loads(line)["line"] for line in page] == [2]
    assert [json.loads(line)["line"] for line in kept.page(batch.id, next_, 9)[0]] == [3]
    assert kept.page(batch.id, next_, 9)[1] is None
    for wrong in (3, 10**6):
        with pytest.raises(ValueError, match="is no page"):
            kept.page(batch.id, wrong, 1)
    assert kept.open() == []
    assert (kept.tidy(9), kept.tidy(10)) == (0, 1)
    assert kept.find(batch.id) is None


def test_the_spare_lane_is_small_and_waits_for_everybody_else():
    #  queue   i i i i i i ...        spare   s s s s s s ...
    #  batch   [64 i] [36 i] [4 s] [4 s] ...
    async def course():
        engine: Any = Counting()
        queue = Batcher(engine, lambda: 1, size_max=64, queue_max=1_000)
        spare = [queue.spare(event(f"s{i}")) for i in range(40)]
        task = asyncio.create_task(queue.run())
        await asyncio.gather(*(queue.decide(event(i)) for i in range(100)))
        waiting = sum(not future.done() for future in spare)
        await asyncio.gather(*spare)
        await asyncio.sleep(0.3)
        await asyncio.gather(*(queue.spare(event(f"t{i}")) for i in range(SPARE_IDLE)))
        task.cancel()
        return engine.batches, waiting

    batches, waiting = asyncio.run(course())
    assert waiting >= 40 - 2 * SPARE_IDLE
    assert sum(batches) == 100 + 40 + SPARE_IDLE
    assert SPARE_BUSY in batches
    assert batches[-1] == SPARE_IDLE


def test_whoever_asks_waits_for_one_group_of_the_spare_lane_at_most():
    #  spare    s s s s | . . . . | s s s s        . the lane rests
    #  queue        i   | i                        i is decided right after the group that was under way
    async def course():
        engine: Any = Recording()
        queue = Batcher(engine, lambda: 1, size_max=64, queue_max=1_000)
        spare = [queue.spare(event("s")) for _ in range(200)]
        task = asyncio.create_task(queue.run())
        for _ in range(20):
            await queue.decide(event("i"))
        await asyncio.gather(*spare)
        task.cancel()
        return engine.order

    order = asyncio.run(course())
    last = len(order) - 1 - order[::-1].index("i")
    between = "".join(order[:last]).split("i")
    assert len(between) == 20
    assert all(len(group) <= SPARE_IDLE for group in between)
    assert all(len(group) <= SPARE_BUSY for group in between[1:])


class Recording(Counting):
    """Notes which events are decided, in order; a group takes a while."""

    def __init__(self):
        super().__init__()
        self.order: list[str] = []

    def record(self, inbound):
        self.order += [item.payload for item in inbound]
        time.sleep(0.001)


@pytest.fixture
def processes(tmp_path, valkey):
    made = Processes(tmp_path, valkey.url)
    yield made
    made.close()


def finished(client, location, seconds=60):
    def look():
        state = client.get(location).json()
        return state if state["status"] in ("finished", "failed") else None

    return wait_for(look, seconds)


def reached(client, location, lines):
    return client.get(location).json()["done"] >= lines


def journalled(directory):
    reader = JournalReader(directory)
    found = [decode_json(unpack(r.body).payload) for r in reader.read(1_000_000)]
    reader.close()
    return found


@pytest.mark.parts
def test_a_batch_is_decided_and_every_line_has_its_result(processes, ports, tmp_path):
    _, client = processes.service(ports.take())
    assert client.post("/v1/decisions", json=body("b1", 1)).status_code == 200
    payloads = [body(f"b{i}", i) for i in range(150)]
    bad = [body("bad", amount=-1), 5, body("b2", 2, amount=7), body("b3", 3)]
    sent = client.post("/v1/decisions/batch", content=lines(*payloads, *bad) + b"\n{", headers=NDJSON)
    assert sent.status_code == 202
    assert sent.json()["replay"] is False
    location = sent.headers["location"]
    state = finished(client, location)
    assert (state["status"], state["lines"], state["done"], state["failed"]) == ("finished", 155, 155, 4)
    assert (state["outcomes"]["approve"], state["replays"]) == (151, 2)
    assert [e["line"] for e in state["errors"]] == [151, 152, 153, 155]
    assert [e["problem"]["code"] for e in state["errors"]] == ["range", "malformed", "conflict", "malformed"]
    results: list[dict[str, Any]] = []
    cursor: int | None = 0
    while cursor is not None:
        page = client.get(f"{location}/results", params={"cursor": cursor, "limit": 60}).json()
        results += page["results"]
        cursor = page["next"]
    assert [r["line"] for r in results] == list(range(1, 156))
    assert results[9]["answer"] == client.post("/v1/decisions", json=payloads[9]).json() | {"replay": False}
    text = client.get(f"{location}/results?limit=1000", headers={"accept": "application/x-ndjson"})
    assert [json.loads(line) for line in text.text.splitlines()] == results
    assert "link" not in text.headers
    part = client.get(f"{location}/results?limit=2", headers={"accept": "application/x-ndjson"})
    assert 'rel="next"' in part.headers["link"]
    again = client.post("/v1/decisions/batch", content=lines(*payloads, *bad) + b"\n{", headers=NDJSON)
    assert (again.status_code, again.json()["replay"], again.headers["location"]) == (202, True, location)
    found = journalled(tmp_path / "journal" / "service-0")
    assert sum(r["type"] == "decision" for r in found) == 150
    (alert,) = [r for r in found if r["type"] == "alert"]
    assert (alert["code"], alert["about"]["lines"]) == ("batch_finished", 155)
    assert metric(client.get("/metrics").text, "cordon_finished_batches_total") == 1


@pytest.mark.parts
@pytest.mark.parametrize(("content", "kind", "status", "code"), [
    (b"{}", "application/json", 422, "malformed"),
    (b"[", "application/json", 422, "malformed"),
    (b"[]", "application/json", 422, "malformed"),
    (b"\n\n", "application/x-ndjson", 422, "malformed"),
    (b"[1,2,3,4]", "application/json", 413, "too_large"),
    (b" " * 5_000, "application/json", 413, "too_large"),
    (b"[1]", "text/plain", 415, "media_type"),
    (b"[1]", "", 415, "media_type"),
])  # fmt: skip
def test_what_is_no_batch_is_refused(small, content, kind, status, code):
    answer = small.post("/v1/decisions/batch", content=content, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.fixture(scope="module")
def small(tmp_path_factory, ports, _valkey):
    """A service that takes tiny batches."""
    directory = tmp_path_factory.mktemp("small")
    made = Processes(directory, _valkey.url, CORDON_BATCHES__LINES_MAX="3", CORDON_BATCHES__BYTES_MAX="4096")
    yield made.service(ports.take())[1]
    made.close()


@pytest.mark.parts
def test_an_unknown_batch_and_a_wrong_page_are_refused(small):
    for id in ("0" * 32, "x", "%2e%2e"):
        assert small.get(f"/v1/batches/{id}").status_code == 404
        assert small.get(f"/v1/batches/{id}/results").status_code == 404
    location = small.post("/v1/decisions/batch", json=[5]).headers["location"]
    finished(small, location)
    assert small.get(f"{location}/results?cursor=7").status_code == 422


@pytest.mark.parts
def test_kill_9_on_the_way_and_everything_is_decided_exactly_once(processes, ports, tmp_path):
    #  accept -> 202 -> lines ... X     start -> lines ... X     start -> the rest -> finished
    port, count = ports.take(), 3_000
    payloads = [body(f"k{i}", i) for i in range(count)]
    process, client = processes.service(port)
    sent = client.post("/v1/decisions/batch", content=lines(*payloads), headers=NDJSON)
    assert sent.status_code == 202
    location, kills = sent.headers["location"], []
    for fraction in (0.1, 0.5):
        wait_for(functools.partial(reached, client, location, fraction * count), 60)
        kill(process)
        kills.append(len(journalled(tmp_path / "journal" / "service-0")))
        process, client = processes.service(port)
    assert 0 < kills[0] < kills[1] < count
    state = finished(client, location, 90)
    assert (state["status"], state["done"], state["failed"]) == ("finished", count, 0)
    results: list[dict[str, Any]] = []
    cursor: int | None = 0
    while cursor is not None:
        page = client.get(f"{location}/results", params={"cursor": cursor, "limit": 1_000}).json()
        results += page["results"]
        cursor = page["next"]
    assert [r["transaction_id"] for r in results] == [f"k{i}" for i in range(count)]
    found = journalled(tmp_path / "journal" / "service-0")
    decided = [r["id"] for r in found if r["type"] == "decision"]
    assert len(decided) == len(set(decided)) == count
    assert len({r["id"] for r in found if r["type"] == "alert"}) == 1


@pytest.mark.parts
def test_interactive_requests_are_answered_while_a_batch_runs(processes, ports):
    _, client = processes.service(ports.take())
    payloads = [body(f"l{i}", i) for i in range(2_000)]
    sent = client.post("/v1/decisions/batch", content=lines(*payloads), headers=NDJSON)
    wait_for(functools.partial(reached, client, sent.headers["location"], 1))
    for i in range(50):
        assert client.post("/v1/decisions", json=body(f"i{i}", i)).status_code == 200
    state = client.get(sent.headers["location"]).json()
    assert state["status"] == "running", "the batch was through before the interactive requests were"
    assert finished(client, sent.headers["location"], 200)["done"] == 2_000


@pytest.mark.parts
def test_whoever_lives_takes_over_and_any_worker_knows(processes, ports, tmp_path):
    port = ports.take()
    _, client = processes.service(port, CORDON_SERVICE__WORKERS="2")
    wait_for(lambda: all((tmp_path / "journal" / f"service-{n}" / "mark").exists() for n in range(2)))
    clients = [processes.client(port) for _ in range(4)]
    wait_for(lambda: all(c.get("/health/ready").status_code == 200 for c in clients))
    batches = [[body(f"w{b}-{i}", i) for i in range(300)] for b in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        sent = list(pool.map(lambda c, b: c.post("/v1/decisions/batch", json=b), clients, batches))
    for answer in sent:
        for each in clients:
            assert each.get(answer.headers["location"]).status_code == 200
        assert sum(finished(client, answer.headers["location"])["outcomes"].values()) == 300
    found = [r for n in range(2) for r in journalled(tmp_path / "journal" / f"service-{n}")]
    decided = [r["id"] for r in found if r["type"] == "decision"]
    assert len(decided) == len(set(decided)) == 1_200
    assert sum(r["type"] == "alert" for r in found) == 4


@pytest.mark.parts
def test_lines_that_cannot_be_read_end_the_batch_as_failed(processes, ports, tmp_path):
    kept = Shelf(tmp_path / "journal" / ".batches", "demo", b"another secret!!", open_max=9)
    batch, _ = kept.accept([b"1"], now_ms=int(time.time() * 1_000), by="ada")
    assert os.listdir(tmp_path / "journal" / ".batches") == [batch.id]
    _, client = processes.service(ports.take())
    state = finished(client, f"/v1/batches/{batch.id}")
    assert state["status"] == "failed"
    assert "cannot be read" in state["why"]
    assert client.get(f"/v1/batches/{batch.id}/results").json() == {"results": [], "next": None}
