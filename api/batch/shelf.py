"""Batches on disk: durable before the 202, continued by whoever is alive.

    DIRECTORY/ID/input       the lines, encrypted; removed once the batch has ended
    DIRECTORY/ID/about       id, lines, when and by whom: its rename into place is the acceptance
    DIRECTORY/ID/results     one JSON line per line done, synced group by group: how far the batch is
    DIRECTORY/ID/state       sums, for those who ask; recomputed from the results by whoever continues
    DIRECTORY/ID/lock        held by the process that works on it

The lines hold what callers sent, personal data included: they are encrypted with a key that follows from the
installation's secret and the batch's id, and they go when the last line is done. Results hold transaction ids
and answers.

What can go wrong, and what the caller does about it:

* `ShelfFull`       429: too many batches wait
* `ShelfUnusable`   503: the disk is full or broken; nothing was accepted
* `InputLost`       end the batch as failed: its lines cannot be read (another secret, a damaged file)
"""

import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from api.batch.result import Batch, Status, Sums
from api.record import decode_json, encode_json

ID: Final = re.compile("[0-9a-f]{32}")
_ENDED: Final = ("finished", "failed")


class ShelfFull(Exception):
    """As many batches as allowed have not ended."""


class ShelfUnusable(Exception):
    """Batches cannot be written or read."""


class InputLost(Exception):
    """The lines of a batch cannot be read."""


class Shelf:
    """Batches of one tenant. `secret`: of the installation. Methods block for a few file operations."""

    def __init__(self, directory: Path, tenant: str, secret: bytes, *, open_max: int) -> None:
        self._directory = directory
        self._tenant = tenant
        self._secret = secret
        self._open_max = open_max
        self._ended: set[str] = set()

    def id_of(self, lines: Sequence[bytes]) -> str:
        """The same lines are the same batch: sending them again after a lost answer makes no second one."""
        digest = hmac.new(self._secret, self._tenant.encode() + b"\0", hashlib.sha256)
        for line in lines:
            digest.update(len(line).to_bytes(4, "big") + line)
        return digest.hexdigest()[:32]

    def accept(self, lines: Sequence[bytes], *, now_ms: int, by: str) -> tuple[Batch, bool]:
        """The batch, durable, and whether it was here before. Raises `ShelfFull`, `ShelfUnusable`."""
        id_ = self.id_of(lines)
        known = self.find(id_)
        if known is not None:
            return known, True
        if len(self.open()) >= self._open_max:
            raise ShelfFull
        batch, place = Batch(id_, len(lines), now_ms, by), self._directory / id_
        try:
            place.mkdir(parents=True, exist_ok=True)
            _write(place / "input", self._sealed(id_, b"\n".join(lines)))
            about = {"id": id_, "tenant": self._tenant, "lines": len(lines), "accepted_ms": now_ms, "by": by}
            _write(place / "about", encode_json(about))
            _sync_directory(self._directory)
        except OSError as error:
            raise ShelfUnusable(f"{place}: {error.strerror}") from error
        return batch, False

    def find(self, id_: str) -> Batch | None:
        """What is known about a batch. Raises `ShelfUnusable`."""
        if not ID.fullmatch(id_):
            return None
        try:
            about = _read(self._directory / id_ / "about")
            if about is None or about["tenant"] != self._tenant:
                return None
            state = _read(self._directory / id_ / "state") or {}
        except OSError as error:
            raise ShelfUnusable(f"{self._directory / id_}: {error.strerror}") from error
        sums = Sums(**{**state["sums"], "errors": tuple(state["sums"]["errors"])}) if state else Sums()
        return Batch(
            id_, about["lines"], about["accepted_ms"], about["by"], state.get("status", "waiting"), sums,
            state.get("finished_ms"), state.get("why"),
        )  # fmt: skip

    def open(self) -> list[Batch]:
        """Batches that have not ended, oldest first."""
        found = [batch for batch in self._all(self._ended) if batch.status not in _ENDED]
        return sorted(found, key=lambda batch: (batch.accepted_ms, batch.id))

    def page(self, id_: str, offset: int, limit: int) -> tuple[list[bytes], int | None]:
        """Results from a byte offset on, and the next page's; `None` at the end of a batch that has ended.

        Raises `ValueError` for an offset that is no page's, `ShelfUnusable`.
        """
        batch = self.find(id_)
        path = self._directory / id_ / "results"
        found: list[bytes] = []
        try:
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                if offset and (file.seek(offset - 1) < 0 or file.read(1) != b"\n"):
                    raise ValueError(f"{offset} is no page of this batch")
                while len(found) < limit and (line := file.readline()).endswith(b"\n"):
                    found.append(line)
        except OSError as error:
            raise ShelfUnusable(f"{path}: {error.strerror}") from error
        if offset and not path.exists():
            raise ValueError(f"{offset} is no page of this batch")
        end = offset + sum(map(len, found))
        ended = batch is None or batch.status in _ENDED
        return found, None if ended and (not path.exists() or end >= path.stat().st_size) else end

    def hold(self, id_: str) -> "Held | None":
        """The batch, to be worked on and closed; `None` where another process does, or where it has ended."""
        place = self._directory / id_
        lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            batch = self.find(id_)
            if batch is not None and batch.status not in _ENDED:
                return Held(place, batch, self, lock)
        except BlockingIOError:
            pass
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
        return None

    def tidy(self, before_ms: int) -> int:
        """Remove batches that ended before; how many."""
        old = [b for b in self._all(()) if b.finished_ms is not None and b.finished_ms < before_ms]
        for batch in old:
            shutil.rmtree(self._directory / batch.id, ignore_errors=True)
            self._ended.discard(batch.id)
        return len(old)

    def unsealed(self, id_: str) -> bytes:
        """The lines of a batch. Raises `InputLost`."""
        try:
            raw = (self._directory / id_ / "input").read_bytes()
            return AESGCM(self._key(id_)).decrypt(bytes(12), raw, id_.encode())
        except (OSError, InvalidTag, ValueError) as error:
            raise InputLost(str(error) or type(error).__name__) from error

    def _sealed(self, id_: str, text: bytes) -> bytes:
        # A key encrypts one text only, the one that its batch's id is made of: the nonce may be constant.
        return AESGCM(self._key(id_)).encrypt(bytes(12), text, id_.encode())

    def _key(self, id_: str) -> bytes:
        info = f"cordon batch {self._tenant}".encode()
        return HKDF(SHA256(), 32, salt=bytes.fromhex(id_), info=info).derive(self._secret)

    def _all(self, but: Collection[str]) -> list[Batch]:
        try:
            names = [path.name for path in self._directory.iterdir() if path.name not in but]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ShelfUnusable(f"{self._directory}: {error.strerror}") from error
        found = [batch for name in names if (batch := self.find(name)) is not None]
        # What has ended stays ended: nobody reads it again to find out.
        self._ended.update(batch.id for batch in found if batch.status in _ENDED)
        return found


class Held:
    """A batch that this process works on. `batch` is kept current."""

    def __init__(self, place: Path, batch: Batch, shelf: Shelf, lock: int) -> None:
        self._place = place
        self._lock = lock
        self._shelf = shelf
        self.batch = batch
        self._results = (place / "results").open("a+b")
        self._recover()

    def _recover(self) -> None:
        """Sums of what is on disk; a line that a crash tore is cut off and done again."""
        self._results.seek(0)
        sums, whole = Sums(), 0
        for line in self._results:
            if not line.endswith(b"\n"):
                break
            sums, whole = sums.add(decode_json(line)), whole + len(line)
        self._results.truncate(whole)
        self._results.seek(whole)
        self._store(replace(self.batch, status="running", sums=sums))

    def lines(self) -> list[bytes]:
        """All lines. Raises `InputLost`."""
        return self._shelf.unsealed(self.batch.id).split(b"\n")

    def append(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Make results durable. Raises `OSError`."""
        for result in results:
            self._results.write(encode_json(result) + b"\n")
        self._results.flush()
        os.fdatasync(self._results.fileno())
        sums = self.batch.sums
        for result in results:
            sums = sums.add(result)
        self._store(replace(self.batch, sums=sums))

    def end(self, now_ms: int, why: str | None = None) -> None:
        """The batch has ended: what was sent is removed. `why`: it failed. Raises `OSError`."""
        status: Status = "finished" if why is None else "failed"
        self._store(replace(self.batch, status=status, finished_ms=now_ms, why=why), durable=True)
        (self._place / "input").unlink(missing_ok=True)
        _sync_directory(self._place)

    def close(self) -> None:
        """Let go of it."""
        self._results.close()
        os.close(self._lock)

    def _store(self, batch: Batch, *, durable: bool = False) -> None:
        sums = batch.sums
        shown = {
            "done": sums.done, "outcomes": sums.outcomes, "replays": sums.replays, "failed": sums.failed,
            "errors": list(sums.errors),
        }  # fmt: skip
        state = {"status": batch.status, "finished_ms": batch.finished_ms, "why": batch.why, "sums": shown}
        _write(self._place / "state", encode_json(state), durable=durable)
        self.batch = batch


def _write(path: Path, content: bytes, *, durable: bool = True) -> None:
    """The whole file or none of it."""
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        if durable:
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    fresh.rename(path)
    if durable:
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> Any:
    try:
        return decode_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
