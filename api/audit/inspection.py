"""Journals, their anchors and public keys, inspected as an outsider does: files only, no secrets.

First the checkpoints: legible, signed by trusted keys, none missing, exchanged or signed by a key that had
handed over. Then every journal against the checkpoints that are left.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from api.audit.anchors import Anchored, read_anchors
from api.audit.checkpoint import NONE_BEFORE, Checkpoint
from api.audit.keys import Trust, public_keys, rotations_in
from api.audit.verify import Verified, verify
from api.segment import (
    GENESIS,
    SEGMENT_HEADER,
    Damage,
    DamageSort,
    Head,
    batch_at,
    journal_name,
    name_of,
    read_segment_header,
    records_of,
)
from api.segment_file import open_segment

FindingSort = Literal[
    DamageSort,
    "foreign_key",  # a checkpoint signed by a key that nobody trusts
    "checkpoint_altered",
    "checkpoint_missing",
    "checkpoint_doubled",
    "retired_key",  # a checkpoint signed by a key after it had handed over to another
    "journal_missing",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One damage. `segment`: file name; `record`: its number, counted from 0; both where they are known."""

    sort: FindingSort
    text: str
    segment: str | None = None
    record: int | None = None
    checkpoint: int | None = None


@dataclass(frozen=True, slots=True)
class Inspected:
    """One journal. `verified`: `None` where it is damaged. `protected`: records that a checkpoint covers."""

    journal: str
    verified: Verified | None
    findings: tuple[Finding, ...]
    checkpoints: int
    protected: int
    last_checkpoint_ms: int | None


def inspect(
    journals: Sequence[Path], anchors: Path | None, keys: Path | None, *, all_of: bool
) -> list[Inspected]:
    """Inspect journals. `all_of`: they are all there are; one with anchors and without files was deleted.

    Raises `KeyUnusable` where there are anchors to check and no public keys.
    """
    # The anchors first: a journal that is being written is further on by the time it is read.
    anchored = read_anchors(anchors) if anchors is not None and anchors.is_dir() else Anchored()
    trust = trust_of(anchored, keys) if anchored.checkpoints or anchored.illegible else Trust([])
    found, claimed = [], set()
    for directory in journals:
        name = anchored_name(directory, anchored)
        claimed.add(name)
        found.append(_inspect_one(directory, anchored.checkpoints.get(name, []) if name else [], trust))
    unclaimed = [name for name in anchored.checkpoints if name not in claimed]
    if all_of:
        found += [_deleted(name, anchored.checkpoints[name]) for name in unclaimed]
    illegible = tuple(
        Finding("checkpoint_altered", f"{i.file.name}, line {i.line}: {i.why}") for i in anchored.illegible
    )
    if illegible:
        found.append(Inspected("anchors", None, illegible, 0, 0, None))
    return found


def trust_of(anchored: Anchored, keys: Path | None) -> Trust:
    """The keys in a directory, and those that follow from them. Raises `KeyUnusable`."""
    given = public_keys(keys if keys is not None else Path("keys"))
    rotations = anchored.rotations + (rotations_in(keys / "rotations.jsonl") if keys is not None else [])
    return Trust(given, rotations)


def anchored_name(directory: Path, anchored: Anchored) -> str | None:
    """Under which name a journal was anchored: by its first record, else the newest of its directory."""
    name = name_of_journal(directory)
    if name in anchored.checkpoints:
        return name
    same = [c[-1] for n, c in anchored.checkpoints.items() if n.rpartition("-")[0] == directory.name]
    return max(same, key=lambda c: c.time_ms).journal if same else None


def name_of_journal(directory: Path) -> str | None:
    """Name of a journal: its directory and its first record's hash; `None` while it has no whole record."""
    first = directory / name_of(1)
    try:
        file = open_segment(first)
    except FileNotFoundError:
        return None
    try:
        data = memoryview(os.pread(file, 1 << 20, 0))
        batch = batch_at(data, SEGMENT_HEADER.size)
        if batch is not None and batch.end > len(data):
            data = memoryview(os.pread(file, batch.end, 0))
    finally:
        os.close(file)
    try:
        if batch is None or read_segment_header(first, data)[2] != Head(0, GENESIS):
            return None
        record = next(records_of(first, data, batch, Head()))
    except (Damage, StopIteration):
        return None
    return journal_name(directory, record.hash)


def _inspect_one(directory: Path, checkpoints: list[Checkpoint], trust: Trust) -> Inspected:
    sound, findings = check_checkpoints(checkpoints, trust)
    try:
        verified: Verified | None = verify(directory, sound)
    except Damage as damage:
        verified = None
        findings.append(Finding(damage.sort, damage.kind, damage.segment.name, damage.sequence))
    last = sound[-1] if sound else None
    return Inspected(
        directory.name,
        verified,
        tuple(findings),
        len(sound),
        last.size if last else 0,
        last.time_ms if last else None,
    )


def _deleted(name: str, checkpoints: list[Checkpoint]) -> Inspected:
    text = f"the journal {name} is missing: {checkpoints[-1].size} records were anchored"
    return Inspected(name, None, (Finding("journal_missing", text),), 0, 0, None)


def check_checkpoints(
    checkpoints: Sequence[Checkpoint], trust: Trust
) -> tuple[list[Checkpoint], list[Finding]]:
    """Those that can be relied on, and what is wrong with the rest. They are of one journal, by number."""
    sound: list[Checkpoint] = []
    findings: list[Finding] = []
    order = expected = 0
    for number, same in groupby(checkpoints, key=lambda c: c.number):
        if number > expected:
            missing = f"checkpoints {expected} to {number - 1} are missing"
            first = sound[-1].size if sound else 0
            findings.append(Finding("checkpoint_missing", missing, None, first, expected))
        expected = number + 1
        signed = []
        for checkpoint in same:
            finding = _signature(checkpoint, trust, order)
            if finding is None:
                signed.append(checkpoint)
            else:
                findings.append(finding)
        findings += [
            _finding(c, "checkpoint_doubled", "there is another one of its number") for c in signed[1:]
        ]
        if not signed:
            continue
        if _continues(signed[0], sound):
            sound.append(signed[0])
            order = max(order, trust.order[signed[0].key])
        else:
            findings.append(
                _finding(signed[0], "checkpoint_altered", "it does not continue the one before it")
            )
    return sound, findings


def _continues(checkpoint: Checkpoint, sound: Sequence[Checkpoint]) -> bool:
    """Whether it names the one before it; what was signed before a gap cannot be compared."""
    before = sound[-1] if sound else None
    if before is None or checkpoint.number != before.number + 1:
        return checkpoint.number > 0 or (checkpoint.previous == NONE_BEFORE and checkpoint.first == 0)
    return checkpoint.previous == before.hash() and checkpoint.first == before.size


def _signature(checkpoint: Checkpoint, trust: Trust, order: int) -> Finding | None:
    key = trust.keys.get(checkpoint.key)
    if key is None:
        return _finding(checkpoint, "foreign_key", f"signed with key {checkpoint.key}, which is not trusted")
    if not checkpoint.holds(key):
        text = f"the signature of key {key.id} is not right: altered, or forged"
        return _finding(checkpoint, "checkpoint_altered", text)
    if trust.order[key.id] < order:
        return _finding(checkpoint, "retired_key", f"signed by key {key.id} after it had handed over")
    return None


def _finding(checkpoint: Checkpoint, sort: FindingSort, text: str) -> Finding:
    return Finding(
        sort,
        f"checkpoint {checkpoint.number} ({checkpoint.covers}): {text}",
        name_of(checkpoint.segment),
        checkpoint.first,
        checkpoint.number,
    )
