"""The vault on disk: one file with the frontier of keys, shared by all processes of an installation.

    keys              the frontier, readable by its owner only; replaced as a whole
    keys.old          the one before, for the moment in which it is overwritten
    lock              held while the file is replaced
    seats/<process>   which version a process works with; locked as long as it lives
    pending/          erasures that have begun (api/erasure.py)

A new subject costs no write: its key is derived. Destroying keys writes a new file, then overwrites and
removes the old one; a process that had read it drops it as soon as it sees the new one.

* `VaultUnusable`   stop: the file is missing, damaged or not ours to read; restore it, or its permissions
"""

import contextlib
import fcntl
import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.vault.tree import SECRET_BYTES, Frontier, TreeDamaged

MAGIC: Final = b"CORDONV1"
ID_BYTES: Final = 8
# Magic, id of the vault, version.
HEADER: Final = struct.Struct("<8s8sQ")
_DIGEST_BYTES: Final = 32
_WORD: Final = struct.Struct("<Q")


class VaultUnusable(Exception):
    """The keys cannot be read or replaced: stop, and restore the file that the message names."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What the file says. `id`: of the root; another one means other keys. `digest`: of the file, in hex."""

    id: bytes
    version: int
    frontier: Frontier
    digest: str

    @classmethod
    def decode(cls, data: bytes) -> "Kept":
        """Raises `VaultUnusable`."""
        if len(data) < HEADER.size + _DIGEST_BYTES:
            raise VaultUnusable("the file of keys is cut off")
        body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        magic, vault, version = HEADER.unpack_from(body)
        if magic != MAGIC or hashlib.sha256(body).digest() != digest:
            raise VaultUnusable("the file of keys is damaged")
        try:
            return cls(vault, version, Frontier.decode(body[HEADER.size :]), digest.hex())
        except TreeDamaged as error:
            raise VaultUnusable(str(error)) from error


def encode(vault: bytes, version: int, frontier: Frontier) -> bytes:
    """The bytes of a file of keys."""
    body = HEADER.pack(MAGIC, vault, version) + frontier.encode()
    return body + hashlib.sha256(body).digest()


class Vault:
    """The directory above. Its files may be read and replaced by several processes."""

    def __init__(self, directory: Path, fresh: Callable[[int], bytes]) -> None:
        """Open; where there are no keys yet, make a root of `fresh` random bytes. Raises `VaultUnusable`."""
        self.directory = directory
        self._keys = directory / "keys"
        self._old = directory / "keys.old"
        try:
            for path in (directory, directory / "seats", directory / "pending"):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                self._wipe()
                if not self._keys.exists():
                    root = Frontier.of_root(fresh(SECRET_BYTES))
                    self._write(self._keys, encode(fresh(ID_BYTES), 1, root))
                    _sync(directory)
        except OSError as error:
            raise VaultUnusable(f"{directory}: {error.strerror}") from error

    def read(self) -> Kept:
        """What is kept now. Raises `VaultUnusable`."""
        try:
            # A file that is being replaced may be overwritten while it is read: then there is a new one.
            for _ in range(3):
                with contextlib.suppress(VaultUnusable):
                    return Kept.decode(self._keys.read_bytes())
            return Kept.decode(self._keys.read_bytes())
        except OSError as error:
            raise VaultUnusable(f"{self._keys}: {error.strerror}") from error
        except VaultUnusable as error:
            raise VaultUnusable(f"{self._keys}: {error}") from error

    def destroy(self, indices: Iterable[int]) -> tuple[Kept, Kept]:
        """Take these leaves out for good; what was kept before and after. The same twice changes nothing.

        When it returns, the new file is durable and the old one overwritten. Raises `VaultUnusable`.
        """
        try:
            with self._locked():
                self._wipe()
                before = self.read()
                frontier = before.frontier.without(indices)
                if frontier == before.frontier:
                    return before, before
                draft = self.directory / "keys.draft"
                self._write(draft, encode(before.id, before.version + 1, frontier))
                os.link(self._keys, self._old)
                os.replace(draft, self._keys)
                _sync(self.directory)
                self._wipe()
                return before, self.read()
        except OSError as error:
            raise VaultUnusable(f"{self.directory}: {error.strerror}") from error

    def stamp(self) -> tuple[int, int, int]:
        """Changes whenever the file is replaced. Raises `VaultUnusable`."""
        try:
            found = self._keys.stat()
        except OSError as error:
            raise VaultUnusable(f"{self._keys}: {error.strerror}") from error
        return found.st_ino, found.st_mtime_ns, found.st_size

    def behind(self, version: int) -> list[str]:
        """Living processes that still work with an older version; what dead ones left is removed."""
        found = []
        for path in sorted((self.directory / "seats").iterdir()):
            try:
                file = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                word = os.pread(file, _WORD.size, 0)
                if len(word) < _WORD.size or _WORD.unpack(word)[0] < version:
                    found.append(path.name)
            else:
                path.unlink(missing_ok=True)
            finally:
                os.close(file)
        return found

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        file = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

    def _wipe(self) -> None:
        """Overwrite and remove what a replacement left; the lock is held."""
        (self.directory / "keys.draft").unlink(missing_ok=True)
        if not self._old.exists():
            return
        if not self._old.samefile(self._keys):
            file = os.open(self._old, os.O_WRONLY)
            try:
                os.pwrite(file, bytes(os.fstat(file).st_size), 0)
                os.fsync(file)
            finally:
                os.close(file)
        self._old.unlink()
        _sync(self.directory)

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        finally:
            os.close(file)


class Follower:
    """One process's view of the vault: what it works with, and that others can see it."""

    def __init__(self, vault: Vault, name: str) -> None:
        """Take a seat, then read. `name`: of the process, one of its kind. Raises `VaultUnusable`."""
        self._vault = vault
        self._path = vault.directory / "seats" / f"{name}.{os.getpid()}"
        try:
            self._file = _seat(self._path)
        except OSError as error:
            raise VaultUnusable(f"{self._path}: {error.strerror}") from error
        # Whoever destroys keys from here on waits for this process.
        self._stamp = vault.stamp()
        self.kept = vault.read()
        self.adopted()

    def changed(self) -> bool:
        """Whether there is something else to read: a `stat`. Raises `VaultUnusable`."""
        return self._vault.stamp() != self._stamp

    def read(self) -> Kept:
        """What is kept now; call `adopted` once everything older is dropped. Raises `VaultUnusable`."""
        stamp = self._vault.stamp()
        self.kept = self._vault.read()
        self._stamp = stamp
        return self.kept

    def adopted(self) -> None:
        """From now on nothing older than what was read last is in use."""
        os.pwrite(self._file, _WORD.pack(self.kept.version), 0)

    def close(self) -> None:
        """Leave the seat."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def _seat(path: Path) -> int:
    """The file of a seat, locked. Whoever takes it for that of a dead process removes it: then a new one."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        os.close(file)


def _sync(directory: Path) -> None:
    file = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
