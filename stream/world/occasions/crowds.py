"""Many good customers at one place at one time."""

import numpy as np

from stream.world.ground import RECURRING
from stream.world.raid import Raid
from stream.world.rows import ABSENT, Rows
from stream.world.spec import MINUTE_MS, SECOND_MS
from stream.world.trades import CODE


def donation_drive(raid: Raid) -> Rows:
    """After a disaster strangers give small sums to one charity."""
    rng, ground = raid.rng, raid.ground
    customer = raid.customers(raid.number(50, 200, least=15))
    merchant = np.repeat(raid.web_shops(1, "charity"), len(customer))
    time = raid.by_day(customer, raid.days(len(customer), rng.uniform(0.2, 1.5)), 1.0)
    return ground.purchases(rng, customer, time, merchant, factor=rng.uniform(0.3, 1.0, len(customer)))


def trial_verification(raid: Raid) -> Rows:
    """A new service charges cents to see that cards are alive."""
    rng, ground = raid.rng, raid.ground
    customer = raid.customers(raid.number(50, 180, least=15))
    merchant = np.repeat(raid.web_shops(1, "subscription", "digital_goods", "transport"), len(customer))
    time = raid.by_day(customer, raid.days(len(customer), rng.uniform(0.15, 1.2)), 1.0)
    rows = ground.purchases(rng, customer, time, merchant)
    rows["amount"] = ground.merchants.minor(
        merchant, rng.uniform(0.5, 2.5, len(rows)), np.zeros(len(rows), bool)
    )
    rows["decline"] = 0.12
    return rows


def remittance_day(raid: Raid) -> Rows:
    """Families send money home after payday through one agent, some at the agent's own counter."""
    rng, ground, people = raid.rng, raid.ground, raid.ground.people
    customer = raid.customers(raid.number(10, 30, least=4))
    country = int(people.country[customer[0]])
    merchant = np.repeat(raid.web_shops(1, "money_transfer", country=country), len(customer))
    time = raid.by_day(customer, raid.days(len(customer), rng.uniform(0.3, 1.2)), 1.0)
    rows = ground.purchases(rng, customer, time, merchant, factor=rng.uniform(1.0, 3.0, len(customer)))
    counter = (rng.random(len(rows)) < 0.4) & (rows["device"] != ABSENT)
    rows["device"] = np.where(counter, ground.network.devices(1)[0], rows["device"])
    rows["ip"] = np.where(counter, ground.network.addresses(np.array([country]))[0], rows["ip"])
    drawers = customer[rng.random(len(customer)) < 0.4]
    street = ground.merchants.street(people.city[drawers], np.full(len(drawers), CODE["cash"]))
    before = raid.by_day(drawers, raid.days(len(drawers), 1.0), 1.0)
    drawn = ground.purchases(rng, drawers, before, ground.favourite(rng, drawers, street, 0.9),
                             factor=rng.uniform(1.0, 3.0, len(drawers)))  # fmt: skip
    return np.concatenate([rows, drawn])


def shared_tablet(raid: Raid) -> Rows:
    """A hostel, a club, a library: one device and line, many people with their own cards."""
    rng, ground, people = raid.rng, raid.ground, raid.ground.people
    guests = raid.customers(raid.number(10, 35, least=5))
    customer = np.repeat(guests, rng.integers(1, 4, len(guests)))
    time = raid.by_day(customer, raid.days(len(customer), rng.uniform(2, 10)), 1.0)
    category = raid.categories(
        len(customer), "entertainment", "transport", "digital_goods", "gift_cards", "gaming"
    )
    merchant = ground.favourite(rng, customer, ground.merchants.web(people.country[customer], category), 0.3)
    rows = ground.purchases(rng, customer, time, merchant)
    web = rows["device"] != ABSENT
    rows["device"] = np.where(web, ground.network.devices(1)[0], ABSENT)
    rows["ip"] = np.where(web, ground.network.addresses(people.country[guests[:1]])[0], ABSENT)
    return rows


def viral_terminal(raid: Raid) -> Rows:
    """A small shop is in everybody's feed: strangers queue at its one terminal for days."""
    rng, ground, people = raid.rng, raid.ground, raid.ground.people
    city = int(people.city[raid.customers(1)[0]])
    group = ground.merchants.street(
        np.array([city]), raid.categories(1, "restaurant", "clothing", "entertainment", "home")
    )
    first, count = ground.merchants.group_first[group][0], ground.merchants.group_count[group][0]
    shop = int(first + count - 1 - int(rng.integers(0, max(count // 2, 1))))
    crowd = raid.customers(raid.number(60, 220, least=20))
    near = (people.city[crowd] == city) | (rng.random(len(crowd)) < 0.35)
    customer = crowd[near]
    time = raid.by_day(customer, raid.days(len(customer), rng.uniform(1.5, 6)), 1.0)
    rows = ground.purchases(
        rng, customer, time, np.full(len(customer), shop), factor=rng.uniform(0.8, 1.8, len(customer))
    )
    rows["terminal"] = ground.merchants.terminal_first[shop]
    return rows


def flash_sale(raid: Raid) -> Rows:
    """A drop sells out in minutes: one shop, one price, impatient customers who try again."""
    rng, ground = raid.rng, raid.ground
    customer = raid.customers(raid.number(50, 160, least=15))
    customer = customer[np.sort(rng.integers(0, len(customer), round(len(customer) * 1.4)))]
    merchant = np.repeat(
        raid.web_shops(1, "gaming", "entertainment", "clothing", "electronics", "gift_cards"), len(customer)
    )
    time = raid.start_ms + rng.gamma(1.5, rng.uniform(4, 20) * MINUTE_MS, len(customer)).astype(np.int64)
    rows = ground.purchases(rng, customer, time, merchant, factor=1.0)
    rows["amount"] = rows["amount"][rng.integers(0, 3, len(rows))]
    rows["decline"] = 0.12
    return rows


def subscription_burst(raid: Raid) -> Rows:
    """A merchant bills all its subscribers within minutes, off its usual day."""
    rng, ground = raid.rng, raid.ground
    customer = raid.customers(raid.number(60, 240, least=20))
    merchant = np.repeat(raid.web_shops(1, "subscription", "gaming", "digital_goods"), len(customer))
    time = raid.steps(len(customer), 2.5 * SECOND_MS, 0.8)
    rows = ground.purchases(rng, customer, time, merchant, factor=1.0)
    rows["amount"] = rows["amount"][rng.integers(0, 3, len(rows))]
    rows["channel"], rows["entry"], rows["device"], rows["ip"] = RECURRING, ABSENT, ABSENT, ABSENT
    rows["email"], rows["decline"] = customer, 0.06
    return rows
