"""Keyed hashes: beyond the door an id travels as a pseudonym only."""

from dataclasses import dataclass
from hashlib import blake2b


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Keyed hashes of one tenant; `secret` has 16 to 64 bytes and never leaves the service."""

    tenant: str
    secret: bytes

    @classmethod
    def of(cls, tenant: str, secret: str) -> "Pseudonyms":
        """From a setting: 32 hexadecimal digits or more, or text of 16 to 64 bytes. Raises `ValueError`."""
        raw = secret.encode()
        if len(secret) >= 32 and len(secret) % 2 == 0 and not set(secret.lower()) - set("0123456789abcdef"):
            raw = bytes.fromhex(secret)
        if not 16 <= len(raw) <= 64:
            raise ValueError(
                "the secret of the pseudonyms needs 16 to 64 bytes, or 32 to 128 hexadecimal digits"
            )
        return cls(tenant, raw)

    def entity(self, name: str, parts: tuple[str, ...]) -> str:
        """Pseudonym of an entity: 32 hexadecimal digits."""
        text = "\x1f".join((self.tenant, name, *parts)).encode()
        return blake2b(text, key=self.secret, digest_size=16, person=b"entity").hexdigest()

    def mark(self, field: str, value: str) -> int:
        """Pseudonym of a remembered value: a positive integer below 2**63, never 0."""
        text = f"{self.tenant}\x1f{field}\x1f{value}".encode()
        digest = blake2b(text, key=self.secret, digest_size=8, person=b"mark").digest()
        return int.from_bytes(digest, "little") >> 1 | 1

    def event(self, text: str) -> int:
        """Keyed number of an event id: a positive integer below 2**63, never 0."""
        digest = blake2b(text.encode(), key=self.secret, digest_size=8, person=b"event").digest()
        return int.from_bytes(digest, "little") >> 1 | 1

    def content(self, canonical: bytes) -> bytes:
        """Keyed 16-byte digest of an event's canonical content: low-entropy fields cannot be guessed."""
        return blake2b(canonical, key=self.secret, digest_size=16, person=b"content").digest()
