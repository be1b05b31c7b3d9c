"""The file store of anchors: a directory outside the host, to which checkpoints are only ever added.

    <journal>/<day>.jsonl   checkpoints, one per line, in the order of their numbers
    rotations.jsonl         statements about keys

What an outsider is given may also be a copy of the topic `audit.checkpoints`, as one `.jsonl` of all
journals: every line says whose it is. The same line twice is one.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from api.audit.checkpoint import Checkpoint, MalformedCheckpoint, read_checkpoint
from api.audit.keys import Rotation
from api.record import decode_json

ROTATIONS = "rotations.jsonl"


class AnchorsUnavailable(Exception):
    """The store of anchors cannot be written or read: go on, and try again with the next checkpoint."""


@dataclass(frozen=True, slots=True)
class Illegible:
    """A line that is neither checkpoint nor statement: it was altered."""

    file: Path
    line: int
    why: str


@dataclass(slots=True)
class Anchored:
    """Everything that a directory of anchors holds. `checkpoints`: by journal, sorted by number."""

    checkpoints: dict[str, list[Checkpoint]] = field(default_factory=dict)
    rotations: list[Rotation] = field(default_factory=list)
    illegible: list[Illegible] = field(default_factory=list)


class FileAnchors:
    """The store as the publisher writes it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def add(self, checkpoint: Checkpoint) -> None:
        """Append durably. Raises `AnchorsUnavailable`."""
        day = datetime.fromtimestamp(checkpoint.time_ms / 1_000, UTC).date().isoformat()
        self._append(self.directory / checkpoint.journal / f"{day}.jsonl", checkpoint.line())

    def add_rotation(self, line: bytes) -> None:
        """Append a statement unless it is there. Raises `AnchorsUnavailable`."""
        path = self.directory / ROTATIONS
        try:
            known = path.read_bytes().splitlines() if path.is_file() else []
        except OSError as error:
            raise AnchorsUnavailable(f"{path}: {error.strerror}") from error
        if line not in known:
            self._append(path, line)

    def after(self, journal: str, number: int) -> list[Checkpoint]:
        """Checkpoints of a journal behind `number`, oldest first. Raises `AnchorsUnavailable`,
        `MalformedCheckpoint`."""
        found: list[Checkpoint] = []
        for path in self._files(journal):
            newer = [c for c in map(read_checkpoint, _whole_lines(path)) if c.number > number]
            found[:0] = newer
            if not newer or newer[0].number == number + 1:
                break
        return found

    def last(self, journal: str) -> Checkpoint | None:
        """The newest checkpoint of a journal. Raises `AnchorsUnavailable`, `MalformedCheckpoint`."""
        for path in self._files(journal):
            lines = _whole_lines(path)
            if lines:
                return read_checkpoint(lines[-1])
        return None

    def _files(self, journal: str) -> list[Path]:
        return sorted((self.directory / journal).glob("*.jsonl"), reverse=True)

    def _append(self, path: Path, line: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                # A line that a crash cut short was never counted: the next one takes its place.
                end = _end_of_lines(file)
                os.ftruncate(file, end)
                os.pwrite(file, line + b"\n", end)
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise AnchorsUnavailable(f"{path}: {error.strerror}") from error


def read_anchors(directory: Path) -> Anchored:
    """Everything below a directory. A last line without a newline was never anchored and does not count."""
    found = Anchored()
    seen: set[bytes] = set()
    for path in sorted(directory.rglob("*.jsonl")):
        for number, line in enumerate(_whole_lines(path), 1):
            if line in seen:
                continue
            seen.add(line)
            try:
                value = decode_json(line)
                if isinstance(value, Mapping) and value.get("type") == "audit":
                    if "statement" not in value:
                        continue  # a record about something else than keys: rules, for example
                    value = value["statement"]
                if isinstance(value, Mapping) and value.get("type") == "key_rotation":
                    found.rotations.append(Rotation.from_json(value))
                    continue
                checkpoint = read_checkpoint(value)
            except (MalformedCheckpoint, KeyError, TypeError, ValueError) as error:
                found.illegible.append(Illegible(path, number, str(error)))
            else:
                found.checkpoints.setdefault(checkpoint.journal, []).append(checkpoint)
    for checkpoints in found.checkpoints.values():
        checkpoints.sort(key=lambda c: c.number)
    return found


def _whole_lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise AnchorsUnavailable(f"{path}: {error.strerror}") from error


def _end_of_lines(file: int) -> int:
    size = os.fstat(file).st_size
    piece = os.pread(file, min(size, 1 << 16), max(0, size - (1 << 16)))
    return max(0, size - (1 << 16)) + piece.rfind(b"\n") + 1
