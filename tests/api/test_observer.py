"""The shared computation of observations equals that of every layout by itself."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.observer import Observer
from features import FRAUD, load
from features.measure import TRANSACTION, WITHDRAWN
from features.payments import CATEGORIES, CHANNELS, LIFECYCLE

SOURCES = [TRANSACTION, FRAUD, WITHDRAWN, *LIFECYCLE]
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "amount": st.integers(0, 10**8),
        "channel": st.sampled_from(CHANNELS),
        "category": st.sampled_from(CATEGORIES),
    },
)
MARKS = st.dictionaries(
    st.sampled_from(["place", "device", "merchant", "card", "ip_country", "billing_country"]),
    st.integers(1, 2**30 - 1),
)


@pytest.mark.parametrize("name", ["payments", "handbook"])
@settings(max_examples=150, deadline=None)
@given(source=st.sampled_from(SOURCES), values=VALUES, marks=MARKS, time_ms=st.integers(1, 2**42))
def test_equal_to_each_layout_s_own(name, source, values, marks, time_ms):
    catalogue = load(name)
    expected = [
        (entity, layout.observation(7, source, time_ms, values, marks))
        for entity, layout in catalogue.layouts.items()
    ]
    assert Observer(catalogue).observations(7, source, time_ms, values, marks) == expected
