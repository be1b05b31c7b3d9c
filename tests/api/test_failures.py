"""Each row of "when parts fail" with the real part broken under a running service."""

import resource

import pytest

from api.audit.verify import verify
from tests.api.processes import Processes, body, wait_for

pytestmark = pytest.mark.parts


@pytest.fixture
def processes(tmp_path, valkey):
    made = Processes(tmp_path, valkey.url)
    yield made
    made.close()


def test_a_journal_that_cannot_be_written_decides_nothing_until_it_can(processes, ports, tmp_path):
    process, client = processes.service(ports.take())
    assert client.post("/v1/decisions", json=body("a")).status_code == 200
    # From now on the kernel refuses every write of this process to a file.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    for _ in range(2):
        refused = client.post("/v1/decisions", json=body("b", 1))
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable_journal")
        assert refused.headers["retry-after"]
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()["parts"]["journal"]) == (503, "down")
    assert client.get("/v1/decisions/a").status_code == 200
    forever = resource.RLIM_INFINITY
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (forever, forever))
    wait_for(lambda: client.post("/v1/decisions", json=body("b", 1)).status_code == 200)
    assert client.get("/health/ready").status_code == 200
    assert verify(tmp_path / "journal" / "service-0").records == 2


def test_without_the_query_store_decisions_go_on_and_lookups_say_so(processes, ports, tmp_path):
    (tmp_path / "file").write_text("")
    _, client = processes.service(ports.take(), CORDON_STORE_URL=f"sqlite:///{tmp_path}/file/query.sqlite")
    assert client.post("/v1/decisions", json=body("a")).status_code == 200
    assert client.get("/v1/decisions/a").status_code == 200
    assert client.get("/v1/decisions").json()["code"] == "unavailable_query_store"
    assert client.get("/v1/decisions/unknown").status_code == 503
    label = {"label_id": "l", "transaction_id": "unknown", "time": 1_760_000_001_000, "fraud": True}
    assert client.post("/v1/labels", json=label).json()["code"] == "unavailable_query_store"
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")


def test_a_backlog_that_nobody_ships_has_a_limit(processes, ports):
    _, client = processes.service(ports.take(), CORDON_JOURNAL__BACKLOG_MAX="3")
    found = [client.post("/v1/decisions", json=body(f"t{i}", i)) for i in range(5)]
    assert [answer.status_code for answer in found] == [200, 200, 200, 503, 503]
    assert found[-1].json()["code"] == "unavailable_backlog"
    assert client.get("/health/ready").status_code == 503
