"""Cities with coordinates and time zones, and the share of customers that lives in each country."""

from dataclasses import dataclass

import numpy as np

from stream.world.rows import Array
from stream.world.vocabulary import COUNTRIES, HOME_COUNTRIES

_CITIES: tuple[tuple[str, str, float, float, float], ...] = (
    # country, city, latitude, longitude, weight inside the country
    ("DE", "Berlin", 52.520, 13.405, 4.0),
    ("DE", "Hamburg", 53.551, 9.994, 2.0),
    ("DE", "Munich", 48.137, 11.575, 2.0),
    ("FR", "Paris", 48.857, 2.352, 4.0),
    ("FR", "Lyon", 45.764, 4.836, 1.5),
    ("FR", "Marseille", 43.297, 5.381, 1.5),
    ("ES", "Madrid", 40.417, -3.704, 3.0),
    ("ES", "Barcelona", 41.385, 2.173, 2.0),
    ("IT", "Rome", 41.903, 12.496, 3.0),
    ("IT", "Milan", 45.464, 9.190, 2.0),
    ("NL", "Amsterdam", 52.368, 4.904, 2.0),
    ("NL", "Rotterdam", 51.924, 4.478, 1.0),
    ("AT", "Vienna", 48.208, 16.374, 1.0),
    ("GB", "London", 51.507, -0.128, 4.0),
    ("GB", "Manchester", 53.481, -2.243, 1.5),
    ("PL", "Warsaw", 52.230, 21.012, 2.0),
    ("PL", "Krakow", 50.065, 19.945, 1.0),
    ("US", "New York", 40.713, -74.006, 1.0),
    ("JP", "Tokyo", 35.690, 139.692, 1.0),
)

_HOME_SHARE = {"DE": 0.28, "FR": 0.19, "ES": 0.12, "IT": 0.12, "NL": 0.08, "AT": 0.04, "GB": 0.12, "PL": 0.05}
_UTC_OFFSET_H = {"GB": 0, "US": -5, "JP": 9, "RO": 2, "BR": -3, "VN": 7, "TR": 3}
_MEDIAN_INCOME_EUR = {
    "DE": 2500,
    "FR": 2300,
    "ES": 1900,
    "IT": 1950,
    "NL": 2700,
    "AT": 2450,
    "GB": 2500,
    "PL": 1350,
}

CITY_COUNTRY = np.array([COUNTRIES.index(city[0]) for city in _CITIES], np.int64)
CITY_PLACE = np.array([city[2:4] for city in _CITIES])
UTC_OFFSET_H = np.array([_UTC_OFFSET_H.get(country, 1) for country in COUNTRIES], np.int64)
"""Hours ahead of UTC by country code, winter time all year round."""
MEDIAN_INCOME_EUR = np.array([_MEDIAN_INCOME_EUR.get(country, 2000) for country in COUNTRIES], np.float64)
"""Median net income per month by country code."""

_WEIGHT = np.array([city[4] for city in _CITIES])
_COUNTRY_WEIGHT = np.array([_WEIGHT[code == CITY_COUNTRY].sum() for code in range(len(COUNTRIES))])
HOME_CITY_SHARE = np.array(
    [
        _HOME_SHARE.get(city[0], 0.0) * city[4] / _COUNTRY_WEIGHT[CITY_COUNTRY[i]]
        for i, city in enumerate(_CITIES)
    ]
)
"""Share of customers that live in each city; sums to 1."""

assert set(_HOME_SHARE) == set(HOME_COUNTRIES)


@dataclass(frozen=True, slots=True)
class Journeys:
    """Trips, sorted by customer and start: who is away, from when to when, in which city."""

    customer: Array
    start_ms: Array
    end_ms: Array
    city: Array
    horizon_ms: int  # exclusive bound of every time relative to `origin_ms`
    origin_ms: int

    def city_at(self, customer: Array, time_ms: Array) -> Array:
        """The city where each customer is travelling at that time, or -1 for at home."""
        if not len(self.customer):
            return np.full(len(customer), -1, np.int64)
        key = self.customer.astype(np.int64) * self.horizon_ms + (self.start_ms - self.origin_ms)
        wanted = customer.astype(np.int64) * self.horizon_ms + np.clip(
            time_ms - self.origin_ms, 0, self.horizon_ms - 1
        )
        trip = np.searchsorted(key, wanted, side="right") - 1
        at = np.maximum(trip, 0)
        away = (trip >= 0) & (self.customer[at] == customer) & (time_ms < self.end_ms[at])
        return np.where(away, self.city[at], -1)
