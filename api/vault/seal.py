"""Sealing: personal fields as bytes that only the holder's key opens (AES-256-GCM).

    sealed = base64( u8 format | u16 generation | 8 bytes vault | 12 bytes nonce | ciphertext | 16 bytes tag )

The *holder* of a key is a data subject, a transaction whose subject is unknown, or a dead letter that names
nobody. Its leaf in the tree of keys is a hash of tenant, holder and generation; a holder whose leaf was taken
out gets the next generation, so that a subject who returns is a new one. Associated data: tenant, holder and
the record's id, so that a sealed value opens nowhere else.

* `Erased`     the key was destroyed: nobody can open it any more
* `NotOpened`  it was sealed with the keys of another vault, or is not what was sealed
"""

from binascii import Error as NoBase64
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from hashlib import blake2b
from struct import Struct
from struct import error as TooShort
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from api.vault.directory import ID_BYTES, Kept
from api.vault.tree import SECRET_BYTES, Frontier

FORMAT: Final = 1
NONCE_BYTES: Final = 12
GENERATIONS_MAX: Final = 1 << 16
KEYS_MAX: Final = 50_000
CIPHERS_MAX: Final = 8_192
_HEADER: Final = Struct(f"<BH{ID_BYTES}s")
_PREFIX_BYTES: Final = _HEADER.size + NONCE_BYTES


class Erased(Exception):
    """The key was destroyed: what was sealed with it is gone for good."""


class NotOpened(Exception):
    """Sealed with other keys, or changed since: look for the vault that it was sealed with."""


def of_subject(pseudonym: str) -> str:
    """A data subject as the holder of a key."""
    return f"subject:{pseudonym}"


def of_transaction(id: str) -> str:
    """A transaction without a known subject as the holder of a key."""
    return f"transaction:{id}"


def of_letter(topic: str, partition: int, offset: int) -> str:
    """A dead letter that names no subject as the holder of a key."""
    return f"letter:{topic}-{partition}-{offset}"


def leaf_of(tenant: str, holder: str, generation: int) -> int:
    """The holder's leaf in the tree of keys."""
    text = f"{tenant}\x1f{holder}\x1f{generation}".encode()
    return int.from_bytes(blake2b(text, digest_size=8, person=b"cordon-leaf-1").digest(), "little")


def generation_of(frontier: Frontier, tenant: str, holder: str) -> int:
    """The holder's first generation that was not destroyed. Raises `Erased` if there is none left."""
    for generation in range(GENERATIONS_MAX):
        if frontier.covers(leaf_of(tenant, holder, generation)):
            return generation
    raise Erased(f"all {GENERATIONS_MAX} generations were erased")


class Sealer:
    """Seals and opens for one tenant. `nonce`: 12 fresh random bytes per call. Not for several threads.

    Keys that were derived are remembered, by holder; nothing personal is. A nonce comes twice under a key no
    sooner than 96 random bits do: all that share the key, now, before a restart or after a fork, draw their
    own (see api/drawn.py). For a key that sealed 2**32 values that has a chance below 2**-32.
    """

    def __init__(self, kept: Kept, tenant: str, nonce: Callable[[], bytes]) -> None:
        self._tenant = tenant
        self._nonce = nonce
        self._keys: dict[str, tuple[bytes, bytes]] = {}
        # Set up with their keys, 2.5 KiB each: setting up costs three times as much as sealing.
        self._ciphers: dict[str, tuple[bytes, AESGCM]] = {}
        self._vault = kept.id
        self._frontier = kept.frontier

    def adopt(self, kept: Kept) -> None:
        """Work with these keys from now on, and forget every other."""
        self._keys = {}
        self._ciphers = {}
        self._vault = kept.id
        self._frontier = kept.frontier

    def seal(self, holder: str, id: str, plain: bytes) -> str:
        """`plain`, sealed for the holder as a part of record `id`. Raises `Erased` (see `generation_of`)."""
        header, cipher = self._ciphers.get(holder) or self._cipher(holder)
        nonce = self._nonce()
        about = f"{self._tenant}\x1f{holder}\x1f{id}".encode()
        sealed = header + nonce + cipher.encrypt(nonce, plain, about)
        return b2a_base64(sealed, newline=False).decode()

    def open(self, holder: str, id: str, sealed: str) -> bytes:
        """What was sealed. Raises `Erased`, `NotOpened`."""
        try:
            raw = a2b_base64(sealed, strict_mode=True)
            form, generation, vault = _HEADER.unpack_from(raw)
        except (NoBase64, TooShort, ValueError) as error:
            raise NotOpened(f"this is no sealed value: {error}") from error
        if form != FORMAT:
            raise NotOpened(f"sealed in format {form}, this code opens {FORMAT}")
        if vault != self._vault:
            raise NotOpened(f"sealed with the keys of vault {vault.hex()}, this is {self._vault.hex()}")
        secret = self._frontier.leaf(leaf_of(self._tenant, holder, generation))
        if secret is None:
            raise Erased("its key was destroyed")
        nonce, about = raw[_HEADER.size : _PREFIX_BYTES], f"{self._tenant}\x1f{holder}\x1f{id}".encode()
        try:
            return AESGCM(_key(secret, holder)).decrypt(nonce, raw[_PREFIX_BYTES:], about)
        except (InvalidTag, ValueError) as error:
            raise NotOpened("this is not what was sealed for this record") from error

    def _cipher(self, holder: str) -> tuple[bytes, AESGCM]:
        header, key = self._keys.get(holder) or self._derive(holder)
        found = header, AESGCM(key)
        self._ciphers = _bounded(self._ciphers, CIPHERS_MAX)
        self._ciphers[holder] = found
        return found

    def _derive(self, holder: str) -> tuple[bytes, bytes]:
        generation = generation_of(self._frontier, self._tenant, holder)
        secret = self._frontier.leaf(leaf_of(self._tenant, holder, generation))
        if secret is None:
            raise Erased("its key was destroyed")
        found = _HEADER.pack(FORMAT, generation, self._vault), _key(secret, holder)
        self._keys = _bounded(self._keys, KEYS_MAX)
        self._keys[holder] = found
        return found


def _bounded[Found](kept: dict[str, Found], most: int) -> dict[str, Found]:
    """With room for one more: a full one without its older half (dictionaries keep the order of arrival)."""
    return kept if len(kept) < most else dict(list(kept.items())[most // 2 :])


def _key(secret: bytes, holder: str) -> bytes:
    """Two holders that fall on one leaf still have different keys."""
    return blake2b(holder.encode(), key=secret, digest_size=SECRET_BYTES, person=b"cordon-seal-1").digest()
