"""A draft over stored decisions: as if each were decided again, counted by hand, with what is unknown."""

from collections import Counter

import pyarrow.parquet as pq
import pytest

from api.backtest import NothingStored, backtest
from api.outcome import BY_WORD
from api.record import decode_json, encode_json
from api.replay import circumstances, decide_again
from api.rules.load import build
from api.rules.rule import RuleSet
from api.rules.vocabulary import vocabulary_of
from api.warehouse import project
from cordon.rule_table import table_of
from tests.api.test_replay import RULES, judge, pseudonym
from tests.api.world import CATALOGUE, NOW_MS, Bench, model, transaction

WORDS = vocabulary_of(CATALOGUE)
FINGERPRINT = CATALOGUE.vector_fingerprint
DAY = 86_400_000
DRAFT = RULES.replace("900.00", "300.00").replace('value = "cd_3"', 'value = "cd_5"').replace(
    'given = { card = "cd_3" }', 'given = { card = "cd_5" }'
)  # fmt: skip
MORE = """
[[rule]]
id = "shadowed"
text = "decline if amount / card_amount_mean_30d > 2 or hour < 3"
reason = "r"
owner = "o"
mode = "shadow"
example = [{ given = {}, result = "not_evaluated" }]
[[rule]]
id = "gone"
text = "decline if amount > 0.01"
reason = "r"
owner = "o"
expires = 2020-01-01
example = [{ given = { amount = 2 }, result = "hit" }]
"""


def made(text: str) -> RuleSet:
    return build(text, WORDS, pseudonym)


class Past:
    """Decisions in a journal, with labels of some, and what was projected of them."""

    def __init__(self, path, count: int = 120) -> None:
        self.path = path
        self.bench = Bench(path / "journals", serving=model(), rules=made(RULES))
        for number in range(count):
            self.bench.now_ms = NOW_MS + number // 6 * DAY + number % 6 * 300_000
            self.bench.decide(
                transaction(
                    f"t{number}", time=self.bench.now_ms, amount=(number * 7_919) % 120_000 + 1,
                    card=f"cd_{number // 6 % 7}", customer=f"cu_{number % 40}",
                    channel=["ecom", "pos"][number // 3 % 2],
                )
            )  # fmt: skip
            if number % 3 == 2:
                self.label(number - 2, fraud=number % 9 != 8)
        self.label(0, fraud=False, name="withdrawn")
        self.labels = {
            r["transaction_id"]: r["fraud"] for r in self.bench.journalled() if r["type"] == "label"
        }
        self.decisions = [
            decode_json(encode_json(r)) for r in self.bench.journalled() if r["type"] == "decision"
        ]

    def label(self, number: int, *, fraud: bool, name: str = "label") -> None:
        body = {
            "label_id": f"{name}{number}", "transaction_id": f"t{number}", "time": self.bench.now_ms,
            "fraud": fraud,
        }  # fmt: skip
        self.bench.decide(body, kind="label")

    def projected(self, **options: int):
        project(self.path / "journals", self.path / "stored", CATALOGUE, **options)
        return self.path / "stored"

    def truth(self, record: dict, mature_ms: int) -> str:
        fraud = self.labels.get(record["id"])
        if fraud is not None:
            return "fraud" if fraud else "good"
        if record["outcome"] == "decline":
            return "censored"
        newest = max(r["time_ms"] for r in self.decisions)
        return "open" if record["time_ms"] > newest - mature_ms else "good"


@pytest.fixture(scope="module")
def past(tmp_path_factory):
    return Past(tmp_path_factory.mktemp("past"))


def run(draft: RuleSet, past: Past, mature_ms: int = 7 * DAY):
    clock = iter(range(0, 10**12, 100))
    return backtest(draft, past.projected(), FINGERPRINT, mature_ms=mature_ms, timer=lambda: next(clock))


def test_the_rules_that_decided_change_nothing(past):
    found = run(made(RULES), past)
    assert (found.decisions, found.changed) == (120, 0)
    assert [t.to_json() for t in found.before] == [t.to_json() for t in found.after]
    for tally in found.rules:
        assert tally.beside[tally.rule.id] == int(tally.hits.count.sum()) > 0


@pytest.mark.parametrize("text", [DRAFT, DRAFT + MORE])
def test_a_draft_decides_as_if_each_were_decided_again(past, text):
    draft = made(text)
    found = run(draft, past)
    asked = judge(model(), draft)
    after: Counter[tuple[str, str]] = Counter()
    money: Counter[tuple[str, str]] = Counter()
    hits: Counter[tuple[str, str]] = Counter()
    for record in past.decisions:
        about = circumstances(record, record["decided_ms"])
        answer = decide_again(record, asked, about, failed=False)
        kind = past.truth(record, 7 * DAY)
        after[answer["outcome"], kind] += 1
        money[answer["outcome"], kind] += record["transaction"]["amount"]
        for result in answer["rules"]:
            if result["result"] == "hit" and "held" not in result:
                hits[result["id"], kind] += 1
    assert len({outcome for outcome, _ in after}) == 4
    for outcome, tally in zip(BY_WORD, found.after, strict=True):
        shown = tally.to_json()
        assert {k: (v["count"], v["money"]) for k, v in shown.items()} == {
            k: (after[outcome, k], money[outcome, k]) for k in shown
        }
    for tally in found.rules:
        assert {k: v["count"] for k, v in tally.hits.to_json().items()} == {
            k: hits[tally.rule.id, k] for k in ("fraud", "good", "open", "censored")
        }
    assert found.changed > 0


def test_the_report_warns_where_past_blocks_hide_outcomes(past):
    found = run(made(DRAFT + MORE), past, mature_ms=0)
    shown = {rule["id"]: rule for rule in found.to_json()["rules"]}
    large = next(t for t in found.rules if t.rule.id == "shadowed")
    assert large.hits.to_json()["censored"]["count"] > 0
    assert any(w.startswith("shadowed: ") and "declined" in w for w in found.warnings())
    assert shown["gone"]["not_evaluated"] == 120
    assert shown["large"]["held"] > 0
    assert shown["large"]["cost_us"] > 0
    assert 0 < shown["large"]["precision"] < 1
    everything_open = run(made(RULES), past, mature_ms=400 * DAY)
    assert any("too young" in w for w in everything_open.warnings())


def test_a_person_can_read_it(past):
    text = table_of(run(made(DRAFT + MORE), past), 2)
    assert "shadowed (shadow)" in text
    assert "fraud caught" in text
    assert "reviews a day: " in text
    assert "warning: " in text
    assert all(len(line) < 200 for line in text.splitlines())


def test_projecting_continues_and_repeats_nothing(tmp_path):
    past = Past(tmp_path, 20)
    first = past.projected(piece=5)
    assert len(list((first / "decisions").iterdir())) > 2
    assert project(past.path / "journals", first, CATALOGUE).decisions == 0
    past.bench.decide(transaction("later", time=past.bench.now_ms))
    assert project(past.path / "journals", first, CATALOGUE).decisions == 1
    ids = stored_ids(first)
    assert len(ids) == len(set(ids)) == 21
    # Positions were lost: written again, in pieces of another size, nothing is there twice.
    for piece in (7, 5, 100):
        for place in (first / "positions").iterdir():
            place.unlink()
        assert project(past.path / "journals", first, CATALOGUE, piece=piece).decisions == 21
        assert sorted(stored_ids(first)) == sorted(ids)


def stored_ids(directory) -> list[str]:
    files = sorted((directory / "decisions").glob("*.parquet"))
    return [id_ for file in files for id_ in pq.read_table(file, columns=["id"])["id"].to_pylist()]


def test_decisions_of_another_vector_are_left_out(past):
    with pytest.raises(NothingStored, match="no decisions on vector"):
        backtest(made(RULES), past.projected(), "other", mature_ms=0, timer=lambda: 0)
