"""Review cases: opened by decisions, changed one version at a time, rebuilt from the log."""

import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.case import Change, StaleCase, State, UnknownCase, state_of
from api.past.cases import CaseSearch
from api.past.search import InvalidCursor, Place, Search, cursor_of, place_of
from api.query_store import Logged, open_store
from api.record import decode_json, encode_json

ALL = CaseSearch()
NUMBERS = itertools.count()


def decision(id="a", decided_ms=10, **changes):
    return {"type": "decision", "id": id, "time_ms": decided_ms - 5, "decided_ms": decided_ms, "score": 640,
            "outcome": "review", "entities": {}} | changes  # fmt: skip


def logged(record, topic="decisions"):
    payload = record if isinstance(record, bytes) else encode_json(record)
    return Logged(topic, 0, next(NUMBERS), payload)


def told(change, case_id, version, time_ms):
    """The audit record of a change."""
    return {"type": "audit", "v": 1, "tenant": "demo", "id": f"case-{case_id}-{version}-{time_ms}",
            "event": f"case_{change.step}", "time_ms": time_ms, **change.facts(case_id, version)}  # fmt: skip


class Journal:
    """What was made durable, in order."""

    def __init__(self):
        self.records = []

    def of(self, change, case_id, time_ms=100):
        def record(version):
            made = told(change, case_id, version, time_ms + version)
            self.records.append(made)
            return made["id"], made["time_ms"], encode_json(made)

        return record


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.parts)])
def address(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'query.sqlite'}"
    return request.getfixturevalue("postgres").database()


@pytest.fixture
def store(address):
    made = open_store(address, migrating=True)
    yield made
    made.close()


def ids(store, search=ALL):
    return [case["id"] for case in store.cases(search, None, 100).cases]


def test_a_decision_to_review_opens_one_case(store):
    log = [
        logged(decision("a", 10)), logged(decision("b", 20, outcome="decline")), logged(decision("c", 30)),
        logged(decision("d", 40, type="abandoned")),
    ]  # fmt: skip
    for _ in range(2):
        store.project(log, {})
    assert ids(store) == ["c", "a"]
    assert store.case("a") == {
        "id": "a", "opened_ms": 10, "time_ms": 5, "score": 640, "status": "open", "assignee": None,
        "resolution": None, "version": 1, "updated_ms": None, "events": [],
    }  # fmt: skip
    assert store.case("b") is None


def test_a_case_is_assigned_commented_and_resolved(store):
    store.project([logged(decision())], {})
    journal = Journal()
    steps = [
        Change("assigned", "ben", assignee="ann"), Change("commented", "ann", text="called the customer"),
        Change("resolved", "ann", resolution="fraud"),
    ]  # fmt: skip
    for expected, change in enumerate(steps, 1):
        case, again = store.change_case("a", expected, change, journal.of(change, "a"))
        assert (case["version"], again) == (expected + 1, False)
    assert (case["status"], case["assignee"], case["resolution"]) == ("resolved", "ann", "fraud")
    assert [e["event"] for e in case["events"]] == ["case_assigned", "case_commented", "case_resolved"]
    assert case["events"] == journal.records
    assert ids(store, CaseSearch(status="open")) == []
    assert ids(store, CaseSearch(status="resolved", assignee="ann")) == ["a"]


def test_another_version_is_refused_and_nothing_is_recorded(store):
    store.project([logged(decision())], {})
    journal = Journal()
    first, other = Change("commented", "ann", text="x"), Change("commented", "ben", text="x")
    store.change_case("a", 1, first, journal.of(first, "a"))
    for expected in (1, 3):
        with pytest.raises(StaleCase, match="version 2 by now"):
            store.change_case("a", expected, other, journal.of(other, "a"))
    with pytest.raises(UnknownCase):
        store.change_case("none", 1, other, journal.of(other, "none"))
    assert len(journal.records) == 1


def test_the_same_change_again_is_answered_and_not_recorded_twice(store):
    store.project([logged(decision())], {})
    journal = Journal()
    change = Change("resolved", "ann", resolution="legitimate")
    first, _ = store.change_case("a", 1, change, journal.of(change, "a"))
    again, replay = store.change_case("a", 1, change, journal.of(change, "a"))
    assert (again, replay, len(journal.records)) == (first, True, 1)


def test_what_cannot_be_made_durable_does_not_happen(store):
    store.project([logged(decision())], {})

    def full(_):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        store.change_case("a", 1, Change("commented", "ann", text="x"), full)
    case = store.case("a")
    assert (case["version"], case["events"]) == (1, [])


def test_of_many_at_once_one_wins(store, address):
    store.project([logged(decision())], {})
    journal, won, lost = Journal(), [], []
    stores = [open_store(address) for _ in range(6)]

    def attempt(mine, name):
        change = Change("assigned", name, assignee=name)
        try:
            mine.change_case("a", 1, change, journal.of(change, "a"))
            won.append(name)
        except StaleCase:
            lost.append(name)

    threads = [
        threading.Thread(target=attempt, args=(mine, f"n{number}")) for number, mine in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine in stores:
        mine.close()
    assert (len(won), len(lost), len(journal.records)) == (1, 5, 1)
    assert store.case("a")["assignee"] == won[0]


@pytest.mark.parametrize("order", ["as_it_was", "events_first", "one_by_one_backwards"])
def test_a_rebuilt_store_has_the_same_cases_in_whatever_order_the_topics_are_read(
    store, address, tmp_path, order
):
    opened = [logged(decision(f"t{n}", n)) for n in range(8)]
    store.project(opened, {})
    journal = Journal()
    for number in range(6):
        for expected, change in enumerate((
            Change("assigned", "ben", assignee=f"n{number % 2}"),
            Change("resolved", "ann", resolution="fraud" if number % 3 else "legitimate"),
        ), 1):  # fmt: skip
            store.change_case(f"t{number}", expected, change, journal.of(change, f"t{number}"))
    events = [logged(record, "audit.checkpoints") for record in journal.records]
    assert store.project(events, {}) == []
    again = open_store(f"sqlite:///{tmp_path / 'again.sqlite'}")
    if order == "as_it_was":
        again.project(opened + events, {})
    elif order == "events_first":
        again.project(events, {})
        assert ids(again) == []
        again.project(opened, {})
    else:
        for entry in reversed(opened + events):
            again.project([entry], {})
    assert again.cases(ALL, None, 100) == store.cases(ALL, None, 100)
    assert [again.case(f"t{n}") for n in range(8)] == [store.case(f"t{n}") for n in range(8)]
    again.close()


def test_two_records_of_one_version_are_both_kept_and_the_later_one_counts(store):
    #  a store was lost before the log had the first one: both were answered, both are in the log
    store.project([logged(decision())], {})
    one = told(Change("assigned", "ann", assignee="ann"), "a", 2, 50)
    two = told(Change("assigned", "ben", assignee="ben"), "a", 2, 60)
    for entry in (two, one):
        store.project([logged(entry, "audit.checkpoints")], {})
    case = store.case("a")
    assert (case["assignee"], case["version"], len(case["events"])) == ("ben", 2, 2)


def test_other_audit_records_open_and_change_nothing(store):
    other = {"type": "audit", "v": 1, "id": "rules-1", "event": "rules_approved", "time_ms": 1}
    store.project([logged(other, "audit.checkpoints"), logged(decision())], {})
    assert store.case("a")["events"] == []


def test_pages_of_cases(store):
    store.project([logged(decision(f"t{n:02}", n // 3)) for n in range(20)], {})
    journal = Journal()
    change = Change("assigned", "ann", assignee="ann")
    for number in range(0, 20, 2):
        store.change_case(f"t{number:02}", 1, change, journal.of(change, f"t{number:02}"))
    for search, expected in ((ALL, 20), (CaseSearch(assignee="ann"), 10), (CaseSearch("resolved"), 0)):
        found, after = [], None
        while True:
            page = store.cases(search, after, 3)
            found += [case["id"] for case in page.cases]
            if page.after is None:
                break
            after = place_of(cursor_of(page.after, search), search)
            store.project([logged(decision(f"late{next(NUMBERS)}", 100))], {})
        mine = [id_ for id_ in found if id_.startswith("t")]
        assert mine == sorted(mine, reverse=True)
        assert len(set(found)) == len(found) == expected or search == ALL
    with pytest.raises(InvalidCursor):
        place_of(cursor_of(Place(1, "a"), Search()), CaseSearch(assignee="ann"))


changes = st.one_of(
    st.builds(Change, st.just("assigned"), st.just("x"), st.one_of(st.none(), st.sampled_from("ab"))),
    st.builds(Change, st.just("commented"), st.just("x"), text=st.text(max_size=3)),
    st.builds(Change, st.just("resolved"), st.just("x"), resolution=st.sampled_from(["fraud", "legitimate"])),
)


@given(st.lists(changes, max_size=6), st.randoms())
def test_the_state_does_not_depend_on_the_order_in_which_records_come(made, random):
    records = [told(change, "a", version, 100 - version) for version, change in enumerate(made, 2)]
    expected = state_of(records)
    shuffled = list(records)
    random.shuffle(shuffled)
    assert state_of(map(decode_json, map(encode_json, shuffled))) == expected
    assert expected.version == len(made) + 1
    resolved = [c.resolution for c in made if c.step == "resolved"]
    assigned = [c.assignee for c in made if c.step == "assigned"]
    assert expected.resolution == (resolved[-1] if resolved else None)
    assert expected.assignee == (assigned[-1] if assigned else None)
    assert state_of([]) == State()
