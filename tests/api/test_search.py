"""Search: every filter against the obvious one, pages that neither skip nor repeat while the log grows."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.past.search import InvalidCursor, Place, Search, cursor_of, last_of, place_of
from api.past.store import SqlStore
from api.query_store import Logged, open_store
from api.record import encode_json

OUTCOMES = ("approve", "challenge", "review", "decline")
NUMBERS = itertools.count()
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def logged(record, topic="decisions"):
    return Logged(topic, 0, next(NUMBERS), encode_json(record))


@st.composite
def decisions(draw, prefix="t"):
    """Few distinct values, so that filters meet and ties happen."""
    small = st.integers(0, 3)
    return [
        {
            "type": "decision", "id": f"{prefix}{number}", "time_ms": draw(st.integers(0, 5)),
            "decided_ms": draw(st.integers(0, 5)), "outcome": draw(st.sampled_from(OUTCOMES)),
            "score": draw(st.one_of(st.none(), st.integers(0, 3))),
            "entities": {"card": f"p{draw(small)}", "merchant": f"p{draw(small)}"},
            "rules": [{"id": f"r{n}", "result": draw(st.sampled_from(["hit", "no_hit"]))} for n in range(2)],
            "reasons": [{"code": f"c{draw(small)}"} for _ in range(draw(st.integers(0, 2)))],
        }
        for number in range(draw(st.integers(0, 30)))
    ]  # fmt: skip


searches = st.builds(
    Search,
    entity=st.one_of(st.none(), st.tuples(st.sampled_from(["card", "merchant"]), st.just("p0"))),
    outcome=st.one_of(st.none(), st.sampled_from(OUTCOMES)),
    rule=st.one_of(st.none(), st.sampled_from(["r0", "r1"])),
    reason=st.one_of(st.none(), st.sampled_from(["c0", "c1"])),
    score_min=st.one_of(st.none(), st.integers(0, 2)),
    score_max=st.one_of(st.none(), st.integers(1, 3)),
    time_from_ms=st.one_of(st.none(), st.integers(0, 3)),
    time_until_ms=st.one_of(st.none(), st.integers(2, 6)),
    decided_from_ms=st.one_of(st.none(), st.integers(0, 3)),
    decided_until_ms=st.one_of(st.none(), st.integers(2, 6)),
    label=st.one_of(st.none(), st.sampled_from(["fraud", "legitimate", "none"])),
)  # fmt: skip


def obvious(records, labels, search):
    """The specification: everything that matches, newest first."""

    def matches(r):
        known = labels.get(r["id"], "none")
        score = r["score"]
        return (
            (search.entity is None or r["entities"].get(search.entity[0]) == search.entity[1])
            and (search.outcome is None or r["outcome"] == search.outcome)
            and (search.rule is None or {"id": search.rule, "result": "hit"} in r["rules"])
            and (search.reason is None or {"code": search.reason} in r["reasons"])
            and (search.score_min is None or (score is not None and score >= search.score_min))
            and (search.score_max is None or (score is not None and score <= search.score_max))
            and (search.time_from_ms is None or r["time_ms"] >= search.time_from_ms)
            and (search.time_until_ms is None or r["time_ms"] < search.time_until_ms)
            and (search.decided_from_ms is None or r["decided_ms"] >= search.decided_from_ms)
            and (search.decided_until_ms is None or r["decided_ms"] < search.decided_until_ms)
            and (search.label is None or known == search.label)
        )  # fmt: skip

    found = sorted(filter(matches, records), key=lambda r: (r["decided_ms"], r["id"].encode()), reverse=True)
    return [r["id"] for r in found]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.parts)], scope="module")
def fresh(request, tmp_path_factory):
    """Gives an empty store per example: a new file, or the one database emptied."""
    if request.param == "sqlite":
        directory = tmp_path_factory.mktemp("search")
        yield lambda: open_store(f"sqlite:///{directory / f'{next(NUMBERS)}.sqlite'}")
        return
    store = SqlStore.open(request.getfixturevalue("postgres").database(), migrating=True)

    def emptied():
        with store.writing() as connection:
            connection.exec_driver_sql("TRUNCATE decision, term, label, lifecycle, doubled, position")
        return store

    yield emptied
    store.close()


def paged(store, search, limit, between=lambda: None):
    found, after, pages = [], None, 0
    while True:
        page = store.search(search, after, limit)
        found += [r["id"] for r in page.records]
        assert len(page.records) <= limit
        pages += 1
        assert pages < 200
        if page.after is None:
            return found
        after = place_of(cursor_of(page.after, search), search)
        between()


@FEW
@given(
    decisions(), st.dictionaries(st.integers(0, 29), st.booleans(), max_size=8), searches, st.integers(1, 7)
)
def test_pages_together_are_the_obvious_answer(fresh, records, labelled, search, limit):
    store = fresh()
    labels = {f"t{n}": "fraud" if fraud else "legitimate" for n, fraud in labelled.items()}
    log = [logged(r) for r in records]
    log += [
        logged({"type": "label", "id": f"l{n}", "transaction_id": f"t{n}", "time_ms": 1, "fraud": fraud})
        for n, fraud in labelled.items()
    ]  # fmt: skip
    store.project(log, {})
    assert paged(store, search, limit) == obvious(records, labels, search)


@FEW
@given(decisions(), decisions(prefix="u"), searches, st.integers(1, 5))
def test_what_arrives_between_two_pages_neither_repeats_nor_hides_anything(
    fresh, records, later, search, limit
):
    #  first page -> u0 arrives -> second page -> u1, u2 arrive -> ...   times before and behind
    store = fresh()
    store.project([logged(r) for r in records], {})
    arriving = iter(later)

    def arrive():
        store.project([logged(r) for r in itertools.islice(arriving, 2)], {})

    found = paged(store, search, limit, arrive)
    assert len(set(found)) == len(found)
    assert [id_ for id_ in found if id_.startswith("t")] == obvious(records, {}, search)
    assert set(found) <= set(obvious(records + later, {}, search))


def test_a_page_looks_at_no_more_rows_than_allowed_and_still_leads_on(tmp_path):
    store = SqlStore.open(f"sqlite:///{tmp_path / 'bounded.sqlite'}", scan=10)
    base = {"type": "decision", "time_ms": 1, "score": 1, "entities": {}}
    outcomes = ["decline" if i == 3 else "approve" for i in range(95)]
    log = [base | {"id": f"t{i:03}", "decided_ms": i, "outcome": outcomes[i]} for i in range(95)]
    store.project([logged(r) for r in log], {})
    first = store.search(Search(outcome="decline"), None, 5)
    assert (first.records, first.after) == ([], Place(85, "t085"))
    assert paged(store, Search(outcome="decline"), 5) == ["t003"]
    assert len(paged(store, Search(outcome="approve"), 50)) == 94
    store.close()


def test_a_cursor_of_another_search_or_of_nobody_is_refused():
    cursor = cursor_of(Place(5, "tx-ä"), Search(outcome="review"))
    assert place_of(cursor, Search(outcome="review")) == Place(5, "tx-ä")
    with pytest.raises(InvalidCursor, match="other filters"):
        place_of(cursor, Search(outcome="decline"))
    for wrong in ("", "x", "%%%", "é", cursor[:-3], "bnVsbA", "W10", "WyJhIiwgMSwgMV0", "A" * 5_000):
        with pytest.raises(InvalidCursor):
            place_of(wrong, Search(outcome="review"))


@pytest.mark.parametrize(("search", "index"), [
    (Search(), "COVERING INDEX decision_newest"),
    (Search(outcome="decline", score_min=900, time_from_ms=5), "COVERING INDEX decision_newest"),
    (Search(entity=("card", "p1"), rule="r0"), "PRIMARY KEY (kind=? AND value=?"),
    (Search(rule="r0"), "PRIMARY KEY (kind=? AND value=?"),
    (Search(label="fraud", reason="c1"), "INDEX decision_labelled (fraud=?"),
])  # fmt: skip
@pytest.mark.parametrize("after", [None, Place(100, "t9")])
def test_what_a_search_looks_at_comes_from_one_index_in_order(tmp_path, search, index, after):
    store = SqlStore.open(f"sqlite:///{tmp_path / 'plan.sqlite'}")
    query = last_of(search, after, 50).compile(store._engine, compile_kwargs={"literal_binds": True})
    with store.reading() as connection:
        steps = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")]
    store.close()
    assert len(steps) == 1, steps
    assert index in steps[0]
