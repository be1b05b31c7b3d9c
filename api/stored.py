"""Decisions as columns: Arrow tables of records, as Parquet files of a projection that can be rebuilt.

One row per decision. Columns: `id decided_ms time_ms amount unit` (the id that rollouts hash),
`outcome own` (severity of the outcome, and of the most severe voice that is no rule), `score probability
expected_loss`, `hits` (rules that counted), `versions.rules versions.model`, and one per word of the
vocabulary: `feature.NAME` (float32 as served, NaN where absent), `field.NAME`, `entity.NAME` (pseudonyms).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from api.outcome import BY_WORD
from api.rules.columns import Doubles, Flags, Texts
from api.rules.rule import Facts, RuleSet, unit_of
from api.rules.vocabulary import Source
from features.catalogue import Catalogue

FINGERPRINT: Final = b"cordon.vector_fingerprint"
_WORD: Final = pa.dictionary(pa.int32(), pa.string())
_KINDS: Final[Mapping[str, pa.DataType]] = {
    "amount": pa.int64(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "text": _WORD,
    "category": _WORD,
}
_OWN: Final[Sequence[tuple[str, pa.DataType]]] = (
    ("id", pa.string()),
    ("decided_ms", pa.int64()),
    ("time_ms", pa.int64()),
    ("amount", pa.int64()),
    ("unit", _WORD),
    ("outcome", pa.int8()),
    ("own", pa.int8()),
    ("score", pa.int16()),
    ("probability", pa.float64()),
    ("expected_loss", pa.int64()),
    ("hits", pa.list_(pa.string())),
    ("versions.rules", _WORD),
    ("versions.model", _WORD),
)


def schema_of(catalogue: Catalogue) -> pa.Schema:
    """Columns of a catalogue's decisions; the metadata names the vector."""
    hidden = catalogue.schema.hidden
    columns = list(_OWN)
    columns += [(f"feature.{name}", pa.float32()) for name in catalogue.names]
    columns += [(f"field.{f.name}", _KINDS[f.kind]) for f in catalogue.schema.fields if f.name not in hidden]
    columns += [(f"entity.{e.name}", _WORD) for e in catalogue.schema.entities]
    return pa.schema(columns, metadata={FINGERPRINT: catalogue.vector_fingerprint.encode()})


def table_of(records: Sequence[Mapping[str, Any]], catalogue: Catalogue) -> pa.Table:
    """Decision records as a table, those of another vector left out."""
    schema, spec = schema_of(catalogue), catalogue.schema
    kept = [
        r
        for r in records
        if r["type"] in ("decision", "abandoned")
        and r["versions"]["catalogue"] == catalogue.vector_fingerprint
    ]
    columns: dict[str, Any] = {
        "amount": [r["transaction"].get(spec.amount) or 0 for r in kept],
        "unit": [unit_of(r["id"], r["entities"], spec) for r in kept],
        "outcome": [BY_WORD[r["outcome"]] for r in kept],
        "own": [own_severity(r) for r in kept],
        "hits": [[v["id"] for v in (r["winner"], *r["others"]) if v["by"] == "rule"] for r in kept],
        "versions.rules": [r["versions"]["rules"] for r in kept],
        "versions.model": [r["versions"]["model"] for r in kept],
    }
    for name, _ in _OWN:
        if name not in columns:
            columns[name] = [r[name] for r in kept]
    vectors = np.array([r["features"] for r in kept], np.float64).reshape(len(kept), len(catalogue.names))
    matrix = np.asfortranarray(vectors.astype(np.float32))
    for place, name in enumerate(catalogue.names):
        columns[f"feature.{name}"] = pa.array(matrix[:, place])
    for name in schema.names:
        kind, _, word = name.partition(".")
        if kind == "field":
            columns[name] = [r["transaction"].get(word) for r in kept]
        elif kind == "entity":
            columns[name] = [r["entities"].get(word) for r in kept]
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def own_severity(record: Mapping[str, Any]) -> int:
    """Most severe voice that is no rule: what the decision would have been without rules."""
    voices: Iterable[Mapping[str, str]] = (record["winner"], *record["others"])
    return max(int(BY_WORD[v["outcome"]]) for v in voices if v["by"] != "rule")


class StoredColumns:
    """`Columns` of a table: words by name. `sources`: where each word comes from."""

    def __init__(self, table: pa.Table, sources: Mapping[str, Source]) -> None:
        self._table = table
        self._sources = sources
        self._numbers: dict[str, Doubles] = {}
        self._texts: dict[str, Texts] = {}
        self._present: dict[str, Flags] = {}

    @property
    def rows(self) -> int:
        """See `Columns.rows`."""
        return int(self._table.num_rows)

    @property
    def now_ms(self) -> NDArray[np.int64]:
        """See `Columns.now_ms`."""
        return self.whole("decided_ms")

    def whole(self, column: str) -> NDArray[np.int64]:
        """A column without absent values, by its own name."""
        found: NDArray[np.int64] = self._table[column].to_numpy()
        return found

    def units(self) -> Texts:
        """The ids that rollouts hash."""
        return texts_of(self._table["unit"])

    def numbers(self, name: str) -> Doubles:
        """See `Columns.numbers`."""
        found = self._numbers.get(name)
        if found is None:
            chunked = self._table[column_of(name, self._sources[name])]
            found = self._numbers[name] = chunked.cast(pa.float64(), safe=False).to_numpy()
        return found

    def texts(self, name: str) -> Texts:
        """See `Columns.texts`."""
        found = self._texts.get(name)
        if found is None:
            found = self._texts[name] = texts_of(self._table[column_of(name, self._sources[name])])
        return found

    def present(self, name: str) -> Flags:
        """See `Columns.present`."""
        found = self._present.get(name)
        if found is None:
            source = self._sources[name]
            kind = self._table.schema.field(column_of(name, source)).type
            if pa.types.is_dictionary(kind):
                found = self.texts(name).codes >= 0
            else:
                found = ~np.isnan(self.numbers(name))
            self._present[name] = found
        return found


def column_of(name: str, source: Source) -> str:
    """The column of a word."""
    return name if source == "decision" else f"{source}.{name}"


def texts_of(column: pa.ChunkedArray) -> Texts:
    """A dictionary column as codes and words."""
    whole = column.unify_dictionaries().combine_chunks()
    codes: NDArray[np.int32] = whole.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return Texts(codes, whole.dictionary)


def sources_of(rules: RuleSet) -> Mapping[str, Source]:
    """Where the words of a set come from."""
    return {name: source for name, (_, source) in rules.words.items()}


def facts_of(table: pa.Table, rules: RuleSet) -> Iterator[Facts]:
    """Rows as the service saw them, with the words that the rules use."""
    sources = sources_of(rules)
    for row in table.to_pylist():
        words: dict[Source, dict[str, Any]] = {"feature": {}, "field": {}, "entity": {}, "decision": {}}
        for name, source in sources.items():
            value = row[column_of(name, source)]
            words[source][name] = None if value != value else value
        decided = words["decision"]
        yield Facts(
            words["feature"],
            words["field"],
            words["entity"],
            decided.get("score"),
            decided.get("probability"),
            decided.get("expected_loss"),
            row["amount"],
            row.get("unit", ""),
        )
