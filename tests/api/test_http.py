"""The HTTP door as a process on a real Valkey."""

import concurrent.futures
import itertools
import json
import signal

import pytest

from api.audit.verify import verify
from api.journal_reader import contents
from api.openapi import event_example, label_example, transaction_example
from cordon.stack.supervisor import Stack
from cordon.stack.valkey import Valkey
from features import load
from features.library import library
from features.resp import Address, Connection
from tests.api.processes import Processes, body, kill, metric, wait_for

pytestmark = pytest.mark.parts


@pytest.fixture
def processes(tmp_path, valkey):
    made = Processes(tmp_path, valkey.url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory, ports):
    """One service for all tests that leave it whole: a start costs seconds."""
    directory = tmp_path_factory.mktemp("service")
    node = Valkey(directory / "valkey", ports.take())
    with Stack([node.part()], directory / "parts"):
        made = Processes(directory, node.url)
        made.service(ports.take())
        yield made
        made.close()


@pytest.fixture
def service(shared):
    return shared.clients[0]


def test_an_answer_that_never_reached_its_claim_is_found_and_not_made_again(
    processes, ports, valkey, tmp_path
):
    #  service 0:  claim -> observe -> journal -> answer -> X       (its claim stays open)
    #  service 1:                                retry: the record in the journal beside its own
    first, client = processes.service(ports.take())
    assert client.post("/v1/decisions", json=body("before")).status_code == 200
    source = library(load("payments"))
    begin = "local function complete(keys, args)\n"
    assert begin in source
    server = Connection(Address.parse(valkey.url))
    server.call("FUNCTION", "LOAD", "REPLACE", source.replace(begin, f"{begin}  do return 1 end\n"))
    answer = client.post("/v1/decisions", json=body("a", 1)).json()
    kill(first)
    server.call("FUNCTION", "LOAD", "REPLACE", source)
    server.close()
    second = processes.service(ports.take(), CORDON_JOURNAL__DIRECTORY=str(tmp_path / "journal"))[1]
    assert second.get("/v1/decisions/a").json()["decided_ms"] == answer["decision"]["decided_ms"]
    again = wait_for(lambda: retried(second, body("a", 1)), 20)
    assert again == answer | {"replay": True}
    assert [r["id"] for r in records(tmp_path / "journal" / "service-0")] == ["before", "a"]


def retried(client, payload):
    """The answer, once the claim of whoever died can be taken over."""
    found = client.post("/v1/decisions", json=payload)
    return found.json() if found.status_code == 200 else None


def records(directory):
    return list(contents(directory))


def test_decide_look_up_label_and_look_at_the_entity(service, shared):
    answer = service.post("/v1/decisions", json=body("a"))
    assert answer.status_code == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json()["outcome"] == "approve"
    assert answer.json()["degraded"] == ["model"]
    record = service.get("/v1/decisions/a").json()
    assert record["outcome"] == "approve"
    assert "cd_0" not in json.dumps(record)
    again = service.post("/v1/decisions", json=body("a"))
    assert again.json() == answer.json() | {"replay": True}
    assert service.post("/v1/decisions", json=body("a", amount=2)).status_code == 409
    label = {"label_id": "l", "transaction_id": "a", "time": 1_760_000_001_000, "fraud": True}
    assert [service.post("/v1/labels", json=label).status_code for _ in range(2)] == [202, 200]
    event = {"event_id": "e", "transaction_id": "a", "time": 1_760_000_001_000, "kind": "issuer_declined"}
    assert service.post("/v1/events", json=event).status_code == 202
    assert service.post("/v1/events", json=event | {"transaction_id": "no"}).status_code in (404, 409)
    assert (
        service.post("/v1/events", json=event | {"event_id": "f", "transaction_id": "no"}).status_code == 404
    )
    entity = service.get("/v1/entities/card/cd_0").json()
    assert entity["features"]["card_count_1h"] == 1
    assert entity["features"]["card_issuer_declined_count_1h"] == 1
    assert service.get("/v1/entities/card/unknown").status_code == 404
    assert service.get("/v1/entities/colour/red").status_code == 404
    assert service.get("/v1/decisions/unknown").status_code == 404
    kinds = [r["type"] for r in records(shared.directory / "journal" / "service-0")]
    assert kinds[:3] == ["decision", "label", "event"]
    page = service.get("/metrics").text
    assert metric(page, "cordon_decisions_total", door="http", outcome="approve") == 1
    assert metric(page, "cordon_answers_other_total", kind="replay") == 2


@pytest.mark.parametrize(("content", "status", "field"), [
    (b"{", 422, "body"),
    (b"[1]", 422, "body"),
    (b"\xff\xfe", 422, "body"),
    (b"[" * 3_000, 422, "body"),
    (b'{"transaction_id": 5}', 422, "transaction_id"),
    (json.dumps(body("x", amount=-1)).encode(), 422, "amount"),
    (json.dumps(body("x", currency="DOGE")).encode(), 422, "currency"),
    (json.dumps(body("x", card="4111 1111 1111 1111")).encode(), 422, "card"),
    (json.dumps(body("x", **{"4111111111111111": 1})).encode(), 422, "*" * 16),
    (b" " * 70_000, 413, None),
])  # fmt: skip
def test_bad_bodies_get_problem_details_that_name_the_field(service, shared, content, status, field):
    answer = service.post("/v1/decisions", content=content)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json().get("field") == field
    assert "4111" not in answer.text
    assert "4111" not in shared.log.read_text()
    assert service.post("/v1/decisions", json=body("ok")).status_code == 200


def test_keys_and_roles(processes, ports):
    _, client = processes.service(ports.take(), CORDON_SERVICE__API_KEYS="k1=decide,k2=auditor")
    headers = {"authorization": ""}
    assert client.post("/v1/decisions", json=body("a"), headers=headers).status_code == 401
    assert (
        client.post("/v1/decisions", json=body("a"), headers={"authorization": "Bearer k3"}).status_code
        == 401
    )
    assert (
        client.post("/v1/decisions", json=body("a"), headers={"authorization": "Bearer k2"}).status_code
        == 403
    )
    assert (
        client.post("/v1/decisions", json=body("a"), headers={"authorization": "Bearer k1"}).status_code
        == 200
    )
    assert (
        client.get("/v1/decisions/a/explanation", headers={"authorization": "Bearer k1"}).status_code == 403
    )
    assert (
        client.get("/v1/decisions/a/explanation", headers={"authorization": "Bearer k2"}).status_code == 200
    )
    assert client.get("/health/ready", headers=headers).status_code == 200


def test_the_document_describes_the_active_schema_and_its_examples_are_accepted(service):
    document = service.get("/openapi.json").json()
    routes = {"/v1/decisions", "/v1/labels", "/v1/events", "/v1/decisions/{id}", "/v1/entities/{type}/{id}"}
    assert routes | {"/v1/decisions/{id}/explanation", "/health/ready"} <= set(document["paths"])
    schema = load("payments").schema
    names = document["components"]["schemas"]["Transaction"]["properties"]
    assert set(names) == {schema.id, schema.time, *schema.by_name}
    assert service.post("/v1/decisions", json=transaction_example(schema)).status_code == 200
    assert service.post("/v1/labels", json=label_example(schema)).status_code == 202
    assert service.post("/v1/events", json=event_example(schema)).status_code == 202
    answer = service.post("/v1/decisions", json=transaction_example(schema)).json()
    described = document["components"]["schemas"]["Answer"]
    assert set(answer) == set(described["properties"]) == set(described["required"])


def test_many_at_once_are_decided_in_batches_and_each_once(service, shared):
    def post(i):
        given = body(f"t{i % 150}", i % 150, card=f"many_{i % 150 % 7}")
        return service.post("/v1/decisions", json=given).json()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(post, range(300)))
    assert sum(not a["replay"] for a in answers) == 150
    written = [r["id"] for r in records(shared.directory / "journal" / "service-0")]
    assert sum(id.startswith("t") for id in written if id != "tx-1001") == 150
    assert service.get("/v1/entities/card/many_0").json()["features"]["card_count_30d"] == len(
        range(0, 150, 7)
    )


def test_kill_9_loses_and_doubles_nothing_that_was_answered(processes, ports, tmp_path):
    answered = set()
    port = ports.take()
    for round_ in range(3):
        process, client = processes.service(port)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:

            def post(i, client=client, round_=round_):
                response = client.post("/v1/decisions", json=body(f"r{round_}-{i}", i))
                return response.json()["transaction_id"] if response.status_code == 200 else None

            futures = [pool.submit(post, i) for i in range(400)]
            done = concurrent.futures.wait(futures, timeout=0.5).done
            kill(process)
            concurrent.futures.wait(futures)
            answered |= {f.result() for f in futures if f.exception() is None}
            assert done
    answered.discard(None)
    _, client = processes.service(port)
    found = [r["id"] for r in records(tmp_path / "journal" / "service-0")]
    assert len(found) == len(set(found))
    assert answered <= set(found)
    for id in sorted(answered)[::50]:
        assert client.post("/v1/decisions", json=body(id, int(id.split("-")[1]))).json()["replay"]
    assert verify(tmp_path / "journal" / "service-0").records == len(found)


def test_several_workers_share_claims_and_metrics(processes, ports, tmp_path):
    port = ports.take()
    process, client = processes.service(port, CORDON_SERVICE__WORKERS="2")
    both = [tmp_path / "journal" / f"service-{n}" for n in range(2)]
    wait_for(lambda: all((d / "mark").exists() for d in both))
    clients = [processes.client(port) for _ in range(8)]
    for i in range(60):
        assert clients[i % 8].post("/v1/decisions", json=body(f"t{i % 30}", i % 30)).status_code == 200
    assert sum(len(records(d)) for d in both) == 30
    assert metric(client.get("/metrics").text, "cordon_decisions_total", outcome="approve") == 30
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0


def test_overload_is_turned_away_with_retry_after(processes, ports):
    _, client = processes.service(ports.take(), CORDON_SERVICE__QUEUE="1", CORDON_SERVICE__BATCH="1")
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda i: client.post("/v1/decisions", json=body(f"t{i}", i)), range(400)))
    refused = [r for r in found if r.status_code == 503]
    assert all(r.headers["retry-after"] and r.json()["code"] == "overloaded" for r in refused)
    assert {r.status_code for r in found} <= {200, 503}


def test_redis_killed_and_back(tmp_path, make_stack, ports):
    node = Valkey(tmp_path / "data", ports.take())
    stack = make_stack(node.part())
    processes = Processes(tmp_path, node.url)
    try:
        _, client = processes.service(ports.take())
        assert client.post("/v1/decisions", json=body("a")).json()["degraded"] == ["model"]
        stack.kill("valkey", hold=True)
        degraded = client.post("/v1/decisions", json=body("b")).json()["degraded"]
        assert "features" in degraded
        assert client.get("/v1/decisions/b").json()["claim"] == "unclaimed"
        assert client.get("/health/ready").json()["parts"]["redis"] == "down"
        label = {"label_id": "l", "transaction_id": "a", "time": 1_760_000_001_000, "fraud": True}
        assert client.post("/v1/labels", json=label).status_code == 503
        stack.restart("valkey")
        numbers = itertools.count()

        def whole() -> bool:
            answer = client.post("/v1/decisions", json=body(f"c{next(numbers)}", 1)).json()
            return "features" not in answer["degraded"]

        wait_for(whole)
        assert whole()
    finally:
        processes.close()


def test_a_journal_that_is_held_refuses_to_start(shared, service):
    with pytest.raises(AssertionError, match="being written by another process"):
        shared.start("api.serve", CORDON_SERVICE__PORT="0")


def test_a_wrong_setting_is_one_clear_line(processes):
    with pytest.raises(AssertionError, match="CORDON_SERVICE__PORT=http: write a whole number"):
        processes.start("api.serve", CORDON_SERVICE__PORT="http")
    with pytest.raises(AssertionError, match="CORDON_SECRETS__PSEUDONYM"):
        processes.start("api.serve", CORDON_SECRETS__PSEUDONYM="short", CORDON_SERVICE__PORT="0")


def test_a_decision_is_made_again(service):
    service.post("/v1/decisions", json=body("again", amount=60_000, card="cd_x", customer="cu_x"))
    found = service.post("/v1/decisions/again/replay").json()
    assert (found["same"], found["as"], found["differences"]) == (True, "stored", [])
    assert found["replayed"]["outcome"] == found["recorded"]["outcome"] == "review"
    assert service.post("/v1/decisions/again/replay?as=current").json()["same"] is True
    assert service.post("/v1/decisions/again/replay?as=never").status_code == 422
    assert service.post("/v1/decisions/unknown/replay").status_code == 404
