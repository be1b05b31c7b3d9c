"""One campaign or one benign occasion: its place, time, size and skill, and the moves that several share."""

from dataclasses import dataclass

import numpy as np

from stream.world.ground import ECOM, Ground
from stream.world.people import waking
from stream.world.rows import ABSENT, Array, Rows
from stream.world.spec import HOUR_MS
from stream.world.trades import CODE
from stream.world.vocabulary import COUNTRIES

_PROXY_COUNTRIES = np.array([COUNTRIES.index(c) for c in ("NL", "US", "RO", "GB", "VN", "BR", "TR")])


@dataclass(frozen=True, slots=True)
class Raid:
    """What a campaign is made from. `skill` (0-1) is how well habits are imitated, `size` scales counts."""

    ground: Ground
    rng: np.random.Generator
    start_ms: int
    skill: float
    size: float
    reserves: Array  # identities that nobody else uses

    def number(self, low: int, high: int, least: int = 2) -> int:
        """A scaled count, uniform between the bounds."""
        return max(least, round(float(self.rng.uniform(low, high)) * self.size))

    def customers(self, count: int) -> Array:
        """Different customers with an account and purchases, the active ones more often."""
        people = self.ground.people
        open_now = (people.opened_ms <= self.start_ms) & (people.per_day > 0)
        weight = np.where(open_now, people.per_day, 0.0)
        count = min(count, int(np.count_nonzero(weight)))
        return self.rng.choice(len(weight), count, replace=False, p=weight / weight.sum())

    def steps(self, count: int, median_ms: float, spread: float = 0.8) -> Array:
        """`count` increasing times from the start, gaps log-normal around the median."""
        gaps = self.rng.lognormal(np.log(median_ms), spread, count)
        result: Array = self.start_ms + np.cumsum(gaps).astype(np.int64)
        return result

    def days(self, count: int, span_days: float) -> Array:
        """`count` times spread over the span, in no order."""
        return self.start_ms + (self.rng.random(count) * span_days * 24 * HOUR_MS).astype(np.int64)

    def by_day(self, customer: Array, time_ms: Array, share: float) -> Array:
        """Moves that share of the nightly times into the customer's waking hours."""
        local = self.ground.local_hour(customer, time_ms)
        shift = self.rng.integers(8, 22, len(time_ms)) - local
        move = ~waking(local) & (self.rng.random(len(time_ms)) < share)
        return np.where(move, time_ms + shift * HOUR_MS, time_ms)

    def web_shops(self, count: int, *categories: str, country: int | None = None) -> Array:
        """`count` web shops of these categories, popularity ignored."""
        home = self.rng.choice(len(COUNTRIES[:8])) if country is None else country
        chosen = np.array([CODE[name] for name in categories])[self.rng.integers(0, len(categories), count)]
        merchants = self.ground.merchants
        group = merchants.web(np.full(count, home), chosen)
        first, size = merchants.group_first[group], merchants.group_count[group]
        return first + (self.rng.random(count) * size).astype(np.int64)

    def categories(self, count: int, *names: str) -> Array:
        """`count` category codes drawn from the names."""
        return np.array([CODE[name] for name in names])[self.rng.integers(0, len(names), count)]

    def disguised(self, rows: Rows, devices: int, addresses: int) -> Rows:
        """Web rows made from the attackers' own devices and addresses. The skilled look out from the victim's
        country, through its mobile carrier even, where many good customers are."""
        rng, people, network = self.rng, self.ground.people, self.ground.network
        count = len(rows)
        web = rows["channel"] == ECOM
        device = network.devices(devices)[rng.integers(0, devices, count)]
        country = people.country[rows["customer"]]
        pool = rng.integers(0, addresses, count)
        base = np.where(rng.random(addresses) < 0.7 + 0.28 * self.skill,
                        country[rng.integers(0, max(count, 1), addresses)],
                        _PROXY_COUNTRIES[rng.integers(0, len(_PROXY_COUNTRIES), addresses)])  # fmt: skip
        address = network.addresses(base)[pool]
        carrier = people.carrier_first[country] + rng.integers(0, 48, count)
        address = np.where(rng.random(count) < 0.4 * self.skill, carrier, address)
        rows["device"] = np.where(web, device, rows["device"])
        rows["ip"] = np.where(web, address, ABSENT)
        return rows


def fraudulent(rows: Rows, *, decline: Array | float, reported: float = 0.92) -> Rows:
    """Marks rows as fraud with their chance of an issuer's refusal and of ever being reported."""
    rows["fraud"] = True
    rows["decline"] = decline
    rows["reported"] = reported
    return rows
