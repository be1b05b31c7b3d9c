"""Blocks of merge calls: what the bytes say is what the rows said."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import sql
from features.catalogue import Catalogue, load
from features.cluster_store import slot as slot_of
from features.library import Keys, function_name, pack_assertion
from features.library import sections as record_kinds
from features.state import Assertion
from stream import block

CATALOGUES = {name: load(name) for name in ("handbook", "payments")}
IDS = [f"{number:032x}" for number in (0, 1, 2**64, 2**127, 2**128 - 1)]


def commands(data: bytes) -> list[list[bytes]]:
    """The commands of a block of RESP."""
    found, at = [], 0
    while at < len(data):
        end = data.index(b"\r\n", at)
        words: list[bytes] = []
        count, at = int(data[at + 1 : end]), end + 2
        for _ in range(count):
            end = data.index(b"\r\n", at)
            length = int(data[at + 1 : end])
            words.append(data[end + 2 : end + 2 + length])
            assert data[end + 2 + length : end + 4 + length] == b"\r\n"
            at = end + 4 + length
        found.append(words)
    return found


def records(catalogue: Catalogue, entity: str, argument: bytes) -> list[bytes]:
    """The records of a merge's argument, sorted."""
    sizes = {kind.code: kind.size for kind in record_kinds(catalogue.layouts[entity])}
    found = []
    while argument:
        size = sizes[argument[0]]
        found.append(argument[:size])
        argument = argument[size:]
    return sorted(found)


@given(data=st.data(), name=st.sampled_from(sorted(CATALOGUES)))
def test_every_newest_row_is_in_the_call_of_its_entity(data: st.DataObject, name: str) -> None:
    catalogue = CATALOGUES[name]
    sections = {s.code: s for s in sql.sections(catalogue)}
    names = [c for group in sql.columns(catalogue) for c in group]
    value = st.sampled_from([0, 0, 1, 255, 2**31, 2**62])
    row = st.tuples(
        st.sampled_from(sorted(sections)),
        st.sampled_from(IDS),
        st.integers(1, 3),
        st.lists(value, min_size=len(names), max_size=len(names)),
    )
    drawn = data.draw(st.lists(row, min_size=1, max_size=60))
    plan = block.plan(catalogue, "demo")
    rows = block.Rows(
        np.array([r[0] for r in drawn]),
        block.words([r[1] for r in drawn]),
        np.array([r[2] for r in drawn]),
        np.array([r[3] for r in drawn]),
    )
    call = block.arrange(plan, rows)
    encoded, count = block.encode(plan, call)

    newest = {(code, who, key): dict(zip(names, values, strict=True)) for code, who, key, values in drawn}
    wanted: dict[tuple[str, str], list[bytes]] = defaultdict(list)
    for (code, who, key), values in newest.items():
        section = sections[code]
        layout = catalogue.layouts[section.entity]
        slots = tuple(values[c] for c in section.slots)
        tiles = ((section.tier, key, slots),) if section.tier is not None and any(slots) else ()
        seen = () if section.map is None else ((section.map, key, values["x0"]),)
        maps = len(layout.maps)
        argument = pack_assertion(layout, Assertion((), tiles, ())) if tiles else b""
        for index, mark, last in seen:
            argument += bytes([3 + index]) + mark.to_bytes(8, "little") + last.to_bytes(8, "little")
        for index, column in enumerate(section.heads):
            if values[column]:
                argument += bytes([3 + maps + index]) + values[column].to_bytes(8, "little")
        if argument:
            wanted[section.entity, who] += records(catalogue, section.entity, argument)

    keys = Keys("demo", catalogue.state_fingerprint)
    expected = {
        keys.state(entity, who).encode(): (function_name(catalogue, "merge", entity).encode(), sorted(found))
        for (entity, who), found in wanted.items()
    }
    entity_of = {function_name(catalogue, "merge", e).encode(): e for e in catalogue.entities}
    sent = {}
    for word, function, number, key_name, argument in commands(encoded):
        assert (word, number) == (b"FCALL", b"1")
        assert key_name not in sent
        sent[key_name] = (function, records(catalogue, entity_of[function], argument))
    assert sent == expected
    assert count == len(expected)


@pytest.mark.parametrize("name", sorted(CATALOGUES))
def test_slots_of_a_cluster_and_shares_of_its_nodes(name: str) -> None:
    catalogue = CATALOGUES[name]
    plan = block.plan(catalogue, "demo")
    codes = [s.code for s in sql.sections(catalogue)]
    drawn = [(code, who) for code in codes for who in IDS]
    slots = np.ones((len(drawn), plan.columns), dtype=np.int64)
    rows = block.Rows(
        np.array([c for c, _ in drawn]), block.words([w for _, w in drawn]), np.ones(len(drawn), int), slots
    )
    call = block.arrange(plan, rows)
    keys = [command[3].decode() for command in commands(block.encode(plan, call)[0])]
    owned = block.slots(plan, call)
    assert owned.tolist() == [slot_of(key) for key in keys] == [block.slot(key) for key in keys]
    shares = [block.encode(plan, block.share(call, owned % 3 == node)) for node in range(3)]
    again = [command[3].decode() for data, _ in shares for command in commands(data)]
    assert sorted(again) == sorted(keys)
    assert sum(count for _, count in shares) == len(keys)


def test_a_pseudonym_of_another_length_is_refused() -> None:
    for ids in (["a" * 31], ["a" * 33], ["a" * 32, "b"]):
        with pytest.raises(ValueError, match="32 characters"):
            block.words(ids)


def test_an_empty_batch_is_no_block() -> None:
    plan = block.plan(CATALOGUES["handbook"], "demo")
    empty = np.zeros(0, dtype=np.int64)
    rows = block.Rows(
        empty, np.zeros((0, 4), dtype=np.uint64), empty, np.zeros((0, plan.columns), dtype=np.int64)
    )
    assert block.encode(plan, block.arrange(plan, rows)) == (b"", 0)
