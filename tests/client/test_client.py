"""Both clients against a running service; their types against the document; the guide's blocks."""

import asyncio
import dataclasses
import inspect
import re
from pathlib import Path

import httpx
import msgspec
import pytest

from api.openapi import ANSWER, components
from client import AsyncClient, Client, Conflict, Forbidden, InvalidRequest, NotFound, Search, Unauthorized
from client import answers as types
from cordon.stack.supervisor import Stack
from cordon.stack.valkey import Valkey
from features import load
from tests.api.artefact import small_artefact
from tests.api.processes import Processes, body
from tests.client.server import Reply, Script, serving

PAGE = Path("docs/client.md").read_text()
SCHEMAS = components(load("payments"))


@pytest.fixture(scope="module")
def url(tmp_path_factory, ports):
    """The address of a service with a model."""
    directory = tmp_path_factory.mktemp("client")
    node = Valkey(directory / "valkey", ports.take())
    with Stack([node.part()], directory / "parts"):
        made = Processes(
            directory, node.url, CORDON_SERVICE__API_KEYS="dev-key=admin,reader=auditor",
            CORDON_DECIDE__MODEL_DIR=str(small_artefact(directory / "models")),
        )  # fmt: skip
        port = ports.take()
        made.service(port)
        yield f"http://127.0.0.1:{port}"
        made.close()


class Awaiting:
    """The asynchronous client with blocking methods, so that one suite tries both."""

    def __init__(self, url, credential):
        self._client = AsyncClient(url, credential)
        self._loop = asyncio.new_event_loop()

    def __getattr__(self, name):
        if inspect.isasyncgenfunction(getattr(AsyncClient, name)):
            generator = getattr(self._client, name)
            return lambda *given, **named: self._loop.run_until_complete(listing(generator(*given, **named)))
        return lambda *given, **named: self._loop.run_until_complete(
            getattr(self._client, name)(*given, **named)
        )

    def end(self):
        self.close()
        self._loop.close()


async def listing(found):
    return [each async for each in found]


@pytest.fixture(params=["blocking", "awaited"])
def connect(request, url):
    made = []

    def client(credential="dev-key"):
        made.append(Client(url, credential) if request.param == "blocking" else Awaiting(url, credential))
        return made[-1]

    yield client
    for each in made:
        each.close() if isinstance(each, Client) else each.end()


@pytest.mark.parts
def test_everything_that_can_be_asked_is_answered_with_its_type(connect, request):
    cordon, id = connect(), f"typed-{request.node.name}"
    answer = cordon.decide(body(id, amount=60_000))
    assert isinstance(answer, types.Answer)
    assert cordon.decide(body(id, amount=60_000)) == msgspec.structs.replace(answer, replay=True)
    assert cordon.label({"label_id": id, "transaction_id": id, "time": 1_760_000_001_000, "fraud": True}) == (
        types.Accepted(id, id, False)
    )
    happened = {"event_id": id, "transaction_id": id, "time": 1_760_000_001_000, "kind": "issuer_declined"}
    assert not cordon.event(happened).replay
    record = cordon.decision(id)
    assert (record.id, record.outcome, record.score) == (id, answer.outcome, answer.score)
    told = cordon.explanation(id, audience="data_scientist")
    assert told.model is not None
    shares = sum(each.contribution for each in told.model.contributions)
    assert told.model.base_value + shares == pytest.approx(told.model.margin, abs=1e-4)
    assert cordon.customer_explanation(id, language="de").language == "de"
    replayed = cordon.replay(id)
    assert (replayed.same, replayed.as_, replayed.differences) == (True, "stored", ())
    assert cordon.entity("card", "cd_0").features["card_count_1h"] >= 1
    assert cordon.search(Search(entity="card", id="cd_0"), limit=5) == types.Records((), None)


@pytest.mark.parts
def test_refusals_of_the_service_have_types(connect):
    cordon = connect()
    cordon.decide(body("refused"))
    with pytest.raises(Conflict):
        cordon.decide(body("refused", amount=7))
    with pytest.raises(InvalidRequest) as caught:
        cordon.decide(body("bad", amount=-7))
    assert caught.value.problem.field == "amount"
    with pytest.raises(NotFound):
        cordon.decision("never/decided?")
    with pytest.raises(Unauthorized):
        connect("unknown").decision("refused")
    with pytest.raises(Forbidden):
        connect("reader").decide(body("refused"))
    assert connect("reader").decision("refused").id == "refused"


@pytest.mark.parts
def test_a_batch_is_submitted_waited_for_and_read(connect, request):
    cordon, name = connect(), request.node.name
    transactions = [body(f"{name}-{i}", i) for i in range(30)] + [body("bad", amount=-7)]
    batch = cordon.submit(transactions)
    assert not batch.replay
    assert cordon.submit(transactions).id == batch.id
    ended = cordon.wait(batch.id, every_s=0.05)
    assert (ended.status, ended.done, ended.failed) == ("finished", 31, 1)
    assert ended.errors[0].problem.field == "amount"
    found = list(cordon.results(batch.id, page=7))
    assert [each.line for each in found] == list(range(1, 32))
    assert found[3].answer.transaction_id == f"{name}-3"
    assert found[30].problem == ended.errors[0].problem
    with pytest.raises(NotFound):
        cordon.wait("0" * 32)


@pytest.mark.parts
def test_the_blocks_of_the_guide_run(url, capsys):
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        assert "http://127.0.0.1:8000" in block or "cordon" in block
        exec(compile(block.replace("http://127.0.0.1:8000", url), "docs/client.md", "exec"), names)
    assert "range amount" in capsys.readouterr().out


def test_both_clients_have_the_same_methods_and_all_are_in_the_guide():
    def methods(kind):
        found = inspect.getmembers(kind, inspect.isfunction)
        return {name: inspect.signature(f) for name, f in found if not name.startswith("_")}

    blocking, awaited = methods(Client), methods(AsyncClient)
    assert blocking.pop("found").parameters == awaited.pop("found").parameters
    assert blocking.pop("results").parameters == awaited.pop("results").parameters
    assert blocking == awaited
    assert all(f"`{name}(" in PAGE for name in methods(Client) if name != "close")


@pytest.mark.parametrize("name", [
    "Answer", "Accepted", "Reason", "Freshness", "Voice", "RuleResult", "Record", "Records", "Contribution",
    "ModelExplanation", "CustomerExplanation", "Entity", "Explanation", "Replayed", "Batch", "BatchResult",
    "BatchResults",
])  # fmt: skip
def test_a_type_has_the_fields_of_the_document(name):
    schema = SCHEMAS[{"Explanation": "InternalExplanation", "Batch": "AcceptedBatch"}.get(name, name)]
    fields = {field.encode_name: field for field in msgspec.structs.fields(getattr(types, name))}
    assert set(fields) == set(schema["properties"])
    required = {encoded for encoded, field in fields.items() if field.required}
    assert required <= set(schema["required"])


def test_the_documented_example_is_an_answer():
    assert msgspec.convert(ANSWER["examples"][0], types.Answer, strict=True).transaction_id == "tx-1001"


@pytest.mark.parts
def test_a_search_has_the_filters_of_the_document(url):
    document = httpx.get(f"{url}/openapi.json").json()["paths"]["/v1/decisions"]["get"]
    filters = {parameter["name"] for parameter in document["parameters"]}
    assert {field.name for field in dataclasses.fields(Search)} | {"limit", "cursor"} == filters


@pytest.mark.parametrize("kind", ["blocking", "awaited"])
def test_pages_are_followed_to_the_end(kind):
    record = msgspec.json.encode(RECORD)
    pages = [b'{"decisions":[%s],"next":"p2"}' % record, b'{"decisions":[],"next":"p3"}',
             b'{"decisions":[%s],"next":null}' % record]  # fmt: skip
    script = Script(*(Reply(body=page) for page in pages))
    with serving(script) as url:
        assert [r.id for r in listed(kind, url)] == ["a", "a"]
    assert [path.partition("cursor=")[2] for _, path, _ in script.asked] == ["", "p2", "p3"]
    assert all("outcome=decline" in path for _, path, _ in script.asked)


def listed(kind, url):
    query = Search(outcome="decline")
    if kind == "blocking":
        with Client(url, "k") as client:
            return list(client.found(query))

    async def collect():
        async with AsyncClient(url, "k") as client:
            return [record async for record in client.found(query)]

    return asyncio.run(collect())


RECORD = {
    "type": "decision", "v": 1, "tenant": "demo", "id": "a", "decided_ms": 1, "time_ms": 1, "door": "http",
    "transaction": {}, "entities": {}, "outcome": "decline", "score": None, "probability": None,
    "margin": None, "expected_loss": None, "scored_by": None,
    "winner": {"by": "rule", "id": "r", "outcome": "decline"},
    "others": [], "rules": [], "reasons": [], "features": [], "versions": {},
    "freshness": {"state": "fresh", "generation": None, "flink_lag_ms": None}, "degraded": [], "claim": "new",
    "stages_us": {},
}  # fmt: skip
