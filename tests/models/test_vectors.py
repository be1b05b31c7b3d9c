"""Compiled vectors are the evaluator's, bit by bit, and so are refusals; what is unusual is left to it."""

import random
import struct
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import DAY, HOUR, MINUTE, Catalogue, Window, handbook, payments
from features.evaluate import Row
from features.event import Identity
from features.state import DamagedState
from features.store import Target
from models.kernel.vectors import VECTORS, Columns, Sight, Vectors
from tests.features import till
from tests.features.scenario import EPOCH_MS, stream

STATELESS = Catalogue("stateless", till.SCHEMA, tuple(f for f in till.CATALOGUE.features if f.entity is None))
SHOPS = Catalogue("shops", till.SCHEMA, (Window("shop", "max", HOUR, "amount"),))
CATALOGUES = (payments.CATALOGUE, till.CATALOGUE, STATELESS, SHOPS)
PAIRS = {c.name: (Vectors(c, compiled=True), Vectors(c, compiled=False)) for c in CATALOGUES}
STEPS = (0, 1, 999, MINUTE, HOUR, 7 * HOUR, DAY, 9 * DAY)


def every(vectors: Vectors) -> Columns:
    return Columns(range(len(vectors.catalogue.features)))


def said(vectors: Vectors, rows: list[Row]) -> tuple[Any, ...]:
    """What comes out: the bits, the lists and the texts, or the refusal."""
    try:
        matrix, *shown = vectors.of(rows, every(vectors))
    except DamagedState as error:
        return "damaged", str(error)
    except (struct.error, TypeError, ValueError, OverflowError) as error:
        return "refused", type(error)
    return matrix.shape, matrix.tobytes(), repr(shown)


def changed(row: Row, rng: random.Random) -> Row:
    """The row with something missing, repeated, damaged, or of another kind."""
    values, marks = dict(row.values), dict(row.identity.marks)
    entities, states = dict(row.identity.entities), dict(row.states)
    repeated = {name: rng.random() < 0.3 for name in states if rng.random() < 0.5}
    for things in (values, marks, entities, states):
        for name in list(things):
            if rng.random() < 0.05:
                del things[name]
    for name, state in states.items():
        if state and rng.random() < 0.05:
            at = rng.randrange(len(state))
            states[name] = state[:at] + bytes([rng.randrange(256)]) + state[at + 1 :]
        elif rng.random() < 0.05:
            states[name] = rng.choice([None, b"", (state or b"")[:-1], (state or b"") + b"\0", b"\1" * 60])
    if rng.random() < 0.2:
        name = rng.choice([*values, "amount", "items", "how"])
        values[name] = rng.choice([None, True, 3, 2.5, -7, 2**53, 10**15, "web", "", 1e15])
    if marks and rng.random() < 0.1:
        marks[rng.choice([*marks])] = rng.choice([0, 1, 2**63 - 1, -1])
    time_ms = rng.choice([row.time_ms, row.time_ms, 1, EPOCH_MS, 2**52])
    return Row(time_ms, values, Identity(entities, marks), states, repeated)


def test_this_machine_has_the_compiled_form() -> None:
    assert [PAIRS[c.name][0].fallback for c in CATALOGUES] == [None] * len(CATALOGUES)
    done = subprocess.run(
        [sys.executable, "-m", "models.kernel.vectors"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"compiled vectors: {VECTORS.folder}")


@pytest.mark.parametrize("catalogue", [*CATALOGUES, handbook.CATALOGUE], ids=lambda c: str(c.name))
def test_a_stream_gets_the_same_bits(catalogue: Catalogue) -> None:
    if catalogue is handbook.CATALOGUE:
        row = Row(EPOCH_MS, {"amount": 70}, Identity({}, {}), {}, {})
        assert said(Vectors(catalogue), [row]) == said(Vectors(catalogue, compiled=False), [row])
        return
    compiled, reference = Vectors(catalogue), PAIRS[catalogue.name][1]
    rows = stream(catalogue, 5, 1_500, 0.2, STEPS).rows()
    assert said(compiled, rows) == said(reference, rows)
    assert all(said(compiled, [row]) == said(reference, [row]) for row in rows[-200:])
    assert compiled.left == 0


ANY_ROWS = given(
    name=st.sampled_from([c.name for c in CATALOGUES]),
    seed=st.integers(0, 2**32),
    size=st.integers(1, 60),
    damage=st.booleans(),
)


def drawn(name: str, seed: int, size: int, damage: bool) -> list[Row]:
    """A stream's rows, `damage`: with changes."""
    rng = random.Random(seed)
    rows = stream(PAIRS[name][0].catalogue, seed, size, 0.2, rng.sample(STEPS, 3)).rows()
    return [changed(row, rng) for row in rows] if damage else rows


@settings(max_examples=150, deadline=None)
@ANY_ROWS
def test_any_rows_get_the_same_bits_or_the_same_refusal(
    name: str, seed: int, size: int, damage: bool
) -> None:
    compiled, reference = PAIRS[name]
    rows = drawn(name, seed, size, damage)
    assert said(compiled, rows) == said(reference, rows)
    for row in rows:
        assert said(compiled, [row]) == said(reference, [row])


NUMBERS = st.floats() | st.floats(width=32) | st.integers(-(2**60), 2**60)


@settings(max_examples=300, deadline=None)
@given(amounts=st.lists(NUMBERS, min_size=1, max_size=9))
def test_any_number_is_written_as_the_encoder_writes_it(amounts: list[float]) -> None:
    compiled, reference = PAIRS["stateless"]
    left = compiled.left
    rows = [Row(EPOCH_MS, {"amount": amount}, Identity({}, {}), {}, {}) for amount in amounts]
    assert said(compiled, rows) == said(reference, rows)
    assert compiled.left == left


def sight_of(row: Row, catalogue: Catalogue) -> Sight:
    """The row as the store saw it."""
    names = [name for name in catalogue.entities if name in row.states and name in row.identity.entities]
    targets = tuple(Target(name, row.identity.entities[name], b"") for name in names)
    states = tuple(row.states[name] for name in names)
    return row.time_ms, row.values, row.identity, targets, states, tuple(
        bool(row.repeated.get(name)) for name in names
    )  # fmt: skip


@settings(max_examples=100, deadline=None)
@ANY_ROWS
def test_what_the_store_saw_gets_the_same_bits_or_is_left(
    name: str, seed: int, size: int, damage: bool
) -> None:
    compiled, reference = PAIRS[name]
    rows = drawn(name, seed, size, damage)
    found = compiled.compiled([sight_of(row, compiled.catalogue) for row in rows], every(compiled))
    if found is None:
        assert damage
        return
    matrix, *shown = found
    assert (matrix.shape, matrix.tobytes(), repr(shown)) == said(reference, rows)


@pytest.mark.parametrize("names", [("shop", "card"), ("card", "".join(("sh", "op"))), ("card", "nobody")])
def test_targets_in_another_order_or_of_other_names_are_left(names: tuple[str, ...]) -> None:
    compiled = PAIRS["till"][0]
    entities = dict.fromkeys(names, "p")
    targets = tuple(Target(name, "p", b"") for name in names)
    sight: Sight = (EPOCH_MS, {"amount": 1}, Identity(entities, {}), targets, (None, None), (False, False))
    assert compiled.compiled([sight], every(compiled)) is None
    assert PAIRS["till"][1].compiled([sight], every(compiled)) is None


def test_only_wanted_columns_are_given_as_values() -> None:
    rows = stream(payments.CATALOGUE, 7, 40, 0.2, STEPS).rows()
    for compiled in (True, False):
        vectors = Vectors(payments.CATALOGUE, compiled=compiled)
        matrix, everything, texts = vectors.of(rows, every(vectors))
        again, wanted, same = vectors.of(rows, Columns([5, 0, 17]))
        assert (again.tobytes(), same) == (matrix.tobytes(), texts)
        assert wanted == [[row[5], row[0], row[17]] for row in everything]
        assert vectors.of(rows, Columns([]))[1] == [[] for _ in rows]


@pytest.mark.parametrize(
    "row",
    [
        Row(2**70, {"amount": 1}, Identity({}, {}), {}, {}),
        Row(EPOCH_MS, {"amount": "12"}, Identity({}, {}), {}, {}),
        Row(EPOCH_MS, {"amount": 2**70}, Identity({}, {}), {}, {}),
        Row(EPOCH_MS, {"amount": 2.75}, Identity({"card": "c"}, {}), {"card": None}, {}),
        Row(EPOCH_MS, {"amount": 1}, Identity({"card": "c"}, {"shop": 2**64}), {"card": None}, {}),
    ],
    ids=["late", "text", "large", "fraction", "mark"],
)
def test_what_is_unusual_is_left_to_the_evaluator(row: Row) -> None:
    compiled, reference = PAIRS["till"]
    usual = Row(EPOCH_MS, {"amount": 1}, Identity({}, {}), {}, {})
    assert said(compiled, [row]) == said(reference, [row])
    assert said(compiled, [usual, row]) == said(reference, [usual, row])
    assert said(compiled, [usual]) == said(reference, [usual])
