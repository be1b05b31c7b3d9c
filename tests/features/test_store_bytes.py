"""The functions in Lua, those in C and `features.state` are one implementation: equal bytes, always."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cordon.stack.valkey import Valkey
from features import Catalogue, Distinct, Entity, Field, Gap, Novelty, Schema, Speed, Window, load
from features.layout import Layout, Observation
from features.library import EXACT, Keys, Packing, function_name, library, pack_assertion, sections
from features.measure import Head, Measure, Scalar, Where
from features.memory_store import MemoryStore
from features.merger import merger
from features.node import info
from features.observer import observer
from features.redis_store import connect
from features.resp import Address, Connection
from features.schema import SchemaError
from features.state import Assertion, State
from features.store import Arrival, OnlineStore, StoreMisused
from features.tier import DAY, HOUR, MINUTE, TIERS
from tests.features.stores import NOON, TENANT, pseudonym, wall_ms

# Small windows and every kind of slot, so that trimming happens within a few operations.
DENSE = Catalogue(
    "dense",
    Schema(
        name="dense",
        fields=(
            Field("card", "text", required=True),
            Field("shop", "text"),
            Field("device", "text"),
            Field("amount", "amount", required=True),
            Field("latitude", "number"),
            Field("longitude", "number"),
        ),
        entities=(Entity("card", ("card",)), Entity("shop", ("shop",))),
        primary="card",
        subject="card",
        latitude="latitude",
        longitude="longitude",
        lateness_ms=MINUTE,
    ),
    (
        Window("card", "max", 5 * MINUTE, "amount"),
        Window("card", "count", 10 * MINUTE),
        Window("card", "std", 7 * HOUR, "amount"),
        Window("card", "sum", 7 * DAY, "amount"),
        Speed("card"),
        Gap("card"),
        Novelty("card", "device", 1 * HOUR),
        Distinct("card", "shop", 2 * HOUR),
        Window("shop", "count", 1 * HOUR, delay_ms=1 * HOUR),
    ),
)
CATALOGUES = {"dense": DENSE, "payments": load("payments"), "handbook": load("handbook")}
PLACES = st.integers(0, 2**63 - 1)
MARKS = st.one_of(st.integers(1, 6), st.integers(1, 2**63 - 1))
# Around the limits of 32 bits and of doubles; thirty of them stay below 2^64.
NUMBERS = st.one_of(
    st.just(0),
    st.integers(0, 100),
    st.integers(2**32 - 3, 2**32 + 3),
    st.integers(2**53 - 3, 2**53 + 3),
    st.sampled_from([2**31, 2**53 + 2**31]),
    st.integers(0, 2**58),
)
TIMES = st.one_of(
    st.sampled_from([NOON, NOON + 1]),
    st.integers(NOON - 10 * MINUTE, NOON + 10 * MINUTE),
    st.integers(NOON - 9 * HOUR, NOON + 9 * HOUR),
    st.integers(NOON - 40 * DAY, NOON + 40 * DAY),
)
# Every generated case has keys of its own.
RUNS = count()


@dataclass(frozen=True, slots=True)
class Step:
    """One change of one of two entities of a kind."""

    entity: str
    which: int
    change: Observation | Assertion


@st.composite
def observations(draw: st.DrawFn, layout: Layout) -> Observation:
    time_ms = draw(TIMES)
    deltas = draw(
        st.one_of(
            st.just((0,) * len(layout.measures)),
            st.tuples(*(NUMBERS for _ in layout.measures)),
        )
    )
    heads = tuple(draw(st.sampled_from([0, time_ms]) if h.kind == "time" else PLACES) for h in layout.heads)
    marks = tuple(draw(st.one_of(st.just(0), MARKS)) for _ in layout.maps)
    return Observation(draw(st.one_of(st.integers(1, 5), MARKS)), time_ms, deltas, heads, marks)


@st.composite
def assertions(draw: st.DrawFn, layout: Layout) -> Assertion:
    tiles = []
    for tier, slots in enumerate(layout.tiers):
        for _ in range(draw(st.integers(0, 4)) if slots else 0):
            tiles.append((tier, TIERS[tier].tile(draw(TIMES)), draw(st.tuples(*(NUMBERS for _ in slots)))))
    seen = [
        (index, draw(MARKS), draw(TIMES))
        for index in range(len(layout.maps))
        for _ in range(draw(st.integers(0, 3)))
    ]
    heads = tuple(draw(TIMES if h.kind == "time" else PLACES) for h in layout.heads)
    return Assertion(draw(st.sampled_from([(), heads])), tuple(tiles), tuple(seen))


def steps(catalogue: Catalogue) -> st.SearchStrategy[list[Step]]:
    def of(entity: str) -> st.SearchStrategy[Step]:
        layout = catalogue.layouts[entity]
        change = st.one_of(observations(layout), assertions(layout))
        return st.builds(Step, st.just(entity), st.integers(0, 1), change)

    return st.lists(st.one_of([of(entity) for entity in catalogue.entities]), min_size=1, max_size=25)


@pytest.fixture(scope="module", params=sorted(CATALOGUES))
def catalogue(request: pytest.FixtureRequest) -> Catalogue:
    return CATALOGUES[request.param]


@pytest.fixture(params=["valkey", "valkey_lua"])
def node(request: pytest.FixtureRequest) -> Valkey:
    node: Valkey = request.getfixturevalue(request.param)
    return node


@pytest.fixture
def store(catalogue: Catalogue, node: Valkey) -> Iterator[OnlineStore]:
    opened = connect(f"unix://{node.socket}", catalogue, TENANT)
    yield opened
    opened.close()


def apply(packing: Packing, stores: Sequence[OnlineStore], run: str, number: int, step: Step) -> None:
    """The same change to each store; the same answers and bytes from each."""
    who = pseudonym(f"{run} {step.which}")
    answers: list[object] = []
    for store in stores:
        if isinstance(step.change, Observation):
            target = packing.target(step.entity, who, step.change)
            event = Arrival(f"tx:{run} {number}", b"c" * 16, b"o" * 16, b"", (target,))
            answers.append(store.arrive([event], now_ms=wall_ms(), deadline_ms=wall_ms() + 10_000))
        else:
            store.merge(step.entity, [(who, step.change)])
    assert answers[1:] == answers[:-1]
    held = [store.read(step.entity, [who])[0] for store in stores]
    assert held[0] == held[1]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_changes_leave_the_same_bytes(
    data: st.DataObject, catalogue: Catalogue, store: OnlineStore
) -> None:
    changes = data.draw(steps(catalogue))
    run = f"run {next(RUNS)}"
    reference = MemoryStore(catalogue.layouts, wall_ms)
    for number, step in enumerate(changes):
        apply(Packing(catalogue), (reference, store), run, number, step)


@st.composite
def echoes(draw: st.DrawFn, state: State) -> Assertion:
    """What a state holds, or nearly: the jobs assert what the decision path counted, at times more."""

    def near(value: int) -> int:
        return max(0, value + draw(st.sampled_from([0, 0, 0, 0, -1, 1, 2**53])))

    few = st.integers(0, 2)
    tiles = [
        (tier, tile + draw(st.sampled_from([0, 0, 0, 1])), tuple(map(near, held[tile])))
        for tier, held in enumerate(state.tiers)
        for tile in sorted(held)[len(held) - draw(few) :]
    ]
    seen = [
        (index, mark, max(0, held[mark] + draw(st.sampled_from([0, 0, -1, 1]))))
        for index, held in enumerate(state.maps)
        for mark in draw(st.permutations(sorted(held)))[: draw(few)]
    ]
    heads = tuple(max(0, value + draw(st.sampled_from([0, 0, -1, 1]))) for value in state.heads)
    return Assertion(draw(st.sampled_from([(), heads])), tuple(draw(st.permutations(tiles))), tuple(seen))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_a_state_holds_already_is_asserted_again(
    data: st.DataObject, catalogue: Catalogue, store: OnlineStore
) -> None:
    run, changes = f"echo {next(RUNS)}", data.draw(steps(catalogue))
    reference = MemoryStore(catalogue.layouts, wall_ms)
    for number, step in enumerate(changes):
        apply(Packing(catalogue), (reference, store), run, number, step)
        who = pseudonym(f"{run} {step.which}")
        held = reference.read(step.entity, [who])[0]
        state = State.decode(catalogue.layouts[step.entity], held)
        apply(
            Packing(catalogue),
            (reference, store),
            run,
            number,
            Step(step.entity, step.which, data.draw(echoes(state))),
        )


def writes(connection: Connection) -> int:
    """The server's own count of changes, whoever made them."""
    return int(info(connection, "persistence")["rdb_changes_since_last_save"])


def test_of_all_that_is_asserted_again_nothing_is_written(catalogue: Catalogue, node: Valkey) -> None:
    store, connection = connect(node.url, catalogue, TENANT), Connection(Address.parse(node.url))
    for entity, layout in catalogue.layouts.items():
        tiles = tuple(
            (i, TIERS[i].tile(NOON), (7,) * len(slots)) for i, slots in enumerate(layout.tiers) if slots
        )
        seen = tuple((j, 7, NOON) for j in range(len(layout.maps)))
        asserted = Assertion((NOON,) * len(layout.heads), tiles, seen)
        store.merge(entity, [("who", asserted)])
        before = writes(connection)
        store.merge(entity, [("who", asserted)] * 3)
        assert writes(connection) == before
        store.merge(entity, [("who else", asserted)])
        assert writes(connection) > before
    store.close()
    connection.close()


@pytest.mark.parametrize("damage", [b"\x63", b"\x00", b"\x00\x01\x02\x03\x04\x05", b"\x02" + bytes(9)])
def test_rows_that_are_none_are_refused_and_change_nothing(
    damage: bytes, catalogue: Catalogue, store: OnlineStore, node: Valkey
) -> None:
    entity, layout = next(iter(catalogue.layouts.items()))
    good = pack_assertion(layout, Assertion((), ((0, TIERS[0].tile(NOON), (7,) * len(layout.tiers[0])),)))
    keys, connection = Keys(TENANT, catalogue.state_fingerprint), Connection(Address.parse(node.url))
    store.read(entity, ["who"])
    key, merge = keys.state(entity, "who"), function_name(catalogue, "merge", entity)
    for rows in (damage, good + damage):
        with pytest.raises(StoreMisused, match="no row of this layout"):
            connection.call("FCALL", merge, 1, key, rows)
        assert connection.call("GET", key) is None
    connection.close()


@pytest.mark.parametrize("seed", range(3))
def test_a_long_life_leaves_the_same_bytes(catalogue: Catalogue, store: OnlineStore, seed: int) -> None:
    """Time goes on, tiles expire, maps overflow; numbers are those of purchases."""
    rng = Random(seed)
    reference = MemoryStore(catalogue.layouts, wall_ms)
    entities = catalogue.entities
    for number in range(1_500):
        entity = rng.choice(entities)
        layout = catalogue.layouts[entity]
        time_ms = NOON + number * 20_000 - int(rng.expovariate(1 / HOUR)) + rng.choice([0, 0, 0, DAY])
        if rng.random() < 0.8:
            amount = rng.randrange(1, 5_000_000)
            values: dict[str, Scalar] = {"amount": amount, "channel": "ecom"}
            marks = {m.field: rng.randrange(1, 60) for m in layout.maps if rng.random() < 0.9}
            marks["place"] = rng.randrange(2**30)
            change: Observation | Assertion = layout.observation(
                rng.randrange(1, 2**63), "transaction", time_ms, values, marks
            )
        else:
            tiles = tuple(
                (
                    i,
                    TIERS[i].tile(time_ms - k * TIERS[i].length_ms),
                    tuple(rng.randrange(2**40) for _ in slots),
                )
                for i, slots in enumerate(layout.tiers)
                if slots
                for k in range(rng.randrange(4))
            )
            seen = tuple(
                (j, rng.randrange(1, 60), time_ms - k) for j in range(len(layout.maps)) for k in range(3)
            )
            change = Assertion((), tiles, seen)
        apply(Packing(catalogue), (reference, store), f"long {seed}", number, Step(entity, 0, change))


def test_a_mark_is_found_only_where_a_mark_begins(catalogue: Catalogue, store: OnlineStore) -> None:
    """Marks that look like times, or lie across two entries."""
    reference = MemoryStore(catalogue.layouts, wall_ms)
    entity = next(name for name, layout in catalogue.layouts.items() if layout.maps)
    layout = catalogue.layouts[entity]
    across = int.from_bytes((1).to_bytes(8, "little")[4:] + NOON.to_bytes(8, "little")[:4], "little")
    for number, mark in enumerate([1, NOON, across, NOON + 1, NOON + 2, 1, NOON]):
        marks = tuple(mark for _ in layout.maps)
        nothing = (0,) * len(layout.measures), (0,) * len(layout.heads)
        change = Observation(number + 1, NOON + number, *nothing, marks)
        apply(Packing(catalogue), (reference, store), "marks", number, Step(entity, 0, change))
    for number, mark in enumerate([NOON + 3, NOON + 4]):
        entry = Assertion((), (), ((0, mark, NOON + 9 + number),))
        apply(Packing(catalogue), (reference, store), "marks", number, Step(entity, 0, entry))


@pytest.mark.parametrize("name", sorted(CATALOGUES))
def test_rows_of_a_merge_have_the_sizes_that_the_sections_say(name: str) -> None:
    for layout in CATALOGUES[name].layouts.values():
        for section in sections(layout):
            match section.kind:
                case "tile":
                    asserted = Assertion((), ((section.index, 5, (7,) * section.slots),))
                case "seen":
                    asserted = Assertion((), (), ((section.index, 5, 7),))
                case "head":
                    asserted = Assertion(tuple(int(h == section.index) for h in range(len(layout.heads))))
            row = pack_assertion(layout, asserted)
            assert row[0] == section.code
            assert len(row) == section.size


@pytest.mark.parametrize(
    "wrong",
    [
        Assertion((), ((0, 1, (1,)),)),
        Assertion((), ((0, 2**32, (0,) * 9),)),
        Assertion((), (), ((0, 1, EXACT),)),
        Assertion((), (), ((0, 2**64, 1),)),
        Assertion((0, EXACT, 0)),
        Assertion((), ((1, 1, ()),)),
    ],
    ids=["slots", "tile", "time", "mark", "head", "tier"],
)
def test_what_is_no_assertion_of_the_layout_is_refused(wrong: Assertion) -> None:
    with pytest.raises(ValueError, match=r"is no time|not an assertion of this layout"):
        pack_assertion(CATALOGUES["payments"].layouts["card"], wrong)


@pytest.mark.parametrize("name", sorted(CATALOGUES))
def test_the_library_is_a_function_of_the_state_fingerprint(name: str) -> None:
    catalogue = CATALOGUES[name]
    source = library(catalogue)
    assert source.startswith(f"#!lua name=cordon_{catalogue.state_fingerprint}_r")
    assert "@" not in source.replace("fills in @...@", "")
    assert State(next(iter(catalogue.layouts.values()))).encode()


def wide(measures: int) -> Layout:
    """A layout of counts, each of another category."""
    counts = tuple(Measure("transaction", "count", None, (Where("shop", (i,)),)) for i in range(measures))
    return Layout("card", counts, (tuple(range(measures)),) * 3, (HOUR, DAY, DAY), (Head("time"),))


def test_as_many_measures_as_promised_fit_into_a_function(valkey: Valkey) -> None:
    most = max(n for n in range(1, 200) if fits(wide(n)))
    assert most >= 50
    source = """#!lua name=wide
local read, pack, sub, byte, grown, locate, expire, floor, EXACT, LAYOUTS, max8, joined, merge, error
"""
    connection = Connection(Address.parse(valkey.url))
    functions = observer(wide(most), 1) + merger(wide(most), 1)
    loaded = functions + "redis.register_function{function_name='wide', callback=observe_1 or merge_1}"
    assert connection.call("FUNCTION", "LOAD", source + loaded) == b"wide"
    connection.close()


def fits(layout: Layout) -> bool:
    try:
        return bool(observer(layout, 1) and merger(layout, 1))
    except SchemaError:
        return False


def test_an_entity_with_too_many_measures_is_refused() -> None:
    with pytest.raises(SchemaError, match="divide the features among more entities"):
        observer(wide(200), 1)
