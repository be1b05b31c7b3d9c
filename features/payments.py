"""The payments schema and catalogue: cards, customers, merchants, terminals, devices, addresses, pairs.

Windows are chosen so that features share tiles: the number of tiles per transaction is what the stream
costs. Hot entities (merchants) keep no delayed windows, which would hold a week of minute tiles.
"""

from typing import Final

from features.catalogue import Catalogue
from features.feature import (
    Distinct,
    Gap,
    Novelty,
    Ratio,
    ReferenceTable,
    Speed,
    Window,
    ZScore,
    hour,
    mismatch,
    present,
    reference,
    time_of_day,
    value,
    weekday,
)
from features.measure import FRAUD, Where
from features.rates import EXPONENTS
from features.schema import Entity, Field, Label, Schema
from features.tier import DAY, HOUR, MINUTE

CHANNELS: Final = ("pos", "ecom", "atm", "moto", "recurring")
ENTRIES: Final = ("chip", "contactless", "stripe", "manual", "online")
CATEGORIES: Final = (
    "grocery", "fuel", "restaurant", "fast_food", "transport", "pharmacy", "clothing", "home", "electronics",
    "department_store", "entertainment", "digital_goods", "gaming", "gift_cards", "subscription", "utilities",
    "airline", "lodging", "jewelry", "money_transfer", "charity", "cash",
)  # fmt: skip
LIFECYCLE: Final = (
    "issuer_approved", "issuer_declined", "challenge_passed", "challenge_failed", "captured", "refunded",
)  # fmt: skip

CATEGORY_RISK: Final = ReferenceTable(
    "risk",
    "2026-11",
    # How easily the goods turn into cash: 0 consumed on the spot, 1 goods, 2 easily resold, 3 money itself.
    {
        "grocery": 0, "fuel": 0, "restaurant": 0, "fast_food": 0, "transport": 0, "pharmacy": 0,
        "utilities": 0, "subscription": 0, "charity": 1, "clothing": 1, "home": 1, "department_store": 1,
        "entertainment": 1, "lodging": 1, "airline": 2, "digital_goods": 2, "gaming": 2, "electronics": 2,
        "jewelry": 3, "gift_cards": 3, "money_transfer": 3, "cash": 3,
    },
)  # fmt: skip
_EURO_AREA = [
    "AT",
    "BE",
    "HR",
    "CY",
    "EE",
    "FI",
    "FR",
    "DE",
    "GR",
    "IE",
    "IT",
    "LV",
    "LT",
    "LU",
    "MT",
    "NL",
    "PT",
    "SK",
    "SI",
    "ES",
]
_OTHER_EEA = ["BG", "CZ", "DK", "HU", "PL", "RO", "SE", "IS", "LI", "NO"]
COUNTRY_ZONE: Final = ReferenceTable(
    "zone",
    "2025-01",
    # 0 euro area, 1 elsewhere in the European Economic Area, 2 GB and CH; all others are absent.
    {**dict.fromkeys(_EURO_AREA, 0.0), **dict.fromkeys(_OTHER_EEA, 1.0), "GB": 2.0, "CH": 2.0},
)

SCHEMA: Final = Schema(
    name="payments",
    fields=(
        Field("amount", "amount", required=True, description="minor units of `currency`", example=4599),
        Field("currency", "category", required=True, values=tuple(EXPONENTS), example="EUR"),
        Field(
            "card",
            "text",
            personal=True,
            description="token of the card, never its number",
            example="cd_kqzvbn",
        ),
        Field("customer", "text", personal=True, example="cu_mwpryt"),
        Field("merchant", "text", required=True, example="me_hcgdfs"),
        Field("terminal", "text", example="te_bvnxzq"),
        Field("device", "text", personal=True, example="de_plkjhg"),
        Field("ip", "text", personal=True, example="10.20.30.40"),
        Field("email", "text", personal=True, example="ada@example.com"),
        Field("channel", "category", required=True, values=CHANNELS, example="ecom"),
        Field("entry", "category", values=ENTRIES, example="online"),
        Field("category", "category", required=True, values=CATEGORIES, example="electronics"),
        Field("merchant_country", "text", length_max=2, example="DE"),
        Field("ip_country", "text", length_max=2, example="FR"),
        Field("billing_country", "text", length_max=2, example="DE"),
        Field("latitude", "number", minimum=-90, maximum=90, description="of the terminal"),
        Field("longitude", "number", minimum=-180, maximum=180, description="of the terminal"),
        Field(
            "bin", "text", length_max=8, description="issuer prefix, six to eight digits", example="411111"
        ),
    ),
    entities=(
        Entity("card", ("card",)),
        Entity("customer", ("customer",)),
        Entity("merchant", ("merchant",)),
        Entity("terminal", ("terminal",)),
        Entity("device", ("device",)),
        Entity("ip", ("ip",)),
        Entity("email", ("email",)),
        Entity("card_merchant", ("card", "merchant")),
    ),
    primary="card",
    subject="customer",
    currency="currency",
    latitude="latitude",
    longitude="longitude",
    lifecycle=LIFECYCLE,
    label=Label("fraud", "label_time", "label_withdrawn_time"),
)

_ONLINE = (Where("channel", ("ecom",)),)
_CASHLIKE = (Where("category", ("cash", "money_transfer", "gift_cards")),)


def _usual(entity: str) -> Ratio:
    """Today's count over the mean daily count of thirty days."""
    today, month = Window(entity, "count", DAY), Window(entity, "count", 30 * DAY)
    return Ratio(f"{entity}_count_1d_to_usual", today, month, per=30.0)


def _to_mean(entity: str) -> Ratio:
    mean = Window(entity, "mean", 30 * DAY, "amount")
    return Ratio(f"{entity}_amount_to_mean_30d", value("amount"), mean)


def _fraud_share(entity: str, delay_ms: int = 0) -> Ratio:
    frauds = Window(entity, "count", 30 * DAY, source=FRAUD)
    all_of = Window(entity, "count", 30 * DAY, delay_ms=delay_ms)
    return Ratio(f"{entity}_fraud_share_30d", frauds, all_of, is_share=True)


CATALOGUE: Final = Catalogue(
    "payments",
    SCHEMA,
    (
        # The event itself
        value("amount", "money"),
        value("channel", "code"),
        value("entry", "code"),
        value("category", "code"),
        hour(),
        weekday(),
        time_of_day(),
        reference("category", CATEGORY_RISK),
        reference("ip_country", COUNTRY_ZONE),
        mismatch("ip_country", "billing_country"),
        mismatch("merchant_country", "billing_country"),
        present("device"),
        # The card
        Window("card", "count", 10 * MINUTE),
        Window("card", "count", HOUR),
        Window("card", "count", DAY),
        Window("card", "count", 7 * DAY),
        Window("card", "count", 30 * DAY),
        Window("card", "sum", HOUR, "amount"),
        Window("card", "sum", DAY, "amount"),
        Window("card", "sum", 7 * DAY, "amount"),
        Window("card", "mean", 7 * DAY, "amount"),
        Window("card", "mean", 30 * DAY, "amount"),
        Window("card", "std", 30 * DAY, "amount"),
        Window("card", "max", DAY, "amount"),
        Window("card", "max", 30 * DAY, "amount"),
        Window("card", "count", DAY, where=_ONLINE),
        Window("card", "count", 30 * DAY, where=_ONLINE),
        Window("card", "sum", DAY, "amount", where=_CASHLIKE),
        Window("card", "count", HOUR, source="issuer_declined"),
        Window("card", "count", DAY, source="issuer_declined"),
        Window("card", "count", DAY, source="challenge_failed"),
        Window("card", "count", 30 * DAY, source="refunded"),
        Window("card", "sum", 30 * DAY, "amount", source="refunded"),
        ZScore("card", "amount", 30 * DAY),
        _to_mean("card"),
        _usual("card"),
        Ratio("card_amount_to_max_30d", value("amount"), Window("card", "max", 30 * DAY, "amount")),
        Ratio(
            "card_online_share_30d",
            Window("card", "count", 30 * DAY, where=_ONLINE),
            Window("card", "count", 30 * DAY),
            is_share=True,
        ),
        Gap("card"),
        Gap("card", source="issuer_declined"),
        Speed("card"),
        Novelty("card", "device", 30 * DAY),
        Novelty("card", "merchant", 30 * DAY),
        Novelty("card", "ip_country", 30 * DAY),
        Distinct("card", "merchant", HOUR),
        Distinct("card", "merchant", DAY),
        Distinct("card", "device", 7 * DAY),
        # The customer
        Window("customer", "count", HOUR),
        Window("customer", "count", DAY),
        Window("customer", "count", 30 * DAY),
        Window("customer", "sum", DAY, "amount"),
        Window("customer", "mean", 30 * DAY, "amount"),
        Window("customer", "count", 30 * DAY, source=FRAUD),
        _to_mean("customer"),
        Novelty("customer", "billing_country", 30 * DAY),
        Novelty("customer", "device", 30 * DAY),
        # The merchant and its terminal
        Window("merchant", "count", HOUR),
        Window("merchant", "count", DAY),
        Window("merchant", "count", 30 * DAY),
        Window("merchant", "mean", 30 * DAY, "amount"),
        _to_mean("merchant"),
        _usual("merchant"),
        _fraud_share("merchant"),
        Window("terminal", "count", HOUR),
        Window("terminal", "count", DAY),
        Window("terminal", "count", 30 * DAY, source=FRAUD),
        _fraud_share("terminal", delay_ms=7 * DAY),
        Distinct("terminal", "card", HOUR),
        # Device, address, mail
        Window("device", "count", HOUR),
        Window("device", "count", DAY),
        Window("device", "count", 30 * DAY, source=FRAUD),
        Distinct("device", "card", DAY),
        Distinct("device", "card", 30 * DAY),
        Gap("device"),
        Window("ip", "count", HOUR),
        Window("ip", "count", DAY),
        Distinct("ip", "card", DAY),
        Window("email", "count", DAY),
        Distinct("email", "card", 30 * DAY),
        # This card at this merchant
        Window("card_merchant", "count", HOUR),
        Window("card_merchant", "count", 60 * DAY),
        Window("card_merchant", "mean", 60 * DAY, "amount"),
        Gap("card_merchant"),
    ),
)
