"""The environment: the names that `cordon config` prints are the ones that are read."""

from pathlib import Path

import pytest

from api.config import InvalidConfiguration, ServiceConfig
from cordon.settings import Settings


def test_the_settings_of_the_stack_are_understood():
    settings = Settings(tenant="bank")
    found = ServiceConfig.from_environment(settings.environment())
    assert found.tenant == "bank"
    assert found.secret == settings.secrets.pseudonym.get_secret_value()
    assert found.redis == settings.redis.url
    assert found.redis_timeout_ms == settings.redis.timeout_ms
    assert found.kafka == settings.kafka.bootstrap
    assert found.topics.dead_letters == settings.kafka.dead_letters
    assert found.journal_dir == settings.journal.directory
    assert found.query_store == settings.store_url
    assert (found.warm_dir, found.hot_days) == (settings.tier.warm, settings.tier.hot_days)
    assert found.move_every_s == settings.tier.every_s
    assert (found.host, found.port, found.workers) == (
        settings.service.host, settings.service.port, settings.service.workers)  # fmt: skip
    assert found.body_bytes_max == settings.service.body_bytes_max
    assert found.fast_lane is settings.decide.fast_lane
    assert found.stale_after_ms == settings.decide.stale_after_ms


def test_shipped_rules_are_the_default_and_a_cluster_is_an_address():
    found = ServiceConfig.from_environment(
        {"CORDON_REDIS__URL": "redis://h:1/0", "CORDON_REDIS__CLUSTER": "true"}
    )
    assert found.redis == "cluster://h:1"
    assert found.rules is not None
    assert found.rules.name == "payments.toml"
    other = ServiceConfig.from_environment(
        {"CORDON_CATALOGUE__NAME": "own.py", "CORDON_DECIDE__RULES": "r.toml"}
    )
    assert other.rules == Path("r.toml")


@pytest.mark.parametrize("name", ["CORDON_SERVICE__PORT", "CORDON_DECIDE__CLOCK", "CORDON_DECIDE__FAST_LANE"])
def test_a_wrong_value_is_named(name):
    with pytest.raises(InvalidConfiguration, match=f"{name}=x: write"):
        ServiceConfig.from_environment({name: "x"})
