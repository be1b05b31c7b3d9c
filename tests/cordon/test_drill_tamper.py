"""The drill that damages a journal, small: two thousand decisions, two sound journals, two torn ones."""

import pytest

from cordon.drill.tamper import Drill


@pytest.mark.long
def test_every_damage_is_named_and_nothing_else(tmp_path):
    said: list[str] = []
    found = Drill(tmp_path, 2_000, 5, said.append, journals=2).run()
    assert found.holds, (found, said)
    assert found.as_json() | {"damages": 7, "found": 7, "false_alarms": 0} == found.as_json()
    assert {each.expected.sort for each in found.named} == {
        "changed", "removed", "reordered", "inserted", "truncated", "segment_deleted", "foreign_key",
    }  # fmt: skip
