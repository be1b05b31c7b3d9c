"""A bad rule goes live on two workers and the Kafka door: it trips within its cap, all else goes on."""

import json
import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from api.journal_reader import contents, journals_in
from api.record import decode_json
from tests.api.processes import Processes, body, kill, metric, wait_for
from tests.api.test_rules_live import desk, now_ms

pytestmark = pytest.mark.parts
CAP = 30
SET = f"""
name = "payments"
[[rule]]
id = "bad"
text = "decline if amount > 0.01"
reason = "test"
owner = "test"
declines_max = {CAP}
declines_within = "10m"
example = [{{ given = {{ amount = 100 }}, result = "hit" }}]
[[rule]]
id = "sound"
text = "challenge if amount > 10.00"
reason = "test"
owner = "test"
example = [{{ given = {{ amount = 100_000 }}, result = "hit" }}]
"""


@pytest.fixture
def processes(tmp_path, valkey, kafka):
    rules = str(tmp_path / "rules")
    more = {"CORDON_DECIDE__RULES_DIR": rules, "CORDON_SERVICE__WORKERS": "2"}
    made = Processes(tmp_path, valkey.url, kafka.settings(), **more)
    yield made
    made.close()


def journalled(processes: Processes) -> list[dict]:
    return list(contents(*journals_in(processes.directory / "journal")))


def alerts(processes: Processes, count: int) -> list[dict]:
    """What is in the topic of alerts once so many are."""
    consumer = Consumer(
        {
            "bootstrap.servers": processes.environment["CORDON_KAFKA__BOOTSTRAP"],
            "group.id": "test",
            "isolation.level": "read_committed",
        }
    )
    topic = processes.environment["CORDON_KAFKA__ALERTS"]
    found: list[dict] = []
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])

        def enough() -> bool:
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                found.append(decode_json(message.value() or b""))
            return len(found) >= count

        wait_for(enough, 30)
        assert consumer.poll(0.5) is None
    finally:
        consumer.close()
    return found


def test_a_bad_rule_trips_within_its_cap_and_all_other_rules_go_on(processes, ports):
    port = ports.take()
    service, client = processes.service(port)
    processes.start("api.door", ready="ready: door")
    processes.start("api.publisher", ready="ready: publisher")
    clients = [processes.client(port) for _ in range(8)]
    people = desk(processes)
    draft = processes.directory / "draft.toml"
    draft.write_text(SET)
    people.publish(draft, "ada", now_ms(), "")
    version = people.approve(1, "bo", now_ms(), "").version
    wait_for(lambda: {c.get("/health/ready").json()["parts"]["rules"] for c in clients} == {version})
    producer = Producer({"bootstrap.servers": processes.environment["CORDON_KAFKA__BOOTSTRAP"]})
    for number in range(100):
        clients[number % 8].post("/v1/decisions", json=body(f"h{number}", number)).raise_for_status()
        producer.produce(
            processes.environment["CORDON_KAFKA__TRANSACTIONS"], json.dumps(body(f"k{number}", number))
        )
        producer.poll(0)
        # Over some seconds: faster than they hear of each other, each process would reach the cap by itself.
        time.sleep(0.03)
    assert producer.flush(10) == 0
    wait_for(lambda: sum(r["type"] == "decision" for r in journalled(processes)) == 200)
    decisions = [r for r in journalled(processes) if r["type"] == "decision"]
    outcomes = [r["outcome"] for r in decisions]
    # Three processes; what they had not heard of each other yet is all that may come on top.
    assert CAP <= outcomes.count("decline") < CAP * 3
    assert outcomes.count("challenge") == 200 - outcomes.count("decline")
    for record in decisions:
        (bad, sound) = record["rules"]
        assert (sound["result"], "held" in sound) == ("hit", False)
        assert (bad["result"], bad.get("held")) == (
            "hit", None if record["outcome"] == "decline" else "tripped",
        )  # fmt: skip
    for record in decisions[::20]:
        assert client.post(f"/v1/decisions/{record['id']}/replay").json()["same"]

    # One audit record, one alert, a metric, a route.
    steps = [r for r in journalled(processes) if r.get("event") == "rules_tripped"]
    assert [s["step"]["note"].partition(": ")[0] for s in steps] == ["bad"]
    (alert,) = alerts(processes, 1)
    assert (alert["code"], alert["severity"], alert["about"]["rule"]) == ("rule_tripped", "critical", "bad")
    (trip,) = client.get("/v1/brakes").json()["tripped"]
    assert trip["name"] == "bad"
    wait_for(lambda: metric(client.get("/metrics").text, "cordon_brakes", brake="bad") == 1)

    # A restart forgets nothing; an approver brings the rule back, and it counts from zero.
    kill(service)
    client.close()
    _, client = processes.service(port)
    assert client.post("/v1/decisions", json=body("after", 1)).json()["outcome"] == "challenge"
    asked = {"reason": "corrected"}
    assert client.post("/v1/brakes/sound/reset", json=asked).status_code == 404
    assert client.post("/v1/brakes/bad/reset", json=asked).json()["kind"] == "reset"
    wait_for(lambda: not client.get("/v1/brakes").json()["tripped"])

    def declined() -> bool:
        number = now_ms()
        answer = client.post("/v1/decisions", json=body(f"again-{number}", 2)).json()
        return bool(answer["outcome"] == "decline")

    wait_for(declined, 5)
    assert [a["code"] for a in alerts(processes, 2)] == ["rule_tripped", "rule_reset"]


def test_a_service_that_declines_too_much_is_guarded_and_says_so(processes, ports):
    guard = {
        "CORDON_BRAKES__GUARD_DECISIONS_MIN": "40",
        "CORDON_BRAKES__DECLINES_MAX": "0",
        "CORDON_DECIDE__RULES": str(processes.directory / "set.toml"),
    }
    (processes.directory / "set.toml").write_text(
        SET.replace(f"declines_max = {CAP}", "declines_max = 100_000")
    )
    processes.environment |= guard
    port = ports.take()
    _, client = processes.service(port)
    answers = [client.post("/v1/decisions", json=body(f"a{n}", n)).json() for n in range(60)]
    assert {a["outcome"] for a in answers[:40]} == {"decline"}
    wait_for(lambda: client.get("/v1/brakes").json()["tripped"])

    def guarded() -> dict | None:
        answer: dict = client.post("/v1/decisions", json=body(f"g{now_ms()}", 1)).json()
        return answer if answer["guard"] else None

    answer = wait_for(guarded)
    assert (answer["outcome"], answer["guard"]) == ("review", "decline_rate")
    record = client.get(f"/v1/decisions/{answer['transaction_id']}").json()
    assert (record["winner"]["outcome"], record["outcome"]) == ("decline", "review")
    assert client.post(f"/v1/decisions/{answer['transaction_id']}/replay").json()["same"]
    asked = {"reason": "an attack, we look at all of them"}
    assert client.post("/v1/brakes/guard:decline_rate/reset", json=asked).status_code == 200
    wait_for(lambda: client.post("/v1/decisions", json=body(f"e{now_ms()}", 1)).json()["guard"] is None)
