"""Conversion of amounts to the base currency: versioned, integer in, integer out.

Rates are the European Central Bank's euro reference rates of 15 November 2024, rounded as published;
minor-unit exponents are ISO 4217's. Whoever needs other rates gives another table: its version is part
of every decision.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

EXPONENTS: Mapping[str, int] = {
    "EUR": 2, "USD": 2, "GBP": 2, "CHF": 2, "SEK": 2, "NOK": 2, "DKK": 2, "PLN": 2, "CZK": 2, "HUF": 2,
    "RON": 2, "JPY": 0, "CAD": 2, "AUD": 2, "BRL": 2, "TRY": 2, "INR": 2, "MXN": 2, "CNY": 2, "KRW": 0,
}  # fmt: skip
PER_EURO: Mapping[str, str] = {
    "EUR": "1", "USD": "1.0583", "GBP": "0.83598", "CHF": "0.9379", "SEK": "11.5865", "NOK": "11.7243",
    "DKK": "7.4590", "PLN": "4.3185", "CZK": "25.272", "HUF": "408.10", "RON": "4.9765", "JPY": "164.10",
    "CAD": "1.4879", "AUD": "1.6362", "BRL": "6.1285", "TRY": "36.4230", "INR": "89.3420", "MXN": "21.5210",
    "CNY": "7.6565", "KRW": "1476.50",
}  # fmt: skip


class UnknownCurrency(ValueError):
    """No rate for this currency: dead-letter the event or add the rate."""


@dataclass(frozen=True, slots=True)
class Rates:
    """`factors[c]`: base minor units per minor unit of currency `c`."""

    base: str
    version: str
    factors: Mapping[str, Fraction]
    ratios: Mapping[str, tuple[int, int]] = field(init=False, repr=False, compare=False)
    """`factors` as numerator and denominator."""

    def __post_init__(self) -> None:
        ratios = {currency: factor.as_integer_ratio() for currency, factor in self.factors.items()}
        object.__setattr__(self, "ratios", ratios)

    def convert(self, amount: int, currency: str) -> int:
        """Base minor units, rounded half to even. Raises `UnknownCurrency`."""
        ratio = self.ratios.get(currency)
        if ratio is None:
            raise UnknownCurrency(f"unknown currency {currency!r}; known are {', '.join(self.factors)}")
        numerator, denominator = ratio
        # In integers: a Fraction of each amount would cost ten times as much.
        whole, rest = divmod(amount * numerator, denominator)
        above_half = 2 * rest - denominator
        return whole + (above_half > 0 or (above_half == 0 and whole & 1))


def rates(base: str) -> Rates:
    """The built-in table, seen from `base`. Raises `UnknownCurrency`."""
    if base not in PER_EURO:
        raise UnknownCurrency(f"unknown base currency {base!r}; known are {', '.join(PER_EURO)}")

    def units_per_minor(currency: str) -> Fraction:
        return Fraction(1, 10 ** EXPONENTS[currency]) / Fraction(PER_EURO[currency])

    factors = {c: units_per_minor(c) / units_per_minor(base) for c in PER_EURO}
    return Rates(base, "ecb-2024-11-15", factors)
