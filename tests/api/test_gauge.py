"""Freshness: asked with what is sent anyway, waited for only where too little follows."""

import pytest

from api.gauge import OLD, FreshnessGauge
from features.handbook import CATALOGUE
from features.memory_store import MemoryStore
from features.store import StoreUnavailable

EVERY_MS = 100


class Told(MemoryStore):
    """A store that is rebuilding or not, and counts round trips; `lost`: what was inquired, next time."""

    def __init__(self):
        super().__init__(CATALOGUE.layouts, lambda: 0)
        self.building, self.lost, self.trips = False, False, 0

    def rebuilding(self):
        self.trips += 1
        return self.building

    def inquired(self):
        if self.lost:
            self.lost = False
            raise StoreUnavailable("the connection was lost")
        asked, self._asked = self._asked, False
        return (self.building, {}) if asked else None


@pytest.fixture
def gauge():
    return FreshnessGauge(Told(), stale_after_ms=1_000, every_ms=EVERY_MS)


def test_what_is_asked_is_known_with_the_next_batch_and_costs_no_round_trip(gauge):
    gauge.follow(10_000)
    gauge.store.building = True
    gauge.follow(10_000 + EVERY_MS)
    assert gauge.read().state == "fresh"
    gauge.follow(10_001 + EVERY_MS)
    assert (gauge.read().state, gauge.store.trips) == ("rebuilding", 1)


def test_where_too_little_follows_it_is_waited_for(gauge):
    gauge.follow(10_000)
    gauge.store.building = True
    gauge.follow(10_000 + OLD * EVERY_MS)
    assert (gauge.read().state, gauge.store.trips) == ("rebuilding", 2)


def test_a_question_that_was_lost_is_asked_again(gauge):
    gauge.follow(10_000)
    gauge.follow(10_000 + EVERY_MS)
    gauge.store.lost = gauge.store.building = True
    gauge.follow(10_000 + 2 * EVERY_MS)
    gauge.follow(10_001 + 2 * EVERY_MS)
    assert gauge.read().state == "rebuilding"


def test_of_another_life_of_the_store_nothing_is_known(gauge):
    gauge.follow(10_000)
    gauge.store.building = True
    gauge.forget()
    gauge.follow(10_001)
    assert (gauge.read().state, gauge.store.trips) == ("rebuilding", 2)
