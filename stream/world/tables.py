"""The world's arrays as tables of the history format: ids become opaque tokens, codes become words."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.rates import rates
from stream.world.ground import ECOM, Ground
from stream.world.labels import UNKNOWN
from stream.world.lifecycle import Lifecycle
from stream.world.merchants import CURRENCY_OF_COUNTRY
from stream.world.rows import ABSENT, Array, Rows
from stream.world.tokens import addresses, tokens
from stream.world.vocabulary import CATEGORIES, CHANNELS, COUNTRIES, CURRENCIES, ENTRY_MODES, EVENT_KINDS

TRANSACTIONS = pa.schema(
    [
        pa.field("transaction_id", pa.string(), nullable=False),
        pa.field("time", pa.int64(), nullable=False),  # epoch ms, UTC
        pa.field("amount", pa.int64(), nullable=False),  # minor units of `currency`
        pa.field("currency", pa.string(), nullable=False),
        pa.field("card", pa.string(), nullable=False),
        pa.field("customer", pa.string(), nullable=False),
        pa.field("merchant", pa.string(), nullable=False),
        pa.field("terminal", pa.string()),
        pa.field("device", pa.string()),
        pa.field("ip", pa.string()),
        pa.field("email", pa.string()),
        pa.field("channel", pa.string(), nullable=False),
        pa.field("entry", pa.string()),
        pa.field("category", pa.string(), nullable=False),
        pa.field("merchant_country", pa.string(), nullable=False),
        pa.field("ip_country", pa.string()),
        pa.field("billing_country", pa.string()),
        pa.field("latitude", pa.float64()),
        pa.field("longitude", pa.float64()),
        pa.field("bin", pa.string(), nullable=False),
        pa.field("fraud", pa.bool_(), nullable=False),
        pa.field("label_time", pa.int64()),
        pa.field("label_withdrawn_time", pa.int64()),
        pa.field("campaign", pa.string()),
        pa.field("campaign_kind", pa.string()),
        pa.field("lookalike", pa.string()),
    ]
)
"""One row per transaction; the last six columns are the ground truth and never part of a payload."""

TRUTH = ("fraud", "label_time", "label_withdrawn_time", "campaign", "campaign_kind", "lookalike")

EVENTS = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("transaction_id", pa.string(), nullable=False),
        pa.field("time", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("amount", pa.int64()),
        pa.field("transaction_time", pa.int64(), nullable=False),
        pa.field("card", pa.string(), nullable=False),
    ]
)
"""One row per lifecycle event; the transaction's time and card let a replay start anywhere and key it."""


def _take(pool: pa.Array, index: Array) -> pa.Array:
    """`pool[index]`, null where the index is negative."""
    return pool.take(pa.array(index, mask=index < 0))


def _words(words: tuple[str, ...], code: Array) -> pa.Array:
    return _take(pa.array(words, pa.string()), code.astype(np.int64))


def _times(values: Array) -> pa.Array:
    return pa.array(values, pa.int64(), mask=values == UNKNOWN)


def transaction_ids(count: int, seed: int) -> pa.StringArray:
    """The ids of the first `count` transactions of a seed."""
    return tokens("tx_", np.arange(count), seed * 64 + 1)


def transaction_table(
    ground: Ground,
    rows: Rows,
    seed: int,
    labels: tuple[Array, Array],
    campaigns: list[str],
    lookalikes: list[str],
) -> pa.Table:
    """The history of all transactions, `rows` in time order."""
    people, merchants, network = ground.people, ground.merchants, ground.network
    salt = seed * 64
    country = merchants.country[rows["merchant"]]
    mailbox = tokens("", np.arange(network.mailbox_count), salt + 8).to_pylist()
    terminal = np.where(rows["terminal"] >= 0, rows["terminal"], 0)
    nowhere = rows["terminal"] == ABSENT
    kinds = pa.array([name.rsplit("-", 1)[0] for name in campaigns], pa.string())
    address_country = np.where(rows["ip"] >= 0, network.address_countries()[rows["ip"]], ABSENT)
    billing = np.where(rows["channel"] == ECOM, people.country[rows["customer"]], ABSENT)
    arrays = {
        "transaction_id": transaction_ids(len(rows), seed),
        "time": pa.array(rows["time"]),
        "amount": pa.array(rows["amount"]),
        "currency": _words(CURRENCIES, CURRENCY_OF_COUNTRY[country]),
        "card": _take(tokens("cd_", np.arange(len(people.card_owner)), salt + 2), rows["card"]),
        "customer": _take(tokens("cu_", np.arange(len(people.country)), salt + 3), rows["customer"]),
        "merchant": _take(tokens("me_", np.arange(len(merchants.category)), salt + 4), rows["merchant"]),
        "terminal": _take(
            tokens("te_", np.arange(len(merchants.terminal_place)), salt + 5), rows["terminal"]
        ),
        "device": _take(tokens("de_", np.arange(network.device_count), salt + 6), rows["device"]),
        "ip": _take(addresses(np.arange(network.address_count), salt + 7), rows["ip"]),
        "email": _take(pa.array([f"{name}@example.com" for name in mailbox], pa.string()), rows["email"]),
        "channel": _words(CHANNELS, rows["channel"]),
        "entry": _words(ENTRY_MODES, rows["entry"]),
        "category": _words(CATEGORIES, merchants.category[rows["merchant"]]),
        "merchant_country": _words(COUNTRIES, country),
        "ip_country": _words(COUNTRIES, address_country),
        "billing_country": _words(COUNTRIES, billing),
        "latitude": pa.array(merchants.terminal_place[terminal, 0], mask=nowhere),
        "longitude": pa.array(merchants.terminal_place[terminal, 1], mask=nowhere),
        "bin": pa.array(people.card_bin.astype(str).tolist(), pa.string()).take(pa.array(rows["card"])),
        "fraud": pa.array(rows["fraud"]),
        "label_time": _times(labels[0]),
        "label_withdrawn_time": _times(labels[1]),
        "campaign": _take(pa.array(campaigns, pa.string()), rows["campaign"]),
        "campaign_kind": _take(kinds, rows["campaign"]),
        "lookalike": _take(pa.array(lookalikes, pa.string()), rows["lookalike"]),
    }
    return pa.Table.from_arrays([arrays[name] for name in TRANSACTIONS.names], schema=TRANSACTIONS)


def event_table(life: Lifecycle, transactions: pa.Table, seed: int) -> pa.Table:
    """The history of all lifecycle events in time order."""
    row = pa.array(life.row)
    ids, times, cards = (
        transactions[name].combine_chunks().take(row) for name in ("transaction_id", "time", "card")
    )
    arrays = [
        tokens("ev_", np.arange(len(life.row)), seed * 64 + 9),
        ids,
        pa.array(life.time),
        _words(EVENT_KINDS, life.kind),
        pa.array(_base_amounts(life.amount, transactions["currency"].take(row)), mask=life.amount < 0),
        times,
        cards,
    ]
    return pa.Table.from_arrays(arrays, schema=EVENTS)


def _base_amounts(amount: Array, currency: pa.ChunkedArray) -> Array:
    """Amounts of events are in minor units of the base currency, as the door expects them."""
    factors = rates("EUR").factors
    place = pc.index_in(currency.combine_chunks(), value_set=pa.array(CURRENCIES)).to_numpy()
    factor = np.array([float(factors[name]) for name in CURRENCIES])[place]
    return np.where(amount < 0, amount, np.maximum(np.rint(amount * factor), 1)).astype(np.int64)
