"""Batches in which no two messages share an entity, in the order of the stream."""

from hypothesis import given
from hypothesis import strategies as st

from stream.replay.history import label_item
from stream.replay.injection import Placed
from stream.replay.item import Item
from stream.replay.lockstep import Lookahead, batches

SECOND_MS = 1_000


def placed(name: str, at_s: int, *entities: str) -> Placed:
    return Placed(at_s * SECOND_MS, Item(at_s * SECOND_MS, "transaction", name, name, b"", b"{}", entities))


def names(found):
    return [[p.item.id for p in batch] for batch in found]


def test_a_batch_reaches_past_what_it_holds_back():
    #  stream      a1  b1  a2  c1  b2  d1
    #  batch 1     a1  b1      c1      d1
    #  batch 2             a2      b2
    stream = [placed(name, n, name[0]) for n, name in enumerate(["a1", "b1", "a2", "c1", "b2", "d1"])]
    assert names(batches(stream, Lookahead())) == [["a1", "b1", "c1", "d1"], ["a2", "b2"]]


def test_nothing_overtakes_a_message_that_was_held_back_for_the_same_entity():
    #  ab shares with a, and b1 with ab: b1 must not go before ab although b is free
    stream = [placed("a", 0, "a"), placed("ab", 1, "a", "b"), placed("b1", 2, "b")]
    assert names(batches(stream, Lookahead())) == [["a"], ["ab"], ["b1"]]


def test_a_label_waits_for_its_transaction_and_for_all_of_its_entities():
    label = Placed(5_000, label_item(5_000, "t1", b"", True))
    stream = [placed("t1", 0, "card", "shop"), placed("t2", 1, "other"), label, placed("t3", 6, "shop")]
    assert names(batches(stream, Lookahead())) == [["t1", "t2"], ["t1:fraud"], ["t3"]]


def test_malformed_messages_conflict_with_nothing():
    bad = Placed(1_000, Item(1_000, "transaction", "x", "x", b"", b"{", (), "malformed:broken_json"))
    assert names(batches([placed("t", 0, "a"), bad, bad], Lookahead())) == [["t", "x", "x"]]


def test_a_batch_reaches_no_further_than_allowed():
    far = [placed("a", 0, "a"), placed("b", 10, "b"), placed("c", 100, "c")]
    assert names(batches(far, Lookahead(span_ms=20 * SECOND_MS)))[0][:2] == ["a", "b"]
    assert [
        len(b) for b in batches([placed(str(n), n, str(n)) for n in range(7)], Lookahead(messages=3))
    ] == [3, 3, 1]


streams = st.lists(
    st.tuples(st.sets(st.sampled_from("abcdefgh"), max_size=3), st.integers(0, 40), st.booleans()),
    max_size=60,
)


@given(streams, st.integers(1, 200), st.integers(1, 30))
def test_invariants_of_the_batches(raw, span_s, messages):
    stream, time_s = [], 0
    entities: dict[str, tuple[str, ...]] = {}
    for n, (ids, gap, labelled) in enumerate(raw):
        time_s += gap
        stream.append(placed(f"t{n}", time_s, *sorted(ids)))
        entities[f"t{n}"] = tuple(sorted(ids))
        if labelled:
            label = label_item(time_s * SECOND_MS, f"t{n // 2}", b"", True)._replace(id=f"l{n}")
            stream.append(Placed(label.time_ms, label))
    found = list(batches(stream, Lookahead(span_s * SECOND_MS, messages)))
    assert sorted(p for batch in found for p in batch) == sorted(stream), "each message in one batch"
    touched = {p.item.id: {*entities[p.item.transaction_id], p.item.transaction_id} for p in stream}
    batch_of: dict[tuple[str, int], int] = {}
    for number, batch in enumerate(found):
        assert batch, "no empty batch"
        assert len(batch) <= messages
        seen: set[str] = set()
        for p in batch:
            assert not seen & touched[p.item.id], "no two of a batch share an entity"
            seen |= touched[p.item.id]
            batch_of.setdefault((p.item.id, p.position_ms), number)
    for n, earlier in enumerate(stream):
        for later in stream[n + 1 :]:
            a, b = (batch_of[p.item.id, p.position_ms] for p in (earlier, later))
            if touched[earlier.item.id] & touched[later.item.id]:
                assert a <= b, "in the order of the stream"
            if b < a:
                assert later.position_ms - earlier.position_ms <= span_s * SECOND_MS + 40 * SECOND_MS
