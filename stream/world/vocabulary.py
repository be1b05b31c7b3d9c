"""The closed sets of words that a transaction of the payments world may carry.

Order is part of the contract: a word's position is its code in the generator's arrays.
"""

CATEGORIES: tuple[str, ...] = (
    "grocery",
    "fuel",
    "restaurant",
    "fast_food",
    "transport",
    "pharmacy",
    "clothing",
    "home",
    "electronics",
    "department_store",
    "entertainment",
    "digital_goods",
    "gaming",
    "gift_cards",
    "subscription",
    "utilities",
    "airline",
    "lodging",
    "jewelry",
    "money_transfer",
    "charity",
    "cash",
)
"""Merchant categories; `cash` is an automated teller machine, `money_transfer` a payee or remitter."""

CHANNELS: tuple[str, ...] = ("pos", "ecom", "atm", "moto", "recurring")
"""How the payment was made: point of sale, web shop, teller machine, mail or telephone order, standing."""

ENTRY_MODES: tuple[str, ...] = ("chip", "contactless", "stripe", "manual", "online")
"""How the card's data were read; absent (null) for `recurring`."""

COUNTRIES: tuple[str, ...] = (
    "DE",
    "FR",
    "ES",
    "IT",
    "NL",
    "AT",
    "GB",
    "PL",
    "US",
    "JP",
    "RO",
    "BR",
    "VN",
    "TR",
)
"""ISO 3166 codes. Customers live in the first eight, merchants in the first ten; the last four are only
seen in `ip_country` (private networks, travel, proxies)."""

HOME_COUNTRIES = COUNTRIES[:8]
MERCHANT_COUNTRIES = COUNTRIES[:10]

CURRENCIES: tuple[str, ...] = ("EUR", "GBP", "PLN", "USD", "JPY")

CURRENCY_EXPONENT: dict[str, int] = {"EUR": 2, "GBP": 2, "PLN": 2, "USD": 2, "JPY": 0}
"""Decimal digits of the minor unit (ISO 4217)."""

UNITS_PER_EURO: dict[str, float] = {"EUR": 1.0, "GBP": 0.86, "PLN": 4.3, "USD": 1.08, "JPY": 160.0}
"""The fixed exchange rates that the generator prices with (major units for one euro)."""

COUNTRY_CURRENCY: dict[str, str] = {
    "DE": "EUR", "FR": "EUR", "ES": "EUR", "IT": "EUR", "NL": "EUR", "AT": "EUR",
    "GB": "GBP", "PL": "PLN", "US": "USD", "JP": "JPY",
}  # fmt: skip
"""The currency in which a merchant of a country bills."""

EVENT_KINDS: tuple[str, ...] = (
    "issuer_approved",
    "issuer_declined",
    "challenge_passed",
    "challenge_failed",
    "captured",
    "refunded",
)
"""Lifecycle events of an earlier transaction."""

ATTACKS: tuple[str, ...] = (
    "card_testing",
    "account_takeover",
    "card_spree",
    "mule_chain",
    "bust_out",
    "refund_abuse",
    "threshold_probing",
    "merchant_collusion",
    "device_ring",
    "bot_velocity",
)

LOOKALIKES: tuple[str, ...] = (
    "donation_drive",
    "trial_verification",
    "new_phone",
    "holiday_spree",
    "business_trip",
    "house_move",
    "remittance_day",
    "renovation",
    "serial_returner",
    "capped_purchaser",
    "viral_terminal",
    "shared_tablet",
    "flash_sale",
    "subscription_burst",
    "gift_card_run",
)
