"""Merchants: shops with terminals in cities and web shops of countries, popular by a power law."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from stream.world.geography import CITY_COUNTRY, CITY_PLACE, HOME_CITY_SHARE
from stream.world.rows import ABSENT, Array
from stream.world.spec import WorldSpec
from stream.world.tokens import mix
from stream.world.trades import TRADES, column
from stream.world.vocabulary import (
    CATEGORIES,
    COUNTRIES,
    COUNTRY_CURRENCY,
    CURRENCIES,
    CURRENCY_EXPONENT,
    MERCHANT_COUNTRIES,
    UNITS_PER_EURO,
)

_ZIPF = 1.05
_LIST_PRICES = 12  # entries of one merchant's price list
_QUANTILES = np.array([NormalDist().inv_cdf((i + 0.5) / 1024) for i in range(1024)])

CURRENCY_OF_COUNTRY = np.array(
    [CURRENCIES.index(COUNTRY_CURRENCY.get(c, "USD")) for c in COUNTRIES], np.int64
)
_MINOR_PER_EURO = np.array([UNITS_PER_EURO[c] * 10 ** CURRENCY_EXPONENT[c] for c in CURRENCIES])
_MINOR_PER_UNIT = np.array([10 ** CURRENCY_EXPONENT[c] for c in CURRENCIES], np.int64)


@dataclass(frozen=True, slots=True)
class Merchants:
    """All merchants, grouped: those of one group (category and city, or category and web country) are
    neighbours in the arrays. `popularity` accumulates inside each group up to 1."""

    category: Array
    country: Array
    city: Array  # -1 for web shops
    median_eur: Array
    sigma: Array
    popularity: Array
    group_first: Array
    group_count: Array
    terminal_first: Array
    terminal_count: Array
    terminal_place: Array  # (terminals, 2): latitude, longitude

    def street(self, city: Array, category: Array) -> Array:
        """Groups of the shops of a category in a city."""
        return city * len(CATEGORIES) + category

    def web(self, country: Array, category: Array) -> Array:
        """Groups of the web shops of a category in a country."""
        return (len(CITY_COUNTRY) + country) * len(CATEGORIES) + category

    def pick(self, group: Array, chance: Array) -> Array:
        """One merchant of each group, the popular ones for most values of `chance` in [0, 1)."""
        first, count = self.group_first[group], self.group_count[group]
        if (count == 0).any():
            raise ValueError("no merchant sells this category there")
        found = np.searchsorted(self.popularity, group + chance, side="right")
        return np.clip(found, first, first + count - 1)

    def terminal(self, merchant: Array, chance: Array) -> Array:
        """One terminal of each merchant (absent for web shops)."""
        count = self.terminal_count[merchant]
        return np.where(count > 0, self.terminal_first[merchant] + (chance * count).astype(np.int64), ABSENT)

    def prices(self, rng: np.random.Generator, merchant: Array, factor: Array | float) -> Array:
        """Amounts in minor units of the merchants' currencies: log-normal around the merchant's own
        median times `factor`, or an entry of its price list."""
        category = self.category[merchant]
        listed = rng.random(len(merchant)) < column("priced")[category]
        entry = rng.integers(0, _LIST_PRICES, len(merchant))
        level = _QUANTILES[(mix(merchant * _LIST_PRICES + entry, 11) >> np.uint64(54)).astype(np.intp)]
        free = rng.standard_normal(len(merchant))
        deviation = np.where(listed, level, free) * self.sigma[merchant]
        scale = np.where(listed, np.maximum(np.round(np.asarray(factor)), 1.0), factor)
        return self.minor(merchant, self.median_eur[merchant] * np.exp(deviation) * scale, listed)

    def minor(self, merchant: Array, euro: Array, listed: Array) -> Array:
        """Euros as minor units of each merchant's currency; a listed price ends in .99, .50 or .00 and a
        teller machine gives notes only."""
        currency = CURRENCY_OF_COUNTRY[self.country[merchant]]
        amount = np.maximum(np.round(euro * _MINOR_PER_EURO[currency]), 1).astype(np.int64)
        unit = _MINOR_PER_UNIT[currency]
        ending = (mix(merchant, 12) % np.uint64(4)).astype(np.int64)
        tail = np.choose(
            ending, [np.where(unit > 1, unit - 1, 0), unit // 2, np.zeros_like(unit), unit * 95 // 100]
        )
        amount = np.where(listed, np.maximum(amount // unit * unit + np.where(unit > 1, tail, 0), 1), amount)
        note = 10 * np.round(_MINOR_PER_EURO[currency] / unit).astype(np.int64) * unit
        notes = np.maximum(np.round(amount / note), 1).astype(np.int64) * note
        result: Array = np.where(self.category[merchant] == CATEGORIES.index("cash"), notes, amount)
        return result

    def euros(self, merchant: Array, amount: Array) -> Array:
        """Minor units of the merchants' currencies as euros (float)."""
        result: Array = amount / _MINOR_PER_EURO[CURRENCY_OF_COUNTRY[self.country[merchant]]]
        return result


def _group_sizes(spec: WorldSpec) -> Array:
    density, online = column("density"), column("online")
    dwellers = np.maximum(HOME_CITY_SHARE * spec.customers, 40.0)
    street = np.maximum(np.round(dwellers[:, None] * density), 2) * (online < 1)
    weight = np.array([max(HOME_CITY_SHARE[c == CITY_COUNTRY].sum(), 0.06) for c in range(len(COUNTRIES))])
    sold = np.array([country in MERCHANT_COUNTRIES for country in COUNTRIES])
    web = (
        np.maximum(np.round(spec.customers * weight[:, None] * density * 0.8), 3)
        * (online > 0)
        * sold[:, None]
    )
    return np.concatenate([street.ravel(), web.ravel()]).astype(np.int64)


def found_merchants(spec: WorldSpec, rng: np.random.Generator) -> Merchants:
    """All merchants of the world, their terminals and price levels."""
    sizes = _group_sizes(spec)
    group = np.repeat(np.arange(len(sizes)), sizes)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rank = rng.permuted(np.arange(len(group)), axis=0)
    rank = np.lexsort((rank, group)).argsort() - first[group]  # a random order inside each group
    weight = (rank + 1.0) ** -_ZIPF
    before = np.concatenate([[0.0], np.cumsum(weight)])
    total = before[first + sizes] - before[first]
    popularity = group + np.minimum((before[1:] - before[first[group]]) / total[group], 1.0)

    cells = len(CITY_COUNTRY) * len(CATEGORIES)
    category = group % len(CATEGORIES)
    city = np.where(group < cells, group // len(CATEGORIES), ABSENT)
    web_country = np.maximum(group // len(CATEGORIES) - len(CITY_COUNTRY), 0)
    country = np.where(city >= 0, CITY_COUNTRY[np.maximum(city, 0)], web_country)

    median = column("median_eur")[category] * np.exp(0.35 * rng.standard_normal(len(group)))
    terminals = np.where(city >= 0, 1 + rng.poisson(2.5 / np.sqrt(rank + 1.0)), 0)
    owner = np.repeat(np.arange(len(group)), terminals)
    centre = CITY_PLACE[np.maximum(city, 0)] + rng.normal(0, 0.04, (len(group), 2))
    return Merchants(
        category=category,
        country=country,
        city=city,
        median_eur=median,
        sigma=column("sigma")[category],
        popularity=popularity,
        group_first=first,
        group_count=sizes,
        terminal_first=np.concatenate([[0], np.cumsum(terminals)[:-1]]),
        terminal_count=terminals,
        terminal_place=np.round(centre[owner] + rng.normal(0, 0.0002, (len(owner), 2)), 5),
    )


assert tuple(TRADES) == CATEGORIES
