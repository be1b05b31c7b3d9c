"""Requests without end against the whole document, on a service that knows something: no 5xx, nothing
undocumented. Every operation of every route is in it, because the list is the document's own."""

import os
import subprocess

import pytest

from api.openapi import transaction_example
from features import load
from tests.api.artefact import small_artefact
from tests.api.processes import Processes, body, metric, wait_for
from tests.parts import SERVICE_PYTHON

pytestmark = [pytest.mark.parts, pytest.mark.long]
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "ignored_auth",
    "response_headers_conformance", "response_schema_conformance", "unsupported_method",
)  # fmt: skip


KNOWN = 21
OUTCOMES = ("approve", "challenge", "review", "decline")


@pytest.fixture(scope="module")
def service(tmp_path_factory, ports, kafka, _valkey):
    """A service with a model, decisions, labels and events, all of them in the query store."""
    directory = tmp_path_factory.mktemp("schemathesis")
    model = small_artefact(directory / "models")
    made = Processes(
        directory, _valkey.url, kafka.settings(), CORDON_DECIDE__MODEL_DIR=str(model),
        CORDON_DECIDE__RULES_DIR=str(directory / "rules"),
    )  # fmt: skip
    made.start("api.publisher")
    made.start("api.projector")
    _, client = made.service(ports.take())
    bodies = [transaction_example(load("payments").schema), *(body(f"t{i}", i) for i in range(KNOWN - 1))]
    for each in bodies:
        assert client.post("/v1/decisions", json=each).status_code == 200
    wait_for(lambda: len(client.get("/v1/decisions?limit=200").json()["decisions"]) == len(bodies))
    batch = client.post("/v1/decisions/batch", json=[*bodies, 5])
    wait_for(lambda: client.get(batch.headers["location"]).json()["status"] == "finished")
    yield client, batch.json()["id"]
    made.close()


def configuration(directory, batch):
    """Known ids are mixed into the generated ones: most of what happens, happens to ids that exist."""
    path = directory / "schemathesis.toml"
    path.write_text(f"""
[dictionaries]
ids = {{ values = ["tx-1001", "t1", "t2", "cd_1", "me_a", "{batch}"] }}
types = {{ values = ["card", "merchant", "customer"] }}

[parameters]
"path.id" = {{ dictionary = "ids", probability = 0.7 }}
"path.type" = {{ dictionary = "types", probability = 0.7 }}

# A decision may have the id `batch`: GET of that path is another operation.
[[operations]]
include-path = "/v1/decisions/batch"
checks.unsupported_method.enabled = false
""")
    return path


def test_no_answer_is_a_server_error_or_undocumented(service, tmp_path):
    client, batch = service
    command = [
        str(SERVICE_PYTHON.parent / "schemathesis"), "--config-file", str(configuration(tmp_path, batch)),
        "run", f"{client.base_url}/openapi.json", "-H", "Authorization: Bearer dev-key",
        "--max-examples", "40", "--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS),
        "--generation-deterministic", "--continue-on-failure",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, check=False, cwd=tmp_path,
        env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-12_000:]
    operations = sum(len(methods) for methods in client.get("/openapi.json").json()["paths"].values())
    assert f"Tested: {operations}" in done.stdout
    # Not all of it was turned away.
    page = client.get("/metrics").text
    assert sum(metric(page, "cordon_decisions_total", outcome=each) for each in OUTCOMES) > KNOWN


def test_every_answer_has_a_schema(service):
    for path, methods in service[0].get("/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                for kind, content in response.get("content", {}).items():
                    assert content.get("schema"), f"{method} {path} {status} {kind}"
                assert response.get("content") or status in ("204", "304"), f"{method} {path} {status}"
