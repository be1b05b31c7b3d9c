"""Generated histories of the payments world in miniature: few entities, so that everything collides."""

from collections.abc import Mapping
from dataclasses import dataclass

from hypothesis import strategies as st

from features.measure import FRAUD, TRANSACTION, WITHDRAWN, Scalar
from features.payments import CATEGORIES, CHANNELS, LIFECYCLE
from features.tier import DAY, HOUR, MINUTE

START_MS = 20_000 * DAY


@dataclass(frozen=True, slots=True)
class Step:
    """One event in order of arrival; `of` is the index of the transaction that it follows, or its own."""

    source: str
    time_ms: int
    of: int
    amount: int | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """Transactions by index, and all events in order of arrival."""

    transactions: tuple[Mapping[str, Scalar], ...]
    steps: tuple[Step, ...]


def _sometimes(values: list[str]) -> st.SearchStrategy[str | None]:
    return st.sampled_from([*values, None])


@st.composite
def fields(draw: st.DrawFn) -> dict[str, Scalar]:
    """A payment's fields, absent ones left out."""
    placed = draw(st.booleans())
    drawn: dict[str, Scalar | None] = {
        "amount": draw(st.sampled_from([0, 1, 999, 1_000, 100_000_000]) | st.integers(0, 50_000)),
        "currency": "EUR",
        "card": draw(_sometimes(["c1", "c2"])),
        "customer": draw(_sometimes(["k1"])),
        "merchant": draw(st.sampled_from(["m1", "m2", "m3"])),
        "terminal": draw(_sometimes(["t1"])),
        "device": draw(_sometimes([f"d{i}" for i in range(40)])),
        "ip": draw(_sometimes(["10.0.0.1"])),
        "email": draw(_sometimes(["a@example.com"])),
        "channel": draw(st.sampled_from(CHANNELS)),
        "category": draw(st.sampled_from(CATEGORIES)),
        "ip_country": draw(_sometimes(["DE", "VN"])),
        "billing_country": draw(_sometimes(["DE", "FR"])),
        "latitude": draw(st.floats(-90, 90)) if placed else None,
        "longitude": draw(st.floats(-180, 180)) if placed else None,
    }
    return {name: value for name, value in drawn.items() if value is not None}


@st.composite
def stories(draw: st.DrawFn, size_max: int = 40) -> Story:
    """Ties, gaps of days, bounded lateness, labels given and taken back, lifecycle events."""
    transactions: list[Mapping[str, Scalar]] = []
    steps: list[Step] = []
    clock = START_MS
    for _ in range(draw(st.integers(1, size_max))):
        clock += draw(
            st.sampled_from([0, 0, 1, 500, 59_999, MINUTE, HOUR - 1, 6 * HOUR, DAY, 8 * DAY, 31 * DAY])
        )
        late = draw(st.sampled_from([0, 0, 0, 1, 30_000, HOUR, 2 * HOUR]))
        kind = draw(st.sampled_from([TRANSACTION] * 5 + [FRAUD, WITHDRAWN, *LIFECYCLE]))
        if kind == TRANSACTION or not transactions:
            steps.append(Step(TRANSACTION, clock - late, len(transactions)))
            transactions.append(draw(fields()))
        else:
            of = draw(st.integers(0, len(transactions) - 1))
            amount = draw(st.sampled_from([None, 0, 250])) if kind in LIFECYCLE else None
            steps.append(Step(kind, clock - late, of, amount))
    return Story(tuple(transactions), tuple(steps))
