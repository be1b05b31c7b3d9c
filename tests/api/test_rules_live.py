"""Published rules reach running processes: both workers and the Kafka door, within a second."""

import json
import subprocess
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer

from api.compose import pseudonyms_of
from api.config import ServiceConfig
from api.journal_reader import contents
from api.rules.vocabulary import vocabulary_of
from cordon.rule_desk import Desk, NotPublished
from features import load
from tests.api.processes import Processes, body, wait_for
from tests.parts import ROOT, SERVICE_PYTHON

pytestmark = pytest.mark.parts
SET = """
name = "payments"
[[rule]]
id = "everything"
text = "{action} if amount > {limit}"
reason = "test"
owner = "test"
example = [{{ given = {{ amount = 100_000_000 }}, result = "hit" }}]
"""


@pytest.fixture
def processes(tmp_path, valkey, kafka):
    rules = str(tmp_path / "rules")
    made = Processes(tmp_path, valkey.url, kafka.settings(), CORDON_DECIDE__RULES_DIR=rules)
    yield made
    made.close()


def cordon(processes: Processes, *words: str) -> dict:
    done = subprocess.run(
        [str(SERVICE_PYTHON), "-m", "cordon.main", "rules", *words, "--json", "--name", "of-no-stack"],
        cwd=ROOT, env=processes.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict = json.loads(done.stdout)
    return found


def desk(processes: Processes) -> Desk:
    """What the commands use, in this process: a command takes seconds to start."""
    config = ServiceConfig.from_environment(processes.environment)
    catalogue = load(config.catalogue)
    words = vocabulary_of(catalogue)
    return Desk(config, catalogue, words, pseudonyms_of(config), time.perf_counter_ns)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def draft(processes: Processes, action: str, limit: str = "0.01") -> Path:
    path = processes.directory / "draft.toml"
    path.write_text(SET.format(action=action, limit=limit))
    return path


def journalled(processes: Processes, name: str) -> list[dict]:
    return list(contents(processes.directory / "journal" / name))


def versions(clients) -> set[str]:
    return {c.get("/health/ready").json()["parts"]["rules"] for c in clients}


def test_what_was_approved_decides_everywhere_within_a_second(processes, ports):
    port = ports.take()
    processes.service(port, CORDON_SERVICE__WORKERS="2")
    processes.start("api.door", ready="ready: door")
    # Connections are dealt to the workers: enough of them reach both.
    clients = [processes.client(port) for _ in range(8)]
    before = versions(clients)
    assert len(before) == 1
    proposed = cordon(processes, "publish", str(draft(processes, "decline")), "--by", "ada")
    assert versions(clients) == before
    with pytest.raises(NotPublished, match="another person"):
        desk(processes).approve(1, "Ada", now_ms(), "")
    cordon(processes, "approve", "1", "--by", "bo")
    time.sleep(1.0)
    assert versions(clients) == {proposed["version"]}
    for number, client in enumerate(clients):
        answer = client.post("/v1/decisions", json=body(f"after-{number}", number)).json()
        assert answer["outcome"] == "decline"
        assert answer["decision"]["versions"]["rules"] == proposed["version"]
    door = Producer({"bootstrap.servers": processes.environment["CORDON_KAFKA__BOOTSTRAP"]})
    door.produce(processes.environment["CORDON_KAFKA__TRANSACTIONS"], json.dumps(body("by-kafka", 50)))
    assert door.flush(10) == 0
    (record,) = wait_for(lambda: journalled(processes, "door-0"))
    assert (record["id"], record["outcome"]) == ("by-kafka", "decline")
    assert record["versions"]["rules"] == proposed["version"]

    # Unfit drafts change nothing.
    people = desk(processes)
    for action, limit, why in (
        ("decline", "x", "unknown name 'x'"),
        ("decline", "0.001", "more than 2 digits"),
        ("decline", "99999999.00", "example 1: gives no_hit"),
        ("review", "1.00 and card in @nobody", "unknown list @nobody"),
        ("review", "0.01 and " + " + ".join(["amount"] * 90) + " > 1", "the budget is 1000 ns"),
    ):
        with pytest.raises(NotPublished, match=why):
            people.publish(draft(processes, action, limit), "ada", now_ms(), "")
    assert versions(clients) == {proposed["version"]}

    # A snoozed rule's hits are recorded and do not count.
    people.snooze("everything", "customer", "cu_3", now_ms() + 3_600_000, "bo", "known", now_ms())
    time.sleep(0.5)
    answer = clients[0].post("/v1/decisions", json=body("rests", 10)).json()
    assert answer["outcome"] == "approve"
    record = clients[0].get("/v1/decisions/rests").json()
    assert [(r["result"], r.get("held")) for r in record["rules"]] == [("hit", "snoozed")]
    assert clients[1].post("/v1/decisions/rests/replay").json()["same"]
    assert clients[1].post("/v1/decisions", json=body("awake", 11)).json()["outcome"] == "decline"

    # A second set, and back; every step is an audit record.
    people.publish(draft(processes, "review"), "ada", now_ms(), "")
    people.approve(2, "bo", now_ms(), "")
    people.roll_back(None, "cy", now_ms(), "too many reviews")
    time.sleep(1.0)
    assert versions(clients) == {proposed["version"]}
    listed = cordon(processes, "list")
    assert listed["live"] == proposed["version"]
    events = [r["event"] for r in journalled(processes, "audit")]
    kinds = [f"rules_{step['kind']}" for step in listed["steps"]]
    assert kinds == events
    assert events == [
        "rules_proposed", "rules_approved", "rules_snoozed", "rules_proposed", "rules_approved",
        "rules_rolled_back",
    ]  # fmt: skip
    assert people.difference("2", "live")[0].rules == ("everything",)
    assert clients[2].post("/v1/decisions/after-0/replay").json()["same"]
    # The words of a set that is no longer live.
    people.publish(draft(processes, "challenge"), "ada", now_ms(), "")
    people.approve(3, "bo", now_ms(), "")
    time.sleep(1.0)
    rules = clients[3].get("/v1/decisions/after-0/explanation").json()["rules"]
    assert [rule["text"] for rule in rules] == ["decline if amount > 0.01"]


def test_a_process_that_starts_serves_what_is_live_or_says_why_not(processes, ports):
    people = desk(processes)
    people.publish(draft(processes, "decline"), "ada", now_ms(), "")
    version = people.approve(1, "bo", now_ms(), "").version
    port = ports.take()
    _, client = processes.service(port)
    assert versions([client]) == {version}
    processes.close()
    place = processes.directory / "rules" / "sets" / f"{version}.toml"
    place.write_text(place.read_text().replace("0.01", "0.02"))
    with pytest.raises(AssertionError, match=r"ended with 2(.|\n)*rule everything changed"):
        processes.service(ports.take())
