"""Vectors by compiled code: `features.evaluate.Evaluator` without its arrays, on what the store answered.

Python packs a row for numba's kernel in about the time that the kernel then takes, and calling that kernel
costs more than a row where the caches are cold. Here one call reads the rows as they are. The evaluator stays
the reference, and serves where there is no compiler and for rows that are not as they usually are.
`python -m models.kernel.vectors` builds it.
"""

import ctypes
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.catalogue import Catalogue
from features.evaluate import HEADER, Evaluator, Row
from features.event import Identity
from features.feature import FieldTerm
from features.measure import Scalar
from features.schema import Schema
from features.state import FORMAT
from features.store import Target
from models.kernel.build import Source, library, report
from models.kernel.errors import NotBuilt

LOG = logging.getLogger("cordon.vectors")
VECTORS: Final = Source("vectors", Path(__file__).parent, ("vectors.c",), ("abi.h",))
Matrix = NDArray[np.float32]
Lists = list[list[float | None]]
Texts = list[bytes]
Sight = tuple[
    int, Mapping[str, Scalar], Identity, tuple[Target, ...], tuple[bytes | None, ...], tuple[bool, ...]
]
"""A transaction as the store saw it, without dictionaries of its own: time, fields, identity, targets; of
each target its state before, and whether that holds the transaction already."""
_KINDS: Final = ("hour", "weekday", "time_of_day", "present", "mismatch", "reference", "category", "number")
_DONE: Final = 0
_COUNTS: Final = (
    "entities", "numbers", "filters", "marks", "windows", "heads", "seen", "readers", "nodes", "outputs",
    "header", "ring_format", "places_width",
)  # fmt: skip
_OBJECTS: Final = (
    "entity_names", "number_names", "filter_fields", "filter_values", "mark_names", "place_name",
)  # fmt: skip
_TABLES: Final = (
    "reader", "shape", "window", "tile", "where", "head", "seen_terms", "own", "code", "operand", "output",
    "scale",
)  # fmt: skip
_encode: Final = msgspec.json.Encoder().encode
_ROOM: Final = ("state", "length", "kind", "place", "number", "filter", "mark", "value")


class _Plan(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in _COUNTS),
        *((name, ctypes.c_void_p) for name in (*_OBJECTS, *_TABLES, *_ROOM)),
    )


@cache
def _load() -> Any:
    # PyDLL: the call keeps the interpreter lock, since it reads Python's objects
    try:
        kernel = ctypes.PyDLL(str(library(VECTORS)))
    except OSError as error:
        raise NotBuilt(f"the shared object cannot be loaded: {error}") from error
    kernel.cordon_vectors_size.restype = ctypes.c_size_t
    if kernel.cordon_vectors_size() != ctypes.sizeof(_Plan):
        raise NotBuilt("the compiler lays structures out in another way than Python expects")
    kernel.cordon_vectors.restype = ctypes.c_int
    kernel.cordon_vectors.argtypes = [
        ctypes.c_void_p, *[ctypes.py_object] * 2, ctypes.c_void_p, ctypes.c_int64, *[ctypes.py_object] * 3,
    ]  # fmt: skip
    return kernel.cordon_vectors


class Columns:
    """Places of features whose values are wanted, in this order."""

    def __init__(self, places: Sequence[int]) -> None:
        self.places = np.array(places, np.int64)
        self.address = int(self.places.ctypes.data)


class Vectors:
    """Vectors of all of a catalogue's features. Not for use by several threads. `compiled`: whether the
    compiled form may be used; `fallback`: why it cannot be; `left`: batches that it left to the evaluator."""

    def __init__(self, catalogue: Catalogue, *, compiled: bool = True) -> None:
        self.catalogue = catalogue
        self._evaluator = Evaluator(catalogue)
        self.fallback: str | None = None
        self.left = 0
        self._width = len(catalogue.features)
        try:
            self._call = _load() if compiled else None
        except NotBuilt as error:
            self._call, self.fallback = None, str(error)
            LOG.warning("numba makes vectors, not compiled code, which is slower: %s", error)
        self._kept: list[Any] = []
        self._plan = self._bind(catalogue)
        self._address = ctypes.addressof(self._plan)

    def of(self, rows: list[Row], columns: Columns) -> tuple[Matrix, Lists, Texts]:
        """float32 `[rows, features]`, NaN where absent; of each row these columns, `None` where absent; each
        row as a JSON array, null where absent.

        Raises `DamagedState`.
        """
        found = self.compiled(rows, columns)
        if found is not None:
            return found
        if self._call is not None:
            # Damaged or unusual: the evaluator knows which, and what to say of it.
            self.left += 1
        matrix = self._evaluator.vectors(rows)
        return matrix, _shown(matrix[:, columns.places]), [_encode(row) for row in _shown(matrix)]

    def compiled(self, rows: list[Row] | list[Sight], columns: Columns) -> tuple[Matrix, Lists, Texts] | None:
        """`of` by the compiled form alone; `None` where it leaves them to the evaluator."""
        if self._call is None:
            return None
        matrix = np.empty((len(rows), self._width), np.float32)
        lists: Lists = []
        texts: Texts = []
        wanted = columns.address, len(columns.places)
        if self._call(self._address, rows, matrix, *wanted, lists, texts, _encode) != _DONE:
            return None
        return matrix, lists, texts

    def warm_up(self) -> None:
        """Compile or load the kernels, so that the first decision does not wait for them."""
        self._evaluator.warm_up()

    def _bind(self, catalogue: Catalogue) -> _Plan:
        made, program = self._evaluator.plan, self._evaluator.program
        entities, widest = len(made.entities), 7 + 2 * max((shape[4] for shape in made.shapes), default=0)
        counts = (
            entities, len(made.numbers), len(made.filters), len(made.marks), len(made.windows),
            len(made.heads), len(made.seen), len(made.readers), len(made.nodes), len(made.outputs),
            HEADER, FORMAT, int(widest),
        )  # fmt: skip
        objects = (
            self._names(made.entities),
            self._names(made.numbers),
            self._names([where.field for where in made.filters]),
            self._names([where.values for where in made.filters]),
            self._names(made.marks),
            self._keep("place"),
        )
        terms = [made.nodes[node].term for node in made.owns.tolist()]
        readers = [self._reader(catalogue.schema, t) for t in terms if isinstance(t, FieldTerm)]
        tables = (
            np.array(readers, np.int64), made.shapes, made.windows, made.tiles, made.wheres, made.heads,
            made.seen, made.owns, program.codes, program.operands, program.outputs, program.scales,
        )  # fmt: skip
        sizes = (entities, entities, entities, entities * widest, *counts[1:4], len(made.nodes))
        room = [np.zeros(max(1, int(size)), np.int64) for size in sizes]
        addresses = [self._array(table) for table in (*tables, *room)]
        return _Plan(*counts, *objects, *addresses)

    def _reader(self, schema: Schema, term: FieldTerm) -> tuple[int, int, int, int, int]:
        """As `features.plan.reader`."""
        table: dict[Any, float] = {}
        kind: str = term.kind
        if kind == "reference" and term.table is not None:
            table = dict(term.table.values)
        elif kind == "value":
            spec = schema.by_name[term.field]
            kind = "category" if spec.kind == "category" else "number"
            table = {value: float(place) for place, value in enumerate(spec.values)}
        names = self._keep(term.field), self._keep(term.other)
        return _KINDS.index(kind), term.offset_ms, *names, self._keep(table)

    def _keep(self, thing: Any) -> int:
        """Address of an object that lives as long as the plan."""
        self._kept.append(thing)
        return id(thing)

    def _names(self, things: Sequence[Any]) -> int:
        return self._array(np.array([self._keep(thing) for thing in things], np.int64))

    def _array(self, table: NDArray[Any]) -> int:
        if not table.flags.c_contiguous or table.dtype.itemsize != 8:
            raise TypeError(f"tables are contiguous, of 8 bytes: {table.dtype}")
        self._kept.append(table)
        return int(table.ctypes.data)


def _shown(matrix: Matrix) -> Lists:
    return [[None if v != v else v for v in row] for row in matrix.tolist()]


def _built() -> Path:
    _load()
    return library(VECTORS)


if __name__ == "__main__":
    sys.exit(report("vectors", _built, "numba makes them"))
