"""Customers and what belongs to them: homes, incomes, habits, cards, devices, addresses, journeys."""

from dataclasses import dataclass, field

import numpy as np

from stream.world.geography import CITY_COUNTRY, HOME_CITY_SHARE, MEDIAN_INCOME_EUR, Journeys
from stream.world.rows import Array
from stream.world.spec import DAY_MS, WorldSpec
from stream.world.trades import column
from stream.world.vocabulary import COUNTRIES

SALARY_DAYS = np.array([1, 15, 25, 28])
_BINS_PER_COUNTRY = 5
_CARRIER_ADDRESSES = 48  # shared by the mobile customers of one country


@dataclass(slots=True)
class Network:
    """Addresses, devices and mailboxes so far. Campaigns take new ones; nothing is ever given back."""

    mailbox_count: int  # a customer's own mailbox has the customer's number
    device_count: int = 0
    _countries: list[Array] = field(default_factory=list)
    address_count: int = 0

    def devices(self, count: int) -> Array:
        """`count` devices never seen before."""
        self.device_count += count
        return np.arange(self.device_count - count, self.device_count)

    def mailboxes(self, count: int) -> Array:
        """`count` mailboxes never seen before."""
        self.mailbox_count += count
        return np.arange(self.mailbox_count - count, self.mailbox_count)

    def addresses(self, country: Array) -> Array:
        """One new address in each of the given countries (codes)."""
        self._countries.append(country.astype(np.int64))
        self.address_count += len(country)
        return np.arange(self.address_count - len(country), self.address_count)

    def address_countries(self) -> Array:
        """Country code of every address."""
        return np.concatenate(self._countries)


@dataclass(frozen=True, slots=True)
class People:
    """Arrays over customers, except where noted. Reserve customers (no routine of their own: the identities
    that rings open accounts with) come last, from `regulars` on."""

    regulars: int
    country: Array
    city: Array
    household: Array
    income_eur: Array  # net, per month
    spender: Array  # factor on every price
    per_day: Array  # routine transactions
    opened_ms: Array
    salary_group: Array  # index into SALARY_DAYS
    habits: Array  # (customers, categories) cumulative, flattened with the customer's number added
    online_taste: Array  # factor on the share of web purchases
    shift_h: Array  # early birds and night owls
    wallet: Array  # bool: pays contactless with the phone
    private_network: Array  # bool: hides behind an address elsewhere
    card_first: Array
    card_count: Array
    phone: Array
    new_phone: Array
    phone_change_ms: Array
    laptop: Array  # shared in many households
    home_address: Array  # first of the household's run of addresses
    work_address: Array
    hidden_address: Array
    carrier_first: Array  # per country: first address of the mobile carrier's pool
    hotel_first: Array  # per city: first of the addresses that travellers share
    card_owner: Array  # per card
    card_bin: Array  # per card, six-digit number
    journeys: Journeys

    def card(self, customer: Array, chance: Array) -> Array:
        """One of each customer's cards; the first for three quarters of `chance` in [0, 1)."""
        count = self.card_count[customer]
        other = 1 + ((chance - 0.75) * 4 * (count - 1)).astype(np.int64)
        return self.card_first[customer] + np.where(
            (chance < 0.75) | (count == 1), 0, np.minimum(other, count - 1)
        )

    def device(self, customer: Array, time_ms: Array, chance: Array) -> Array:
        """The phone (the new one once it is bought) or, for a fifth of `chance`, the laptop."""
        phone = np.where(
            time_ms >= self.phone_change_ms[customer], self.new_phone[customer], self.phone[customer]
        )
        return np.where(chance < 0.8, phone, self.laptop[customer])

    def address(
        self, customer: Array, time_ms: Array, city_abroad: Array, chance: Array, origin_ms: int
    ) -> Array:
        """Home, carrier or work; a hotel's on a journey; always the private network's for those who use one.
        Home addresses change every five weeks, as consumer lines do."""
        lease = np.maximum(time_ms - origin_ms, 0) // (35 * DAY_MS)
        spread = (chance * 7919) % 1.0
        carrier = self.carrier_first[self.country[customer]] + (spread * _CARRIER_ADDRESSES).astype(np.int64)
        hotel = self.hotel_first[np.maximum(city_abroad, 0)] + (spread * 12).astype(np.int64)
        usual = np.where(chance < 0.55, self.home_address[customer] + lease, carrier)
        usual = np.where(chance >= 0.88, self.work_address[customer], usual)
        usual = np.where(city_abroad >= 0, hotel, usual)
        return np.where(self.private_network[customer], self.hidden_address[customer], usual)


def _journeys(spec: WorldSpec, rng: np.random.Generator, city: Array) -> Journeys:
    """About two holidays a year each, and one customer in twelve with a dozen business trips."""
    business = rng.random(len(city)) < 0.08
    trips = rng.poisson(np.where(business, 13.0, 2.2) * spec.days / 365.0)
    customer = np.repeat(np.arange(len(city)), trips)
    start = spec.start_ms + (rng.random(len(customer)) * spec.days * DAY_MS).astype(np.int64)
    nights = np.where(
        business[customer], rng.uniform(1, 3.5, len(customer)), rng.uniform(2, 14, len(customer))
    )
    away = rng.integers(0, len(CITY_COUNTRY), len(customer))
    away = np.where(away == city[customer], (away + 1) % len(CITY_COUNTRY), away)
    order = np.lexsort((start, customer))
    end = start + (nights * DAY_MS).astype(np.int64)
    return Journeys(customer[order], start[order], end[order], away[order], spec.days * DAY_MS, spec.start_ms)


def _habits(rng: np.random.Generator, count: int) -> Array:
    taste = column("frequency") * rng.gamma(1.6, 1.0, (count, len(column("frequency"))))
    share = np.cumsum(taste, axis=1)
    share /= share[:, -1:]
    share[:, -1] = 1.0
    result: Array = (share + np.arange(count)[:, None]).ravel()
    return result


def settle_people(spec: WorldSpec, rng: np.random.Generator, network: Network, reserves: int) -> People:
    """`spec.customers` regular customers and `reserves` identities for rings."""
    count = spec.customers + reserves
    households = np.repeat(np.arange(count), rng.choice([1, 2, 3, 4], count, p=[0.4, 0.3, 0.15, 0.15]))[
        :count
    ]
    homes = int(households[-1]) + 1
    city = rng.choice(len(CITY_COUNTRY), homes, p=HOME_CITY_SHARE)[households]
    country = CITY_COUNTRY[city]
    income = MEDIAN_INCOME_EUR[country] * np.exp(0.45 * rng.standard_normal(count))
    late = rng.random(count) < 0.12
    opened = spec.start_ms + np.where(late, (rng.random(count) * spec.days * DAY_MS).astype(np.int64), 0)
    rate = spec.transactions_per_day * rng.gamma(2.5, 1 / 2.5, count)
    cards = rng.choice([1, 2, 3], count, p=[0.55, 0.33, 0.12])
    owner = np.repeat(np.arange(count), cards)
    bins = rng.integers(400_000, 559_999, (len(COUNTRIES), _BINS_PER_COUNTRY))
    phone, new_phone = network.devices(count), network.devices(count)
    family = network.devices(homes)[households]
    laptop = np.where(rng.random(count) < 0.6, family, network.devices(count))
    horizon = spec.days * DAY_MS
    phone_change = spec.start_ms + (rng.random(count) * max(horizon, 3 * 365 * DAY_MS)).astype(np.int64)
    leases = spec.days // 35 + 2
    home_country = np.repeat(country[np.unique(households, return_index=True)[1]], leases)
    home = network.addresses(home_country).reshape(homes, leases)[:, 0][households]
    offices = max(count // 25, 1)
    office_country = rng.choice(len(COUNTRIES[:8]), offices)
    office = network.addresses(office_country)[rng.integers(0, offices, count)]
    hides = rng.random(count) < 0.05
    hidden_country = np.array([COUNTRIES.index(c) for c in ("NL", "US", "RO", "GB", "VN", "BR", "TR")])
    hidden_pool = network.addresses(rng.choice(hidden_country, max(count // 60, 8)))
    carrier = network.addresses(np.repeat(np.arange(len(COUNTRIES)), _CARRIER_ADDRESSES))[
        ::_CARRIER_ADDRESSES
    ]
    hotel = network.addresses(np.repeat(CITY_COUNTRY, 12))[::12]
    # a work address counts only in the customer's own country; others work from home
    office = np.where(network.address_countries()[office] == country, office, home)
    return People(
        regulars=spec.customers,
        country=country,
        city=city,
        household=households,
        income_eur=income,
        spender=(income / MEDIAN_INCOME_EUR[country]) ** 0.35 * np.exp(0.15 * rng.standard_normal(count)),
        per_day=np.where(np.arange(count) < spec.customers, rate, 0.0),
        opened_ms=opened,
        salary_group=rng.choice(len(SALARY_DAYS), count, p=[0.35, 0.1, 0.25, 0.3]),
        habits=_habits(rng, count),
        online_taste=np.exp(0.5 * rng.standard_normal(count)),
        shift_h=rng.normal(0, 1.2, count),
        wallet=rng.random(count) < 0.3,
        private_network=hides,
        card_first=np.concatenate([[0], np.cumsum(cards)[:-1]]),
        card_count=cards,
        phone=phone,
        new_phone=new_phone,
        phone_change_ms=phone_change,
        laptop=laptop,
        home_address=home,
        work_address=office,
        hidden_address=hidden_pool[rng.integers(0, len(hidden_pool), count)],
        carrier_first=carrier,
        hotel_first=hotel,
        card_owner=owner,
        card_bin=bins[country[owner], rng.integers(0, _BINS_PER_COUNTRY, len(owner))],
        journeys=_journeys(spec, rng, city),
    )


def waking(local_hour: Array) -> Array:
    """Whether people are usually up at that local hour (7 to 23)."""
    return (local_hour >= 7) & (local_hour < 23)
