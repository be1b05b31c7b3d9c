"""The online evaluator beyond agreement: take-over, unread states, damage, a model's own list of features."""

import math
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from features import (
    DAY,
    HOUR,
    MINUTE,
    Catalogue,
    Distinct,
    Gap,
    Novelty,
    Ratio,
    SchemaError,
    Speed,
    Window,
    kernel,
    payments,
)
from features.evaluate import Evaluator, Row
from features.event import Identity, identify
from features.feature import Feature
from features.measure import Scalar
from features.state import DamagedState, State
from tests.features import till
from tests.features.scenario import EPOCH_MS, PSEUDONYMS, assert_same, stream

FEATURES = (
    Window("card", "count", HOUR),
    Window("card", "max", HOUR, "amount"),
    Window("card", "sum", HOUR, "amount", delay_ms=HOUR),
    Gap("card"),
    Speed("card"),
    Novelty("card", "shop", DAY),
    Distinct("card", "shop", DAY),
    Window("shop", "count", HOUR),
)
CATALOGUE = Catalogue("few", till.SCHEMA, FEATURES)
VALUES: dict[str, Scalar] = {"amount": 70, "card": "c", "shop": "s", "latitude": 48.0, "longitude": 11.0}


def observed(*times_ms: int) -> dict[str, bytes]:
    """States after `VALUES` were observed at these times."""
    identity = identify(CATALOGUE, PSEUDONYMS, VALUES)
    states = {}
    for entity, layout in CATALOGUE.layouts.items():
        state = State(layout)
        for number, time_ms in enumerate(times_ms):
            state.observe(layout.observation(number + 1, "transaction", time_ms, VALUES, identity.marks))
        states[entity] = state.encode()
    return states


def evaluate(
    states: dict[str, bytes | None], repeated: dict[str, bool] | None = None, time_ms: int = EPOCH_MS
) -> NDArray[np.float32]:
    identity = identify(CATALOGUE, PSEUDONYMS, VALUES)
    found: NDArray[np.float32] = Evaluator(CATALOGUE).vectors(
        [Row(time_ms, VALUES, identity, states, repeated or {})]
    )[0]
    return found


def test_the_first_transaction_counts_itself_and_has_no_past() -> None:
    found = evaluate({"card": None, "shop": None})
    np.testing.assert_array_equal(found, np.array([1, 70, 0, math.nan, math.nan, 1, 1, 1], np.float32))


def test_a_state_that_could_not_be_read_gives_absent_features_never_zeros() -> None:
    found = evaluate({"shop": None})
    assert np.isnan(found[:7]).all()
    assert found[7] == 1


def test_an_absent_entity_gives_absent_features_even_where_a_state_is_given() -> None:
    row = Row(EPOCH_MS, {"amount": 70}, Identity({}, {}), {"card": observed(EPOCH_MS)["card"]}, {})
    assert np.isnan(Evaluator(CATALOGUE).vectors([row])).all()


def test_what_the_state_holds_already_is_not_added_again() -> None:
    """Taken over: the first attempt had counted the transaction, so what was before it is not known."""
    states: dict[str, bytes | None] = {**observed(EPOCH_MS - MINUTE, EPOCH_MS)}
    found = evaluate(states, {"card": True, "shop": False})
    np.testing.assert_array_equal(found, np.array([2, 70, 0, math.nan, math.nan, math.nan, 1, 3], np.float32))


def test_an_earlier_arrival_that_is_later_in_time_makes_gap_and_speed_absent() -> None:
    states: dict[str, bytes | None] = {**observed(EPOCH_MS + 5_000)}
    found = evaluate(states)
    assert np.isnan(found[[3, 4]]).all()
    assert found[0] == 2


@pytest.mark.parametrize(
    "damage", [lambda s: s[:-1], lambda s: s + b"\0", lambda s: b"\2" + s[1:], lambda s: s[:7]]
)
def test_bytes_of_another_layout_are_refused(damage) -> None:
    states = observed(EPOCH_MS - 1)
    with pytest.raises(DamagedState, match="row 0: the state of card"):
        evaluate({"card": damage(states["card"]), "shop": states["shop"]})


def test_no_rows_give_an_empty_matrix() -> None:
    assert Evaluator(CATALOGUE).vectors([]).shape == (0, len(FEATURES))


def test_a_batch_equals_its_rows_one_by_one() -> None:
    made = stream(payments.CATALOGUE, 11, 300, 0.2, (0, 1, MINUTE, HOUR))
    rows = made.rows()
    evaluator = Evaluator(payments.CATALOGUE)
    alone = np.concatenate([evaluator.vectors([row]) for row in rows])
    assert_same(evaluator.names, alone, evaluator.vectors(rows))


def test_a_model_binds_its_own_ordered_list() -> None:
    made = stream(payments.CATALOGUE, 12, 300, 0.2, (0, 1, MINUTE, HOUR))
    rows = made.rows()
    whole = Evaluator(payments.CATALOGUE)
    chosen = tuple(reversed(payments.CATALOGUE.features))[::4]
    part = Evaluator(payments.CATALOGUE, chosen)
    assert part.names == tuple(f.name for f in chosen)
    at = [whole.names.index(name) for name in part.names]
    assert_same(part.names, whole.vectors(rows)[:, at], part.vectors(rows))


def test_a_new_feature_over_state_that_is_kept_is_served() -> None:
    new = Ratio(
        "hourly_share", Window("card", "count", HOUR), Window("card", "sum", HOUR, "amount", delay_ms=HOUR)
    )
    assert Evaluator(CATALOGUE, (new,)).names == ("hourly_share",)


@pytest.mark.parametrize(
    "feature",
    [
        Window("card", "count", 30 * DAY),
        Window("card", "sum", HOUR, "items"),
        Window("pair", "count", HOUR),
        Gap("card", source="declined"),
        Gap("pair"),
        Novelty("card", "shop", 7 * DAY),
        Novelty("card", "how", DAY),
        Speed("shop"),
    ],
    ids=lambda feature: feature.name,
)
def test_a_feature_whose_state_is_not_kept_is_refused(feature: Feature) -> None:
    with pytest.raises(SchemaError, match="cannot serve this vector"):
        Evaluator(CATALOGUE, (feature,))


def test_a_catalogue_without_history_needs_no_state() -> None:
    stateless = tuple(f for f in till.CATALOGUE.features if f.entity is None)
    catalogue = Catalogue("stateless", till.SCHEMA, stateless)
    row = Row(EPOCH_MS, {"amount": 5, "how": "web"}, Identity({}, {}), {}, {})
    found = dict(zip(catalogue.names, Evaluator(catalogue).vectors([row])[0], strict=True))
    assert found["amount"] == 5
    assert found["how"] == 1
    assert found["gift_present"] == 0
    assert math.isnan(found["origin_how_mismatch"])


def test_warm_up_leaves_nothing_to_compile() -> None:
    evaluator = Evaluator(payments.CATALOGUE)
    evaluator.warm_up()
    rows = stream(payments.CATALOGUE, 13, 50, 0.0, (HOUR,)).rows()
    started = time.perf_counter()
    evaluator.vectors(rows)
    assert time.perf_counter() - started < 0.5


def test_every_file_with_kernels_names_the_compiled_codes_folder() -> None:
    """Else a file could change while callers in other files keep its compiled code of before."""
    folder = Path(kernel.__file__).parent
    assert {p.name for p in folder.glob("*.py") if "@kernel" in p.read_text()} <= set(kernel.SOURCES)
