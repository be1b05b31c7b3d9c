"""The offline builder, the online evaluator and the oracle give the same vectors, bit for bit."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import DAY, HOUR, MINUTE, Catalogue, Distinct, Gap, Window, payments
from features.history import History
from features.measure import FRAUD, TRANSACTION, WITHDRAWN, Scalar
from features.offline import Arrivals, build, columns
from features.oracle import Happening, Oracle
from features.tier import SECOND
from tests.features import till
from tests.features.scenario import EPOCH_MS, PSEUDONYMS, Event, Stream, assert_same, stream

STEPS_MS = {
    "ties": (0, 0, 1, SECOND),
    "minutes": (0, 1, 999, 30 * SECOND, MINUTE),
    "hours": (0, MINUTE, HOUR, 6 * HOUR),
    "gaps": (1, HOUR, DAY, 8 * DAY, 40 * DAY),
}
CATALOGUES = {"till": till.CATALOGUE, "payments": payments.CATALOGUE}


def history_of(made: Stream) -> History:
    """The stream through a file."""
    with TemporaryDirectory() as folder:
        return made.history(Path(folder))


def steps(draw_from: tuple[str, ...] = tuple(STEPS_MS)) -> st.SearchStrategy[tuple[int, ...]]:
    return st.sampled_from([STEPS_MS[name] for name in draw_from])


@pytest.mark.parametrize("name", CATALOGUES)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(1, 120),
    late=st.sampled_from([0.0, 0.1, 0.5]),
    steps_ms=steps(),
)
def test_three_executions_agree_in_any_order(
    name: str, seed: int, size: int, late: float, steps_ms: tuple[int, ...]
) -> None:
    made = stream(CATALOGUES[name], seed, size, late, steps_ms)
    expected = made.oracle()
    built = build(made.catalogue, history_of(made), order=made.arrivals(), pseudonyms=PSEUDONYMS)
    assert built.names == made.catalogue.names
    assert built.values.dtype == np.float32
    assert_same(built.names, expected, made.online())
    assert_same(built.names, expected, built.values)


@pytest.mark.parametrize("name", CATALOGUES)
@pytest.mark.parametrize("late", [0.0, 0.2])
def test_three_executions_agree_over_long_histories(name: str, late: float) -> None:
    """Long enough that maps overflow, tiers end and hot entities have hundreds of events."""
    made = stream(CATALOGUES[name], 7, 900, late, (0, 1, MINUTE, HOUR))
    expected = made.oracle()
    built = build(made.catalogue, history_of(made), order=made.arrivals(), pseudonyms=PSEUDONYMS)
    assert_same(built.names, expected, built.values)
    assert_same(built.names, expected, made.online())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), late=st.sampled_from([0.0, 0.3]), steps_ms=steps())
def test_without_an_order_event_time_decides_and_ties_go_by_kind_and_file(
    seed: int, late: float, steps_ms: tuple[int, ...]
) -> None:
    made = stream(till.CATALOGUE, seed, 80, late, steps_ms)
    history = history_of(made)
    kinds = [TRANSACTION, *till.SCHEMA.lifecycle, FRAUD, WITHDRAWN]
    rank = {
        kind: min(kinds.index(kind), 1) if kind in till.SCHEMA.lifecycle else kinds.index(kind)
        for kind in kinds
    }
    by_row = {kind: kind in (FRAUD, WITHDRAWN) for kind in kinds}
    ordered = sorted(
        enumerate(made.events),
        key=lambda x: (x[1].time_ms, rank[x[1].source], x[1].row if by_row[x[1].source] else x[0]),
    )
    again = Stream(made.catalogue, made.values, [event for _, event in ordered])
    rows = [event.row for event in again.events if event.source == TRANSACTION]
    built = build(made.catalogue, history, pseudonyms=PSEUDONYMS)
    assert_same(built.names, again.oracle(), built.values[rows])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_running_numbers_of_each_entity_win_over_the_global_order(seed: int) -> None:
    made = stream(till.CATALOGUE, seed, 80, 0.3, STEPS_MS["minutes"])
    history = history_of(made)
    arrivals = made.arrivals()
    assert arrivals.ranks is not None
    backwards = -arrivals.ranks + len(made.events)
    per_entity = Arrivals(backwards, dict.fromkeys(made.catalogue.entities, arrivals.ranks))
    expected = build(made.catalogue, history, order=arrivals).values
    assert_same(made.catalogue.names, expected, build(made.catalogue, history, order=per_entity).values)


def test_what_an_entity_never_observed_is_not_in_its_history() -> None:
    values: list[dict[str, Scalar]] = [{"amount": 1, "card": "c", "shop": "s"} for _ in range(3)]
    events = [Event(TRANSACTION, EPOCH_MS + i * MINUTE, i) for i in range(3)]
    features = (Window("card", "count", HOUR), Window("shop", "count", HOUR))
    made = Stream(Catalogue("two", till.SCHEMA, features), values, events)
    order = Arrivals(entities={"card": np.array([0, -1, 1])})
    found = build(made.catalogue, history_of(made), order=order).values
    np.testing.assert_array_equal(found[:, 0], [1, np.nan, 2])
    np.testing.assert_array_equal(found[:, 1], [1, 2, 3])


def test_an_order_of_another_length_is_refused() -> None:
    made = stream(till.CATALOGUE, 1, 20, 0.0, STEPS_MS["hours"])
    with pytest.raises(ValueError, match="ranks for"):
        build(made.catalogue, history_of(made), order=Arrivals(np.arange(3)))


def test_a_models_features_keep_their_order_and_repeat_nothing() -> None:
    made = stream(payments.CATALOGUE, 3, 200, 0.2, STEPS_MS["hours"])
    history = history_of(made)
    whole = build(made.catalogue, history)
    chosen = tuple(reversed(made.catalogue.features))[::3]
    part = build(made.catalogue, history, features=chosen)
    assert part.names == tuple(f.name for f in chosen)
    at = [whole.names.index(name) for name in part.names]
    assert_same(part.names, whole.values[:, at], part.values)


def test_threads_change_nothing() -> None:
    made = stream(payments.CATALOGUE, 4, 400, 0.1, STEPS_MS["hours"])
    history = history_of(made)
    one, two = build(made.catalogue, history), build(made.catalogue, history, workers=2)
    assert_same(one.names, one.values, two.values)


def test_columns_are_given_once_each() -> None:
    made = stream(payments.CATALOGUE, 5, 50, 0.1, STEPS_MS["hours"])
    places = [place for place, _ in columns(made.catalogue, history_of(made))]
    assert sorted(places) == list(range(len(made.catalogue.features)))


def test_an_empty_history_has_an_empty_matrix(tmp_path: Path) -> None:
    made = Stream(till.CATALOGUE)
    assert build(till.CATALOGUE, made.history(tmp_path)).values.shape == (0, len(till.CATALOGUE.features))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), late=st.sampled_from([0.0, 0.3]))
def test_exact_mode_is_a_window_of_seconds_open_on_the_left(seed: int, late: float) -> None:
    """
          (t - W - D                     t - D]
    ------o=============================|--------------> seconds
    """
    features = (
        Window("card", "count", 10 * MINUTE),
        Window("card", "max", 10 * MINUTE, "amount"),
        Window("card", "sum", 10 * MINUTE, "amount", delay_ms=2 * MINUTE),
    )
    made = stream(Catalogue("exact", till.SCHEMA, features), seed, 80, late, (0, 1, 500, SECOND, MINUTE))
    found = build(made.catalogue, history_of(made), order=made.arrivals(), exact=True).values
    for event in [e for e in made.events if e.source == TRANSACTION]:
        values = made.values[event.row]
        if "card" not in values:
            assert np.isnan(found[event.row]).all()
            continue
        before = made.events[: made.events.index(event) + 1]
        own = [
            e for e in before if e.source == TRANSACTION and made.values[e.row].get("card") == values["card"]
        ]
        second = event.time_ms // SECOND
        near = [e for e in own if second - 600 < e.time_ms // SECOND <= second]
        far = [e for e in own if second - 720 < e.time_ms // SECOND <= second - 120]
        amounts = [int(made.values[e.row]["amount"] or 0) for e in near]
        expected = [len(near), max(amounts), sum(int(made.values[e.row]["amount"] or 0) for e in far)]
        np.testing.assert_array_equal(found[event.row], np.array(expected, np.float32))


def test_labels_of_the_transaction_itself_are_never_in_its_vector() -> None:
    """A fraud reported at once counts for the next transaction, not for its own."""
    features = (
        Window("card", "count", DAY, source=FRAUD),
        Gap("card", source=FRAUD),
        Distinct("card", "shop", DAY),
    )
    values: list[dict[str, Scalar]] = [{"amount": 1, "card": "c", "shop": f"s{i}"} for i in range(2)]
    events = [
        Event(TRANSACTION, EPOCH_MS, 0),
        Event(FRAUD, EPOCH_MS + 1, 0),
        Event(TRANSACTION, EPOCH_MS + 2_001, 1),
    ]
    made = Stream(Catalogue("labels", till.SCHEMA, features), values, events)
    found = build(made.catalogue, history_of(made)).values
    np.testing.assert_array_equal(found, np.array([[0, np.nan, 1], [1, 2, 2]], np.float32))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_each_entity_may_have_observed_in_an_order_of_its_own(seed: int, data: st.DataObject) -> None:
    """Two processes: the card saw the first event first, the shop saw the second one first."""
    made = stream(till.CATALOGUE, seed, 40, 0.3, STEPS_MS["minutes"])
    catalogue, history = made.catalogue, history_of(made)
    arrivals = made.arrivals()
    assert arrivals.ranks is not None
    orders = {e: np.array(data.draw(st.permutations(range(len(made.events))))) for e in catalogue.entities}
    order = Arrivals(entities={entity: ranks[arrivals.ranks] for entity, ranks in orders.items()})

    oracle = Oracle(catalogue.schema, PSEUDONYMS.mark)
    happenings = [Happening(e.source, e.time_ms, made.fields(e)) for e in made.events]
    keys = [oracle.keys(made.values[e.row]) for e in made.events]
    before: list[dict[str, int]] = [{} for _ in made.events]
    for entity, ranks in orders.items():
        for index in np.argsort(ranks):
            if entity in keys[index]:
                past = oracle.histories[entity, keys[index][entity]]
                before[index][entity] = len(past)
                past.append(happenings[index])
    rows = [i for i, e in enumerate(made.events) if e.source == TRANSACTION]
    found = [oracle.vector(catalogue.features, happenings[i], keys[i], before[i]) for i in rows]
    expected = np.array([[np.nan if v is None else v for v in row] for row in found], np.float32)
    assert_same(
        catalogue.names, expected, build(catalogue, history, order=order, pseudonyms=PSEUDONYMS).values
    )
