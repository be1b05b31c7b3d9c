"""A small version of `cordon drill service`."""

from pathlib import Path

from cordon.drill.service import drill
from cordon.parity import Plan
from features.tier import DAY
from stream.world.spec import WorldSpec
from stream.world.world import generate, write_history

TRANSACTIONS = 1_200


def test_what_was_answered_is_recorded_once_although_the_service_dies(tmp_path: Path):
    world = generate(WorldSpec(customers=800, days=2), seed=5)
    path = tmp_path / "world.parquet"
    write_history(world, path)
    plan = Plan(
        "payments",
        path,
        until_ms=world.transactions["time"][TRANSACTIONS].as_py(),
        settings={"catalogue": {"name": "payments", "lateness_ms": DAY}},
    )
    found = drill(plan, tmp_path / "stack", kills=2, up_s=1.5, rate=120.0, say=lambda line: None)
    assert found.holds, found
    assert found.kills == 2
    assert found.answered == TRANSACTIONS
    assert found.retries > 0
