"""Single customers who act out of habit for a good reason."""

import numpy as np

from stream.world.geography import CITY_COUNTRY
from stream.world.raid import Raid
from stream.world.rows import ABSENT, Array, Rows
from stream.world.spec import DAY_MS, HOUR_MS, MINUTE_MS


def _each(raid: Raid, shoppers: tuple[int, int], purchases: tuple[int, int]) -> tuple[Array, Array]:
    """Customers, each repeated for its purchases, and when each one begins (within four weeks)."""
    people = raid.customers(raid.number(*shoppers, least=1))
    each = raid.rng.integers(purchases[0], purchases[1] + 1, len(people))
    begin = raid.start_ms + (raid.rng.random(len(people)) * 28 * DAY_MS).astype(np.int64)
    return np.repeat(people, each), np.repeat(begin, each)


def _spread(raid: Raid, begin: Array, span_ms: float) -> Array:
    result: Array = begin + (raid.rng.random(len(begin)) * span_ms).astype(np.int64)
    return result


def new_phone(raid: Raid) -> Rows:
    """A new device, set up with apps, accessories and a top-up, from a line never used before."""
    rng, ground, people = raid.rng, raid.ground, raid.ground.people
    customer, begin = _each(raid, (6, 16), (3, 9))
    time = raid.by_day(customer, _spread(raid, begin, 10 * HOUR_MS), 1.0)
    category = raid.categories(
        len(customer), "electronics", "digital_goods", "gaming", "subscription", "gift_cards", "clothing"
    )
    merchant = ground.favourite(rng, customer, ground.merchants.web(people.country[customer], category), 0.35)
    factor = people.spender[customer] * rng.uniform(0.8, 2.2, len(customer))
    rows = ground.purchases(rng, customer, time, merchant, card=people.card_first[customer], factor=factor)
    number = np.unique(customer, return_inverse=True)[1]
    web = rows["device"] != ABSENT
    rows["device"] = np.where(web, ground.network.devices(int(number.max()) + 1)[number], ABSENT)
    line = ground.network.addresses(people.country[np.unique(customer)])[number]
    rows["ip"] = np.where(web & (rng.random(len(rows)) < 0.6), line, rows["ip"])
    return rows


def holiday_spree(raid: Raid) -> Rows:
    """A day or two of shopping in another city, all shops new."""
    rng, ground, people = raid.rng, raid.ground, raid.ground.people
    customer, begin = _each(raid, (4, 9), (8, 20))
    time = raid.by_day(customer, _spread(raid, begin, rng.uniform(6, 40) * HOUR_MS), 1.0)
    city = (people.city[customer] + 1 + customer % 7) % len(CITY_COUNTRY)
    category = raid.categories(len(customer), "clothing", "restaurant", "department_store", "electronics",
                               "jewelry", "fast_food", "entertainment", "cash", "pharmacy")  # fmt: skip
    merchant = ground.favourite(rng, customer, ground.merchants.street(city, category), 0.0)
    factor = people.spender[customer] * rng.uniform(0.8, 2.2, len(customer))
    return ground.purchases(rng, customer, time, merchant, card=people.card_first[customer], factor=factor)


def business_trip(raid: Raid) -> Rows:
    """Two or three days elsewhere: hotels, meals, trains at odd hours, dearer than at home."""
    rng, ground, people = raid.rng, raid.ground, raid.ground.people
    customer, begin = _each(raid, (4, 9), (7, 16))
    time = raid.by_day(customer, _spread(raid, begin, rng.uniform(20, 60) * HOUR_MS), 0.6)
    city = (people.city[customer] + 2 + customer % 11) % len(CITY_COUNTRY)
    category = raid.categories(
        len(customer), "restaurant", "transport", "lodging", "fast_food", "fuel", "cash"
    )
    merchant = ground.favourite(rng, customer, ground.merchants.street(city, category), 0.0)
    factor = people.spender[customer] * rng.uniform(1.0, 2.4, len(customer))
    return ground.purchases(rng, customer, time, merchant, factor=factor)


def house_move(raid: Raid) -> Rows:
    """Deposits, movers, furniture: large transfers and home purchases within a week."""
    rng, ground, people = raid.rng, raid.ground, raid.ground.people
    customer, begin = _each(raid, (4, 9), (5, 13))
    time = raid.by_day(customer, _spread(raid, begin, rng.uniform(3, 7) * DAY_MS), 1.0)
    category = raid.categories(
        len(customer), "money_transfer", "money_transfer", "home", "utilities", "electronics"
    )
    merchant = ground.favourite(rng, customer, ground.merchants.web(people.country[customer], category), 0.1)
    factor = people.spender[customer] * rng.uniform(1.2, 4.2, len(customer))
    return ground.purchases(rng, customer, time, merchant, factor=factor)


def renovation(raid: Raid) -> Rows:
    """A kitchen or a bathroom: dozens of dear purchases in one or two weeks."""
    rng, ground, people = raid.rng, raid.ground, raid.ground.people
    customer, begin = _each(raid, (3, 6), (14, 30))
    time = raid.by_day(customer, _spread(raid, begin, rng.uniform(4, 12) * DAY_MS), 1.0)
    category = raid.categories(
        len(customer), "home", "home", "electronics", "department_store", "jewelry", "cash"
    )
    merchant = ground.favourite(rng, customer, ground.merchants.street(people.city[customer], category), 0.5)
    factor = people.spender[customer] * rng.uniform(1.2, 3.4, len(customer))
    return ground.purchases(rng, customer, time, merchant, card=people.card_first[customer], factor=factor)


def serial_returner(raid: Raid) -> Rows:
    """Orders three sizes and sends two back, as it is meant to be."""
    rng, ground, people = raid.rng, raid.ground, raid.ground.people
    customer, begin = _each(raid, (4, 9), (6, 14))
    time = raid.by_day(customer, _spread(raid, begin, rng.uniform(10, 24) * DAY_MS), 1.0)
    category = raid.categories(len(customer), "clothing", "clothing", "department_store", "home")
    merchant = ground.favourite(rng, customer, ground.merchants.web(people.country[customer], category), 0.8)
    rows = ground.purchases(rng, customer, time, merchant, factor=people.spender[customer] * 1.3)
    rows["refund"] = 0.6
    return rows


def capped_purchaser(raid: Raid) -> Rows:
    """Buys for a firm whose card asks for approval above a limit, so every order stays just below it."""
    rng, ground, people = raid.rng, raid.ground, raid.ground.people
    customer, begin = _each(raid, (4, 9), (6, 18))
    time = raid.by_day(customer, _spread(raid, begin, rng.uniform(4, 12) * DAY_MS), 1.0)
    category = raid.categories(
        len(customer), "electronics", "gift_cards", "home", "digital_goods", "clothing"
    )
    merchant = ground.favourite(rng, customer, ground.merchants.web(people.country[customer], category), 0.85)
    rows = ground.purchases(rng, customer, time, merchant, card=people.card_first[customer])
    limit = np.array([50.0, 100.0, 150.0, 250.0])[customer % 4]
    below = np.maximum(limit - rng.exponential(4.0, len(rows)), limit / 2)
    rows["amount"] = ground.merchants.minor(merchant, below, np.zeros(len(rows), bool))
    return rows


def gift_card_run(raid: Raid) -> Rows:
    """Presents for the whole team: several gift cards or codes at one shop within the hour."""
    rng, ground, people = raid.rng, raid.ground, raid.ground.people
    customer, begin = _each(raid, (8, 20), (3, 9))
    time = raid.by_day(customer, begin, 1.0) + (rng.random(len(customer)) * 50 * MINUTE_MS).astype(np.int64)
    group = ground.merchants.web(
        people.country[customer], raid.categories(1, "gift_cards", "digital_goods", "gaming")
    )
    number = np.unique(customer, return_inverse=True)[1]
    merchant = ground.merchants.pick(group, rng.random(int(number.max()) + 1)[number])
    session = rng.random(int(number.max()) + 1)[number]
    return ground.purchases(rng, customer, time, merchant, session=session)
