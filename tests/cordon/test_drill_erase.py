"""A small version of `cordon drill erase`: without Flink."""

from pathlib import Path

import pytest

from cordon.drill.erased import drill

pytestmark = [pytest.mark.parts, pytest.mark.long, pytest.mark.timeout(420)]


def test_a_subject_is_readable_before_and_nowhere_after(tmp_path: Path) -> None:
    found = drill(tmp_path, lambda line: None, flink=False)
    assert found.holds, found.as_json()
    assert found.readable_before == 28
    assert found.plain_before == ["topic of transactions"]
    assert found.receipt["letters"] == 2
