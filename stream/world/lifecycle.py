"""What becomes of each transaction: the issuer's answer, a challenge, capture, refund."""

from dataclasses import dataclass

import numpy as np

from stream.world.ground import ECOM, RECURRING, Ground
from stream.world.people import SALARY_DAYS
from stream.world.rows import Array, Rows
from stream.world.spec import DAY_MS, HOUR_MS, SECOND_MS
from stream.world.vocabulary import EVENT_KINDS

_CHALLENGED = 0.28  # of web purchases
_CREDIT = 1.7  # what can be spent between two salaries, in months of income or of usual spending
_USUAL_EUR = 48.0  # mean purchase
_KIND = {kind: code for code, kind in enumerate(EVENT_KINDS)}


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """Events in time order: the transaction's row, time, kind (code of EVENT_KINDS), amount (-1: none)."""

    row: Array
    time: Array
    kind: Array
    amount: Array
    declined: Array  # per transaction


def out_of_funds(ground: Ground, rows: Rows) -> Array:
    """Whether the customer had spent more since the last salary than income and credit cover (those who
    spend much every month have the credit line for it).

    `rows` are in time order. Refused purchases count too: the sum is of what was attempted.
    """
    people = ground.people
    euros = ground.merchants.euros(rows["merchant"], rows["amount"])
    day = (rows["time"] // DAY_MS).astype("datetime64[D]")
    month = day.astype("datetime64[M]").astype(np.int64)
    payday = SALARY_DAYS[people.salary_group[rows["customer"]]]
    period = month - ((day - day.astype("datetime64[M]")).astype(np.int64) + 1 < payday)
    order = np.lexsort((period, rows["customer"]))  # stable: time order inside each period
    spent = np.cumsum(euros[order])
    customer, term = rows["customer"][order], period[order]
    starts = np.flatnonzero(np.r_[True, (customer[1:] != customer[:-1]) | (term[1:] != term[:-1])])
    before = np.repeat(np.r_[0.0, spent[starts[1:] - 1]], np.diff(np.r_[starts, len(rows)]))
    short = np.empty(len(rows), bool)
    usual = people.per_day * people.spender * _USUAL_EUR * 30
    short[order] = spent - before > _CREDIT * np.maximum(people.income_eur, usual)[customer]
    return short


def live(ground: Ground, rng: np.random.Generator, rows: Rows, *, by_owner: Array) -> Lifecycle:
    """The events of all transactions (`rows` in time order) that happen before the world's end.

    `by_owner`: the account's owner makes the payment, so a challenge is passed (also by some fraudsters).
    """
    count, spec = len(rows), ground.spec
    chance = rng.random((6, count))
    challenged = (rows["channel"] == ECOM) & (chance[0] < _CHALLENGED)
    failed = challenged & (chance[1] < np.where(by_owner, 0.03, 0.6))
    short = out_of_funds(ground, rows) & (chance[2] < 0.85)
    declined = failed | short | (chance[3] < rows["decline"])
    answered = np.where(
        challenged, rows["time"] + ((8 + 80 * chance[4]) * SECOND_MS).astype(np.int64), rows["time"]
    )
    issuer = answered + (150 + 1350 * chance[5]).astype(np.int64)

    wait = rng.random((4, count))
    web = (rows["channel"] == ECOM) & (rows["channel"] != RECURRING)
    captured = issuer + (np.where(web, 2 + 70 * wait[0], 0.3 + 12 * wait[0]) * HOUR_MS).astype(np.int64)
    refunded = captured + (np.exp(np.log(6.0) + 0.7 * rng.standard_normal(count)) * DAY_MS).astype(np.int64)
    partly = np.where(
        wait[1] < 0.3, np.maximum((rows["amount"] * wait[2]).astype(np.int64), 1), rows["amount"]
    )
    back = ~declined & (wait[3] < rows["refund"])

    none = np.full(count, -1)
    parts = [
        (challenged & ~failed, answered, "challenge_passed", none),
        (failed, answered, "challenge_failed", none),
        (declined, issuer, "issuer_declined", none),
        (~declined, issuer, "issuer_approved", none),
        (back, refunded, "refunded", partly),
    ]
    if spec.captures:
        parts.append((~declined, captured, "captured", rows["amount"]))
    row = np.concatenate([np.flatnonzero(mask) for mask, *_ in parts])
    time = np.concatenate([at[mask] for mask, at, _, _ in parts])
    kind = np.concatenate([np.full(int(mask.sum()), _KIND[name], np.int8) for mask, _, name, _ in parts])
    amount = np.concatenate([value[mask] for mask, _, _, value in parts])
    order = np.argsort(time, kind="stable")
    order = order[time[order] < spec.end_ms]
    return Lifecycle(row[order], time[order], kind[order], amount[order], declined)
