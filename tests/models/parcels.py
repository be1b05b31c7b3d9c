"""A catalogue of a trade that the project has never heard of: insured parcels, senders and depots."""

from features import (
    DAY,
    FRAUD,
    HOUR,
    Catalogue,
    Entity,
    Field,
    Gap,
    Label,
    Ratio,
    Schema,
    Window,
    hour,
    value,
)

SCHEMA = Schema(
    name="parcels",
    fields=(
        Field("sender", "text", required=True, column="who"),
        Field("depot", "text", column="where"),
        Field("insured", "amount", required=True),
        Field("grams", "integer", minimum=0),
        Field("service", "category", values=("letter", "parcel", "pallet"), required=True),
    ),
    entities=(Entity("sender", ("sender",)), Entity("depot", ("depot",))),
    primary="sender",
    subject="sender",
    amount="insured",
    id="parcel_id",
    time="handed_in",
    label=Label("claimed_falsely"),
)

CATALOGUE = Catalogue(
    "parcels",
    SCHEMA,
    (
        value("insured", "money"),
        value("grams"),
        value("service", "code"),
        hour(),
        Window("sender", "count", HOUR),
        Window("sender", "count", 7 * DAY),
        Window("sender", "mean", 7 * DAY, "insured"),
        Ratio("sender_insured_to_mean_7d", value("insured"), Window("sender", "mean", 7 * DAY, "insured")),
        Gap("sender"),
        Window("depot", "count", DAY),
        Window("depot", "count", 14 * DAY, source=FRAUD),
        Ratio(
            "depot_fraud_share_14d",
            Window("depot", "count", 14 * DAY, source=FRAUD),
            Window("depot", "count", 14 * DAY, delay_ms=7 * DAY),
            is_share=True,
        ),
    ),
)
