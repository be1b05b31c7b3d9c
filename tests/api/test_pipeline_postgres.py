"""The pipeline with PostgreSQL as its query store: projected, searched over HTTP, gone and back."""

import pytest

from tests.api.processes import Processes, body, kill, wait_for

pytestmark = pytest.mark.parts


@pytest.fixture
def processes(tmp_path, valkey, kafka, postgres):
    names = kafka.settings(partitions=2)
    made = Processes(tmp_path, valkey.url, names, CORDON_STORE_URL=postgres.database())
    yield made
    made.close()


def listed(client, **asked):
    answer = client.get("/v1/decisions", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_decisions_are_projected_and_found_by_what_is_known_about_them(processes, ports):
    _, client = processes.service(ports.take())
    assert client.get("/v1/decisions").json()["code"] == "unavailable_query_store"
    projector = processes.start("api.projector")
    processes.start("api.publisher")
    for number in range(40):
        assert client.post("/v1/decisions", json=body(f"t{number}", number)).status_code == 200
    label = {"label_id": "l", "transaction_id": "t5", "time": 1_760_000_900_000, "fraud": True}
    assert client.post("/v1/labels", json=label).status_code == 202
    wait_for(lambda: len(listed(client, limit=200)["decisions"]) == 40)
    wait_for(lambda: [r["id"] for r in listed(client, label="fraud")["decisions"]] == ["t5"])
    mine = listed(client, entity="card", id="cd_3", limit=200)["decisions"]
    assert {r["id"] for r in mine} == {f"t{i}" for i in range(3, 40, 7)}
    kill(projector)
    pages, cursor = [], None
    while True:
        page = listed(client, limit=15, outcome="approve", **({"cursor": cursor} if cursor else {}))
        pages += [r["id"] for r in page["decisions"]]
        cursor = page["next"]
        if cursor is None:
            break
        assert client.get("/v1/decisions", params={"cursor": cursor}).json()["field"] == "cursor"
    assert sorted(pages) == sorted(f"t{i}" for i in range(40))
    for wrong in (
        {"entity": "card"},
        {"score_min": 2_000},
        {"outcome": "maybe"},
        {"cursor": "?"},
        {"limit": 500},
    ):
        assert client.get("/v1/decisions", params=wrong).status_code == 422, wrong
    found = listed(client, time_from=1_760_000_010_000, time_until=1_760_000_012_000)["decisions"]
    assert {r["id"] for r in found} == {"t10", "t11"}
