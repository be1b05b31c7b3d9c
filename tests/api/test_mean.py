"""Mean explanations: the mean of what each decision's own explanation says."""

import pytest

from api.explain import shares
from api.mean import Sums, explainable
from api.record import decode_json, encode_json
from api.serving import open_model
from tests.api.artefact import small_artefact
from tests.api.processes import Processes, body, wait_for
from tests.api.world import CATALOGUE, Bench, shipped_rules, transaction


def test_the_mean_is_that_of_the_single_explanations(tmp_path):
    served = open_model(small_artefact(tmp_path / "models"), CATALOGUE)
    bench = Bench(tmp_path / "journal", serving=served, rules=shipped_rules())
    records = [
        decode_json(encode_json(bench.decide(transaction(amount=1_000 + 9_000 * n))[0].record))
        for n in range(7)
    ]
    sums = Sums(served)
    sums.add(records[:4])
    sums.add(records[4:])
    found = sums.to_json()
    single = [shares(record, served, CATALOGUE) for record in records]
    assert (found["decisions"], found["model"]) == (7, served.version)
    assert found["base_value"] == pytest.approx(sum(s.base for s in single) / 7)
    for one in found["features"]:
        place = served.features.index(one["feature"])
        assert one["mean"] == pytest.approx(sum(s.values[place] for s in single) / 7)
        assert one["mean_absolute"] == pytest.approx(sum(abs(s.values[place]) for s in single) / 7)
    sizes = [one["mean_absolute"] for one in found["features"]]
    assert sizes == sorted(sizes, reverse=True)
    assert found["reasons"]
    assert explainable(records[0], CATALOGUE)
    assert not explainable(records[0] | {"scored_by": "scorecard"}, CATALOGUE)
    assert not explainable(records[0] | {"versions": {"catalogue": "other"}}, CATALOGUE)


@pytest.mark.parts
def test_a_filtered_set_of_past_decisions(tmp_path, valkey, kafka, ports):
    model = small_artefact(tmp_path / "models")
    processes = Processes(tmp_path, valkey.url, kafka.settings(), CORDON_DECIDE__MODEL_DIR=str(model))
    try:
        _, client = processes.service(ports.take())
        processes.start("api.publisher")
        processes.start("api.projector")
        for number in range(12):
            amount = 500 if number % 2 else 90_000
            assert (
                client.post("/v1/decisions", json=body(f"t{number}", number, amount=amount)).status_code
                == 200
            )
        wait_for(lambda: len(client.get("/v1/decisions?limit=200").json()["decisions"]) == 12)
        every = client.get("/v1/explanations/mean").json()
        assert [one["decisions"] for one in every["models"]] == [12]
        approved = client.get("/v1/explanations/mean?outcome=approve").json()
        assert 0 < approved["models"][0]["decisions"] < 12
        assert client.get("/v1/explanations/mean?rule=no_such_rule").json() == {"models": [], "left_out": 0}
        assert client.get("/v1/explanations/mean?limit=201").status_code == 422
    finally:
        processes.close()
