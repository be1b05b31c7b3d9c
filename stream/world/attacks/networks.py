"""Attacks by groups: mules that pass money on, merchants that take part."""

import numpy as np

from stream.world.ground import CHIP, MANUAL, STRIPE
from stream.world.raid import Raid, fraudulent
from stream.world.rows import Rows
from stream.world.spec import DAY_MS, HOUR_MS
from stream.world.trades import CODE


def mule_chain(raid: Raid) -> Rows:
    """Recruited customers forward money to a few payees and draw the rest in cash, wave after wave; a handler
    works some of their accounts from his own device."""
    rng, ground, people, merchants = raid.rng, raid.ground, raid.ground.people, raid.ground.merchants
    mules = raid.customers(raid.number(4, 9, least=3))
    payees = raid.web_shops(int(rng.integers(1, 4)), "money_transfer", country=int(people.country[mules[0]]))
    blocks = []
    for wave in range(int(rng.integers(2, 5))):
        begin = raid.start_ms + wave * int(rng.uniform(0.8, 2.5) * DAY_MS)
        transfers = rng.integers(2, 5, len(mules))
        customer = np.repeat(mules, transfers)
        time = begin + (rng.random(len(customer)) * (1 + 5 * raid.skill) * HOUR_MS).astype(np.int64)
        time = raid.by_day(customer, time, 0.5 + 0.5 * raid.skill)
        factor = rng.uniform(2.0, 5.0 - 2 * raid.skill, len(customer))
        sent = ground.purchases(rng, customer, time, payees[rng.integers(0, len(payees), len(customer))],
                                card=people.card_first[customer], factor=factor)  # fmt: skip
        remote = rng.random(len(sent)) < 0.85 - 0.35 * raid.skill
        own_device, own_address = sent["device"].copy(), sent["ip"].copy()
        sent = raid.disguised(sent, 1, 2)
        sent["device"] = np.where(remote, sent["device"], own_device)
        sent["ip"] = np.where(remote, sent["ip"], own_address)
        drawers = mules[rng.random(len(mules)) < 0.7]
        machine = ground.favourite(
            rng, drawers, merchants.street(people.city[drawers], np.full(len(drawers), CODE["cash"])), 0.5
        )
        after = begin + ((1 + rng.random(len(drawers)) * 4) * HOUR_MS).astype(np.int64)
        drawn = ground.purchases(rng, drawers, after, machine, card=people.card_first[drawers],
                                 factor=rng.uniform(1.5, 4.0 - raid.skill, len(drawers)))  # fmt: skip
        blocks += [
            fraudulent(sent, decline=0.05, reported=0.85),
            fraudulent(drawn, decline=0.06, reported=0.75),
        ]
    return np.concatenate(blocks)


def merchant_collusion(raid: Raid) -> Rows:
    """A small shop charges cards it was sold: one terminal, many strangers, amounts above its usual ones."""
    rng, ground, people, merchants = raid.rng, raid.ground, raid.ground.people, raid.ground.merchants
    victims = raid.customers(raid.number(30, 70, least=10))
    city = people.city[victims[0]]
    category = raid.categories(
        1, "restaurant", "clothing", "electronics", "jewelry", "fuel", "entertainment", "home"
    )
    group = merchants.street(np.array([city]), category)
    shop = merchants.group_first[group] + (0.5 + 0.5 * rng.random(1)) * merchants.group_count[group]
    shop = np.minimum(shop.astype(np.int64), merchants.group_first[group] + merchants.group_count[group] - 1)
    customer = np.repeat(victims, np.where(rng.random(len(victims)) < 0.2, 2, 1))
    time = raid.by_day(
        customer, raid.days(len(customer), rng.uniform(0.4, 1.5 + 2.0 * raid.skill)), 0.5 + 0.5 * raid.skill
    )
    local = people.city[customer] == city
    keep = local | (rng.random(len(customer)) < 0.9 - 0.5 * raid.skill)
    customer, time = customer[keep], time[keep]
    factor = rng.uniform(1.5, 3.6 - 1.2 * raid.skill, len(customer))
    rows = ground.purchases(rng, customer, time, np.repeat(shop, len(customer)), factor=factor)
    rows["terminal"] = merchants.terminal_first[shop]
    forged = rng.random(len(rows))
    rows["entry"] = np.select(
        [forged < 0.4 * (1 - raid.skill), forged < 0.8 * (1 - raid.skill)], [MANUAL, STRIPE], CHIP
    )
    rows["device"] = -1
    return fraudulent(rows, decline=0.3)
