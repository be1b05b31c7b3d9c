"""The journal: durable, chained, recoverable, readable while written, verifiable."""

import ctypes
import errno
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.audit.verify import verify
from api.journal import Journal, JournalBusy, JournalFenced, JournalLate, JournalUnavailable
from api.journal_reader import JournalReader, Position, contents, journals_in
from api.record import Kind, encode_json, pack
from api.segment import Damage, Head, encode_batch, segments_in
from api.spare import prewrite
from api.syncing import SYNC, Beside, Inline, Order, best, prewriting
from models.kernel.build import library as built
from models.kernel.errors import NotBuilt


def bodies(count: int, start: int = 0) -> list[bytes]:
    return [f'{{"n":{i}}}'.encode() * (i % 7 + 1) for i in range(start, start + count)]


def filled(directory: Path, batches: int = 20, each: int = 5, segment_bytes: int = 1 << 20) -> list[bytes]:
    written = []
    with Journal(directory, segment_bytes=segment_bytes) as journal:
        for i in range(batches):
            batch = bodies(each, i * each)
            journal.append(batch)
            written += batch
    return written


def read_all(directory: Path, limit: int = 7, start: Position | None = None) -> list[bytes]:
    reader = JournalReader(directory, start)
    found = []
    while batch := reader.read(limit):
        found += [r.body for r in batch]
    reader.close()
    return found


def test_what_was_appended_is_read_and_verifies(tmp_path):
    written = filled(tmp_path)
    assert read_all(tmp_path) == written
    verified = verify(tmp_path)
    assert (verified.records, verified.torn_bytes) == (100, 0)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(0, 900), min_size=1, max_size=8), min_size=1, max_size=12),
    limit=st.integers(1, 20),
    reopen=st.sets(st.integers(0, 11)),
)
def test_segments_rotate_and_any_reopening_continues_the_chain(tmp_path_factory, sizes, limit, reopen):
    directory = tmp_path_factory.mktemp("journal")
    written = []
    journal = Journal(directory, segment_bytes=2048)
    for i, batch in enumerate(sizes):
        if i in reopen:
            journal.close()
            journal = Journal(directory, segment_bytes=2048)
        data = [os.urandom(n) for n in batch]
        journal.append(data)
        written += data
    journal.close()
    assert read_all(directory, limit) == written
    assert verify(directory).records == len(written)


def test_a_reader_follows_the_writer_and_continues_from_a_stored_position(tmp_path):
    with Journal(tmp_path, segment_bytes=4096) as journal:
        reader = JournalReader(tmp_path)
        assert reader.read(10) == []
        seen = []
        for i in range(200):
            journal.append(bodies(3, i * 3))
            if i % 3 == 0:
                seen += [r.body for r in reader.read(100)]
            if i == 100:
                stored = reader.position
                reader.close()
                reader = JournalReader(tmp_path, stored)
        seen += [r.body for r in reader.read(10_000)]
        reader.ship()
        assert journal.backlog == 0
        reader.close()
    assert seen == bodies(600)


def test_only_one_writer(tmp_path):
    with Journal(tmp_path), pytest.raises(JournalBusy):
        Journal(tmp_path)


def test_a_writer_that_was_taken_over_is_fenced(tmp_path):
    with Journal(tmp_path) as journal:
        journal.append([b"one"])
        journal.mark.epoch = journal.epoch + 1
        with pytest.raises(JournalFenced):
            journal.append([b"two"])


def last_used(path: Path) -> int:
    return len(path.read_bytes().rstrip(b"\0"))


@pytest.mark.parametrize("cut", [1, 30, 35, 60, 100, 129])
def test_a_torn_tail_is_cut_off_to_the_last_whole_batch(tmp_path, cut):
    #  batch batch batch ba|       <- the machine stopped while this one was on its way to the disk
    written = filled(tmp_path, batches=4, each=1)
    (path,) = segments_in(tmp_path)
    size = path.stat().st_size
    with Journal(tmp_path, segment_bytes=1 << 20) as journal:
        journal.append([b"x" * 50])
        whole = journal.mark.durable
        torn = path.read_bytes()[size : whole[1]]
    os.truncate(path, size)
    (tmp_path / "mark").unlink()
    with path.open("ab") as file:
        file.write(torn[: len(torn) - cut] if cut < len(torn) else b"")
    assert verify(tmp_path).records == 4
    with Journal(tmp_path, segment_bytes=1 << 20) as journal:
        assert journal.head.sequence == 4
        assert journal.recovery.torn_bytes > 0 or cut >= len(torn)
        journal.append([b"next"])
    assert read_all(tmp_path) == [*written, b"next"]


def test_a_hole_in_the_last_batch_is_a_torn_tail_and_in_an_earlier_one_damage(tmp_path):
    with Journal(tmp_path, segment_bytes=1 << 20) as journal:
        journal.append([b"a" * 100])
        middle = journal.mark.durable[1]
        journal.append([b"b" * 9000, b"c" * 9000])
        end = journal.mark.durable[1]
    (path,) = segments_in(tmp_path)
    (tmp_path / "mark").unlink()
    with path.open("r+b") as file:
        file.seek(middle + 4096)
        file.write(bytes(4096))
    assert verify(tmp_path).records == 1
    with Journal(tmp_path, segment_bytes=1 << 20) as journal:
        assert journal.recovery.head.sequence == 1
        journal.append([b"b" * 9000, b"c" * 9000])
        journal.append([b"d"])
        assert journal.mark.durable[1] > end
    with path.open("r+b") as file:
        file.seek(middle + 4096)
        file.write(bytes(4096))
    with pytest.raises(Damage, match=r"segment 0000000001\.segment, record 1"):
        Journal(tmp_path)


@pytest.mark.parametrize("seed", range(12))
def test_a_changed_byte_is_found_and_named(tmp_path, seed):
    filled(tmp_path, batches=30, each=4, segment_bytes=4096)
    rng = random.Random(seed)
    paths = segments_in(tmp_path)
    path = rng.choice(paths)
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data))
    data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    with pytest.raises(Damage) as found:
        verify(tmp_path)
    assert found.value.segment.name == path.name


def test_a_missing_segment_and_a_cut_tail_are_found(tmp_path):
    filled(tmp_path, batches=30, each=4, segment_bytes=4096)
    paths = segments_in(tmp_path)
    assert len(paths) > 2
    last = paths[-1].read_bytes()
    os.truncate(paths[-1], len(last) - 10)
    with pytest.raises(Damage, match=r"cut off|changed"):
        verify(tmp_path)
    paths[-1].write_bytes(last)
    verify(tmp_path)
    paths[1].unlink()
    with pytest.raises(Damage, match=f"segment {paths[1].name}"):
        verify(tmp_path)


def test_a_failed_write_decides_nothing_further(tmp_path):
    journal = Journal(tmp_path, segment_bytes=1 << 16)
    journal.append([b"kept"])
    os.close(journal._file)
    with pytest.raises(JournalUnavailable):
        journal.append([b"lost"])
    with pytest.raises(JournalUnavailable):
        journal.append([b"lost too"])


@pytest.fixture(params=[Inline, Beside], ids=["inline", "beside"])
def syncing(request):
    return request.param()


def test_nobody_reads_what_was_written_before_it_is_settled(tmp_path, syncing):
    with Journal(tmp_path, segment_bytes=1 << 16, syncing=syncing) as journal:
        reader = JournalReader(tmp_path, None)
        first = journal.write([b"one", b"two"])
        assert reader.read(5) == []
        second = journal.write([b"three"])  # which the disk gets after the first
        journal.settle(first)
        assert journal.is_settled(first)
        assert [record.body for record in reader.read(5)] == [b"one", b"two"]
        journal.settle(second)
        assert journal.is_settled(second)
        assert [record.body for record in reader.read(5)] == [b"three"]
        assert journal.append([b"four"]).sequence == 4
        reader.close()
    assert read_all(tmp_path) == [b"one", b"two", b"three", b"four"]
    assert verify(tmp_path).records == 4


class Standing(Inline):
    """A disk that is done when it is told so, or waited for."""

    def __init__(self):
        super().__init__()
        self.ready = False
        self.syncs = 0

    def start(self, order):
        super().start(order)
        self.ready = False
        self.syncs += 1

    def done(self):
        return self.ready

    def wait(self):
        self.ready = True
        return super().wait()


def test_what_is_handed_over_while_the_disk_stands_goes_to_it_together(tmp_path):
    disk = Standing()
    with Journal(tmp_path, segment_bytes=1 << 16, syncing=disk) as journal:
        reader = JournalReader(tmp_path, None)
        first = journal.write([b"one"])
        others = [journal.write([b"two", b"three"]), journal.write([b"four"])]
        assert not any(journal.is_settled(written) for written in (first, *others))
        assert (disk.syncs, journal.head.sequence) == (1, 0)
        disk.ready = True
        assert journal.is_settled(first)
        assert (disk.syncs, journal.head.sequence) == (2, 1), "the others were given to it at once"
        assert not any(journal.is_settled(written) for written in others)
        assert [record.body for record in reader.read(5)] == [b"one"]
        second, third = (journal.settle(written) for written in others)
        assert second == third != journal.settle(first)
        assert [record.body for record in reader.read(5)] == [b"two", b"three", b"four"]
        last = journal.write([b"five"])
        reader.close()
    assert last.durable, "the end waits for what was handed over"
    assert read_all(tmp_path) == [b"one", b"two", b"three", b"four", b"five"]
    assert verify(tmp_path).records == 5


def test_more_than_some_does_not_wait_for_the_disk_but_the_writer_does(tmp_path, monkeypatch):
    monkeypatch.setattr("api.journal.WAITING_BYTES_MAX", 100)
    disk = Standing()
    with Journal(tmp_path, segment_bytes=1 << 16, syncing=disk) as journal:
        written = [journal.write([b"a" * 60]), journal.write([b"b" * 60])]
        assert [one.durable for one in written] == [False, False]
        journal.write([b"c" * 60])
        assert [one.durable for one in written] == [True, False]


def test_what_waited_for_the_disk_for_too_long_is_never_written(tmp_path):
    disk = Standing()
    with Journal(tmp_path, segment_bytes=1 << 16, syncing=disk) as journal:
        first = journal.write([b"one"], within_s=60.0)
        late, kept = journal.write([b"late"], within_s=0.01), journal.write([b"kept"], within_s=60.0)
        time.sleep(0.02)
        with pytest.raises(JournalLate):
            journal.settle(late)
        journal.settle(kept)
        assert first.durable
        with pytest.raises(JournalLate):
            journal.write([b"never"], within_s=-1.0)
    assert read_all(tmp_path) == [b"one", b"kept"]


def test_what_waits_for_a_disk_that_breaks_was_not_written(tmp_path):
    class Breaking(Standing):
        broken = True

        def wait(self):
            head = super().wait()
            if self.broken:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return head

    disk = Breaking()
    journal = Journal(tmp_path, segment_bytes=1 << 16, syncing=disk)
    under_way, waiting = journal.write([b"one"]), journal.write([b"two"])
    for written in (waiting, under_way):
        with pytest.raises(JournalUnavailable, match="Input/output error"):
            journal.settle(written)
    disk.broken = False
    assert journal.revive()
    with pytest.raises(JournalUnavailable):
        journal.settle(waiting)
    journal.append([b"three"])
    journal.close()
    assert read_all(tmp_path) == [b"one", b"three"]


def test_what_waits_when_another_writer_takes_over_is_not_written(tmp_path):
    disk = Standing()
    journal = Journal(tmp_path, segment_bytes=1 << 16, syncing=disk)
    first, second = journal.write([b"one"]), journal.write([b"two"])
    journal.mark.epoch += 1
    disk.ready = True
    for _ in range(2):
        with pytest.raises(JournalFenced):
            journal.settle(second)
    assert first.durable
    journal.close()
    assert read_all(tmp_path) == [b"one"]


class Failing(Inline):
    """A disk whose `fdatasync` fails as often as it is told."""

    failures = 0

    def wait(self):
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().wait()


def test_a_batch_that_the_disk_did_not_take_is_unavailable_however_late_it_is_asked_for(tmp_path):
    syncing = Failing()
    journal = Journal(tmp_path, segment_bytes=1 << 16, syncing=syncing)
    journal.append([b"kept"])
    syncing.failures = 1
    written = journal.write([b"lost"])
    with pytest.raises(JournalUnavailable, match="Input/output error"):
        journal.write([b"after"])
    assert journal.revive()
    with pytest.raises(JournalUnavailable):
        journal.settle(written)
    assert journal.append([b"next"]).sequence == 3  # the lost one is whole, and stays
    journal.close()
    assert read_all(tmp_path) == [b"kept", b"lost", b"next"]


@pytest.fixture(params=["instructed", "plain"])
def beside(request):
    """The thread, with the processor's own SHA-256 where it has one, and without."""
    made = Beside()
    library = ctypes.CDLL(str(built(SYNC)))
    library.sha256_choose(request.param == "plain")
    yield made
    library.sha256_choose(0)
    made.close()


HASHED = st.binary(min_size=32, max_size=32)
BODY = st.binary(max_size=300) | st.integers(0, 20_000).map(lambda n: random.Random(n).randbytes(n))
BATCHES = st.lists(st.lists(BODY, min_size=1, max_size=8), min_size=1, max_size=3)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BATCHES, HASHED, st.integers(0, 2**63), st.integers(0, 2**32 - 1), st.integers(0, 2**20))
def test_a_thread_writes_what_the_reference_encodes(
    beside, tmp_path, batches, hashed, sequence, epoch, offset
):
    head, expected = Head(sequence, hashed), bytes(offset)
    with (tmp_path / "file").open("w+b") as file:
        for bodies in batches:
            data, after = encode_batch(bodies, head, epoch, len(expected))
            beside.start(Order(file.fileno(), len(expected), epoch, head, bodies))
            assert select.select([beside.descriptor], [], [], 5)[0]
            assert beside.done()
            head = beside.wait()
            expected += data
            assert head == after
        assert file.read() == expected


def test_a_thread_says_what_went_wrong_and_goes_on(tmp_path):
    syncing = Beside()
    read, write = os.pipe()
    for _ in range(2):
        syncing.start(Order(read, 0, 1, Head(), [b"a"]))
        with pytest.raises(OSError, match="Illegal seek") as caught:
            syncing.wait()
        assert caught.value.errno == errno.ESPIPE
    os.close(read)
    os.close(write)
    with (tmp_path / "file").open("wb") as file:
        syncing.start(Order(file.fileno(), 0, 1, Head(), [b"a"]))
        assert syncing.wait().sequence == 1
    syncing.close()


def test_without_a_compiler_the_writer_waits_and_says_so(monkeypatch, caplog):
    def missing():
        raise NotBuilt("no C compiler")

    monkeypatch.setattr("api.syncing._routine", missing)
    assert isinstance(best(), Inline)
    assert "no C compiler" in caplog.text


WRITER = """
import sys
from pathlib import Path
from api.journal import Journal
journal = Journal(Path(sys.argv[1]), segment_bytes=1 << 16)
n = journal.head.sequence
while True:
    journal.append([str(i).encode() * 20 for i in range(n, n + 5)])
    n += 5
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
"""


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    for _ in range(4):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        acknowledged = 0
        until = time.monotonic() + 0.3
        for line in process.stdout:
            acknowledged = int(line)
            if time.monotonic() > until:
                break
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines()
        acknowledged = int(rest[-1]) if rest else acknowledged
        process.stdout.close()
        process.wait()
        assert verify(tmp_path).records >= acknowledged
    with Journal(tmp_path, segment_bytes=1 << 16) as journal:
        count = journal.head.sequence
    assert read_all(tmp_path, 1000) == [str(i).encode() * 20 for i in range(count)]


def test_twenty_thousand_grouped_records_per_second(tmp_path):
    batch = [os.urandom(1200) for _ in range(64)]
    with Journal(tmp_path) as journal:
        started = time.perf_counter()
        for _ in range(200):
            journal.append(batch)
        rate = 200 * 64 / (time.perf_counter() - started)
    assert rate > 5_000  # the benchmark holds the real bar; this one shares its cores with other tests


def test_the_contents_of_journals_are_their_records_in_order(tmp_path):
    for name, count in (("door-0", 25), ("service-0", 12_000)):
        with Journal(tmp_path / name, segment_bytes=1 << 16) as journal:
            for first in range(0, count, 50):
                numbers = range(first, min(first + 50, count))
                journal.append(
                    [pack(Kind.DECISION, "key", encode_json({"id": f"{name} {n}"})) for n in numbers]
                )
    (tmp_path / "no journal").mkdir()
    assert [journal.name for journal in journals_in(tmp_path)] == ["door-0", "service-0"]
    assert journals_in(tmp_path, "service-*") == [tmp_path / "service-0"]
    assert len(segments_in(tmp_path / "service-0")) > 1
    found = [record["id"] for record in contents(*journals_in(tmp_path))]
    assert found == [f"door-0 {n}" for n in range(25)] + [f"service-0 {n}" for n in range(12_000)]
    segment = segments_in(tmp_path / "service-0")[0]
    changed = bytearray(segment.read_bytes())
    changed[len(changed) // 2] ^= 1
    segment.write_bytes(changed)
    with pytest.raises(Damage):
        list(contents(*journals_in(tmp_path)))


def not_built() -> Any:
    raise NotBuilt("there is no compiler")


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "by Python"])
def test_the_next_segment_is_prepared_ahead_and_given_up_when_the_journal_closes(
    tmp_path, monkeypatch, compiled
):
    if not compiled:
        monkeypatch.setattr("api.spare.prewriting", not_built)
    spare = tmp_path / "spare"
    with Journal(tmp_path, segment_bytes=1 << 20) as journal:
        journal.append([bytes(300_000)])
        until_s = time.monotonic() + 10
        while not spare.exists():
            assert time.monotonic() < until_s
            time.sleep(0.01)
        assert spare.stat().st_size == 1 << 20
        journal.append([bytes(800_000)])
        assert not spare.exists()
    assert len(segments_in(tmp_path)) == 2
    slow = tmp_path / "slow"
    with Journal(slow) as journal:
        time.sleep(0.5)
        journal.append([bytes(1_200_000)])
        while not (slow / "spare.partial").exists():
            assert time.monotonic() < until_s + 10
        began_s = time.monotonic()
    # All of it would have taken a second at the least.
    assert time.monotonic() - began_s < 0.8
    assert not list(slow.glob("spare*"))


def test_nobody_waits_until_a_segment_is_prewritten(tmp_path, monkeypatch):
    # Where no spare is ready in time, the next segment is allocated only.
    ahead: list[tuple[int, int]] = []

    def noted(file: int, start: int, end: int) -> bool:
        ahead.append((start, end))
        return prewrite(file, start, end)

    monkeypatch.setattr("api.journal.prewrite", noted)
    monkeypatch.setattr("api.spare.prewriting", lambda: lambda *_: errno.ENOSPC)
    bodies = [os.urandom(200_000) for _ in range(24)]
    with Journal(tmp_path, segment_bytes=1 << 20) as journal:
        for body in bodies:
            journal.append([body])
        assert segments_in(tmp_path)[-1].stat().st_size == 1 << 20
    assert ahead == [(0, 1 << 20)]
    assert len(segments_in(tmp_path)) == 5
    assert not list(tmp_path.glob("spare*"))
    reader = JournalReader(tmp_path)
    assert [record.body for record in reader.read(100)] == bodies
    reader.close()


def test_compiled_code_writes_zeros_until_the_pipe_is_closed(tmp_path):
    size = 1_000_000
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    file = os.open(path, os.O_RDWR)
    closed, end = os.pipe()
    assert prewriting()(file, 0, size - 10, closed, 1) == 0
    assert path.read_bytes() == bytes(size - 10) + b"x" * 10
    path.write_bytes(b"x" * size)
    os.close(end)
    assert prewriting()(file, 0, size, closed, 60_000) == -1
    assert path.read_bytes() == bytes(256 * 1024) + b"x" * (size - 256 * 1024)
    os.close(closed)
    os.close(file)
    assert prewriting()(file, 0, size, -1, 0) == errno.EBADF
