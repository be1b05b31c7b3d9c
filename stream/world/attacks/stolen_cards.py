"""Attacks with stolen card data: testing, sprees, low-and-slow probing, bots."""

import numpy as np

from stream.world.ground import CHIP, CONTACTLESS, STRIPE
from stream.world.raid import Raid, fraudulent
from stream.world.rows import Array, Rows
from stream.world.spec import HOUR_MS, MINUTE_MS, SECOND_MS


def card_testing(raid: Raid) -> Rows:
    """A list of stolen cards is tried with small amounts at a few web shops that ask little."""
    rng, ground = raid.rng, raid.ground
    victims = raid.customers(raid.number(40, 130, least=12))
    tries = np.where(rng.random(len(victims)) < 0.25, 2, 1)
    customer = np.repeat(victims, tries)
    shops = raid.web_shops(
        1 + rng.poisson(0.8), "charity", "digital_goods", "subscription", "fast_food", "transport"
    )
    time = raid.steps(len(customer), (25 + 400 * raid.skill) * SECOND_MS, 0.9)
    card = ground.people.card(customer, np.repeat(rng.random(len(victims)), tries))
    merchant = shops[rng.integers(0, len(shops), len(customer))]
    rows = ground.purchases(rng, customer, time, merchant, card=card, factor=0.4 + 0.6 * raid.skill)
    tiny = rng.random(len(rows)) > 0.25 + 0.75 * raid.skill
    small = ground.merchants.minor(merchant, rng.uniform(0.5, 5.0, len(rows)), np.zeros(len(rows), bool))
    rows["amount"] = np.where(tiny, small, rows["amount"])
    rows = raid.disguised(rows, 1 + rng.poisson(5 * raid.skill), 2 + rng.poisson(10 * raid.skill))
    rows["email"] = ground.network.mailboxes(len(victims))[np.repeat(np.arange(len(victims)), tries)]
    return fraudulent(rows, decline=0.5)


def _rising(count: int, low: float, high: float) -> Array:
    return np.linspace(low, high, count)


def card_spree(raid: Raid) -> Rows:
    """A few stolen cards, one after the other, spent as fast as shops allow: in town or on the web."""
    rng, ground, people = raid.rng, raid.ground, raid.ground.people
    blocks = []
    start = raid.start_ms
    for victim in raid.customers(raid.number(2, 5, least=1)):
        count = int(rng.integers(12, 24))
        customer = np.full(count, victim)
        gaps = rng.lognormal(np.log((4 + 10 * raid.skill) * MINUTE_MS), 0.7, count)
        time = raid.by_day(customer, start + np.cumsum(gaps).astype(np.int64), 0.5 + 0.5 * raid.skill)
        time.sort()
        factor = people.spender[customer] * _rising(count, 1.0, 2.9 - raid.skill)
        if rng.random() < 0.55:
            near = rng.random() < 0.4 + 0.6 * raid.skill
            city = people.city[victim] if near else rng.integers(0, people.city.max() + 1)
            category = raid.categories(count, "clothing", "electronics", "department_store", "jewelry",
                                       "fuel", "grocery", "restaurant", "fast_food", "pharmacy")  # fmt: skip
            group = ground.merchants.street(np.full(count, city), category)
            merchant = ground.favourite(rng, customer, group, 0.3 * raid.skill)
            rows = ground.purchases(
                rng, customer, time, merchant, card=people.card_first[customer], factor=factor
            )
            rows["device"] = -1
            pin = rng.random() < 0.5
            rows["entry"] = np.where(rows["entry"] == CONTACTLESS, CONTACTLESS, CHIP if pin else STRIPE)
        else:
            category = raid.categories(count, "electronics", "clothing", "gift_cards", "digital_goods",
                                       "department_store", "gaming", "airline")  # fmt: skip
            group = ground.merchants.web(ground.web_country(rng, customer), category)
            merchant = ground.favourite(rng, customer, group, 0.4 * raid.skill)
            rows = ground.purchases(
                rng, customer, time, merchant, card=people.card_first[customer], factor=factor
            )
            rows = raid.disguised(rows, 1, 1 + rng.poisson(2))
        blocks.append(fraudulent(rows, decline=_rising(count, 0.05, 0.45)))
        start = int(time[-1]) + int(rng.uniform(0.5, 20) * HOUR_MS)
    return np.concatenate(blocks)


def threshold_probing(raid: Raid) -> Rows:
    """Low and slow: amounts just under a limit, a payment or two a day on each card, for a week or two."""
    rng, ground = raid.rng, raid.ground
    victims = raid.customers(raid.number(12, 30, least=5))
    days = rng.uniform(4, 12)
    each = 1 + rng.poisson(2.5, len(victims))
    owner = np.repeat(np.arange(len(victims)), each)
    customer = victims[owner]
    time = raid.by_day(customer, raid.days(len(customer), days), 0.4 + 0.6 * raid.skill)
    shops = raid.web_shops(
        int(rng.integers(3, 7)), "electronics", "gift_cards", "clothing", "gaming", "digital_goods"
    )
    merchant = shops[rng.integers(0, len(shops), len(customer))]
    limit = float(rng.choice([50.0, 100.0, 150.0, 250.0]))
    card = ground.people.card(customer, rng.random(len(victims))[owner])
    rows = ground.purchases(rng, customer, time, merchant, card=card)
    below = limit - rng.exponential(1.5 + 6 * raid.skill, len(rows))
    rows["amount"] = ground.merchants.minor(merchant, np.maximum(below, limit / 2), np.zeros(len(rows), bool))
    devices = max(2, round(len(victims) * (0.1 + 0.25 * raid.skill)))
    return fraudulent(raid.disguised(rows, devices, 2 * devices), decline=0.08)


def bot_velocity(raid: Raid) -> Rows:
    """A script buys the same thing over and over with many cards within minutes."""
    rng, ground = raid.rng, raid.ground
    victims = raid.customers(raid.number(45, 110, least=12))
    count = round(len(victims) * rng.uniform(1.2, 2.2))
    customer = victims[rng.integers(0, len(victims), count)]
    merchant = np.repeat(raid.web_shops(1, "gaming", "digital_goods", "gift_cards", "entertainment"), count)
    time = raid.steps(count, (3 + 25 * raid.skill) * SECOND_MS, 0.6)
    rows = ground.purchases(
        rng, customer, time, merchant, card=ground.people.card_first[customer], factor=1.0
    )
    rows["amount"] = rows["amount"][rng.integers(0, 3, count)]
    devices = 2 + round(count * 0.12 * raid.skill)
    rows = raid.disguised(rows, devices, 3 + round(count * 0.2 * raid.skill))
    rows["email"] = ground.network.mailboxes(devices)[rng.integers(0, devices, count)]
    return fraudulent(rows, decline=0.3)
