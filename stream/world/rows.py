"""Transactions of the world while it is being made: one structured array, columns are codes and indices."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

ABSENT = -1
"""The code of an absent terminal, device, address, email or entry mode."""

ROW = np.dtype(
    [
        ("time", np.int64),  # epoch milliseconds, UTC
        ("amount", np.int64),  # minor units of the merchant's currency
        ("customer", np.int32),
        ("card", np.int32),
        ("merchant", np.int32),
        ("terminal", np.int32),
        ("device", np.int32),
        ("ip", np.int32),
        ("email", np.int32),
        ("campaign", np.int32),
        ("lookalike", np.int32),
        ("decline", np.float32),  # chance that the issuer declines, funds apart
        ("refund", np.float32),  # chance of a refund after capture
        ("reported", np.float32),  # chance that a fraud is ever reported
        ("channel", np.int8),
        ("entry", np.int8),
        ("fraud", np.bool_),
    ]
)

Rows = NDArray[np.void]
Array = NDArray[Any]


def blank_rows(count: int) -> Rows:
    """`count` rows with every optional part absent and every chance 0."""
    rows = np.zeros(count, ROW)
    for column in ("terminal", "device", "ip", "email", "campaign", "lookalike", "entry"):
        rows[column] = ABSENT
    rows["reported"] = 0.92
    return rows
