"""Counterfactuals: each one, decided again through the engine, really is milder; customers learn no limit."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from api.counterfactual import Counterfactual, nearest, search
from api.decide import Policy
from api.explain import analyst_words, customer_words, explanation
from api.outcome import BY_WORD, Outcome
from api.record import decode_json, encode_json
from api.rules.load import build
from api.rules.vocabulary import vocabulary_of
from api.serving import open_model
from api.waterfall import svg, ticks
from models.reasons import LANGUAGES, load_reasons
from tests.api.artefact import small_artefact
from tests.api.world import CATALOGUE, NOW_MS, Bench, model, shipped_rules, transaction

RULES = """
[[rule]]
id = "large"
text = "review if amount > 212.00"
reason = "large_amount"
owner = "o"
example = [{ given = { amount = 100_000 }, result = "hit" }]
[[rule]]
id = "new_device"
text = "challenge if card_device_new_30d and amount > 50.00"
reason = "new_device"
owner = "o"
example = [{ given = { card_device_new_30d = 1, amount = 100_000 }, result = "hit" }]
[[rule]]
id = "busy"
text = "decline if card_count_1h > 4"
reason = "card_velocity"
owner = "o"
example = [{ given = { card_count_1h = 9 }, result = "hit" }]
[[rule]]
id = "abroad"
text = "challenge if ip_country_billing_country_mismatch"
reason = "foreign_address"
owner = "o"
example = [{ given = { ip_country_billing_country_mismatch = 1 }, result = "hit" }]
[[rule]]
id = "failed"
text = "review if card_issuer_declined_count_1h >= 1"
reason = "repeated_issuer_declines"
owner = "o"
example = [{ given = { card_issuer_declined_count_1h = 1 }, result = "hit" }]
"""


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, serving=model(), rules=build(RULES, vocabulary_of(CATALOGUE), lambda e, v: v))


def found_of(bench, id: str, **changes) -> tuple[dict, list[Counterfactual]]:
    answer = bench.decide(transaction(id, **changes))[0]
    record = decode_json(encode_json(answer.record))
    return record, nearest([c for c in search(record, bench.judge) if c is not None])


def ruled(directory) -> Bench:
    """Rules alone decide."""
    rules = build(RULES, vocabulary_of(CATALOGUE), lambda e, v: v)
    return Bench(directory, rules=rules, policy=Policy("test", 10**9, "score_anyway"))


def known(bench) -> None:
    for number in range(2):
        bench.decide(transaction(time=NOW_MS - 7_200_000 - number, amount=2_000))


def test_it_would_have_passed_up_to_the_very_amount(bench):
    bench = ruled(bench.directory / "first")
    known(bench)
    record, found = found_of(bench, "t", amount=45_000)
    assert record["outcome"] == "review"
    (amount,) = found
    assert (amount.limit, amount.outcome, amount.below) == (21_200, Outcome.APPROVE, True)
    words = {language: analyst_words(amount, CATALOGUE, load_reasons(language)) for language in LANGUAGES}
    assert words == {
        "en": "It would have been approved up to 212.00 EUR",
        "de": "Bis 212,00 EUR wäre sie angenommen worden",
    }
    # Through the engine, with a card that has done the same before.
    for number, (value, outcome) in enumerate(((21_200, "approve"), (21_201, "review"))):
        again = ruled(bench.directory / f"again-{number}")
        known(again)
        assert again.decide(transaction(amount=value))[0].record["outcome"] == outcome


def test_a_known_device_an_own_country_fewer_payments_no_failures(bench):
    known(bench)
    record, found = found_of(bench, "device", amount=9_000, device="de_other")
    assert record["outcome"] == "challenge"
    assert [(c.kind, c.subject, c.outcome) for c in found] == [
        ("amount", "amount", Outcome.APPROVE),
        ("known", "device", Outcome.APPROVE),
    ]
    assert found[0].limit == 5_000
    assert found[1].changes["card_device_new_30d"] == (1.0, 0.0)
    assert analyst_words(found[1], CATALOGUE, load_reasons()).endswith("with a known device")
    record, found = found_of(bench, "abroad", amount=1_000, ip_country="US", billing_country="DE")
    assert [(c.kind, c.subject) for c in found] == [("field", "ip_country/billing_country")]
    for number in range(4):
        bench.decide(transaction(amount=1_000, time=NOW_MS - 1_000 + number))
    record, found = found_of(bench, "busy", amount=1_000)
    assert record["outcome"] == "decline"
    fewer = next(c for c in found if c.kind == "fewer" and c.subject == "card")
    # Two were hours ago; of seven within the hour, four pass.
    assert (fewer.limit, fewer.outcome) == (3, Outcome.APPROVE)


def test_what_no_change_makes_milder_has_none(bench):
    record, found = found_of(bench, "fine", amount=1_000)
    assert (record["outcome"], found) == ("approve", [])


def test_every_finding_of_a_real_ensemble_with_the_shipped_rules_is_decided_so(tmp_path):
    served = open_model(small_artefact(tmp_path / "models"), CATALOGUE)
    bench = Bench(tmp_path / "journal", serving=served, rules=shipped_rules())
    kinds = set()
    for number in range(24):
        changes = {"amount": 8_000 + number * 4_000, "device": f"de_{number % 5}", "time": NOW_MS + number}
        record, found = found_of(bench, f"t{number}", **changes)
        for one in found:
            kinds.add(one.kind)
            assert one.outcome < BY_WORD[record["outcome"]]
            assert one.changes
    assert "amount" in kinds


def test_a_customer_reads_no_limit_no_feature_and_nobody_elses_history(bench):
    known(bench)
    for number in range(4):
        bench.decide(transaction(amount=1_000, time=NOW_MS - 1_000 + number))
    record, found = found_of(
        bench, "t", amount=45_000, device="de_new", ip_country="US", billing_country="DE"
    )
    every = [replace(c, outcome=Outcome.APPROVE) for c in found]
    every += [
        Counterfactual(kind, subject, Outcome.APPROVE, 7, False, {})  # type: ignore[arg-type]
        for kind, subject in (
            ("amount", "amount"), ("without", "card/issuer_declined"), ("without", "card/challenge_failed"),
            ("fewer", "customer"), ("known", "device"), ("field", "ip_country/billing_country"),
        )
    ]  # fmt: skip
    served = model()
    secret = {
        *CATALOGUE.names,
        *(r.id for r in bench.judge.rules.rules),
        *record["entities"].values(),
        "me_a",
    }
    for language in LANGUAGES:
        document = explanation(record, None, bench.judge.rules, CATALOGUE, "customer", language, every)
        assert set(document) == {
            "transaction_id", "outcome", "summary", "language", "reasons", "counterfactuals",
        }  # fmt: skip
        texts = [document["summary"], *(each["text"] for each in document["counterfactuals"])]
        texts += [each["text"] for each in document["reasons"]]
        assert len(document["counterfactuals"]) >= 6
        whole = json.dumps(texts, ensure_ascii=False)
        assert not re.search(r"\d", whole)
        assert not any(word in whole for word in secret if word not in ("amount", "hour", "channel"))
        assert not any(word in whole.lower() for word in ("merchant", "terminal", "händler", "rule", "regel"))
        assert customer_words(every, CATALOGUE, load_reasons(language)) == document["counterfactuals"]
    assert served.version


def shape(value) -> object:
    """Keys and placeholders, without the words."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return frozenset(re.findall(r"\{\w+\}", value))


def test_every_language_says_everything_that_another_says():
    books = {language: load_reasons(language) for language in LANGUAGES}
    pages = {lang: json.loads(Path(f"models/reasons_{lang}.json").read_text()) for lang in LANGUAGES}
    first = pages["en"]
    for language, page in pages.items():
        assert page["language"] == language
        assert {k: set(v) for k, v in page.items() if isinstance(v, dict)} == {
            k: set(v) for k, v in first.items() if isinstance(v, dict)
        }
        # The same numbers in the same texts; a language may leave a noun out.
        codes = {key: entry["code"] for key, entry in page["reasons"].items()}
        assert codes == {key: entry["code"] for key, entry in first["reasons"].items()}
        assert set(page["own"].items()) == set(first["own"].items())
        for key, entry in page["counterfactuals"].items():
            assert shape(entry) == shape(first["counterfactuals"][key]), (language, key)
    reasons = {rule.reason for rule in shipped_rules().rules}
    assert all(reasons <= set(book.rules) for book in books.values())


def test_the_waterfall_starts_at_the_base_and_ends_at_the_margin(tmp_path):
    served = open_model(small_artefact(tmp_path / "models"), CATALOGUE)
    bench = Bench(tmp_path / "journal", serving=served, rules=shipped_rules())
    record = decode_json(encode_json(bench.decide(transaction(amount=99_000))[0].record))
    document = explanation(record, served, bench.judge.rules, CATALOGUE, "data_scientist")
    drawn = svg(document)
    assert drawn.count("<rect") == 1 + 1 + 10 + 1 + 1
    assert f">{document['model']['base_value']:.3f}<" in drawn
    assert f">{document['model']['margin']:.3f}<" in drawn
    assert "all other features" in drawn
    assert "alle übrigen Merkmale" in svg(document, "de")
    assert "<script" not in svg({**document, "transaction_id": "<script>alert(1)</script>"})


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 0.003), (-7.3, 120.0), (2.0, 2.5)])
def test_ticks_are_few_and_inside(low, high):
    found = ticks(low, high)
    assert 3 <= len(found) <= 12
    assert all(low <= tick <= high for tick in found)
