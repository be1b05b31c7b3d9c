"""A journal of a million decisions, damaged in seven ways; twenty journals that are not damaged at all.

Whoever damages puts everything right that can be put right without a signing key (see `forger`). What verify
says must be the right segment, record and kind of damage. Journals that were written, or whose writer was
killed in the middle of a write, must raise no alarm: neither afterwards nor while they are being written.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from api.audit.anchors import FileAnchors, read_anchors
from api.audit.inspection import Finding, Inspected, inspect, name_of_journal
from api.audit.keys import KeyDirectory, SigningKey
from api.audit.notary import Interval, Notary
from api.journal import Journal, durable_of
from api.segment import LENGTH, name_of, segments_in
from cordon.drill.decider import Decider
from cordon.drill.forger import Forger, starts_of
from cordon.failure import Failure

DISTINCT: Final = 10_000
CHECKPOINTS: Final = 100  # of the large journal
JOURNALS: Final = 10  # sound ones, and as many torn ones
SMALL_PART: Final = 200  # each of the twenty journals has a 200th of the records, at least SMALL_MIN
SMALL_MIN: Final = 500
KILLS_MAX: Final = 40
WRITE_S_MAX: Final = 5.0
RECORD_BYTES: Final = 5_000
PASSES: Final = 5


class NoRoom(Failure):
    """The disk is too small for the journal that was asked for: ask for fewer records."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What verify has to say of a damage."""

    sort: str
    segment: str
    record: int


@dataclass(frozen=True, slots=True)
class Named:
    """One damage, and what was said of it."""

    damage: str
    expected: Expected
    found: tuple[Finding, ...]

    @property
    def rightly(self) -> bool:
        """Exactly this damage was named, and nothing else."""
        return [(f.sort, f.segment, f.record) for f in self.found] == [
            (self.expected.sort, self.expected.segment, self.expected.record)
        ]


@dataclass(frozen=True, slots=True)
class Tampered:
    """What the drill found. `verify_records_per_s`: per second of one processor, `wall`: of the clock on the
    wall, whatever else ran; best of five passes. `torn`: journals whose last batch a kill cut short."""

    records: int
    named: tuple[Named, ...]
    false_alarms: tuple[str, ...]
    verify_records_per_s: int
    wall: int
    journals: int
    torn: int
    kills: int

    @property
    def found(self) -> int:
        """Damages that were named rightly."""
        return sum(each.rightly for each in self.named)

    @property
    def holds(self) -> bool:
        """Everything was found, nothing else was."""
        return self.found == len(self.named) == 7 and not self.false_alarms and self.torn == self.journals

    def as_json(self) -> dict[str, Any]:
        """The last line of the drill."""
        return {
            "records": self.records,
            "damages": len(self.named),
            "found": self.found,
            "false_alarms": len(self.false_alarms),
            "verify_records_per_s": self.verify_records_per_s,
            "verify_records_per_s_wall": self.wall,
            "journals": 2 * self.journals,
            "torn_tails": self.torn,
            "kills": self.kills,
            "alarms": list(self.false_alarms),
            "named": [
                {"damage": n.damage, "said": n.found[0].sort, "segment": n.found[0].segment,
                 "record": n.found[0].record, "rightly": n.rightly} if n.found
                else {"damage": n.damage, "said": None, "rightly": False}
                for n in self.named
            ],
        }  # fmt: skip


class Drill:
    """One run below a directory."""

    def __init__(
        self,
        directory: Path,
        records: int,
        seed: int,
        say: Callable[[str], None],
        journals: int = JOURNALS,
    ) -> None:
        self.directory = directory
        self.records = records
        self.journals = journals
        self.small = max(SMALL_MIN, records // SMALL_PART)
        self.random = random.Random(seed)
        self.say = say
        self.keys = directory / "keys"
        self.journal = directory / "large" / "journal"
        self.anchors = directory / "large" / "anchors"

    def run(self) -> Tampered:
        """See the module. Raises `NoRoom`, and what training raises."""
        need = (self.records + self.small * 2 * self.journals) * RECORD_BYTES + 2**29
        if shutil.disk_usage(self.directory).free < need:
            raise NoRoom(f"{self.directory}: {need >> 20} MiB are needed; ask for fewer records")
        decider = Decider.make(self.directory, min(DISTINCT, self.records), self.say)
        self._write(decider, self.journal, self.anchors, self.records, 64 * 2**20)
        self.say(f"{self.records:,} decisions in {len(segments_in(self.journal))} segments")
        alarms = [f"large: {f.text}" for f in self._inspect(self.journal, self.anchors)[0].findings]
        rate, wall = self._speed()
        self.say(f"verified at {rate:,} records/s of one processor ({wall:,} on the clock)")
        named = tuple(self._damages())
        alarms += [
            f"large, put back: {f.text}" for f in self._inspect(self.journal, self.anchors)[0].findings
        ]
        shutil.rmtree(self.directory / "large")
        alarms += self._sound(decider)
        torn, kills, more = self._torn()
        return Tampered(self.records, named, tuple(alarms + more), rate, wall, self.journals, torn, kills)

    def _write(
        self, decider: Decider, journal: Path, anchors: Path, records: int, segment_bytes: int
    ) -> None:
        """A journal of decisions with checkpoints beside it, as worker and publisher make them."""
        interval = Interval(max(200, records // CHECKPOINTS), 1_000)
        notary = Notary(FileAnchors(anchors), KeyDirectory(self.keys), interval)
        written = 0
        with Journal(journal, segment_bytes=segment_bytes) as open_journal:
            for batch in decider.batches(records, f"{journal.parent.name}-"):
                open_journal.append(batch)
                written += len(batch)
                notary.follow(str(name_of_journal(journal)), journal)
                notary.step(time.time_ns() // 1_000_000)
                if written % (records // 10) < len(batch) and records >= 100_000:
                    self.say(f"{written:,} decided")
        notary.close()

    def _inspect(self, journal: Path, anchors: Path) -> list[Inspected]:
        return inspect([journal], anchors, self.keys, all_of=False)

    def _speed(self) -> tuple[int, int]:
        """Records per second of one processor and of the wall clock: the pass that was disturbed least."""
        own, wall = [], []
        for _ in range(PASSES):
            own_s, wall_s = time.process_time(), time.perf_counter()
            self._inspect(self.journal, self.anchors)
            own.append(self.records / (time.process_time() - own_s))
            wall.append(self.records / (time.perf_counter() - wall_s))
        return round(max(own)), round(max(wall))

    def _damages(self) -> Iterator[Named]:
        """Each damage at a random place that checkpoints cover; undone before the next."""
        (checkpoints,) = read_anchors(self.anchors).checkpoints.values()
        covered, starts = checkpoints[-1].size, starts_of(segments_in(self.journal))
        # Between two segments nobody can tell which one a record was taken from.
        inner = [r for r in self.random.sample(range(covered - 1), 20) if r + 1 not in starts]
        first, second = sorted(self.random.sample(range(covered), 2))
        tail = self.random.randrange(max(starts[checkpoints[-1].segment - 1], covered // 2), covered)
        segment = self.random.randrange(checkpoints[-1].segment) + 1
        changed, inserted, byte = self.random.randrange(covered), self.random.randrange(covered), self.random
        forger = Forger(self.journal)

        def said(damage: str, expected: Expected) -> Named:
            found = self._inspect(self.journal, self.anchors)[0].findings
            named = Named(damage, expected, found)
            self.say(
                f"{damage}: {found[0].text if found else 'NOT FOUND'}" + " (WRONG)" * (not named.rightly)
            )
            forger.undo()
            return named

        path = forger.change(changed, byte.randrange(1 << 20), byte.randrange(8))
        yield said("a byte changed", Expected("changed", path.name, changed))
        path = forger.remove(inner[0])
        yield said("a record removed", Expected("removed", path.name, inner[0]))
        path = forger.swap(first, second)
        yield said("two records swapped", Expected("reordered", path.name, first))
        path = forger.insert(inserted, forger.body(self.random.randrange(covered)))
        yield said("a record inserted", Expected("inserted", path.name, inserted))
        forger.forget_mark()
        path, ends = forger.cut(tail)
        yield said("the tail cut off", Expected("truncated", path.name, ends))
        path = forger.delete(segment)
        yield said("a segment deleted", Expected("segment_deleted", path.name, starts[segment - 1]))
        forged = self.random.choice(checkpoints)
        foreign = SigningKey.new()
        files = self.anchors.glob("*/*.jsonl")
        file, lines = next((f, b) for f in files if forged.line() in (b := f.read_bytes()))
        false = replace(forged, key=foreign.id).signed_by(foreign).line()
        file.write_bytes(lines.replace(forged.line(), false))
        expected = Expected("foreign_key", name_of(forged.segment), forged.first)
        yield said("a checkpoint signed with another key", expected)
        file.write_bytes(lines)

    def _sound(self, decider: Decider) -> list[str]:
        """Journals of all shapes that nobody touched; what was said against them."""
        alarms = []
        for number in range(self.journals):
            place = self.directory / f"sound-{number}"
            size = self.random.choice((2**18, 2**20, 2**22, 2**26))
            self._write(decider, place / "journal", place / "anchors", self.small, size)
            (found,) = self._inspect(place / "journal", place / "anchors")
            whole = found.verified is not None and found.verified.records == self.small
            alarms += [f"sound-{number}: {f.text}" for f in found.findings]
            alarms += [] if whole else [f"sound-{number}: not all records were verified"]
        self.say(
            f"{self.journals} journals of {self.small:,} decisions that nobody touched: {len(alarms)} alarms"
        )
        return alarms

    def _torn(self) -> tuple[int, int, list[str]]:
        """Journals whose writer was killed until its last write was cut short; what was said against them."""
        torn = kills = 0
        alarms: list[str] = []
        for number in range(self.journals):
            place = self.directory / f"torn-{number}"
            for _ in range(KILLS_MAX):
                kills += 1
                cut_short, said = self._kill(place, self.directory / f"sound-{number}" / "journal")
                alarms += said
                if cut_short:
                    torn += 1
                    break
        self.say(f"{torn} tails torn by {kills} kills: {len(alarms)} alarms")
        return torn, kills, alarms

    def _kill(self, place: Path, source: Path) -> tuple[bool, list[str]]:
        """Start a writer, follow and verify what it writes, kill -9; whether its last batch is incomplete."""
        journal, anchors = place / "journal", place / "anchors"
        alarms: list[str] = []
        writer = subprocess.Popen(
            [sys.executable, "-m", "cordon.drill.writer", str(source), str(journal)], stdout=subprocess.PIPE
        )
        notary = Notary(FileAnchors(anchors), KeyDirectory(self.keys), Interval(2_000, 50))
        try:
            if writer.stdout is None or not writer.stdout.readline():
                raise Failure("the writer wrote nothing")
            notary.follow(str(name_of_journal(journal)), journal)
            for _ in range(self.random.randrange(1, 3)):
                notary.step(time.time_ns() // 1_000_000)
                alarms += [f"{place.name}, while written: {f.text}" for f in self._findings(journal, anchors)]
            _await_write(journal)
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            if writer.stdout is not None:
                writer.stdout.close()
            notary.close()
        (found,) = self._inspect(journal, anchors)
        alarms += [f"{place.name}, after kill -9: {f.text}" for f in found.findings]
        return found.verified is not None and found.verified.torn_bytes > 0, alarms

    def _findings(self, journal: Path, anchors: Path) -> tuple[Finding, ...]:
        return self._inspect(journal, anchors)[0].findings


def _await_write(journal: Path) -> None:
    """Return as soon as bytes appear behind what is durable: a batch is being written at this moment."""
    until_s = time.monotonic() + WRITE_S_MAX
    while time.monotonic() < until_s:
        number, offset = durable_of((journal / "mark").read_bytes())
        with (journal / name_of(number)).open("rb") as file:
            file.seek(offset)
            if any(file.read(LENGTH.size)):
                return
