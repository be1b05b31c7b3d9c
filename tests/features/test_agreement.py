"""Oracle and online evaluation agree, bit for bit, on whatever arrives in whatever order."""

import struct
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings

from features import Catalogue, payments
from features.evaluate import Evaluator, Row
from features.event import identify
from features.library import Packing
from features.measure import FRAUD, TRANSACTION, WITHDRAWN
from features.memory_store import MemoryStore
from features.oracle import Happening, Oracle
from features.pseudonym import Pseudonyms
from features.store import Arrival
from tests.features.happenings import Story, stories

NAMES = Pseudonyms("t", b"k" * 32)
EVALUATOR = Evaluator(payments.CATALOGUE)


def online(catalogue: Catalogue, story: Story) -> list[list[float | None]]:
    """The vectors of the story's transactions, one arrival at a time."""
    store = MemoryStore(catalogue.layouts, clock=lambda: 0)
    found = []
    for number, step in enumerate(story.steps):
        values = story.transactions[step.of]
        who = identify(catalogue, NAMES, values)
        if step.source not in (TRANSACTION, FRAUD, WITHDRAWN):
            values = {**values, "amount": step.amount}
        present = [e for e in catalogue.layouts if e in who.entities]
        targets = tuple(
            Packing(catalogue).target(
                e,
                who.entities[e],
                catalogue.layouts[e].observation(number + 1, step.source, step.time_ms, values, who.marks),
            )
            for e in present
        )
        arrival = Arrival(f"tx:{number}", b"c" * 16, b"o" * 16, b"", targets)
        (seen,) = store.arrive([arrival], now_ms=0, deadline_ms=1)
        if step.source == TRANSACTION:
            states = dict(zip(present, seen.states, strict=True))
            row = Row(step.time_ms, values, who, states, dict.fromkeys(present, False))
            found.append([None if np.isnan(x) else float(x) for x in EVALUATOR.vectors([row])[0]])
    return found


def expected(catalogue: Catalogue, story: Story) -> list[list[float | None]]:
    """The same by the oracle."""
    oracle = Oracle(catalogue.schema, NAMES.mark)
    found = []
    for step in story.steps:
        values = story.transactions[step.of]
        keys = {e: k for e, k in oracle.keys(values).items() if e in catalogue.layouts}
        if step.source not in (TRANSACTION, FRAUD, WITHDRAWN):
            values = {**values, "amount": step.amount}
        event = Happening(step.source, step.time_ms, values)
        before = oracle.observe(event, keys)
        if step.source == TRANSACTION:
            found.append(oracle.vector(catalogue.features, event, keys, before))
    return found


def differences(names: Sequence[str], a: list[list[float | None]], b: list[list[float | None]]) -> list[str]:
    return [
        f"row {i} {name}: {x!r} != {y!r}"
        for i, (left, right) in enumerate(zip(a, b, strict=True))
        for name, x, y in zip(names, left, right, strict=True)
        if (x is None) != (y is None) or (x is not None and y is not None and bits(x) != bits(y))
    ]


def bits(value: float) -> bytes:
    return struct.pack("<f", value)


@settings(max_examples=150, deadline=None)
@given(stories())
def test_online_evaluation_equals_the_oracle(story: Story) -> None:
    catalogue = payments.CATALOGUE
    assert differences(catalogue.names, online(catalogue, story), expected(catalogue, story)) == []
