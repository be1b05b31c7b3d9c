"""The compiled kernel from Python: an ensemble's members as one `Forest`."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from models.kernel.build import library
from models.kernel.errors import NotBuilt, NotSupported
from models.kernel.trees import Trees, read_trees

CHAINS: Final = 8
LANES: Final = 8
NODES_OF_GROUP: Final = 4
PATHS: Final = {"portable": 0, "avx2": 1}
Path = Literal["portable", "avx2"]

Matrix = NDArray[np.float32]


class _Member(ctypes.Structure):
    _fields_ = (
        ("trees", ctypes.c_int32),
        ("depth", ctypes.c_int32),
        ("nodes", ctypes.c_void_p),
        ("leaves", ctypes.c_void_p),
        ("groups", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
        ("ends", ctypes.c_void_p),
        ("cells", ctypes.c_void_p),
        ("features", ctypes.c_void_p),
        ("base_value", ctypes.c_double),
        ("weight", ctypes.c_double),
        ("base_margin", ctypes.c_float),
    )


class _Forest(ctypes.Structure):
    _fields_ = (
        ("features", ctypes.c_int32),
        ("members", ctypes.c_int32),
        ("path", ctypes.c_int32),
        ("member", ctypes.c_void_p),
    )


@cache
def _load() -> ctypes.PyDLL:
    # PyDLL: calls keep the interpreter lock; long ones hand it over themselves (binding.c)
    try:
        kernel = ctypes.PyDLL(str(library()))
    except OSError as error:
        raise NotBuilt(f"the shared object cannot be loaded: {error}") from error
    kernel.cordon_sizes.restype = ctypes.c_size_t
    kernel.cordon_logit.restype = ctypes.c_float
    kernel.cordon_logit.argtypes = [ctypes.c_float]
    kernel.cordon_tabulate.restype = ctypes.c_uint32
    kernel.cordon_tabulate.argtypes = [
        ctypes.c_int32,
        *[ctypes.c_void_p] * 4,
        ctypes.c_uint32,
        *[ctypes.c_void_p] * 4,
    ]
    for call in (kernel.cordon_score, kernel.cordon_margins, kernel.cordon_contributions):
        call.restype = ctypes.c_int
        call.argtypes = [ctypes.c_void_p, ctypes.py_object, ctypes.py_object]
    if kernel.cordon_sizes(0) != ctypes.sizeof(_Forest) or kernel.cordon_sizes(1) != ctypes.sizeof(_Member):
        raise NotBuilt("the compiler lays structures out in another way than Python expects")
    return kernel


@dataclass(frozen=True, slots=True)
class _Tables:
    """What a `_Member` points to; keeps the memory alive."""

    nodes: NDArray[np.int32]
    leaves: NDArray[np.float32]
    groups: NDArray[np.uint64]
    starts: NDArray[np.uint32]
    table: NDArray[np.float32]
    ends: NDArray[np.uint32]
    cells: NDArray[np.uint8]
    features: NDArray[np.uint16]


class Forest:
    """Members of an ensemble, scored and explained in one call. Immutable; any number of threads may call.

    `models`: XGBoost's bytes (UBJSON or JSON) of each member, all over the same features; `weights` blend
    them in this order. `path` is chosen by the processor unless given. Takes a fraction of a second and
    about 20 MB per member of 300 trees. Raises `NotBuilt` and `NotSupported`.
    """

    def __init__(
        self, models: Sequence[bytes], weights: Sequence[float], *, path: Path | None = None
    ) -> None:
        kernel = _load()
        best = kernel.cordon_best_path()
        chosen = best if path is None else PATHS[path]
        if chosen > best:
            raise NotSupported(f"this processor has no {path}")
        self.trees = tuple(read_trees(model) for model in models)
        widths = {trees.features for trees in self.trees}
        if len(widths) != 1 or len(models) != len(weights):
            raise NotSupported(f"members over {sorted(widths)} features, {len(weights)} weights")
        (self.width,) = widths
        self.path: Path = "avx2" if chosen == PATHS["avx2"] else "portable"
        self._kept = [
            _member(kernel, trees, weight) for trees, weight in zip(self.trees, weights, strict=True)
        ]
        self._members = (_Member * len(models))(*(member for member, _ in self._kept))
        self._forest = _Forest(self.width, len(models), chosen, ctypes.addressof(self._members))
        self._address = ctypes.addressof(self._forest)
        # bound once: looking a function up in the library takes longer than scoring a small model
        self._score, self._margins = kernel.cordon_score, kernel.cordon_margins
        self._contributions = kernel.cordon_contributions

    @property
    def table_bytes(self) -> int:
        """Memory of the tables of contributions."""
        return sum(tables.table.nbytes for _, tables in self._kept)

    def score(self, matrix: Matrix) -> NDArray[np.float64]:
        """Blended margins, float64 [n], of C-contiguous float32 [n, width] with NaN = absent."""
        out = np.empty(len(matrix))
        if self._score(self._address, matrix, out):
            raise self._refusal(matrix)
        return out

    def margins(self, matrix: Matrix) -> Matrix:
        """Margins of every member, float32 [n, members], bit-equal to XGBoost's."""
        out = np.empty((len(matrix), len(self.trees)), dtype=np.float32)
        if self._margins(self._address, matrix, out):
            raise self._refusal(matrix)
        return out

    def contributions(self, matrix: Matrix) -> NDArray[np.float64]:
        """Blended SHAP values, float64 [n, width + 1], the base value last; within 1e-5 of XGBoost's."""
        out = np.empty((len(matrix), self.width + 1))
        if self._contributions(self._address, matrix, out):
            raise self._refusal(matrix)
        return out

    def probes(self, rows: int) -> Matrix:
        """Rows that sit on the members' own thresholds, some values absent: the hard ones to get right."""
        columns = []
        for feature in range(self.width):
            found = [
                t.threshold[t.real[:, : t.threshold.shape[1]] & (t.feature == feature)] for t in self.trees
            ]
            values = np.append(np.unique(np.concatenate(found)), [np.float32(np.nan), np.float32(0.0)])
            # strides without a common factor: every feature goes through its thresholds in another rhythm
            columns.append(values[(np.arange(rows) * 7919 + feature * 104_729) % len(values)])
        return np.ascontiguousarray(np.stack(columns, axis=1), dtype=np.float32)

    def _refusal(self, matrix: Any) -> ValueError:
        return ValueError(
            f"expected float32 [n, {self.width}], got {matrix.dtype} {list(matrix.shape)} (C-contiguous)"
        )


def _member(kernel: ctypes.PyDLL, trees: Trees, weight: float) -> tuple[_Member, _Tables]:
    count, width = trees.leaf.shape
    groups = np.zeros((count, width // NODES_OF_GROUP), dtype=np.uint64)
    starts = np.zeros((count, width // NODES_OF_GROUP), dtype=np.uint32)
    table, expected = _tabulate(kernel, trees, groups, starts)
    ends, cells, features = _cells(trees)
    padding = -count % CHAINS
    slots = trees.feature + np.where(trees.absent_left, np.int32(trees.features), np.int32(0))
    tables = _Tables(
        _padded(np.stack([_order_keys(trees.threshold), slots], axis=2), padding),
        _padded(trees.leaf, padding),
        groups,
        starts,
        table,
        ends,
        cells,
        features,
    )
    base_margin = kernel.cordon_logit(trees.base_score) if trees.logistic else trees.base_score
    addresses = (getattr(tables, name).ctypes.data for name in _Tables.__slots__)
    member = _Member(count, trees.depth, *addresses, base_margin + expected, weight, base_margin)
    return member, tables


def _tabulate(
    kernel: ctypes.PyDLL, trees: Trees, groups: NDArray[np.uint64], starts: NDArray[np.uint32]
) -> tuple[NDArray[np.float32], float]:
    feature = np.ascontiguousarray(trees.feature)
    real = np.ascontiguousarray(trees.real, dtype=np.uint8)
    cover, leaf = np.ascontiguousarray(trees.cover), np.ascontiguousarray(trees.leaf)
    base = np.zeros(1)

    def run(table: int | None) -> tuple[int, float]:
        # row 0 stays zero, for the groups that hold no leaf
        row, expected = 1, 0.0
        for i in range(len(trees)):
            row = kernel.cordon_tabulate(
                trees.depth,
                *(part[i].ctypes.data for part in (feature, real, cover, leaf)),
                row,
                groups[i].ctypes.data,
                starts[i].ctypes.data,
                table,
                base.ctypes.data,
            )
            expected += float(base[0])
        return row, expected

    rows, expected = run(None)
    table = _aligned_rows(rows)
    run(table.ctypes.data)
    return table, expected


def _aligned_rows(rows: int) -> NDArray[np.float32]:
    # a row of 32 bytes must not lie across two cache lines of 64
    memory = np.zeros(rows * LANES + 16, dtype=np.float32)
    start = -(memory.ctypes.data // 4) % 16
    return memory[start : start + rows * LANES].reshape(rows, LANES)


def _cells(trees: Trees) -> tuple[NDArray[np.uint32], NDArray[np.uint8], NDArray[np.uint16]]:
    # where explain.c leaves the sum of inner node n: its own vector, or its parent's above the leaves
    last = trees.depth - 1
    node = np.arange(1 << trees.depth)
    level = np.frexp(node.astype(np.float64))[1] - 1  # of node 0, which is never real, nothing is used
    cell = np.where(level < last, node * LANES + level, node // 2 * LANES + last + node % 2)
    real = trees.real[:, : 1 << trees.depth]
    ends = np.cumsum(real.sum(axis=1)).astype(np.uint32)
    cells = np.broadcast_to(cell, real.shape)[real].astype(np.uint8)
    return ends, cells, trees.feature[real].astype(np.uint16)


def _order_keys(values: NDArray[np.float32]) -> NDArray[np.int32]:
    """As `order_key` in forest.h."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.int32)
    return np.where(bits < 0, (bits ^ np.int32(0x7FFFFFFF)) + np.int32(1), bits)


def _padded(rows: NDArray[Any], padding: int) -> NDArray[Any]:
    return np.ascontiguousarray(
        np.concatenate([rows, np.zeros((padding, *rows.shape[1:]), dtype=rows.dtype)])
    )
