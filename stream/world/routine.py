"""Everyday life: purchases by habit, sessions of several purchases, journeys, standing payments."""

import numpy as np

from stream.world.ground import RECURRING, Ground, moments
from stream.world.rows import ABSENT, Array, Rows, blank_rows
from stream.world.spec import DAY_MS, HOUR_MS, MINUTE_MS, WorldSpec
from stream.world.tokens import fraction
from stream.world.trades import CODE, column
from stream.world.vocabulary import CATEGORIES

_LOYALTY = 0.8
_LOYALTY_ONLINE = 0.6
_SESSION_SHARE = 0.07  # purchases that are followed by others within minutes


def _season(spec: WorldSpec, time_ms: Array, category: Array) -> Array:
    """How much a category sells at a time of year, relative to its best season (0-1)."""
    month = (time_ms // DAY_MS).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12
    weekday = (time_ms // DAY_MS + 3) % 7
    december, summer, weekend = column("december"), column("summer"), column("weekend")
    best = np.maximum(december, summer) * np.maximum(weekend, 1.0)
    now = np.where(
        month == 11, december[category], np.where((month >= 5) & (month <= 7), summer[category], 1.0)
    )
    result: Array = now * np.where(weekday >= 5, weekend[category], 1.0) / best[category]
    return result


def _sessions(rng: np.random.Generator, rows: int) -> tuple[Array, Array]:
    """Which purchase each follow-up belongs to, and how many milliseconds later it happens."""
    more = np.where(rng.random(rows) < _SESSION_SHARE, rng.geometric(0.55, rows), 0)
    parent = np.repeat(np.arange(rows), more)
    first = np.concatenate([[0], np.cumsum(more)[:-1]])
    step = rng.lognormal(np.log(9 * MINUTE_MS), 0.9, len(parent))
    total = np.concatenate([[0.0], np.cumsum(step)])
    later = total[1:] - total[first[parent]] if len(parent) else step
    return parent, later.astype(np.int64)


def everyday(ground: Ground, rng: np.random.Generator) -> Rows:
    """The routine purchases of all customers."""
    spec, people, merchants = ground.spec, ground.people, ground.merchants
    season_loss = 1.28  # thinning by season drops about a fifth of what is drawn
    count = rng.poisson(people.per_day * spec.days * season_loss / (1 + _SESSION_SHARE * 1.8))
    customer = np.repeat(np.arange(len(count)), count)
    drawn = np.searchsorted(people.habits, customer + rng.random(len(customer)), side="right")
    category = np.clip(drawn - customer * len(CATEGORIES), 0, len(CATEGORIES) - 1)
    time = moments(rng, ground, customer, category)
    keep = (rng.random(len(time)) < _season(spec, time, category)) & (time >= people.opened_ms[customer])
    customer, category, time = customer[keep], category[keep], time[keep]

    parent, later = _sessions(rng, len(customer))
    session = rng.random(len(customer))
    other = rng.random(len(parent)) < 0.4
    drawn = np.searchsorted(people.habits, customer[parent] + rng.random(len(parent)), side="right")
    changed = np.clip(drawn - customer[parent] * len(CATEGORIES), 0, len(CATEGORIES) - 1)
    category = np.concatenate([category, np.where(other, changed, category[parent])])
    customer = np.concatenate([customer, customer[parent]])
    time = np.concatenate([time, time[parent] + later])
    session = np.concatenate([session, session[parent]])

    online = rng.random(len(customer)) < np.minimum(
        column("online")[category] * people.online_taste[customer], 0.97
    )
    online = (online | (column("online")[category] >= 1)) & (column("online")[category] > 0)
    away = people.journeys.city_at(customer, time)
    place = np.where(away >= 0, away, people.city[customer])
    web = merchants.web(ground.web_country(rng, customer), category)
    group = np.where(online, web, merchants.street(place, category))
    loyalty = np.where(
        away >= 0, np.where(online, _LOYALTY_ONLINE, 0.2), np.where(online, _LOYALTY_ONLINE, _LOYALTY)
    )
    merchant = ground.favourite(rng, customer, group, loyalty)
    return ground.clear(ground.purchases(rng, customer, time, merchant, session=session))


_STANDING = tuple(CODE[name] for name in ("subscription", "utilities", "charity", "digital_goods"))


def standing(ground: Ground, rng: np.random.Generator) -> Rows:
    """Monthly payments: the same merchant, card and amount, in the merchant's nightly batch."""
    spec, people, merchants = ground.spec, ground.people, ground.merchants
    orders = rng.poisson(2.0, people.regulars)
    customer = np.repeat(np.arange(people.regulars), orders)
    category = rng.choice(_STANDING, len(customer), p=[0.6, 0.28, 0.06, 0.06])
    merchant = ground.favourite(rng, customer, merchants.web(people.country[customer], category), 0.0)
    month_day = rng.integers(0, 28, len(customer))
    card = people.card(customer, rng.random(len(customer)))
    amount = merchants.prices(rng, merchant, 1.0)
    first = np.datetime64(spec.start_ms // DAY_MS, "D").astype("datetime64[M]").astype(np.int64)
    blocks = []
    for month in range(int(first), int(first) + spec.days // 28 + 2):
        day = np.datetime64(month, "M").astype("datetime64[D]").astype(np.int64) + month_day
        batch_hour = 1 + (fraction(merchant, 31) * 5 * HOUR_MS).astype(np.int64) + HOUR_MS
        rows = blank_rows(len(customer))
        rows["time"] = (
            day * DAY_MS + batch_hour + (rng.random(len(customer)) * 25 * MINUTE_MS).astype(np.int64)
        )
        rows["customer"], rows["card"], rows["merchant"], rows["amount"] = customer, card, merchant, amount
        rows["channel"], rows["entry"], rows["email"] = RECURRING, ABSENT, customer
        rows["decline"] = 0.02
        blocks.append(rows[rows["time"] >= people.opened_ms[customer]])
    return ground.clear(np.concatenate(blocks))
