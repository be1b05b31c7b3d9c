"""What a payments world is made to: sizes, shares and the schedule. All of it is an argument."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from stream.world.vocabulary import ATTACKS

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
MINUTE_MS = 60_000
SECOND_MS = 1_000


@dataclass(frozen=True, slots=True)
class WorldSpec:
    """One world. Defaults give about 3,100 transactions a day, 0.3 % of them fraud.

    `campaigns` fixes how many campaigns of each kind take place; without it kinds take turns until the
    planned `fraud_share` is spent. `skill` (0-1) is how well fraudsters imitate their victims' habits.
    """

    customers: int = 2_000
    days: int = 60
    start_ms: int = 1_704_067_200_000  # 2024-01-01T00:00:00Z, a Monday
    transactions_per_day: float = 1.45  # routine ones, mean per customer
    fraud_share: float = 0.003
    skill: float = 0.5
    lookalike_ratio: float = 3.0  # rows of benign look-alikes for each row of fraud
    unreported_share: float = 0.08
    disputed_share: float = 0.0002  # good transactions that are disputed all the same
    label_delay_scale: float = 1.0  # stretches or shrinks the delays of labels
    captures: bool = True  # also emit `captured` events (about one per approved transaction)
    campaigns: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if self.customers < 50 or self.days < 1:
            raise ValueError("a world needs at least 50 customers and 1 day")
        if not 0 <= self.fraud_share <= 0.2 or not 0 <= self.skill <= 1:
            raise ValueError("fraud_share lies in [0, 0.2] and skill in [0, 1]")
        unknown = sorted(set(self.campaigns) - set(ATTACKS))
        if unknown:
            raise ValueError(f"unknown campaign kinds {unknown}; known: {', '.join(ATTACKS)}")

    @property
    def end_ms(self) -> int:
        """The first instant after the world, epoch milliseconds."""
        return self.start_ms + self.days * DAY_MS
