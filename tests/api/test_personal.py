"""Reading personal fields and erasing a subject, over HTTP, on a real broker and a real Valkey."""

import contextlib
import json
import os
import signal
import subprocess

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from typer.testing import CliRunner

from api.audit.verify import verify
from api.journal_reader import JournalReader
from api.query_store import Logged, open_store
from api.record import decode_json, unpack
from cordon.main import app
from cordon.stack.kafka import Kafka
from tests.api.processes import Processes, body, kill, wait_for
from tests.parts import ROOT, SERVICE_PYTHON

pytestmark = pytest.mark.parts
ADA = {"customer": "cu_ada", "card": "cd_ada", "email": "ada@example.com", "device": "de_ada"}
KEYS = {"CORDON_SERVICE__API_KEYS": "dev-key=admin,a=analyst,s=data_scientist,u=auditor,d=decide,p=approver"}


@pytest.fixture
def names(kafka):
    return kafka.settings(partitions=1)


@pytest.fixture
def processes(tmp_path, valkey, names):
    made = Processes(tmp_path, valkey.url, names, CORDON_KAFKA__TRIM_MS="300", **KEYS)
    yield made
    made.close()


def audit_records(directory):
    found = []
    for mark in sorted((directory / "journal").glob("*/mark")):
        reader = JournalReader(mark.parent)
        found += [decode_json(unpack(r.body).payload) for r in reader.read(100_000)]
        reader.close()
    return [record for record in found if record["type"] == "audit"]


def personal(client, id, **headers):
    return client.get(f"/v1/decisions/{id}/personal", params={"purpose": "case 7"}, headers=headers)


def test_who_may_reads_personal_fields_and_each_access_is_recorded(processes, ports, tmp_path):
    _, client = processes.service(ports.take())
    assert client.post("/v1/decisions", json=body("a", 0, **ADA)).status_code == 200
    assert "ada" not in client.get("/v1/decisions/a").text
    shown = personal(client, "a").json()
    assert shown["personal"] == ADA | {"merchant": "me_a"}
    (access,) = audit_records(tmp_path)
    assert access["id"] == shown["access"]
    assert access["event"] == "personal_access"
    assert (access["purpose"], access["transaction_id"]) == ("case 7", "a")
    assert access["by"] == "key-1"
    assert "dev-key" not in json.dumps(access)
    allowed = [personal(client, "a", authorization=f"Bearer {key}").status_code for key in "ausdp"]
    assert allowed == [200, 200, 403, 403, 403]
    assert len(audit_records(tmp_path)) == 3
    assert len({record["by"] for record in audit_records(tmp_path)}) == 3
    assert client.get("/v1/decisions/a/personal").status_code == 422
    assert (
        client.get("/v1/decisions/a/personal", params={"purpose": "4111 1111 1111 1111"}).status_code == 422
    )
    assert personal(client, "nobody").status_code == 404
    keys = [client.delete("/v1/subjects/x", headers={"authorization": f"Bearer {k}"}) for k in "ausdp"]
    assert [answer.status_code for answer in keys] == [403] * 5


def test_records_from_before_are_read_and_have_no_personal_fields(processes, ports, tmp_path, names):
    _, client = processes.service(ports.take())
    client.post("/v1/decisions", json=body("a", 0, **ADA))
    old = {**client.get("/v1/decisions/a").json(), "id": "old"}
    del old["sealed"]
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'query.sqlite'}")) as store:
        store.project([Logged(names.decisions, 0, 0, json.dumps(old).encode())], {})
    assert client.get("/v1/decisions/old").json() == old
    assert client.post("/v1/decisions/old/replay").json()["same"] is True
    assert (personal(client, "old").status_code, personal(client, "a").status_code) == (404, 200)
    assert client.delete("/v1/decisions/a/personal").json()["code"] == "has_subject"


def test_a_transaction_that_names_nobody_is_erased_by_its_id(processes, ports):
    _, client = processes.service(ports.take())
    processes.start("api.publisher")
    processes.start("api.projector")
    unknown = ADA | {"customer": None}
    for number, id in enumerate("ab"):
        assert client.post("/v1/decisions", json=body(id, number, **unknown)).status_code == 200
    assert personal(client, "a").json()["personal"]["card"] == "cd_ada"
    receipt = wait_for(lambda: client.delete("/v1/decisions/a/personal").json(), 20)
    assert (receipt["event"], receipt["entity"]) == ("erasure", "transaction")
    assert [personal(client, id).status_code for id in "ab"] == [410, 200]


def test_an_erased_subject_is_gone_on_every_worker_and_from_the_dead_letters(
    processes, ports, tmp_path, names
):
    for module in ("api.publisher", "api.projector", "api.door"):
        processes.start(module)
    # Two services with journals of their own, as on two hosts.
    _, one = processes.service(ports.take())
    elsewhere = {"CORDON_JOURNAL__DIRECTORY": str(tmp_path / "other")}
    two = processes.service(ports.take(), **elsewhere)[1]
    processes.start("api.publisher", CORDON_KAFKA__GROUP="elsewhere", **elsewhere)
    producer = Producer({"bootstrap.servers": names.bootstrap})
    for message in (body("k", 1, **ADA), body("bad", 2, amount=-1, **ADA), b'{"email": "ada@example.com'):
        raw = message if isinstance(message, bytes) else json.dumps(message).encode()
        producer.produce(names.transactions, raw, partition=0)
    producer.flush(20)
    one.post("/v1/decisions", json=body("a", 3, **ADA))
    two.post("/v1/decisions", json=body("b", 4, customer="cu_bob", email="bob@example.com"))
    wait_for(lambda: len(one.get("/v1/decisions").json()["decisions"]) >= 2, 60)
    wait_for(lambda: personal(one, "k").status_code == 200, 30)
    wait_for(lambda: personal(two, "a").status_code == personal(one, "b").status_code == 200, 30)
    wait_for(lambda: len(letters(processes)) == 2, 30)
    ids = [letter["id"] for letter in letters(processes)]
    assert all("ada@example.com" in show(processes, id).stdout for id in ids)
    receipt = one.delete("/v1/subjects/cu_ada").json()
    assert receipt["event"] == "erasure"
    assert receipt["letters"] == 1
    for client in (one, two):
        for id in ("a", "k"):
            gone = personal(client, id)
            assert (gone.status_code, gone.json()["code"]) == (410, "erased")
        assert personal(client, "b").json()["personal"]["customer"] == "cu_bob"
        assert client.get("/v1/entities/customer/cu_ada").status_code == 404
    assert all("erased" in show(processes, id).stderr for id in ids)
    assert all(show(processes, id).exit_code == 2 for id in ids)
    assert sum(r["event"] == "dead_letter_access" for r in audit_records(tmp_path)) == 2
    # What was decided stays decided, and can be decided again.
    assert one.post("/v1/decisions/a/replay").json()["same"] is True
    assert one.post("/v1/decisions", json=body("a", 3, **ADA)).json()["replay"]
    assert one.post("/v1/decisions", json=body("c", 5, **ADA)).status_code == 200
    wait_for(lambda: personal(two, "c").status_code == 200, 30)
    assert personal(two, "c").json()["personal"]["email"] == "ada@example.com"
    for mark in tmp_path.glob("*/*/mark"):
        verify(mark.parent)
    held = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert not any(value.encode() in held for value in ADA.values())


def letters(processes):
    lines = command(processes, "list").stdout.splitlines()
    return [json.loads(line) for line in lines]


def show(processes, id):
    return command(processes, "show", id, "--purpose", "case 8")


def command(processes, *words):
    """As a person would, with the installation's settings."""
    arguments = ["letters", *words, "--name", "no-such-stack"]
    return CliRunner().invoke(app, arguments, env=processes.environment)


def test_what_the_door_has_decided_and_shipped_leaves_the_topic_of_transactions(processes, names):
    processes.start("api.door")
    producer = Producer({"bootstrap.servers": names.bootstrap})
    for number in range(50):
        producer.produce(names.transactions, json.dumps(body(f"t{number}", number, **ADA)).encode())
    producer.flush(20)
    admin = AdminClient({"bootstrap.servers": names.bootstrap})
    place = TopicPartition(names.transactions, 0)

    def first():
        return admin.list_offsets({place: OffsetSpec.earliest()})[place].result(10).offset

    wait_for(lambda: "ready" in processes.log.read_text(), 30)
    with pytest.raises(AssertionError, match="not within"):
        wait_for(lambda: first() > 0, 3)  # decided, but only on this disk
    processes.start("api.publisher")
    wait_for(lambda: first() == 50, 30)


def test_an_erasure_that_was_cut_off_by_kill_9_is_finished_by_the_next_life(
    tmp_path, valkey, ports, make_stack
):
    broker = Kafka(tmp_path / "kafka", ROOT / ".jars" / "kafka", ports.take(), ports.take())
    made = Processes(tmp_path, valkey.url, None, CORDON_KAFKA__BOOTSTRAP=broker.bootstrap, **KEYS)
    try:
        service, client = made.service(ports.take())
        client.post("/v1/decisions", json=body("a", 0, **ADA))
        # No broker yet: the dead letters cannot be looked at, so nothing is destroyed.
        begun = client.delete("/v1/subjects/cu_ada")
        assert (begun.status_code, begun.json()["waits_for"]) == (202, "kafka")
        assert personal(client, "a").status_code == 200
        kill(service)
        make_stack(broker.part())
        environment = {**made.environment, "PATH": os.environ["PATH"]}
        subprocess.run(
            [str(SERVICE_PYTHON), "-m", "cordon.stack.topics"], cwd=ROOT, env=environment, check=True
        )
        _, client = made.service(ports.take())
        wait_for(lambda: personal(client, "a").status_code == 410, 30)
        wait_for(lambda: "erasure" in [r["event"] for r in audit_records(tmp_path)], 20)
        events = [r["event"] for r in audit_records(tmp_path) if r["event"] != "personal_access"]
        assert sorted(events) == ["erasure", "erasure_begun"]
    finally:
        made.close()


def test_a_worker_that_stands_still_holds_up_the_receipt(processes, ports, tmp_path):
    _, one = processes.service(ports.take())
    still, _ = processes.service(ports.take(), CORDON_JOURNAL__DIRECTORY=str(tmp_path / "other"))
    one.post("/v1/decisions", json=body("a", 0, **ADA))
    still.send_signal(signal.SIGSTOP)
    begun = one.delete("/v1/subjects/cu_ada", timeout=30)
    assert (begun.status_code, begun.json()["waits_for"]) == (202, "processes")
    assert personal(one, "a").status_code == 410
    still.send_signal(signal.SIGCONT)
    assert one.delete("/v1/subjects/cu_ada").json()["event"] == "erasure"
