"""When campaigns and benign occasions take place, and how many rows they may make."""

from dataclasses import dataclass

import numpy as np

from stream.world.attacks import ATTACK_OF
from stream.world.ground import Ground
from stream.world.occasions import OCCASION_OF
from stream.world.raid import Raid
from stream.world.rows import Rows
from stream.world.spec import DAY_MS, WorldSpec
from stream.world.vocabulary import ATTACKS, LOOKALIKES

MEAN_ATTACK_ROWS = 66.0
"""Rows of one full-sized campaign, all kinds alike (measured)."""
_SMALLEST = 0.2
RESERVES_PER_RING = 40
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One campaign or occasion: what, which of its kind, when."""

    kind: str
    number: int
    start_ms: int

    @property
    def name(self) -> str:
        """As in the ground truth: `card_testing-3`."""
        return f"{self.kind}-{self.number}"


def expected_rows(spec: WorldSpec) -> float:
    """Roughly how many transactions the world will hold."""
    return spec.customers * spec.days * (spec.transactions_per_day + 0.07)


def rings_at_most(spec: WorldSpec) -> int:
    """How many device rings the world can hold at most: each needs made-up identities prepared."""
    if spec.campaigns:
        return spec.campaigns.get("device_ring", 0)
    budget = spec.fraud_share * expected_rows(spec)
    return int(budget / (MEAN_ATTACK_ROWS * _SMALLEST * len(ATTACKS))) + 2


def campaign_size(spec: WorldSpec) -> float:
    """Scale of the campaigns: full where the budget holds two of every kind, smaller in small worlds."""
    if spec.campaigns:
        return 1.0
    budget = spec.fraud_share * expected_rows(spec)
    return float(np.clip(budget / (2 * len(ATTACKS) * MEAN_ATTACK_ROWS), _SMALLEST, 1.0))


def _start(spec: WorldSpec, phase: float, number: int) -> int:
    """Starts of one kind spread evenly over the world whatever their number (golden-ratio sequence)."""
    return spec.start_ms + int(((phase + number * _GOLDEN) % 1.0) * 0.97 * spec.days * DAY_MS)


def _run(ground: Ground, seed: int, stream: int, event: Scheduled, size: float, ring: int) -> Rows:
    """One campaign or occasion, from a random stream of its own."""
    kinds = ATTACKS + LOOKALIKES
    rng = np.random.Generator(np.random.PCG64([seed, stream, kinds.index(event.kind), event.number]))
    skill = float(rng.beta(1 + 8 * ground.spec.skill, 9 - 8 * ground.spec.skill))
    first = ground.people.regulars + ring * RESERVES_PER_RING
    reserves = np.arange(first, first + RESERVES_PER_RING)
    raid = Raid(ground, rng, event.start_ms, skill, size, reserves)
    make = ATTACK_OF.get(event.kind) or OCCASION_OF[event.kind]
    return ground.clear(make(raid))


def campaigns(ground: Ground, rng: np.random.Generator, seed: int) -> tuple[list[Scheduled], list[Rows]]:
    """The attacks and their rows: the counts asked for, or turn by turn until the fraud share is spent."""
    spec = ground.spec
    budget = spec.fraud_share * expected_rows(spec)
    phase = dict(zip(ATTACKS, rng.random(len(ATTACKS)), strict=True))
    size, made, rows = campaign_size(spec), 0, list[Rows]()
    events: list[Scheduled] = []
    rounds = max(spec.campaigns.values()) if spec.campaigns else 10**6
    for number in range(rounds):
        for kind in rng.permutation(np.array(ATTACKS)).tolist():
            if spec.campaigns and number >= spec.campaigns.get(kind, 0):
                continue
            if not spec.campaigns and made >= budget:
                return events, rows
            if kind == "device_ring" and number >= rings_at_most(spec):
                continue
            event = Scheduled(kind, number, _start(spec, phase[kind], number))
            block = _run(ground, seed, 1, event, size, number)
            if len(block):
                block["campaign"] = len(events)
                events.append(event)
                rows.append(block)
                made += len(block)
    return events, rows


def occasions(
    ground: Ground, rng: np.random.Generator, seed: int, fraud_rows: int
) -> tuple[list[Scheduled], list[Rows]]:
    """Benign look-alikes, turn by turn, `spec.lookalike_ratio` rows for each row of fraud."""
    spec, size = ground.spec, campaign_size(ground.spec)
    phase = dict(zip(LOOKALIKES, rng.random(len(LOOKALIKES)), strict=True))
    events: list[Scheduled] = []
    rows: list[Rows] = []
    made, number = 0, 0
    while made < fraud_rows * spec.lookalike_ratio:
        for kind in rng.permutation(np.array(LOOKALIKES)).tolist():
            event = Scheduled(kind, number, _start(spec, phase[kind], number))
            block = _run(ground, seed, 2, event, size, 0)
            if len(block):
                block["lookalike"] = len(events)
                events.append(event)
                rows.append(block)
                made += len(block)
        number += 1
    return events, rows
