"""How terms become a feature: one set of formulas for the online kernel and the offline builder.

The meaning of each formula is documented at `features.feature.Formula`. All arithmetic is float64 on exact
integers; NaN means absent and stays absent through every formula.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import asin, cos, nan, pi, sin, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features.catalogue import Node
from features.kernel import kernel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EARTH_RADIUS_KM: Final = 6371.0
GRID_COLUMNS: Final = 36_001
CODES: Final = {"term": 0, "difference": 1, "mean": 2, "std": 3, "ratio": 4, "zscore": 5}


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Nodes of a catalogue as arrays, in an order in which operands come first.

    `codes[n]`: formula. `operands[n, 3]`: earlier nodes. `scales[n]`: factor of a ratio. `outputs[f]`: the
    node that is feature `f`.
    """

    codes: Ints
    operands: Ints
    scales: Floats
    outputs: Ints


def program(nodes: Sequence[Node], outputs: Sequence[int]) -> Program:
    """The arrays of `nodes`."""
    operands = np.zeros((len(nodes), 3), np.int64)
    for i, node in enumerate(nodes):
        operands[i, : len(node.operands)] = node.operands
    return Program(
        np.array([CODES[node.formula] for node in nodes], np.int64),
        operands,
        np.array([node.scale for node in nodes], np.float64),
        np.array(outputs, np.int64),
    )


@kernel
def step(code: int, a: float, b: float, c: float, scale: float) -> float:
    """One formula over its operands."""
    if code == 1:
        return a - b if a > b else (0.0 if a <= b else nan)
    if code == 2:
        return a / b if b != 0.0 else nan
    if code == 3:
        if c == 0.0:
            return nan
        mean = b / c
        variance = a / c - mean * mean
        return sqrt(variance) if variance > 0.0 else (0.0 if variance <= 0.0 else nan)
    if code == 4:
        return a / b * scale if b != 0.0 else nan
    if code == 5:
        return (a - b) / c if c != 0.0 else nan
    return a


@kernel
def apply_row(codes: Ints, operands: Ints, scales: Floats, values: Floats) -> None:
    """Fill the formula nodes of one row; term nodes are given. `values` float64 `[nodes]`."""
    for i in range(codes.shape[0]):
        if codes[i] != 0:
            a, b, c = values[operands[i, 0]], values[operands[i, 1]], values[operands[i, 2]]
            values[i] = step(codes[i], a, b, c, scales[i])


@kernel
def apply_column(code: int, a: Floats, b: Floats, c: Floats, scale: float, out: Floats) -> None:
    """One formula over whole columns."""
    for i in range(out.shape[0]):
        out[i] = step(code, a[i], b[i], c[i], scale)


@kernel
def gap_seconds(time_ms: int, last_ms: int) -> float:
    """Seconds since `last_ms`; NaN if there is none (0) or it lies after `time_ms`."""
    if last_ms == 0 or last_ms > time_ms:
        return nan
    return (time_ms - last_ms) / 1000.0


@kernel
def _radians(cell: int, middle: float) -> float:
    """Angle of the row or column `cell` of the grid of 0.01 degrees."""
    return (cell / 100.0 - middle) * (pi / 180.0)


@kernel
def speed_kmh(time_ms: int, place: int, last: int) -> float:
    """km/h from the packed `(seconds, place)` in `last` to `place` at `time_ms` (`measure.pack_place`).

    Great circle by the haversine formula between the centres of 0.01 degree cells; whole seconds, at
    least one. NaN if one of the places is missing or the last one lies after `time_ms`.
    """
    seconds = time_ms // 1000 - (last >> 31)
    if place == 0 or last == 0 or seconds < 0:
        return nan
    here, there = place - 1, (last & 0x7FFFFFFF) - 1
    phi_a, phi_b = _radians(there // GRID_COLUMNS, 90.0), _radians(here // GRID_COLUMNS, 90.0)
    lambda_a, lambda_b = _radians(there % GRID_COLUMNS, 180.0), _radians(here % GRID_COLUMNS, 180.0)
    sine_phi, sine_lambda = sin((phi_b - phi_a) / 2.0), sin((lambda_b - lambda_a) / 2.0)
    half = sine_phi * sine_phi + cos(phi_a) * cos(phi_b) * (sine_lambda * sine_lambda)
    kilometres = 2.0 * EARTH_RADIUS_KM * asin(min(1.0, sqrt(half)))
    return kilometres / (max(seconds, 1) / 3600.0)
