"""Review cases over HTTP on real parts: from a decision to a label, and through a lost query store."""

import concurrent.futures

import pytest

from tests.api.processes import Processes, body, kill, wait_for

pytestmark = pytest.mark.parts
KEYS = "admin-key=admin,ann=analyst,ben=analyst,audit=auditor,decide=decide"


@pytest.fixture
def processes(tmp_path, valkey, kafka):
    names = kafka.settings(partitions=2)
    made = Processes(tmp_path, valkey.url, names, CORDON_SERVICE__API_KEYS=f"dev-key=admin,{KEYS}")
    yield made
    made.close()


def as_(key):
    return {"authorization": f"Bearer {key}"}


def ask(client, path, key, **content):
    return client.post(f"/v1/cases/{path}", json=content, headers=as_(key))


def opened(client, expected):
    """Open cases, once there are as many."""

    def enough():
        answer = client.get("/v1/cases", params={"status": "open", "limit": 200})
        return (
            answer.status_code == 200 and len(answer.json()["cases"]) == expected and answer.json()["cases"]
        )

    return wait_for(enough)


def reviewed(client, count):
    for number in range(count):
        answer = client.post("/v1/decisions", json=body(f"t{number}", number, amount=60_000))
        assert answer.json()["outcome"] == "review"
    assert client.post("/v1/decisions", json=body("fine", 90)).json()["outcome"] == "approve"


def test_a_case_lives_from_its_decision_to_its_label_and_survives_the_loss_of_the_store(
    processes, ports, tmp_path
):
    _, client = processes.service(ports.take())
    projector = processes.start("api.projector")
    processes.start("api.publisher")
    reviewed(client, 5)
    assert {case["id"] for case in opened(client, 5)} == {f"t{number}" for number in range(5)}
    assert ask(client, "t1/assign", "ann", expected_version=1, assignee="ann").json()["assignee"] == "ann"
    assert (
        ask(client, "t1/comment", "ben", expected_version=2, text="the card holder knows it").status_code
        == 200
    )
    done = ask(client, "t1/resolve", "ann", expected_version=3, resolution="legitimate")
    assert (done.json()["status"], done.json()["version"]) == ("resolved", 4)
    assert ask(client, "t1/resolve", "ann", expected_version=3, resolution="legitimate").json() == done.json()
    assert ask(client, "t2/resolve", "ann", expected_version=1, resolution="fraud").status_code == 200

    def labelled(client=client):
        found = {
            label: [r["id"] for r in client.get("/v1/decisions", params={"label": label}).json()["decisions"]]
            for label in ("fraud", "legitimate")
        }
        return found == {"fraud": ["t2"], "legitimate": ["t1"]}

    wait_for(labelled)
    entity = client.get("/v1/entities/card/cd_2").json()
    assert entity["features"]["card_count_1h"] == 1
    before = [client.get(f"/v1/cases/t{number}").json() for number in range(5)]
    mine = client.get("/v1/cases", params={"assignee": "ann"}).json()["cases"]
    assert [case["id"] for case in mine] == ["t1"]
    # The query store is lost: the log has everything.
    kill(projector)
    for path in tmp_path.glob("query.sqlite*"):
        path.unlink()
    _, other = processes.service(ports.take(), CORDON_JOURNAL__DIRECTORY=str(tmp_path / "journal-2"))
    processes.start("api.projector")
    opened(other, 3)
    wait_for(lambda: [other.get(f"/v1/cases/t{number}").json() for number in range(5)] == before)
    wait_for(lambda: labelled(other))


def test_who_may_and_what_is_refused(processes, ports):
    _, client = processes.service(ports.take())
    processes.start("api.projector")
    processes.start("api.publisher")
    reviewed(client, 2)
    opened(client, 2)
    assert client.get("/v1/cases", headers=as_("audit")).status_code == 200
    assert client.get("/v1/cases/t0", headers=as_("audit")).status_code == 200
    assert client.get("/v1/cases", headers=as_("decide")).status_code == 403
    for key in ("audit", "decide"):
        assert ask(client, "t0/comment", key, expected_version=1, text="x").status_code == 403
    assert ask(client, "none/comment", "ann", expected_version=1, text="x").json()["code"] == "unknown_case"
    stale = ask(client, "t0/comment", "ann", expected_version=7, text="x")
    assert (stale.status_code, stale.json()["code"]) == (409, "stale_version")
    for wrong in (
        {"text": "x"}, {"expected_version": 1}, {"expected_version": 0, "text": "x"},
        {"expected_version": 1, "text": ""}, {"expected_version": 1, "text": "x" * 5_000},
        {"expected_version": 1, "text": "it was 4111 1111 1111 1111"},
        {"expected_version": 1, "text": "x", "y": 1},
    ):  # fmt: skip
        answer = ask(client, "t0/comment", "ann", **wrong)
        assert answer.status_code == 422, wrong
        assert "4111" not in answer.text
    assert ask(client, "t0/resolve", "ann", expected_version=1, resolution="maybe").status_code == 422
    assert client.get("/v1/cases/t0").json()["version"] == 1


def test_of_two_workers_one_wins_and_both_read_the_same(processes, ports, tmp_path):
    _, one = processes.service(ports.take())
    _, two = processes.service(
        ports.take(), CORDON_JOURNAL__DIRECTORY=str(tmp_path / "journal-2"),
    )  # fmt: skip
    processes.start("api.projector")
    processes.start("api.publisher")
    reviewed(one, 1)
    opened(one, 1)

    def attempt(number):
        client = (one, two)[number % 2]
        return ask(client, "t0/assign", "ann", expected_version=1, assignee=f"n{number}").status_code

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(attempt, range(8)))
    assert answers == [200] + [409] * 7
    assert one.get("/v1/cases/t0").json() == two.get("/v1/cases/t0").json()
