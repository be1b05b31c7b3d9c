"""The compiled stages of the intake equal the ones in Python: values, bytes, order, refusals."""

import gc
import resource
from hashlib import blake2b

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api.intake import tables
from api.intake.compiled import Compiled, best, module
from api.intake.stages import Reference
from api.record import encode_json
from features import Catalogue, Distinct, Entity, Field, Gap, Schema, Speed, Where, Window, load
from features.event import Identity, InvalidEvent
from features.measure import FRAUD, TRANSACTION, WITHDRAWN
from features.pseudonym import Pseudonyms
from features.rates import rates
from features.tier import DAY, HOUR
from models.kernel.errors import NotBuilt

SECRET = bytes(range(32))
# Every kind of field, bounds of every kind, ids that are numbers, conditions on numbers and truth values.
MIXED = Catalogue(
    "mixed",
    Schema(
        name="mixed",
        fields=(
            Field("account", "integer", required=True, minimum=-5),
            Field("units", "integer", minimum=0, maximum=9e9),
            Field("level", "integer", minimum=0.5, maximum=3.5),
            Field("amount", "amount"),
            Field("money", "text", length_max=3),
            Field("first", "boolean"),
            Field("weight", "number", minimum=0),
            Field("ratio", "number"),
            Field("plan", "category", required=True, values=("free", "paid", "déjà", "4111111111111111")),
            Field("note", "text", personal=True, length_max=40),
            Field("latitude", "number"),
            Field("longitude", "number"),
        ),
        entities=(
            Entity("account", ("account",)),
            Entity("pair", ("account", "note", "weight", "first")),
            Entity("place", ("latitude",)),
        ),
        primary="account",
        subject="account",
        currency="money",
        id="number",
        time="when",
        latitude="latitude",
        longitude="longitude",
        lifecycle=("closed",),
    ),
    (
        Window("account", "count", HOUR, where=(Where("level", (1, 2)),)),
        Window("account", "std", DAY, "units"),
        Window("account", "max", DAY, "amount", where=(Where("first", (True,)), Where("plan", ("paid",)))),
        Window("pair", "sum", DAY, "amount", where=(Where("plan", ("free", "déjà")),)),
        Window("pair", "count", DAY, source="closed"),
        Window("place", "count", DAY, source=FRAUD),
        Speed("account"),
        Gap("pair", where=(Where("first", (False,)),)),
        Distinct("account", "note", DAY),
        Distinct("account", "weight", DAY),
        Distinct("place", "first", DAY),
    ),
)
CATALOGUES = {"mixed": MIXED, "payments": load("payments"), "handbook": load("handbook")}
DIGITS = st.text("0123456789 -", min_size=12, max_size=45)
TEXTS = st.one_of(
    st.text(min_size=1, max_size=12),
    st.text(st.characters(exclude_categories=()), max_size=140),
    st.sampled_from(
        ["", "a" * 128, "a" * 129, 'quo"te\\', "tab\t", "\x7f", "\ud800", "ß€😀", "4111111111111111"]
    ),
    st.sampled_from(
        ["4111 1111-1111 1111", "x5500005555555559y", "٤١١١١١١١١١١١١١١١", "0" * 19 + "4111111111111111"]
    ),
    DIGITS,
    st.builds("{}{}".format, st.text("ab", max_size=3), DIGITS),
)
NUMBERS = st.one_of(
    st.integers(-3, 40),
    st.integers(-(10**16), 10**16),
    st.sampled_from(
        [2**31, 2**53, 2**53 + 1, -(2**53), 2**63, 2**64, -(2**63) - 1, 10**40, 10**8, 10**8 + 1]
    ),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, -0.0, 1e15, 1.0000000000000001e15, 1e-7, 51.97664, 90.0, 90.00001, -180.0]),
    st.booleans(),
)
ANYTHING = st.one_of(TEXTS, NUMBERS, st.none(), st.just([]), st.just({}), st.binary(max_size=3))
TIMES = st.one_of(
    st.integers(1, 2**41),
    st.sampled_from([0, 1, 2**32 * 1000 - 1, 2**32 * 1000, 253_402_300_800_000, 253_402_300_800_001, -1]),
    st.sampled_from(["2024-01-01T00:00:00Z", "2024-01-01", True, 1.5, "now"]),
)


def usual(spec, schema):
    """Mostly what the field accepts."""
    if spec.kind == "category":
        return st.sampled_from(spec.values)
    if spec.name == schema.currency:
        return st.sampled_from(["EUR", "JPY", "SEK", "XXX"])
    if spec.kind == "text":
        return st.text("abcé0189_-", min_size=1, max_size=min(spec.length_max, 20))
    if spec.kind == "boolean":
        return st.booleans()
    low = 0 if spec.minimum is None else max(0, int(spec.minimum + 0.5))
    high = 10**6 if spec.maximum is None else min(10**6, int(spec.maximum))
    return st.floats(low, high) | st.integers(low, high) if spec.kind == "number" else st.integers(low, high)


def without(body, gone):
    return {name: value for name, value in body.items() if name != gone}


def payloads(schema):
    needed = {s.name: usual(s, schema) for s in schema.fields if s.required}
    optional = {s.name: usual(s, schema) for s in schema.fields if not s.required}
    head = {schema.id: st.text("tx_0189", min_size=1, max_size=20), schema.time: st.integers(1, 2**41)}
    regular = st.fixed_dictionaries({**head, **needed}, optional={**optional, "type": st.just("transaction")})
    names = [schema.id, schema.time, "type", "unknown", *schema.by_name]
    changes = st.dictionaries(st.sampled_from(names), ANYTHING | TIMES, max_size=3)
    return st.one_of(
        regular,
        st.builds(lambda body, change: {**body, **change}, regular, changes),
        st.builds(lambda body, change: {**change, **body}, regular, changes),
        st.builds(without, regular, st.sampled_from(names)),
    )  # fmt: skip


def pair(catalogue, tenant="demo"):
    reference = Reference(catalogue, Pseudonyms(tenant, SECRET), rates(catalogue.schema.base_currency))
    return reference, Compiled(reference)


PAIRS = {name: pair(catalogue) for name, catalogue in CATALOGUES.items()}


def outcome(call, *args):
    """What a call gives, told apart by type and order too; or what it raises."""
    try:
        return exact(call(*args))
    except (InvalidEvent, UnicodeEncodeError, ValueError, OverflowError) as error:
        return type(error), str(error)


def exact(found):
    if isinstance(found, dict):
        return type(found), [(name, exact(value)) for name, value in found.items()]
    if isinstance(found, tuple | list):
        return type(found), [exact(each) for each in found]
    return type(found), repr(found)


@pytest.mark.parametrize("name", sorted(CATALOGUES))
@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_a_transaction_is_the_same(name, data):
    reference, compiled = PAIRS[name]
    payload = data.draw(payloads(reference.catalogue.schema))
    before = exact(payload)
    expected = outcome(reference.parse, payload)
    assert outcome(compiled.parse, payload) == expected
    assert exact(payload) == before
    if isinstance(expected[0], type) and issubclass(expected[0], Exception):
        return
    event = reference.parse(payload)
    before = exact(event)
    expected = outcome(reference.identify, event)
    assert outcome(compiled.identify, event) == expected
    assert exact(event) == before
    if isinstance(expected[0], type) and issubclass(expected[0], Exception):
        return
    identity, shown, _, _ = reference.identify(event)
    source = data.draw(
        st.sampled_from([TRANSACTION, TRANSACTION, FRAUD, WITHDRAWN, *reference.catalogue.sources])
    )
    key = f"tx:{event.id}"
    for values in (shown, event.values):
        args = key, source, event.time_ms, values, identity
        assert outcome(compiled.targets, *args) == outcome(reference.targets, *args)


def test_conditions_that_c_reads_otherwise_stay_with_python():
    """A text is no tuple of values: `in` finds its parts."""
    where = Where("plan", "free or paid")  # type: ignore[arg-type]
    catalogue = Catalogue("odd", MIXED.schema, (Window("account", "count", HOUR, where=(where,)),))
    with pytest.raises(NotBuilt, match="no tuple"):
        pair(catalogue)


@pytest.mark.parametrize("payload", [None, [], "text", 3, {}, {1: 2}, {"transaction_id": "t"}])
def test_what_is_no_transaction_is_refused_as_ever(payload):
    reference, compiled = PAIRS["payments"]
    assert outcome(compiled.parse, payload) == outcome(reference.parse, payload)


@settings(max_examples=300, deadline=None)
@given(
    values=st.dictionaries(st.sampled_from([*MIXED.schema.by_name, "else"]), ANYTHING),
    marks=st.dictionaries(st.sampled_from(["place", "note", "weight"]), ANYTHING),
    time_ms=ANYTHING | TIMES,
    key=TEXTS,
    source=st.sampled_from([TRANSACTION, FRAUD, "closed"]),
)
def test_targets_of_anything_are_those_of_the_reference(values, marks, time_ms, key, source):
    """States of records that others wrote: what does not fit raises as it did."""
    reference, compiled = PAIRS["mixed"]
    args = key, source, time_ms, values, Identity({"account": "a" * 32, "place": "b" * 32}, marks)

    def told(stages):
        try:
            return exact(stages.targets(*args))
        except Exception as error:  # noqa: BLE001 - whatever the reference raises
            return type(error), str(error)

    assert told(compiled) == told(reference)


@settings(max_examples=300, deadline=None)
@given(
    secret=st.binary(min_size=1, max_size=64),
    tenant=st.text("ab", min_size=1, max_size=150),
    text=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=400),
)
@example(secret=b"k", tenant="demo", text='€"' * 3_000)
def test_hashes_are_those_of_the_standard_library(secret, tenant, text):
    """Of any length: none, one block, several."""
    reference = Reference(MIXED, Pseudonyms(tenant, secret), rates("EUR"))
    identifier = module().Identifier(*tables.identifier(reference))
    assert identifier.event(text) == reference.pseudonyms.event(text)
    values = {"note": text, "account": 7, "weight": 1.5, "first": True}
    (entities, marks), shown, content, plain = identifier.identify(1, None, values)
    assert content == reference.pseudonyms.content(encode_json([1, None, sorted(values.items())]))
    assert plain == encode_json({"account": 7, "first": True, "weight": 1.5, "note": text})
    assert (
        entities["account"]
        == blake2b(
            f"{tenant}\x1faccount\x1f7".encode(), key=secret, digest_size=16, person=b"entity"
        ).hexdigest()
    )
    assert entities["pair"] == reference.pseudonyms.entity("pair", ("7", text, "1.5", "True"))
    assert marks["note"] == reference.pseudonyms.mark("note", text)
    assert shown["note"] == f"{marks['note']:016x}"


def test_the_usual_is_compiled_and_the_rest_is_not():
    """Equality alone would hold if Python did everything."""
    _, compiled = PAIRS["payments"]
    good = {
        "transaction_id": "tx_1", "time": 1_700_000_000_000, "type": "transaction", "amount": 1999,
        "currency": "SEK", "card": "cd_a", "customer": "cu_é", "merchant": "me_b", "channel": "ecom",
        "category": "electronics", "latitude": 51.97664, "longitude": 4, "device": None, "bin": "435137",
    }  # fmt: skip
    event = compiled._parse(good)
    assert event.original_amount == 1999
    identified = compiled._identify(event.time_ms, event.original_amount, event.values)
    assert identified is not None
    (entities, marks), shown, _, _ = identified
    assert compiled._targets[TRANSACTION](1, event.time_ms, shown, entities, marks) is not None
    for change in (
        {"amount": -1},
        {"card": "4111111111111111"},
        {"else": 1},
        {"time": "2024-01-01T00:00:00Z"},
    ):
        assert compiled._parse({**good, **change}) is None


def test_nothing_is_lost_or_kept():
    """Regular and irregular transactions a million times: the process does not grow."""
    reference, compiled = PAIRS["mixed"]
    regular = {
        "number": "n1", "when": 1_700_000_000_000, "account": 70_000, "units": 10**9, "amount": 5_000,
        "money": "SEK", "first": True, "weight": 1.25, "plan": "paid", "note": "ada é", "latitude": 1.5,
        "longitude": 7.25,
    }  # fmt: skip
    irregular = [
        {**regular, **c} for c in ({"note": "4111111111111111"}, {"plan": "x"}, {"y": 1}, {"weight": "1"})
    ]
    event = reference.parse(regular)
    identity, shown, _, _ = reference.identify(event)
    odd: tuple[dict[str, object], ...] = (
        {**event.values, "note": "\ud800"},
        {**event.values, "else": 1},
        {"account": []},
    )

    def round_of(count):
        for _ in range(count):
            made = compiled._parse(regular)
            (entities, marks), values, _, _ = compiled._identify(
                made.time_ms, made.original_amount, made.values
            )
            compiled._targets[TRANSACTION](compiled._event("tx:1"), made.time_ms, values, entities, marks)
            for body in irregular:
                assert compiled._parse(body) is None
            for values in odd:
                assert compiled._identify(1, None, values) is None
            assert compiled._event("\ud800") is None
            assert compiled._targets[TRANSACTION](1, 2**50, shown, identity.entities, identity.marks) is None
            assert compiled._targets[TRANSACTION](1, 1, shown, identity.entities, {"note": "x"}) is None

    round_of(2_000)
    gc.collect()
    before = resident_bytes()
    round_of(100_000)
    gc.collect()
    assert resident_bytes() - before < 2 * 2**20
    for typed in ("Parser", "Identifier", "Observer"):
        with pytest.raises((TypeError, ValueError)):
            getattr(module(), typed)()


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_a_schema_beyond_the_compiled_ones_stays_with_python():
    schema = Schema(
        name="odd",
        fields=(Field("who", "text"), Field("amount", "number"), Field("currency", "text")),
        entities=(Entity("who", ("who",)),),
        primary="who",
        subject="who",
        currency="currency",
    )
    catalogue = Catalogue("odd", schema, (Window("who", "count", HOUR),))
    with pytest.raises(NotBuilt, match="no integers"):
        pair(catalogue)
    found = best(catalogue, Pseudonyms("demo", SECRET), rates("EUR"))
    assert isinstance(found, Reference)
    assert isinstance(best(MIXED, Pseudonyms("demo", SECRET), rates("EUR")), Compiled)
