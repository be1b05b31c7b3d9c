"""Search: every filter against the obvious one, pages that neither skip nor repeat while the log grows."""

import itertools
import random
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.engine import QueryStoreUnavailable
from api.past.migrations.versions.v0006_tokens import make_index
from api.past.search import InvalidCursor, Place, Search, cursor_of, last_of, place_of
from api.past.store import SqlStore
from api.past.terms import TermTokens
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
            connection.exec_driver_sql(
                "TRUNCATE decision, term, label, lifecycle, doubled, position, moved, warm_file"
            )
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


def test_every_combination_of_filters_finds_the_obvious(fresh):
    chance = random.Random(7)
    records = [
        {
            "type": "decision", "id": f"t{number:03}", "time_ms": 1, "decided_ms": chance.randrange(20),
            "outcome": chance.choice(OUTCOMES), "score": chance.randrange(4),
            "entities": {"card": f"p{chance.randrange(2)}", "merchant": f"p{chance.randrange(3)}"},
            "rules": [{"id": "r0", "result": chance.choice(["hit", "no_hit"])}],
            "reasons": [{"code": f"c{chance.randrange(2)}"}],
        }
        for number in range(120)
    ]  # fmt: skip
    labels = {r["id"]: chance.choice(["fraud", "legitimate"]) for r in records if chance.random() < 0.7}
    log = [logged(r) for r in records]
    log += [
        logged(
            {"type": "label", "id": f"l{id_}", "transaction_id": id_, "time_ms": 1, "fraud": of == "fraud"}
        )
        for id_, of in labels.items()
    ]
    store = fresh()
    # In pieces that are not in the order of time.
    for start in range(0, len(log), 7):
        store.project(log[start : start + 7], {})
    filters: dict[str, list[Any]] = {
        "entity": [None, ("card", "p0")], "rule": [None, "r0"], "reason": [None, "c0"],
        "outcome": [None, "approve"], "score_min": [None, 2], "decided_from_ms": [None, 5],
        "decided_until_ms": [None, 15], "label": [None, "fraud", "legitimate", "none"],
    }  # fmt: skip
    for values in itertools.product(*filters.values()):
        values_by_name: dict[str, Any] = dict(zip(filters, values, strict=True))
        search = Search(**values_by_name)
        assert paged(store, search, 3) == obvious(records, labels, search), search


def test_decisions_of_one_millisecond_are_ordered_by_id_in_whatever_pieces_they_come(fresh):
    store = fresh()
    for numbers in ([4], [1, 7], [3], [0, 9, 5]):
        store.project(
            [
                logged(
                    {"type": "decision", "id": f"t{n}", "time_ms": 0, "decided_ms": 0, "outcome": "approve",
                     "score": 1, "entities": {"card": "p0"}}
                )
                for n in numbers
            ],
            {},
        )  # fmt: skip
    assert paged(store, Search(entity=("card", "p0")), 2) == ["t9", "t7", "t5", "t4", "t3", "t1", "t0"]


@FEW
@given(decisions(), st.sets(st.integers(0, 29)), searches, st.integers(1, 7))
def test_what_went_to_the_warm_store_is_not_found_and_hides_nothing(fresh, records, gone, search, limit):
    store = fresh()
    store.project([logged(r) for r in records], {})
    moved = [r for r in records if int(r["id"][1:]) in gone]
    store.adopt(store.begin_file(f"file{next(NUMBERS)}"), [(r["id"], encode_json(r)) for r in moved])
    assert paged(store, search, limit) == obvious([r for r in records if r not in moved], {}, search)


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
    (Search(label="fraud", reason="c1"), "INDEX decision_labelled (fraud=?"),
])  # fmt: skip
@pytest.mark.parametrize("after", [None, Place(100, "t9")])
def test_what_a_search_looks_at_comes_from_one_index_in_order(tmp_path, search, index, after):
    steps = plan_of(tmp_path, search, after)
    assert len(steps) == 1, steps
    assert index in steps[0]


@pytest.mark.parametrize("search", [Search(entity=("card", "p1"), rule="r0"), Search(rule="r0")])
@pytest.mark.parametrize("after", [None, Place(100, "t9")])
def test_what_a_search_by_terms_looks_at_comes_from_the_full_text_index(tmp_path, search, after):
    steps = plan_of(tmp_path, search, after)
    read = [step for step in steps if re.match("SCAN|SEARCH", step) and "far" not in step]
    assert sum("found_by VIRTUAL TABLE" in step and "M1" in step for step in read) == 2, steps
    others = [step for step in read if "VIRTUAL TABLE" not in step]
    assert all(re.search(r"PRIMARY KEY \(rowid=\?\)|COVERING INDEX decision_newest", s) for s in others), (
        steps
    )
    # Rows are sorted only within the last one's millisecond.
    assert sum("TEMP B-TREE" in step for step in steps) <= 1, steps


def plan_of(directory, search, after):
    store = SqlStore.open(f"sqlite:///{directory / 'plan.sqlite'}")
    query = last_of(TermTokens(), search, after, 50).compile(
        store._engine, compile_kwargs={"literal_binds": True}
    )
    with store.reading() as connection:
        steps = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")]
    store.close()
    return steps


def test_an_sqlite_without_full_text_search_is_told_of(tmp_path):
    store = SqlStore.open(f"sqlite:///{tmp_path / 'plain.sqlite'}")
    with pytest.raises(QueryStoreUnavailable, match="without FTS5"), store.writing() as connection:
        make_index(connection, "CREATE VIRTUAL TABLE other USING absent(tokens)")
    store.close()
