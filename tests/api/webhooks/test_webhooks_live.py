"""The whole way: a subscription by HTTP, decisions, the log, kill -9 of the dispatcher, a receiver."""

import json
import time

import pytest

from api.journal_reader import JournalReader
from api.record import decode_json, unpack
from api.webhooks.signature import verify
from tests.api.processes import Processes, body, kill, wait_for
from tests.api.webhooks.receiver import Receiver

pytestmark = pytest.mark.parts


@pytest.fixture
def receiver():
    made = Receiver(wait_s=0.02)
    yield made
    made.close()


def test_every_decision_is_told_at_least_once_though_the_dispatcher_is_killed(
    tmp_path, valkey, kafka, ports, receiver
):
    more = {
        "CORDON_WEBHOOKS__FILE": str(tmp_path / "webhooks.sqlite"),
        "CORDON_WEBHOOKS__INSIDE": "true",
        "CORDON_WEBHOOKS__RETRY_MS": "100",
    }
    processes = Processes(tmp_path, valkey.url, kafka.settings(), **more)
    try:
        _, client = processes.service(ports.take())
        processes.start("api.publisher")
        webhooks = processes.start("api.webhooks")
        wish = {"url": receiver.url, "events": ["decision.*", "alert.rule_tripped"]}
        made = client.post("/v1/webhooks", json=wish).json()
        secrets = {made["key_id"]: made["secret"]}
        assert (
            client.post("/v1/webhooks", json={**wish, "url": "ftp://x/"}).json()["code"] == "forbidden_target"
        )
        assert client.post("/v1/webhooks", json={**wish, "events": ["nothing"]}).status_code == 422
        rotated = client.post(f"/v1/webhooks/{made['id']}/rotate").json()
        (shown,) = client.get("/v1/webhooks").json()["webhooks"]
        assert set(shown["key_ids"]) == {made["key_id"], rotated["key_id"]}
        assert made["secret"] not in json.dumps(shown)
        for life in range(3):
            for number in range(40):
                sent = body(f"t{life}-{number}", number)
                assert client.post("/v1/decisions", json=sent).status_code == 200
            wait_for(lambda life=life: len(receiver.got) > 10 + 40 * life)  # type: ignore[misc]
            kill(webhooks)
            webhooks = processes.start("api.webhooks")
        wanted = {f"t{life}-{number}" for life in range(3) for number in range(40)}

        def told() -> set[str]:
            return {json.loads(sent)["data"]["transaction_id"] for _, sent in receiver.got}

        wait_for(lambda: told() == wanted, 40)
        # Once each, but for what was under way when it was killed.
        assert len(receiver.got) <= 120 + 3 * 4
        for headers, sent in receiver.got:
            assert verify(secrets, headers, sent, int(time.time()))
            assert verify({rotated["key_id"]: rotated["secret"]}, headers, sent, int(time.time()))
        assert client.delete(f"/v1/webhooks/{made['id']}").status_code == 200
        assert client.get("/v1/webhooks").json() == {"webhooks": []}
        reader = JournalReader(tmp_path / "journal" / "audit")
        events = [decode_json(unpack(r.body).payload)["event"] for r in reader.read(100)]
        reader.close()
        assert events == ["webhook_created", "webhook_rotated", "webhook_deleted"]
    finally:
        processes.close()
