"""Signatures of deliveries: HMAC-SHA256 over time and body, by every key that is in force."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

REPLAY_WINDOW_S: Final = 300
"""A receiver refuses what was signed longer ago, or further ahead."""


@dataclass(frozen=True, slots=True)
class Key:
    """A signing key. `until_ms`: when it stops signing, after its successor was made; 0: it is the newest."""

    id: str
    secret: str
    until_ms: int = 0

    def signs(self, now_ms: int) -> bool:
        """Whether it is in force."""
        return not self.until_ms or now_ms < self.until_ms


def sign(keys: Sequence[Key], body: bytes, at_s: int) -> dict[str, str]:
    """The headers of a delivery."""
    signed = ", ".join(f"{key.id}={_mac(key.secret, body, at_s)}" for key in keys)
    return {"cordon-timestamp": str(at_s), "cordon-signature": signed}


def verify(secrets: dict[str, str], headers: dict[str, str], body: bytes, now_s: int) -> bool:
    """What a receiver does. `secrets`: by key id; `headers`: names in lower case."""
    stamp = headers.get("cordon-timestamp", "")
    if not stamp.isdecimal() or abs(now_s - int(stamp)) > REPLAY_WINDOW_S:
        return False
    for part in headers.get("cordon-signature", "").split(","):
        key_id, _, found = part.strip().partition("=")
        secret = secrets.get(key_id)
        if secret is not None and hmac.compare_digest(_mac(secret, body, int(stamp)), found):
            return True
    return False


def _mac(secret: str, body: bytes, at_s: int) -> str:
    return hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
