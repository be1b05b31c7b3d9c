"""What each merchant category is like: how often, how dear, when, and by which channel it sells."""

from dataclasses import dataclass

import numpy as np

from stream.world.vocabulary import CATEGORIES


@dataclass(frozen=True, slots=True)
class Trade:
    """One category. `online` is the share of sales by web shop, `frequency` is relative to the others."""

    frequency: float
    online: float
    median_eur: float
    sigma: float  # of the log of amounts inside one merchant
    density: float  # shops per inhabitant-customer of a city
    priced: float  # share of sales that take a price from the merchant's list
    hours: str
    weekend: float = 1.0
    december: float = 1.0
    summer: float = 1.0
    refund: float = 0.004
    moto: float = 0.0


TRADES: dict[str, Trade] = {
    "grocery": Trade(24, 0.06, 27, 0.70, 0.012, 0.1, "day", weekend=1.2, december=1.1),
    "fuel": Trade(6, 0.0, 50, 0.35, 0.008, 0.0, "commute", summer=1.15),
    "restaurant": Trade(9, 0.03, 33, 0.60, 0.030, 0.3, "meals", weekend=1.5, moto=0.01),
    "fast_food": Trade(10, 0.18, 11, 0.45, 0.020, 0.7, "meals", weekend=1.2),
    "transport": Trade(9, 0.40, 6, 0.80, 0.010, 0.7, "commute", weekend=0.7),
    "pharmacy": Trade(4, 0.15, 17, 0.60, 0.010, 0.5, "day"),
    "clothing": Trade(5, 0.55, 46, 0.70, 0.015, 0.8, "shop", weekend=1.3, december=1.4, refund=0.06),
    "home": Trade(3, 0.38, 58, 0.90, 0.010, 0.7, "shop", weekend=1.3, refund=0.02, moto=0.02),
    "electronics": Trade(2.4, 0.62, 120, 1.00, 0.008, 0.8, "shop", december=1.8, refund=0.03),
    "department_store": Trade(4, 0.55, 40, 0.80, 0.008, 0.7, "shop", weekend=1.2, december=1.5, refund=0.03),
    "entertainment": Trade(4, 0.55, 24, 0.60, 0.012, 0.7, "evening", weekend=1.6, summer=1.2),
    "digital_goods": Trade(3.4, 1.0, 8, 0.80, 0.012, 0.9, "evening", weekend=1.1),
    "gaming": Trade(3, 1.0, 14, 0.85, 0.010, 0.9, "night", weekend=1.3),
    "gift_cards": Trade(1.2, 0.65, 40, 0.65, 0.005, 0.9, "shop", december=3.0),
    "subscription": Trade(0.5, 1.0, 11, 0.50, 0.008, 0.9, "evening"),
    "utilities": Trade(0.6, 1.0, 65, 0.50, 0.004, 0.2, "day", moto=0.10),
    "airline": Trade(0.6, 0.97, 190, 0.70, 0.003, 0.3, "evening", summer=1.5, refund=0.02, moto=0.03),
    "lodging": Trade(0.8, 0.70, 140, 0.60, 0.008, 0.4, "evening", summer=1.5, refund=0.02, moto=0.08),
    "jewelry": Trade(0.4, 0.40, 160, 0.90, 0.005, 0.7, "shop", december=2.5, refund=0.02),
    "money_transfer": Trade(1.8, 0.88, 110, 0.95, 0.006, 0.4, "day"),
    "charity": Trade(0.6, 0.92, 18, 0.80, 0.006, 0.8, "evening", december=2.0, moto=0.04),
    "cash": Trade(4.5, 0.0, 75, 0.55, 0.010, 0.0, "day", weekend=1.1),
}
assert tuple(TRADES) == CATEGORIES

CODE = {name: code for code, name in enumerate(CATEGORIES)}
"""Category name to its code."""

CASH = CODE["cash"]


def column(attribute: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """One number of every category, in the order of CATEGORIES."""
    return np.array([getattr(trade, attribute) for trade in TRADES.values()], np.float64)


_PEAKS: dict[str, tuple[tuple[float, float, float], ...]] = {
    # mixture of (hour, spread, weight) over the local day
    "day": ((10.5, 2.2, 1.0), (17.0, 2.3, 1.2)),
    "commute": ((8.0, 1.3, 1.0), (17.5, 1.7, 1.1), (13.0, 3.0, 0.5)),
    "meals": ((12.7, 1.1, 1.0), (19.6, 1.5, 1.1)),
    "shop": ((12.0, 2.5, 0.8), (16.5, 2.5, 1.0), (20.5, 1.5, 0.5)),
    "evening": ((12.5, 3.0, 0.5), (20.0, 2.2, 1.2)),
    "night": ((17.0, 3.0, 0.6), (22.0, 2.2, 1.2)),
}


def hour_shares() -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Share of a category's sales in each local hour; shape (categories, 24), rows sum to 1."""
    hour = np.arange(24) + 0.5
    rows = []
    for trade in TRADES.values():
        share = np.full(24, 0.006)
        for centre, spread, weight in _PEAKS[trade.hours]:
            distance = np.minimum(np.abs(hour - centre), 24 - np.abs(hour - centre))
            share += weight * np.exp(-0.5 * (distance / spread) ** 2) / spread
        rows.append(share / share.sum())
    return np.array(rows)
