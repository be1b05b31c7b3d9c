"""Attacks through accounts: taken over, opened for the purpose, run up, or refunded."""

import numpy as np

from stream.world.ground import Ground
from stream.world.raid import Raid, fraudulent
from stream.world.rows import Array, Rows
from stream.world.spec import DAY_MS, MINUTE_MS
from stream.world.trades import CASH


def account_takeover(raid: Raid) -> Rows:
    """Somebody else signs in from a new device and buys what can be sold again."""
    rng, ground, people = raid.rng, raid.ground, raid.ground.people
    blocks = []
    start = raid.start_ms
    for victim in raid.customers(raid.number(2, 6, least=1)):
        count = int(rng.integers(6, 14))
        customer = np.full(count, victim)
        gaps = rng.lognormal(np.log((6 + 30 * raid.skill) * MINUTE_MS), 0.9, count)
        time = raid.by_day(customer, start + np.cumsum(gaps).astype(np.int64), raid.skill)
        time.sort()
        category = raid.categories(count, "electronics", "gift_cards", "digital_goods", "clothing",
                                   "money_transfer", "department_store")  # fmt: skip
        merchant = ground.favourite(rng, customer, ground.merchants.web(people.country[customer], category),
                                    0.2 + 0.5 * raid.skill)  # fmt: skip
        factor = people.spender[customer] * rng.uniform(1.3, 3.4 - 1.4 * raid.skill, count)
        rows = ground.purchases(
            rng, customer, time, merchant, card=people.card_first[customer], factor=factor
        )
        blocks.append(fraudulent(raid.disguised(rows, 1, 2), decline=0.12))
        start += int(rng.uniform(0.1, 2.0) * DAY_MS)
    return np.concatenate(blocks)


def bust_out(raid: Raid) -> Rows:
    """Customers of good standing spend all they can within days and never pay; their own devices, their own
    cards, so only the pace, the amounts and the kinds of shop tell."""
    rng, ground, people = raid.rng, raid.ground, raid.ground.people
    blocks = []
    for customer_number in raid.customers(raid.number(1, 3, least=1)):
        count = int(rng.integers(22, 40))
        customer = np.full(count, customer_number)
        time = raid.by_day(customer, raid.days(count, rng.uniform(0.5, 1.2 + 1.2 * raid.skill)), 0.9)
        time.sort()
        category = raid.categories(count, "electronics", "jewelry", "department_store", "gift_cards",
                                   "airline", "clothing", "cash", "money_transfer")  # fmt: skip
        web = (rng.random(count) < 0.4) & (category != CASH)
        group = np.where(web, ground.merchants.web(people.country[customer], category),
                         _street_or_web(ground, customer, category))  # fmt: skip
        merchant = ground.favourite(rng, customer, group, 0.4)
        factor = people.spender[customer] * rng.uniform(1.6, 4.2 - 1.2 * raid.skill, count)
        rows = ground.purchases(rng, customer, time, merchant, factor=factor)
        blocks.append(fraudulent(rows, decline=np.linspace(0.02, 0.5, count), reported=0.85))
    return np.concatenate(blocks)


def _street_or_web(ground: Ground, customer: Array, category: Array) -> Array:
    street = ground.merchants.street(ground.people.city[customer], category)
    web = ground.merchants.web(ground.people.country[customer], category)
    result: Array = np.where(ground.merchants.group_count[street] > 0, street, web)
    return result


def refund_abuse(raid: Raid) -> Rows:
    """A few accounts order, claim that nothing arrived, are refunded, and order again."""
    rng, ground, people = raid.rng, raid.ground, raid.ground.people
    accounts = raid.customers(raid.number(3, 6, least=2))
    each = rng.integers(7, 14, len(accounts))
    customer = np.repeat(accounts, each)
    time = raid.by_day(customer, raid.days(len(customer), rng.uniform(8, 20)), 0.9)
    shops = raid.web_shops(int(rng.integers(2, 5)), "clothing", "electronics", "department_store", "home",
                           country=int(people.country[accounts[0]]))  # fmt: skip
    merchant = shops[rng.integers(0, len(shops), len(customer))]
    factor = people.spender[customer] * rng.uniform(1.2, 2.6 - 0.8 * raid.skill, len(customer))
    rows = ground.purchases(rng, customer, time, merchant, factor=factor)
    own = rng.random(len(rows)) < 0.15 + 0.4 * raid.skill
    kept_device, kept_address = rows["device"].copy(), rows["ip"].copy()
    rows = raid.disguised(rows, 1, 2)
    rows["device"] = np.where(own, kept_device, rows["device"])
    rows["ip"] = np.where(own, kept_address, rows["ip"])
    rows["refund"] = 0.92
    return fraudulent(rows, decline=0.01, reported=0.8)


def device_ring(raid: Raid) -> Rows:
    """Accounts with made-up identities, opened and used from the same few devices."""
    rng, ground, people = raid.rng, raid.ground, raid.ground.people
    members = raid.reserves[: raid.number(18, 40, least=6)]
    each = rng.integers(1, 5, len(members))
    customer = np.repeat(members, each)
    time = raid.by_day(customer, raid.days(len(customer), rng.uniform(2, 8)), 0.3 + 0.7 * raid.skill)
    category = raid.categories(
        len(customer), "gift_cards", "digital_goods", "gaming", "electronics", "clothing"
    )
    merchant = ground.favourite(rng, customer, ground.merchants.web(people.country[customer], category), 0.3)
    rows = ground.purchases(
        rng, customer, time, merchant, factor=rng.uniform(0.8, 2.0 - 0.6 * raid.skill, len(customer))
    )
    devices = 2 + round(len(members) * 0.12 * raid.skill)
    rows = raid.disguised(rows, devices, devices + 1)
    return fraudulent(rows, decline=0.1)
