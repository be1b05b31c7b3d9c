"""How a claim is stored, and what a client keeps of the claims that it took.

    u8 state (1 open, 2 answered) | 16 bytes content | 16 bytes owner | u64 claimed ms | payload or answer

The *origin* is what an open claim and its answer have in common: content, owner and time.
"""

import struct
from typing import Final

from features.store import Arrival, Claim

CLAIM_LIFETIME_S: Final = 24 * 3_600
OPEN, ANSWERED = 1, 2
KEPT: Final = 8_192
_CLAIM: Final = struct.Struct("<B16s16sQ")


def parse_claim(data: bytes) -> Claim:
    """A stored claim. Raises `ValueError` if the bytes are none."""
    if len(data) < _CLAIM.size or data[0] not in (OPEN, ANSWERED):
        raise ValueError(f"{len(data)} bytes are not a claim")
    state, content, owner, claimed_ms = _CLAIM.unpack_from(data)
    rest = data[_CLAIM.size :]
    is_open = state == OPEN
    return Claim(content, owner, claimed_ms, None if is_open else rest, rest if is_open else None)


class Origins:
    """Origins of the `KEPT` claims that this client asked for last, by key.

    With them it packs an answered claim as it is to be stored. An origin that is not here, or not the held
    claim's any more, is filled in by the server: that costs it a few microseconds, and changes nothing.
    """

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}

    def opened(self, arrival: Arrival, now_ms: int) -> bytes:
        """The arrival's open claim as it is stored."""
        claim = _CLAIM.pack(OPEN, arrival.content, arrival.owner, now_ms)
        self.known[arrival.key] = claim[1:]
        self.trim()
        return claim + arrival.payload

    def trim(self) -> None:
        """Forget the oldest of too many."""
        while len(self.known) > KEPT:
            del self.known[next(iter(self.known))]

    def answered(self, key: str, owner: bytes, answer: bytes) -> bytes:
        """The answered claim as it is stored, if this `owner` holds it."""
        origin = self.known.pop(key, None)
        if origin is None or origin[16:32] != owner:
            return _CLAIM.pack(ANSWERED, b"", owner, 0) + answer
        return b"".join((b"\x02", origin, answer))
