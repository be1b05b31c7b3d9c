"""The world as campaigns and routines find it, and the one way in which a purchase is written down."""

from dataclasses import dataclass

import numpy as np

from stream.world.geography import UTC_OFFSET_H
from stream.world.merchants import Merchants
from stream.world.people import Network, People
from stream.world.rows import ABSENT, Array, Rows, blank_rows
from stream.world.spec import DAY_MS, HOUR_MS, WorldSpec
from stream.world.tokens import fraction
from stream.world.trades import CASH, column, hour_shares
from stream.world.vocabulary import CHANNELS, COUNTRIES, ENTRY_MODES

POS, ECOM, ATM, MOTO, RECURRING = range(len(CHANNELS))
CHIP, CONTACTLESS, STRIPE, MANUAL, ONLINE = range(len(ENTRY_MODES))
_CONTACTLESS_MAX_EUR = 50.0
_FAVOURITES = np.array([0.55, 0.82, 0.96])  # cumulative shares of the first three of four favourite shops


@dataclass(frozen=True, slots=True)
class Ground:
    """Everything that exists before the first transaction."""

    spec: WorldSpec
    merchants: Merchants
    people: People
    network: Network

    def local_hour(self, customer: Array, time_ms: Array) -> Array:
        """Hour of the day (0-23) where the customer lives."""
        hours = time_ms // HOUR_MS + UTC_OFFSET_H[self.people.country[customer]]
        result: Array = hours % 24
        return result

    def favourite(
        self, rng: np.random.Generator, customer: Array, group: Array, loyalty: Array | float
    ) -> Array:
        """A merchant of each group: one of the customer's favourites with chance `loyalty`, else any."""
        choice = np.searchsorted(_FAVOURITES, rng.random(len(customer)))
        habit = fraction((customer * 100_003 + group) * 4 + choice, 21)
        loyal = rng.random(len(customer)) < loyalty
        return self.merchants.pick(group, np.where(loyal, habit, rng.random(len(customer))))

    def web_country(self, rng: np.random.Generator, customer: Array) -> Array:
        """Where a web shop sits: mostly the customer's own country, now and then abroad."""
        abroad = rng.choice([COUNTRIES.index(c) for c in ("GB", "US", "DE", "FR", "JP")], len(customer),
                            p=[0.3, 0.3, 0.2, 0.12, 0.08])  # fmt: skip
        return np.where(rng.random(len(customer)) < 0.88, self.people.country[customer], abroad)

    def clear(self, rows: Rows) -> Rows:
        """Without the rows that fall outside the world's time."""
        return rows[(rows["time"] >= self.spec.start_ms) & (rows["time"] < self.spec.end_ms)]

    def purchases(
        self,
        rng: np.random.Generator,
        customer: Array,
        time_ms: Array,
        merchant: Array,
        *,
        factor: Array | float | None = None,
        card: Array | None = None,
        session: Array | None = None,
    ) -> Rows:
        """Rows as the customers themselves would make them: own card, device and address, usual amounts.

        `factor` multiplies the merchant's price level (the customer's own spending level by default);
        `session` holds one number in [0, 1) per row: equal numbers choose the same card and device.
        """
        people, merchants, count = self.people, self.merchants, len(customer)
        chance = rng.random(count) if session is None else session
        rows = blank_rows(count)
        rows["time"], rows["customer"], rows["merchant"] = time_ms, customer, merchant
        rows["card"] = people.card(customer, (chance * 97) % 1.0) if card is None else card
        rows["amount"] = merchants.prices(
            rng, merchant, people.spender[customer] if factor is None else factor
        )
        rows["refund"] = column("refund")[merchants.category[merchant]]
        street = merchants.city[merchant] >= 0
        cash = merchants.category[merchant] == CASH
        mail = ~street & (rng.random(count) < column("moto")[merchants.category[merchant]])
        rows["channel"] = np.select([cash, street, mail], [ATM, POS, MOTO], ECOM)
        rows["terminal"] = merchants.terminal(merchant, rng.random(count))
        web = rows["channel"] == ECOM
        away = people.journeys.city_at(customer, time_ms)
        device = people.device(customer, time_ms, (chance * 89) % 1.0)
        address = people.address(customer, time_ms, away, (chance * 83) % 1.0, self.spec.start_ms)
        euros = merchants.euros(merchant, rows["amount"])
        tap = (rng.random(count) < 0.75) & ((euros <= _CONTACTLESS_MAX_EUR) | people.wallet[customer])
        old = rng.random(count) < np.where(merchants.country[merchant] == COUNTRIES.index("US"), 0.3, 0.01)
        rows["entry"] = np.select(
            [mail, web, cash, old, tap], [MANUAL, ONLINE, CHIP, STRIPE, CONTACTLESS], CHIP
        )
        phone = people.device(customer, time_ms, np.zeros(count))
        tapped = (rows["entry"] == CONTACTLESS) & people.wallet[customer] & ((chance * 101) % 1.0 < 0.7)
        rows["device"] = np.where(web, device, np.where(tapped, phone, ABSENT))
        rows["ip"] = np.where(web, address, ABSENT)
        rows["email"] = np.where(web | (mail & (chance < 0.4)), customer, ABSENT)
        rows["decline"] = np.where(web | mail, 0.012, 0.004)
        return rows


def moments(rng: np.random.Generator, ground: Ground, customer: Array, category: Array) -> Array:
    """Times of routine purchases: a day by season, weekday and salary, an hour by category and habit."""
    spec, people = ground.spec, ground.people
    days = day_shares(spec)
    group = people.salary_group[customer]
    day = np.searchsorted(days.ravel(), group + rng.random(len(customer)), side="right") - group * spec.days
    hours = np.cumsum(hour_shares(), axis=1)
    hours[:, -1] = 1.0
    steps = (hours + np.arange(len(hours))[:, None]).ravel()
    hour = (
        np.searchsorted(steps, category + rng.random(len(customer)), side="right")
        - category.astype(np.int64) * 24
    )
    offset = (
        hour + people.shift_h[customer] - UTC_OFFSET_H[people.country[customer]] + rng.random(len(customer))
    )
    time = spec.start_ms + np.clip(day, 0, spec.days - 1) * DAY_MS + (offset * HOUR_MS).astype(np.int64)
    result: Array = np.where(
        time < spec.start_ms, time + DAY_MS, np.where(time >= spec.end_ms, time - DAY_MS, time)
    )
    return result


def day_shares(spec: WorldSpec) -> Array:
    """Cumulative share of a customer's purchases by day, one row per salary group, the row's number added.

    Fridays and Saturdays are busy, December and July are above the mean, and spending decays over the
    weeks after the salary (the payday effect of household panels).
    """
    date = spec.start_ms // DAY_MS + np.arange(spec.days)
    weekday = (date + 3) % 7
    month = (date.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)) % 12
    month_day = (date.astype("datetime64[D]") - date.astype("datetime64[D]").astype("datetime64[M]")).astype(
        np.int64
    )
    base = np.array([0.93, 0.93, 0.96, 1.0, 1.15, 1.2, 0.85])[weekday]
    base = base * np.array([0.94, 0.94, 0.97, 1, 1.01, 1.03, 1.05, 1.02, 0.98, 1, 1.05, 1.22])[month]
    rows: list[Array] = []
    for payday in (1, 15, 25, 28):
        since = (month_day + 1 - payday) % 30
        share = base * (0.88 + 0.35 * np.exp(-since / 6.0))
        total = np.cumsum(share) / share.sum()
        total[-1] = 1.0
        rows.append(total + len(rows))
    return np.array(rows)
