"""Ed25519 keys of the checkpoints: a directory with a private key that signs, and all public keys.

    <id>.public.pem    one per key that ever signed; this is what an outsider needs
    <id>.private.pem   readable by its owner only
    active             id of the key that signs
    rotations.jsonl    statements "from now on this key", each signed by the key before

An id is the first 16 hex digits of the SHA-256 of the raw public key, so that it names one key only.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from api.record import decode_json, encode_json

ROTATION_DOMAIN: Final = b"cordon key rotation 1\n"
RAW_BYTES: Final = 32


class KeyUnusable(ValueError):
    """A key file is missing, unreadable or no Ed25519 key: the message names it. Put the right file there."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One public key and its id."""

    id: str
    raw: bytes

    @classmethod
    def of(cls, raw: bytes) -> "PublicKey":
        """The key with these 32 bytes."""
        return cls(hashlib.sha256(raw).hexdigest()[:16], raw)

    @classmethod
    def read(cls, path: Path) -> "PublicKey":
        """From a PEM file. Raises `KeyUnusable`."""
        try:
            key = load_pem_public_key(path.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise KeyUnusable(f"{path}: no public key in PEM: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise KeyUnusable(f"{path}: a public key, but not of Ed25519")
        return cls.of(key.public_bytes_raw())

    def pem(self) -> bytes:
        """The key in PEM."""
        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Whether this key made the signature."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """A private key that signs."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey.of(key.public_key().public_bytes_raw())

    @classmethod
    def new(cls) -> "SigningKey":
        """A fresh key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path) -> "SigningKey":
        """From a PEM file. Raises `KeyUnusable`."""
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise KeyUnusable(f"{path}: no private key in PEM: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyUnusable(f"{path}: a private key, but not of Ed25519")
        return cls(key)

    @property
    def id(self) -> str:
        """Its id."""
        return self.public.id

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(message)

    def pem(self) -> bytes:
        """The private key in PEM."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, slots=True)
class Rotation:
    """The statement of key `old` that from now on the key with the bytes `new` signs."""

    old: str
    new: bytes
    time_ms: int
    signature: bytes = b""

    def message(self) -> bytes:
        """What is signed."""
        return ROTATION_DOMAIN + f"{self.old}\n{self.new.hex()}\n{self.time_ms}\n".encode()

    def signed_by(self, key: SigningKey) -> "Rotation":
        """The same statement with its signature."""
        return Rotation(self.old, self.new, self.time_ms, key.sign(self.message()))

    def holds(self, old: PublicKey) -> bool:
        """Whether `old` made this statement, about a key that can be one."""
        return len(self.new) == RAW_BYTES and old.signed(self.message(), self.signature)

    def as_json(self) -> dict[str, Any]:
        """One line of `rotations.jsonl`."""
        return {
            "type": "key_rotation",
            "old": self.old,
            "new": self.new.hex(),
            "time_ms": self.time_ms,
            "signature": self.signature.hex(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Rotation":
        """Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        new, signature = bytes.fromhex(value["new"]), bytes.fromhex(value["signature"])
        return cls(str(value["old"]), new, int(value["time_ms"]), signature)


class Trust:
    """Keys that are trusted: those that were given, and those that a trusted key passed its place on to.

    `order[id]`: how many keys came before; a key must not sign after one that followed it has signed. A key
    that named two successors was in two hands: neither follows from it.
    """

    def __init__(self, given: Iterable[PublicKey], rotations: Sequence[Rotation] = ()) -> None:
        self.keys = {key.id: key for key in given}
        self.order = dict.fromkeys(self.keys, 0)
        successors: dict[str, set[bytes]] = {}
        for rotation in rotations:
            successors.setdefault(rotation.old, set()).add(rotation.new)
        for rotation in sorted(rotations, key=lambda r: r.time_ms):
            old = self.keys.get(rotation.old)
            if old is None or len(successors[rotation.old]) > 1 or not rotation.holds(old):
                continue
            new = PublicKey.of(rotation.new)
            self.keys[new.id] = new
            self.order[new.id] = max(self.order.get(new.id, 0), self.order[old.id] + 1)


class KeyDirectory:
    """The directory above, as its owner uses it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def signing(self) -> SigningKey:
        """The key that signs now; the first one is made here. Raises `KeyUnusable`."""
        try:
            active = (self.directory / "active").read_text().strip()
        except FileNotFoundError:
            key = SigningKey.new()
            self._keep(key)
            self.activate(key)
            return key
        except OSError as error:
            raise KeyUnusable(f"{self.directory}: {error.strerror}") from error
        return SigningKey.read(self.directory / f"{active}.private.pem")

    def statements(self) -> list[bytes]:
        """Lines of the statements about keys. Raises `KeyUnusable`."""
        path = self.directory / "rotations.jsonl"
        try:
            return path.read_bytes().splitlines() if path.is_file() else []
        except OSError as error:
            raise KeyUnusable(f"{path}: {error.strerror}") from error

    def prepare(self, time_ms: int) -> tuple[SigningKey, Rotation]:
        """A new key and the old one's statement about it, both kept; `activate` makes it the one that signs.

        A rotation that was prepared before and not finished is continued: no key names two successors.
        Raises `KeyUnusable`.
        """
        old = self.signing()
        for rotation in rotations_in(self.directory / "rotations.jsonl"):
            if rotation.old == old.id:
                known = PublicKey.of(rotation.new)
                return SigningKey.read(self.directory / f"{known.id}.private.pem"), rotation
        new = SigningKey.new()
        self._keep(new)
        rotation = Rotation(old.id, new.public.raw, time_ms).signed_by(old)
        lines = [*self.statements(), encode_json(rotation.as_json())]
        self._replace("rotations.jsonl", b"".join(line + b"\n" for line in lines))
        return new, rotation

    def activate(self, key: SigningKey) -> None:
        """From now on `key` signs. Raises `KeyUnusable`."""
        self._replace("active", f"{key.id}\n".encode())

    def _keep(self, key: SigningKey) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.directory / f"{key.id}.public.pem").write_bytes(key.public.pem())
            path = self.directory / f"{key.id}.private.pem"
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(file, key.pem())
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise KeyUnusable(f"{self.directory}: {error.strerror}") from error

    def _replace(self, name: str, content: bytes) -> None:
        draft = self.directory / f"{name}.draft"
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self.directory / name)
        except OSError as error:
            raise KeyUnusable(f"{self.directory}: {error.strerror}") from error


def public_keys(directory: Path) -> list[PublicKey]:
    """Every public key in a directory. Raises `KeyUnusable`, also where there is none."""
    found = [PublicKey.read(path) for path in sorted(directory.glob("*.pem")) if "private" not in path.name]
    if not found:
        raise KeyUnusable(f"{directory}: no public key (*.pem) here")
    return found


def rotations_in(path: Path) -> list[Rotation]:
    """The statements of a `rotations.jsonl`; lines that are none are left out: they prove nothing."""
    found = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            found.append(Rotation.from_json(decode_json(line)))
        except (KeyError, TypeError, ValueError):
            continue
    return found
