"""The closure that serves and the columns that backtests use say the same of every decision."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from api.rules.check import check
from api.rules.columns import evaluate
from api.rules.compile import compile_rule
from api.rules.lists import WatchList
from api.rules.syntax import parse
from api.rules.vocabulary import Type, Vocabulary, Word, vocabulary_of
from api.stored import StoredColumns, column_of
from features import load

BIG = Word("big", Type.NUMBER, "field", whole=True, wide=True)
PAYMENTS = vocabulary_of(load("payments"))
WORDS = Vocabulary({**PAYMENTS.words, "big": BIG}, PAYMENTS.minor_digits)
LISTS = {
    "stolen": WatchList("stolen", "card", {"p1": 100, "p2": 2**62}),
    "bins": WatchList("bins", "bin", {"411111": 2**62}),
    "nobody": WatchList("nobody", "card", {}),
}
NUMBERS = ["score", "probability", "hour", "card_count_1h", "latitude", "big"]
MONEY = ["amount", "expected_loss", "card_amount_sum_1h"]
FLAGS = ["card_device_new_30d", "device_present"]
TEXTS = ["channel", "entry", "merchant_country"]
IDS = ["card", "bin"]

feature = st.one_of(
    st.none(),
    st.integers(-3, 9).map(float),
    st.sampled_from([-0.0, 1e38, 0.5]),
    st.floats(-1e6, 1e6, width=32),
)
VALUES = {
    "score": st.none() | st.integers(0, 1000),
    "probability": st.none() | st.floats(0, 1),
    "latitude": st.none() | st.floats(-90, 90),
    "big": st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(2**53 - 2, 2**53 + 2),
    "amount": st.none() | st.integers(0, 100_000_000) | st.integers(0, 9),
    "expected_loss": st.none() | st.integers(0, 1000),
    "channel": st.sampled_from([None, "ecom", "pos", "atm"]),
    "entry": st.sampled_from([None, "chip", "online"]),
    "merchant_country": st.sampled_from([None, "DE", "FR", "chip", ""]),
    "card": st.sampled_from([None, "p1", "p2", "p3"]),
    "bin": st.sampled_from([None, "411111", "5"]),
    "hour": feature,
    "card_count_1h": feature,
    "card_amount_sum_1h": feature,
    "card_device_new_30d": st.sampled_from([None, 0.0, 1.0]),
    "device_present": st.sampled_from([None, 0.0, 1.0]),
}
ROW = st.fixed_dictionaries({**VALUES, "now_ms": st.sampled_from([1, 99, 100, 101])})

number_literal = st.sampled_from(["0", "1", "2.5", "7", "900", "0.1", "9007199254740", "-3"])
money_literal = st.sampled_from(["0", "0.05", "5.00", "10", "1_000.5", "-1.00"])
text_literal = st.sampled_from(['"DE"', '"chip"', '"FR"'])
sign = st.sampled_from(["+", "-"])
scale = st.sampled_from(["*", "/"])
order = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])


def calculated(words: list[str], literal: st.SearchStrategy[str], factor: bool) -> st.SearchStrategy[str]:
    """Expressions of one unit: sums, scaled values, picks."""
    word = st.sampled_from(words)
    leaf = st.one_of(word, word.flatmap(lambda w: literal.map(lambda v: f"value_or({w}, {v})")))

    def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        other = inner if factor else st.sampled_from([*NUMBERS, "2", "0"])
        return st.one_of(
            st.builds("({} {} {})".format, inner, sign, st.one_of(inner, literal)),
            st.builds("({} {} {})".format, inner, scale, other),
            st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), inner, st.one_of(inner, literal)),
            inner.map(lambda a: f"abs({a})"),
            inner.map(lambda a: f"(-{a})"),
        )

    return st.recursive(leaf, grow, max_leaves=4)


numeric = calculated(NUMBERS, number_literal, factor=True)
money = calculated(MONEY, money_literal, factor=False)
share = st.builds("({} / {})".format, money, money)
text = st.one_of(
    st.sampled_from(["merchant_country", "entry", "channel"]),
    text_literal.map(lambda v: f"value_or(merchant_country, {v})"),
)
comparison = st.one_of(
    st.builds("{} {} {}".format, numeric, order, st.one_of(numeric, number_literal, share)),
    st.builds("{} {} {}".format, money, order, st.one_of(money, money_literal)),
    st.builds("{} in [{}, 1, 5]".format, numeric, st.sampled_from(["0", "2.5", "900"])),
    st.builds("{} not in [{}, 0.07]".format, money, st.sampled_from(["0", "0.05", "10"])),
    st.builds("{} {} {}".format, text, st.sampled_from(["==", "!="]), text),
    st.builds("merchant_country {} {}".format, st.sampled_from(["==", "!="]), text_literal),
    st.sampled_from(['channel in ["ecom", "moto"]', 'value_or(merchant_country, "XX") not in ["DE", "XX"]']),
    st.sampled_from(["card in @stolen", "card not in @stolen", "bin in @bins", "card in @nobody"]),
    st.sampled_from([*NUMBERS, *MONEY, *FLAGS, *TEXTS, *IDS]).map(lambda w: f"present({w})"),
    st.sampled_from(FLAGS),
    st.sampled_from(FLAGS).map(lambda w: f"value_or({w}, true) == {FLAGS[0]}"),
    st.sampled_from(["true", "false", "1 < 2", '"a" == "a"']),
)
condition = st.recursive(
    comparison,
    lambda x: st.one_of(
        st.builds("({} {} {})".format, x, st.sampled_from(["and", "or"]), x), x.map(lambda a: f"(not {a})")
    ),
    max_leaves=5,
)


def table(rows: list[dict[str, object]]) -> StoredColumns:
    sources = {name: WORDS.words[name].source for name in VALUES}
    columns: dict[str, pa.Array] = {"decided_ms": pa.array([r["now_ms"] for r in rows], pa.int64())}
    for name in VALUES:
        given = [r[name] for r in rows]
        word = WORDS.words[name]
        column = column_of(name, sources[name])
        if word.type in (Type.TEXT, Type.ID):
            columns[column] = pa.array(given, pa.dictionary(pa.int32(), pa.string()))
        elif word.source == "feature":
            columns[column] = pa.array(np.array(given, np.float64).astype(np.float32))
        else:
            columns[column] = pa.array(given, pa.int64() if word.whole else pa.float64())
    return StoredColumns(pa.table(columns), sources)


@settings(max_examples=1_000, deadline=None)
@given(written=condition, rows=st.lists(ROW, min_size=1, max_size=8))
def test_both_forms_say_the_same(written, rows):
    slots: dict[str, int] = {}
    checked = check(parse(f"review if {written}"), WORDS, slots, LISTS)
    scalar = compile_rule(checked, slots, LISTS)
    hit, able = evaluate(checked, LISTS, table(rows))
    for place, row in enumerate(rows):
        answer = scalar([row["now_ms"], *(row[name] for name in slots)])
        assert answer is (bool(hit[place]) if able[place] else None), (written, row)
