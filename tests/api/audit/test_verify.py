"""Verification: every kind of damage at every place of a small journal, and no alarm where there is none."""

import os
import shutil
from pathlib import Path

import pytest

from api.audit.anchors import FileAnchors, read_anchors
from api.audit.checkpoint import Checkpoint
from api.audit.keys import KeyDirectory
from api.audit.notary import Interval, Notary
from api.audit.verify import verify
from api.journal import Journal
from api.segment import Damage, batch_at, name_of, read_segment_header, segments_in
from cordon.drill.forger import Forger, starts_of

RECORDS = 37
NOW_MS = 1_800_000_000_000


def bodies(count: int, start: int = 0) -> list[bytes]:
    return [f'{{"id":"t{i}","pad":"{"x" * (i * 7 % 60)}"}}'.encode() for i in range(start, start + count)]


def build(directory: Path, records: int = RECORDS, segment_bytes: int = 1200) -> list[bytes]:
    """A journal of several segments, in batches of one to five records."""
    written: list[bytes] = []
    with Journal(directory, segment_bytes=segment_bytes) as journal:
        while len(written) < records:
            batch = bodies(min(1 + len(written) % 5, records - len(written)), len(written))
            journal.append(batch)
            written += batch
    return written


def anchor(journal: Path, place: Path, every: int = 5) -> list[Checkpoint]:
    """Checkpoints of the whole journal, the last of which covers its end."""
    notary = Notary(FileAnchors(place / "anchors"), KeyDirectory(place / "keys"), Interval(every, 0))
    notary.follow(journal.name, journal)
    while notary.step(NOW_MS):
        pass
    notary.close()
    return read_anchors(place / "anchors").checkpoints[journal.name]


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    place = tmp_path_factory.mktemp("intact")
    build(place / "journal")
    return place / "journal", anchor(place / "journal", place)


@pytest.fixture
def journal(intact, tmp_path):
    """A copy that may be bent, without the writer's own note of how far it got."""
    shutil.copytree(intact[0], tmp_path / "journal")
    (tmp_path / "journal" / "mark").unlink()
    return tmp_path / "journal"


def damage_of(journal: Path, checkpoints: list[Checkpoint]) -> Damage:
    with pytest.raises(Damage) as found:
        verify(journal, checkpoints)
    return found.value


def test_an_intact_journal_is_verified_against_every_checkpoint(intact):
    journal, checkpoints = intact
    assert len(segments_in(journal)) > 3
    verified = verify(journal, checkpoints)
    assert (verified.records, verified.protected, verified.checkpoints) == (
        RECORDS,
        RECORDS,
        len(checkpoints),
    )
    assert [c.first for c in checkpoints[1:]] == [c.size for c in checkpoints[:-1]]


def test_a_changed_record_is_named_wherever_it_is(intact, journal):
    for sequence in range(RECORDS):
        for at in (0, 5, -1):
            forger = Forger(journal)
            path = forger.change(sequence, at, sequence % 8)
            damage = damage_of(journal, intact[1])
            assert (damage.sort, damage.sequence, damage.segment) == ("changed", sequence, path)
            forger.undo()
    assert verify(journal, intact[1]).records == RECORDS


def test_a_removed_record_is_named_wherever_it_was(intact, journal):
    starts = starts_of(segments_in(journal))
    for sequence in range(RECORDS - 1):
        forger = Forger(journal)
        path = forger.remove(sequence)
        damage = damage_of(journal, intact[1])
        assert (damage.sort, damage.sequence) == ("removed", sequence)
        # Between two segments nobody can tell which one it was taken from.
        assert damage.segment == path or sequence + 1 in starts
        forger.undo()
    Forger(journal).remove(RECORDS - 1)
    assert damage_of(journal, intact[1]).sort == "truncated"


def test_an_inserted_record_is_named_wherever_it_is(intact, journal):
    for sequence in range(RECORDS):
        forger = Forger(journal)
        path = forger.insert(sequence, b'{"id":"never happened"}')
        damage = damage_of(journal, intact[1])
        assert (damage.sort, damage.sequence, damage.segment) == ("inserted", sequence, path)
        forger.undo()


def test_two_swapped_records_are_named_wherever_they_are(intact, journal):
    for first in range(RECORDS - 1):
        for second in {first + 1, (first + RECORDS) // 2, RECORDS - 1} - {first}:
            forger = Forger(journal)
            path = forger.swap(first, second)
            damage = damage_of(journal, intact[1])
            assert (damage.sort, damage.sequence, damage.segment) == ("reordered", first, path)
            forger.undo()


def test_a_tail_that_was_cut_off_is_named_wherever_it_was(intact, journal):
    for sequence in range(RECORDS):
        forger = Forger(journal)
        forger.cut(sequence)
        damage = damage_of(journal, intact[1])
        assert damage.sort in ("truncated", "segment_deleted")
        assert damage.sequence <= sequence
        forger.undo()


def test_a_deleted_segment_is_named_whichever_it_was(intact, journal):
    starts = starts_of(segments_in(journal))
    for number, first in enumerate(starts, 1):
        forger = Forger(journal)
        path = forger.delete(number)
        damage = damage_of(journal, intact[1])
        assert (damage.sort, damage.sequence, damage.segment) == ("segment_deleted", first, path)
        forger.undo()


def test_a_chain_that_was_rewritten_to_the_end_is_found_by_the_checkpoints(intact, journal):
    for sequence in range(RECORDS):
        forger = Forger(journal)
        forger.rewrite(sequence, b'{"id":"another truth"}')
        verify(journal)  # the chain alone has nothing to say
        damage = damage_of(journal, intact[1])
        signed = next(c for c in intact[1] if c.size > sequence)
        assert (damage.sort, damage.sequence) == ("rewritten", signed.first)
        assert f"records {signed.first} to {signed.size - 1}" in damage.kind
        forger.undo()


def test_any_single_bit_is_found_in_its_segment_and_batch(intact, journal):
    """Headers, lengths, bodies and hashes: every byte of the journal, one bit each."""
    for path in segments_in(journal):
        data = path.read_bytes()
        _, _, head = read_segment_header(path, memoryview(data))
        batches, offset = [], 68
        while (batch := batch_at(memoryview(data), offset)) is not None:
            batches.append(batch)
            offset = batch.end
        for at in range(len(data)):
            bent = bytearray(data)
            bent[at] ^= 1 << at % 8
            path.write_bytes(bent)
            damage = damage_of(journal, intact[1])
            batch = next((b for b in reversed(batches) if b.offset <= at), None)
            assert damage.segment == path, at
            if batch is None:
                assert damage.sequence == head.sequence, at
            else:
                assert batch.sequence <= damage.sequence <= batch.sequence + batch.records, at
            assert damage.sort == "changed", (at, str(damage))
        path.write_bytes(data)


def test_bytes_taken_out_or_put_in_without_any_care_are_found(intact, journal):
    for path in segments_in(journal):
        data = path.read_bytes()
        last = path == segments_in(journal)[-1]
        for at in range(0, len(data) - 1, 3):
            for bent, sorts in (
                (data[:at] + data[at + 3 :], {"removed", "changed", "truncated"}),
                (data[:at] + b"abc" + data[at:], {"inserted", "changed"}),
            ):
                path.write_bytes(bent)
                damage = damage_of(journal, intact[1])
                assert damage.segment == path, at
                assert damage.sort in sorts, (at, last, str(damage))
        path.write_bytes(data)


def test_a_segment_that_was_cut_in_the_middle_is_found(intact, journal):
    for path in segments_in(journal):
        data = path.read_bytes()
        for size in range(0, len(data), 5):
            path.write_bytes(data[:size])
            damage = damage_of(journal, intact[1])
            assert damage.segment == path, size
            assert damage.sort == "truncated", (size, str(damage))
        path.write_bytes(data)


def test_segments_that_changed_places_are_found(intact, journal):
    one, two = segments_in(journal)[:2]
    aside = one.with_name("aside")
    os.rename(one, aside)
    os.rename(two, one)
    os.rename(aside, two)
    assert damage_of(journal, intact[1]).segment == one
    assert name_of(1) == one.name
