"""Reasons: one business idea once, every feature in one group, customers read no numbers."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import features
from models.reasons import ROWS_BY_COLUMN, ReasonBook, load_reasons

BOOK = load_reasons()


@dataclass(frozen=True)
class Unknown:
    name: str
    entity: str | None
    family: str


@pytest.mark.parametrize("catalogue", ["payments", "handbook"])
def test_every_feature_has_one_reason_with_plain_words(catalogue):
    vector = features.load(catalogue).features
    reasons = BOOK.group(vector)
    columns = sorted(c for g in reasons.groups for c in g.columns)
    assert columns == list(range(len(vector)))
    assert len({g.code for g in reasons.groups}) == len(reasons.groups) < len(vector)
    for group in reasons.groups:
        assert "{" not in group.code + group.analyst + group.customer
        assert group.code == group.code.upper()
        assert not any(c.isdigit() for c in group.customer)


def test_built_in_catalogues_never_fall_back_to_generic_words():
    for name in ("payments", "handbook"):
        for group in BOOK.group(features.load(name).features).groups:
            assert not group.analyst.startswith("The value of")
            assert not group.code.endswith("_TRANSACTION")


def test_a_catalogue_that_nobody_has_heard_of_gets_readable_words():
    words = BOOK.wording(Unknown("parcel_weight", None, "transaction"))
    assert words["code"] == "PARCEL_WEIGHT"
    assert words["analyst"] == "The value of parcel weight is typical of fraud"
    words = BOOK.wording(Unknown("pump_station_surprise_1h", "pump_station", "surprise"))
    assert words["code"] == "PUMP_STATION_SURPRISE"
    assert "pump station" in words["analyst"]
    assert BOOK.wording(Unknown("x", "pump", "velocity"))["code"] == "PUMP_VELOCITY"


def test_contributions_of_one_idea_are_one_reason():
    vector = [
        Unknown("card_count_1h", "card", "velocity"),
        Unknown("amount", None, "transaction"),
        Unknown("card_count_1d", "card", "velocity"),
        Unknown("card_speed", "card", "movement"),
    ]
    contributions = np.array([[0.4, 0.5, 0.3, -0.2, -5.0], [-1.0, -1.0, -1.0, -1.0, 2.0]])
    suspicious, harmless = BOOK.group(vector).top(contributions)
    assert [(r.code, round(r.weight, 9)) for r in suspicious] == [("CARD_VELOCITY", 0.7), ("AMOUNT", 0.5)]
    assert suspicious[0].features == ("card_count_1h", "card_count_1d")
    assert harmless == ()
    (one,) = BOOK.group(vector).top(contributions[:1], count=1, audience="customer")
    assert one[0].text == "The number of recent payments is unusual"
    (expert,) = BOOK.group(vector).top(contributions[:1], count=1, audience="data_scientist")
    assert "card_count_1h, card_count_1d" in expert[0].text


def test_sums_do_not_depend_on_the_batch():
    vector = features.load("payments").features
    reasons = BOOK.group(vector)
    contributions = np.random.default_rng(1).normal(size=(3 * ROWS_BY_COLUMN, len(vector) + 1))
    whole = reasons.sums(contributions)
    single = np.vstack([reasons.sums(contributions[i : i + 1]) for i in range(len(contributions))])
    assert whole.tobytes() == single.tobytes()
    assert np.allclose(whole.sum(axis=1), contributions[:, :-1].sum(axis=1))


@pytest.mark.parametrize("audience", ["analyst", "customer"])
def test_reasons_do_not_depend_on_the_batch(audience):
    vector = features.load("payments").features
    reasons = BOOK.group(vector)
    random = np.random.default_rng(2)
    # Few values: ties, zeros, rows that nothing raises.
    drawn = random.choice([-1.0, -0.5, 0.0, 0.25, 0.5], (40 * ROWS_BY_COLUMN, len(vector) + 1))
    batches = np.array([drawn, drawn * 0.1, -np.abs(drawn), random.normal(size=drawn.shape)], np.float64)
    for contributions in batches:
        for count in (1, 4):
            whole = reasons.top(contributions, count=count, audience=audience)
            single = [reasons.top(row[None], count=count, audience=audience)[0] for row in contributions]
            assert whole == single


def test_contributions_of_another_vector_are_refused():
    with pytest.raises(ValueError, match="contributions"):
        BOOK.group([Unknown("amount", None, "transaction")]).top(np.zeros((1, 5)))


def test_another_language_is_another_file():
    page = json.loads(Path("models/reasons_en.json").read_text())
    words = page | {
        "language": "xx",
        "own": {},
        "entities": {},
        "reasons": {
            "own/*": {"code": "{NAME}", "analyst": "a", "customer": "c"},
            "*/*": {"code": "{ENTITY}", "analyst": "a", "customer": "c"},
        },
    }
    assert ReasonBook(words).wording(Unknown("n", "card", "label"))["code"] == "CARD"
    with pytest.raises(FileNotFoundError):
        load_reasons("xx")


def test_the_time_since_a_reported_fraud_is_about_labels():
    gap = features.Gap("terminal", source=features.FRAUD)
    assert gap.uses_labels
    assert BOOK.wording(gap)["code"] == "TERMINAL_FRAUD_HISTORY"
    assert not features.Gap("terminal").uses_labels
