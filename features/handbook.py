"""The Fraud Detection Handbook's schema: a transaction, its customer, terminal and amount.

Source of the data: Le Borgne, Siblini, Lebichot, Bontempi, "Reproducible Machine Learning for Credit
Card Fraud Detection - Practical Handbook", 2022 (simulated transactions; fraud known after seven days).
"""

from typing import Final

from features.catalogue import Catalogue
from features.feature import Gap, Novelty, Ratio, Window, ZScore, hour, time_of_day, value, weekday
from features.measure import FRAUD
from features.schema import Entity, Field, Label, Schema
from features.tier import DAY, HOUR

SCHEMA: Final = Schema(
    name="handbook",
    fields=(
        Field("customer", "text", required=True, column="CUSTOMER_ID", personal=True, example="596"),
        Field("terminal", "text", required=True, column="TERMINAL_ID", example="3156"),
        Field("amount", "amount", required=True, column="TX_AMOUNT", example=5716),
    ),
    entities=(Entity("customer", ("customer",)), Entity("terminal", ("terminal",))),
    primary="customer",
    subject="customer",
    id_column="TRANSACTION_ID",
    time_column="TX_DATETIME",
    amount_scale=100,
    label=Label("TX_FRAUD"),
)

_DELAY: Final = 7 * DAY


def _share(window_ms: int, name: str) -> Ratio:
    frauds = Window("terminal", "count", window_ms, source=FRAUD)
    return Ratio(name, frauds, Window("terminal", "count", window_ms, delay_ms=_DELAY), is_share=True)


CATALOGUE: Final = Catalogue(
    "handbook",
    SCHEMA,
    (
        value("amount", "money"),
        hour(),
        weekday(),
        time_of_day(),
        Window("customer", "count", 1 * HOUR),
        Window("customer", "count", 6 * HOUR),
        Window("customer", "count", 1 * DAY),
        Window("customer", "count", 7 * DAY),
        Window("customer", "count", 30 * DAY),
        Window("customer", "mean", 1 * DAY, "amount"),
        Window("customer", "mean", 7 * DAY, "amount"),
        Window("customer", "mean", 30 * DAY, "amount"),
        Window("customer", "sum", 1 * DAY, "amount"),
        Window("customer", "max", 1 * DAY, "amount"),
        Window("customer", "max", 7 * DAY, "amount"),
        Window("customer", "std", 30 * DAY, "amount"),
        ZScore("customer", "amount", 30 * DAY),
        Ratio("customer_amount_to_mean_30d", value("amount"), Window("customer", "mean", 30 * DAY, "amount")),
        Ratio("customer_amount_to_max_30d", value("amount"), Window("customer", "max", 30 * DAY, "amount")),
        Ratio(
            "customer_mean_7d_to_30d",
            Window("customer", "mean", 7 * DAY, "amount"),
            Window("customer", "mean", 30 * DAY, "amount"),
        ),
        Ratio(
            "customer_count_1d_to_usual",
            Window("customer", "count", 1 * DAY),
            Window("customer", "count", 30 * DAY),
            per=30.0,
        ),
        Gap("customer"),
        Novelty("customer", "terminal", 30 * DAY),
        Window("customer", "count", 7 * DAY, source=FRAUD),
        Window("customer", "count", 30 * DAY, source=FRAUD),
        Window("terminal", "count", 1 * DAY),
        Window("terminal", "count", 7 * DAY),
        Window("terminal", "count", 30 * DAY),
        Window("terminal", "mean", 7 * DAY, "amount"),
        Window("terminal", "max", 7 * DAY, "amount"),
        Ratio("terminal_amount_to_mean_30d", value("amount"), Window("terminal", "mean", 30 * DAY, "amount")),
        Gap("terminal"),
        Window("terminal", "count", 1 * DAY, source=FRAUD),
        Window("terminal", "count", 7 * DAY, source=FRAUD),
        Window("terminal", "count", 30 * DAY, source=FRAUD),
        Gap("terminal", source=FRAUD),
        _share(1 * DAY, "terminal_fraud_share_1d"),
        _share(7 * DAY, "terminal_fraud_share_7d"),
        _share(30 * DAY, "terminal_fraud_share_30d"),
    ),
)
