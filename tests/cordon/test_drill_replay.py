"""`cordon drill replay`, small: a service restarted with another champion; planted changes are named."""

import pytest

from cordon.drill.replayed import drill

pytestmark = [pytest.mark.parts, pytest.mark.long]


def test_past_decisions_are_the_same_after_a_restart_and_planted_changes_are_named(tmp_path):
    found = drill(tmp_path, 300, lambda _: None)
    assert (found.replayed, found.different) == (300, 0), found.differences
    assert found.named == ("rule", "list", "model")
    assert found.holds
    assert found.outcomes["approve"] > 0
    assert found.outcomes["challenge"] + found.outcomes["decline"] > 0
