"""Checkpoints: when they are made, how they go on after a restart, what stops them, what is bent."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.audit.anchors import FileAnchors, read_anchors
from api.audit.checkpoint import Checkpoint, MalformedCheckpoint, read_checkpoint
from api.audit.inspection import check_checkpoints
from api.audit.keys import KeyDirectory, KeyUnusable, PublicKey, Rotation, SigningKey, Trust, public_keys
from api.audit.merkle import leaves_of, root_of
from api.audit.notary import CheckpointsStopped, Interval, Notary
from api.audit.verify import verify
from api.journal import Journal
from api.journal_reader import JournalReader
from api.segment import Damage, name_of, segments_in
from tests.parts import ROOT

NOW_MS = 1_800_000_000_000


class Desk:
    """A journal and a notary that may be started again."""

    def __init__(self, directory: Path, interval: Interval) -> None:
        self.directory = directory
        self.interval = interval
        self.keys = KeyDirectory(directory / "keys")
        self.anchors = FileAnchors(directory / "anchors")
        self.journal = directory / "journal"
        self.restart()

    def restart(self) -> None:
        self.notary = Notary(self.anchors, self.keys, self.interval)

    def step(self, now_ms: int = NOW_MS) -> int:
        self.notary.follow("journal", self.journal)
        return self.notary.step(now_ms)

    def checkpoints(self) -> list[Checkpoint]:
        return read_anchors(self.directory / "anchors").checkpoints.get("journal", [])

    def hashes(self) -> list[bytes]:
        reader = JournalReader(self.journal)
        found = [record.hash for record in reader.read(1_000_000)]
        reader.close()
        return found


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path, Interval(10, 1_000))


def test_a_checkpoint_is_due_after_so_many_records_or_so_much_time(desk):
    with Journal(desk.journal) as journal:
        journal.append([b"a"] * 4)
        assert desk.step() == 0
        assert desk.notary.unprotected(NOW_MS + 300)["journal"].records == 4
        assert desk.notary.unprotected(NOW_MS + 300)["journal"].age_ms == 300
        assert desk.step(NOW_MS + 999) == 0
        assert desk.step(NOW_MS + 1_000) == 1
        assert desk.notary.unprotected(NOW_MS + 1_300)["journal"].records == 0
        assert desk.step(NOW_MS + 9_000) == 0  # nothing new, nothing to sign
        journal.append([b"b"] * 10)
        assert desk.step(NOW_MS + 9_001) == 1
    first, second = desk.checkpoints()
    assert (first.first, first.size, second.first, second.size) == (0, 4, 4, 14)
    assert second.root == root_of(leaves_of(desk.hashes())).hex()
    assert second.previous == first.hash()


@settings(max_examples=25, deadline=None)
@given(
    batches=st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.booleans()), min_size=1, max_size=25),
    every=st.integers(1, 12),
)
def test_however_it_is_restarted_the_checkpoints_are_those_of_the_journal(tmp_path_factory, batches, every):
    desk = Desk(tmp_path_factory.mktemp("desk"), Interval(every, 0))
    journal = Journal(desk.journal, segment_bytes=600)
    for number, (count, reopen, restart) in enumerate(batches):
        journal.append([f"{number}-{i}".encode() for i in range(count)])
        if reopen:
            journal.close()
            journal = Journal(desk.journal, segment_bytes=600)
        if restart:
            desk.notary.close()
            desk.restart()
        desk.step(NOW_MS + number)
    while desk.step(NOW_MS + 1_000):
        pass
    journal.close()
    hashes, checkpoints = desk.hashes(), desk.checkpoints()
    assert checkpoints[-1].size == len(hashes)
    for checkpoint in checkpoints:
        assert checkpoint.root == root_of(leaves_of(hashes[: checkpoint.size])).hex()
    sound, findings = check_checkpoints(checkpoints, Trust(public_keys(desk.keys.directory)))
    assert (sound, findings) == (checkpoints, [])
    assert verify(desk.journal, checkpoints).protected == len(hashes)
    desk.notary.close()


def test_a_checkpoint_line_that_a_crash_cut_short_is_made_again(desk):
    with Journal(desk.journal) as journal:
        journal.append([b"a"] * 10)
        desk.step()
        (path,) = (desk.directory / "anchors" / "journal").glob("*.jsonl")
        whole = path.read_bytes()
        path.write_bytes(whole + whole[: len(whole) // 2])
        assert len(desk.checkpoints()) == 1
        desk.restart()
        journal.append([b"b"] * 10)
        assert desk.step() == 1
    assert [c.number for c in desk.checkpoints()] == [0, 1]


def test_a_store_that_cannot_be_written_stops_checkpoints_only_until_it_can(desk):
    with Journal(desk.journal) as journal:
        journal.append([b"a"] * 10)
        (desk.directory / "anchors").write_text("not a directory")
        with pytest.raises(CheckpointsStopped, match="anchors"):
            desk.step()
        assert desk.step(NOW_MS + 10) == 0  # it rests
        (desk.directory / "anchors").unlink()
        assert desk.step(NOW_MS + 2_000) == 1


def test_a_key_that_is_none_stops_checkpoints(desk):
    desk.keys.signing()
    (private,) = desk.keys.directory.glob("*.private.pem")
    private.write_text("nonsense")
    with Journal(desk.journal) as journal:
        journal.append([b"a"] * 10)
        with pytest.raises(CheckpointsStopped, match="no private key"):
            desk.step()
    with pytest.raises(KeyUnusable, match="no public key"):
        public_keys(desk.directory)


def test_private_keys_are_for_their_owner_only(desk):
    desk.keys.signing()
    (private,) = desk.keys.directory.glob("*.private.pem")
    assert private.stat().st_mode & 0o077 == 0


def test_a_journal_that_is_no_longer_the_one_that_was_signed_is_not_continued(desk):
    with Journal(desk.journal) as journal:
        journal.append([b"a"] * 10)
        desk.step()
    desk.notary.close()
    shutil.rmtree(desk.journal)
    with Journal(desk.journal) as journal:
        journal.append([b"b"] * 10)
        desk.restart()
        with pytest.raises(Damage, match="not the one that was signed"):
            desk.step()


def test_what_was_sent_to_kafka_is_not_asked_for_again(desk):
    with Journal(desk.journal) as journal:
        for _ in range(3):
            journal.append([b"a"] * 10)
            desk.step()
    assert [c.number for c in desk.notary.behind("journal", 0)] == [1, 2]
    desk.restart()
    desk.step()
    assert [c.number for c in desk.notary.behind("journal", -1)] == [0, 1, 2]  # from the store


def signed(key: SigningKey, count: int) -> list[Checkpoint]:
    """Checkpoints one after the other, of one record each."""
    found: list[Checkpoint] = []
    for number in range(count):
        before = found[-1].hash() if found else "0" * 64
        found.append(
            Checkpoint(
                "j-1", number, number, number + 1, 1, 68, "", "", (), before, NOW_MS, key.id
            ).signed_by(key)
        )
    return found


def sorts(checkpoints: list[Checkpoint], trust: Trust) -> list[tuple[str, int | None]]:
    return [(f.sort, f.checkpoint) for f in check_checkpoints(checkpoints, trust)[1]]


def test_every_bent_checkpoint_is_named():
    key, foreign = SigningKey.new(), SigningKey.new()
    trust, sound = Trust([key.public]), signed(key, 6)
    assert sorts(sound, trust) == []
    for number, checkpoint in enumerate(sound):
        rest = [c for c in sound if c.number != number]
        other = replace(checkpoint, key=foreign.id).signed_by(foreign)
        assert sorts(sorted([*rest, other], key=lambda c: c.number), trust) == [("foreign_key", number)]
        for bent in (
            replace(checkpoint, size=99),
            replace(checkpoint, root="00"),
            replace(checkpoint, time_ms=1),
            replace(checkpoint, head="ff"),
            replace(checkpoint, segment=7),
        ):
            assert sorts(sorted([*rest, bent], key=lambda c: c.number), trust) == [
                ("checkpoint_altered", number)
            ]
        second = replace(checkpoint, root="01").signed_by(key)
        both = sorted([*sound, second], key=lambda c: c.number)
        assert ("checkpoint_doubled", number) in sorts(both, trust)
        if number < 5:
            assert sorts(rest, trust) == [("checkpoint_missing", number)]


def test_a_line_that_is_no_checkpoint_is_said_to_be_one():
    good = signed(SigningKey.new(), 1)[0]
    assert read_checkpoint(good.line()) == good
    for line in (b"{}", b"[]", b"nonsense", good.line().replace(b'"v":1', b'"v":2')):
        with pytest.raises(MalformedCheckpoint):
            read_checkpoint(line)


def test_trust_passes_from_key_to_key_and_never_back():
    one, two, three = (SigningKey.new() for _ in range(3))
    first = Rotation(one.id, two.public.raw, 1).signed_by(one)
    second = Rotation(two.id, three.public.raw, 2).signed_by(two)
    trust = Trust([one.public], [second, first])
    assert [trust.order[k.id] for k in (one, two, three)] == [0, 1, 2]
    assert set(Trust([one.public], [second]).keys) == {one.id}
    forged = replace(first, new=three.public.raw)
    assert set(Trust([one.public], [forged]).keys) == {one.id}
    # Two successors: somebody else has the key, and neither follows from it.
    fork = Rotation(one.id, three.public.raw, 3).signed_by(one)
    assert set(Trust([one.public], [first, fork]).keys) == {one.id}
    chain = signed(one, 2)
    after = replace(
        signed(two, 3)[2], previous=chain[1].hash()
    ).signed_by(two)  # fmt: skip
    late = replace(signed(one, 4)[3], previous=after.hash()).signed_by(one)
    assert sorts([*chain, after], trust) == []
    assert sorts([*chain, after, late], trust) == [("retired_key", 3)]


def test_a_rotation_that_was_not_finished_is_continued(tmp_path):
    keys = KeyDirectory(tmp_path)
    old = keys.signing()
    new, statement = keys.prepare(NOW_MS)
    again, same = keys.prepare(NOW_MS + 1)
    assert (again.id, same) == (new.id, statement)
    assert keys.signing().id == old.id
    keys.activate(new)
    assert keys.signing().id == new.id
    assert {key.id for key in public_keys(tmp_path)} == {old.id, new.id}
    assert PublicKey.of(statement.new).id == new.id


WRITER = """
import sys
import time
from pathlib import Path
from api.journal import Journal
with Journal(Path(sys.argv[1]), segment_bytes=1 << 18) as journal:
    n = journal.head.sequence
    while True:
        journal.append([str(i).encode() * 60 for i in range(n, n + 300)])
        n += 300
        print(n, flush=True)
        time.sleep(0.005)
"""


def test_no_alarm_while_it_is_written_nor_after_kill_9(desk):
    desk.interval = Interval(500, 20)
    desk.restart()
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(desk.journal)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        assert writer.stdout is not None
        writer.stdout.readline()
        for number in range(6):
            desk.step(NOW_MS + number * 50)
            # Anchors first: the journal is further on by the time it is read.
            checkpoints = desk.checkpoints()
            assert verify(desk.journal, checkpoints).records >= (checkpoints[-1].size if checkpoints else 0)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        assert verify(desk.journal, desk.checkpoints()).protected == desk.checkpoints()[-1].size
    assert len(segments_in(desk.journal)) >= 1
    assert desk.checkpoints()


@pytest.mark.parametrize("cut", [1, 20, 60, 200])
def test_a_torn_tail_is_no_alarm_unless_a_checkpoint_covers_it(desk, cut):
    desk.interval = Interval(10, 0)
    desk.restart()
    with Journal(desk.journal) as journal:
        journal.append([b"a" * 30] * 10)
        desk.step()
        journal.append([b"b" * 30] * 10)
    (desk.journal / "mark").unlink()
    path = desk.journal / name_of(1)
    before = desk.checkpoints()
    os.truncate(path, path.stat().st_size - cut)
    verified = verify(desk.journal, before)
    assert (verified.records, verified.protected) == (10, 10)
    assert verified.torn_bytes > 0
    with Journal(desk.journal) as journal:
        journal.append([b"c" * 30] * 10)
        desk.step()
    os.truncate(path, path.stat().st_size - cut)
    (desk.journal / "mark").unlink()
    with pytest.raises(Damage) as found:
        verify(desk.journal, desk.checkpoints())
    assert found.value.sort == "truncated"
