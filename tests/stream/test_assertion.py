"""The aggregate function of the Flink jobs says what each event asserts, byte for byte what Python would."""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from features import sql
from features.catalogue import Catalogue, load
from features.layout import Layout, Observation
from features.library import pack_assertion
from features.state import Assertion, State
from features.tier import DAY, HOUR, MINUTE, TIERS
from tests.stream.drive import Drive

CATALOGUES = [load("payments"), load("handbook")]
START_MS = 1_700_000_000_000
IDS = [f"{number:032x}" for number in range(3)]


@pytest.fixture(scope="module")
def drive() -> Iterator[Drive]:
    with Drive() as one:
        yield one


@dataclass
class Naive:
    """All tiles of one entity, for ever; and how new the store knows it to be."""

    layout: Layout
    tiles: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    newest_ms: int = 0

    def assertion(self, seen: Observation) -> Assertion:
        """What the event touched, without what the store has dropped."""
        touched = []
        for tier, slots in enumerate(self.layout.tiers):
            deltas = [(seen.deltas[s], self.layout.measures[s].grows_by) for s in slots]
            if any(delta for delta, _ in deltas):
                at = (tier, TIERS[tier].tile(seen.time_ms))
                old = self.tiles.get(at, [0] * len(slots))
                self.tiles[at] = [
                    a + d if grows == "add" else max(a, d) for a, (d, grows) in zip(old, deltas, strict=True)
                ]
                touched.append(at)
                self.newest_ms = max(self.newest_ms, at[1] * TIERS[tier].length_ms)
        marks = [(index, mark, seen.time_ms) for index, mark in enumerate(seen.marks) if mark]
        if marks:
            self.newest_ms = max(self.newest_ms, seen.time_ms)
        kept = [at for at in touched if at[1] >= self.layout.oldest(at[0], self.newest_ms)]
        return Assertion(seen.heads, tuple((*at, tuple(self.tiles[at])) for at in kept), tuple(marks))


def observations(layout: Layout, r: random.Random, count: int) -> Iterator[Observation]:
    """Events with ties, gaps of up to a year, late ones of up to two months, absent and huge amounts."""
    now_ms = START_MS
    for number in range(count):
        now_ms += r.choice([0, 1, 900, 20_000, MINUTE, 25 * MINUTE, 5 * HOUR, 3 * DAY])
        if r.random() < 0.01:
            now_ms += r.choice([40 * DAY, 365 * DAY])
        late_ms = r.choice([0, 0, 0, 0, r.randrange(2 * HOUR), r.randrange(2 * DAY), r.randrange(60 * DAY)])
        some = r.choice([0, 1, 1, 1])
        deltas = [some * r.choice([0, 1, r.randrange(100_000), 2**55]) for _ in layout.measures]
        heads = [r.choice([0, now_ms - late_ms, 2**52]) for _ in layout.heads]
        marks = [r.choice([0, 0, r.randrange(1, 2**62)]) for _ in layout.maps]
        yield Observation(number, now_ms - late_ms, tuple(deltas), tuple(heads), tuple(marks))


@pytest.mark.parametrize("catalogue", CATALOGUES, ids=lambda c: c.name)
@pytest.mark.parametrize("seed", range(3))
def test_every_event_asserts_what_it_touched(drive: Drive, catalogue: Catalogue, seed: int) -> None:
    assert drive.ask("layouts", sql.layouts(catalogue)) == "ok"
    r = random.Random(seed)
    commands: list[tuple[object, ...]] = []
    expected = []
    entities: dict[tuple[str, str], Naive] = {}
    for entity, layout in catalogue.layouts.items():
        for seen in observations(layout, r, 400):
            who = r.choice(IDS)
            naive = entities.setdefault((entity, who), Naive(layout))
            slots = ",".join(map(str, (*seen.deltas, *seen.heads, *seen.marks)))
            commands.append(("event", sql.code(catalogue, entity), who, seen.time_ms, slots))
            expected.append(pack_assertion(layout, naive.assertion(seen)).hex() or "-")
    assert drive.ask_all(commands) == expected


@pytest.mark.parametrize("catalogue", CATALOGUES, ids=lambda c: c.name)
def test_merged_one_by_one_the_assertions_are_the_state_of_all_events(catalogue: Catalogue) -> None:
    """What the naive function leaves out, the store leaves out: so dropping tiles loses nothing."""
    for seed in range(5):
        for layout in catalogue.layouts.values():
            naive, state = Naive(layout), State(layout)
            heads = [0] * len(layout.heads)
            marks: dict[tuple[int, int], int] = defaultdict(int)
            for seen in observations(layout, random.Random(seed), 300):
                state.merge(naive.assertion(seen))
                heads = [max(a, b) for a, b in zip(heads, seen.heads, strict=True)]
                for at in ((index, mark) for index, mark in enumerate(seen.marks) if mark):
                    marks[at] = max(marks[at], seen.time_ms)
            at_once = State(layout)
            tiles = tuple((tier, tile, tuple(slots)) for (tier, tile), slots in naive.tiles.items())
            at_once.merge(Assertion(tuple(heads), tiles, tuple((*at, last) for at, last in marks.items())))
            assert state.encode() == at_once.encode()


def test_what_is_kept_is_bounded_by_retention(drive: Drive) -> None:
    catalogue = load("handbook")
    assert drive.ask("layouts", sql.layouts(catalogue)) == "ok"
    layout = catalogue.layouts["terminal"]
    code = sql.code(catalogue, "terminal")
    slots = ",".join(["1"] * (len(layout.measures) + len(layout.heads) + len(layout.maps)))
    hours: list[tuple[object, ...]] = [
        ("event", code, "old", START_MS + n * HOUR, slots) for n in range(3_000)
    ]
    drive.ask_all(hours[:1_500])
    half = [int(word) for word in str(drive.ask("kept", code, "old")).split(" ")]
    drive.ask_all(hours[1_500:])
    whole = [int(word) for word in str(drive.ask("kept", code, "old")).split(" ")]
    tiles = sum(
        (keep // max(HOUR, tier.length_ms)) + 64 for tier, keep in zip(TIERS, layout.keep_ms, strict=True)
    )
    assert whole[0] <= tiles * (4 + 8 * len(layout.measures))
    assert whole[0] <= 1.1 * half[0]
    drive.ask("event", code, "old", START_MS + 2_000 * DAY, slots)
    assert [int(word) for word in str(drive.ask("kept", code, "old")).split(" ")][1] == 0


def test_a_position_passes_with_its_three_numbers(drive: Drive) -> None:
    packed = b"".join(number.to_bytes(8, "little") for number in (3, 77, START_MS)).hex()
    for _ in range(2):
        assert drive.ask("event", 0, "lane", START_MS, f"3,77,{START_MS}") == packed


def test_a_sum_that_would_pass_its_64_bits_stays_there(drive: Drive) -> None:
    catalogue = load("handbook")
    assert drive.ask("layouts", sql.layouts(catalogue)) == "ok"
    layout = catalogue.layouts["customer"]
    slots = ",".join([str(2**63 - 1)] * len(layout.measures) + ["0"] * (len(layout.heads) + len(layout.maps)))
    said = [drive.ask("event", sql.code(catalogue, "customer"), "rich", START_MS, slots) for _ in range(3)]
    assert "fe" + "ff" * 7 in said[1]
    assert "ff" * 8 in said[2]
