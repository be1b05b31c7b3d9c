"""A checkpoint: what a journal was at one moment, signed. One line of JSON, in Kafka and in the file store.

What is signed is `"cordon checkpoint 1\\n"` and the JSON of all fields but `signature`, keys sorted, without
spaces, in ASCII. `previous` is the SHA-256 of the whole line before (zeros for the first), so that a
checkpoint can neither be taken out nor exchanged.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

from api.audit.keys import PublicKey, SigningKey
from api.audit.merkle import MalformedTree, Tree
from api.record import decode_json

DOMAIN: Final = b"cordon checkpoint 1\n"
VERSION: Final = 1
NONE_BEFORE: Final = "0" * 64


class MalformedCheckpoint(ValueError):
    """A line is no checkpoint of this version: it was altered, or something newer wrote it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Records `first` to `size - 1` are new since checkpoint `number - 1`; the tree covers 0 to `size - 1`.

    `segment`, `offset`: where the record behind them begins or would begin. `head`: hash of the last record.
    `peaks`: roots of the tree's perfect subtrees, from which the tree can be continued.
    """

    journal: str
    number: int
    first: int
    size: int
    segment: int
    offset: int
    head: str
    root: str
    peaks: tuple[str, ...]
    previous: str
    time_ms: int
    key: str
    signature: str = ""

    def message(self) -> bytes:
        """What is signed."""
        body = {**self._fields(), "type": "checkpoint", "v": VERSION}
        return DOMAIN + json.dumps(body, sort_keys=True, separators=(",", ":")).encode()

    def signed_by(self, key: SigningKey) -> "Checkpoint":
        """The same checkpoint with its signature."""
        return replace(self, signature=key.sign(self.message()).hex())

    def holds(self, key: PublicKey) -> bool:
        """Whether `key` made the signature."""
        try:
            signature = bytes.fromhex(self.signature)
        except ValueError:
            return False
        return key.signed(self.message(), signature)

    def tree(self) -> Tree:
        """The tree to continue from. Raises `MalformedCheckpoint` where peaks and root disagree."""
        try:
            tree = Tree.of(self.size, [bytes.fromhex(peak) for peak in self.peaks])
        except (ValueError, MalformedTree) as error:
            raise MalformedCheckpoint(f"checkpoint {self.number} of {self.journal}: {error}") from error
        if tree.root.hex() != self.root:
            raise MalformedCheckpoint(
                f"checkpoint {self.number} of {self.journal}: its peaks are not its root's"
            )
        return tree

    def line(self) -> bytes:
        """The checkpoint as it is anchored, without a newline."""
        body = {**self._fields(), "type": "checkpoint", "v": VERSION, "signature": self.signature}
        return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()

    def hash(self) -> str:
        """What the next one names as `previous`."""
        return sha256(self.line()).hexdigest()

    @property
    def covers(self) -> str:
        """The records in words."""
        return f"records {self.first} to {self.size - 1}"

    def _fields(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "signature"}
        return {**fields, "peaks": list(self.peaks)}


def read_checkpoint(line: bytes | Mapping[str, Any]) -> Checkpoint:
    """The checkpoint of a line. Raises `MalformedCheckpoint`."""
    try:
        value = decode_json(line) if isinstance(line, bytes) else line
        if (value["type"], value["v"]) != ("checkpoint", VERSION):
            raise MalformedCheckpoint(f"a {value['type']} of version {value['v']}")
        texts = {
            name: str(value[name]) for name in ("journal", "head", "root", "previous", "key", "signature")
        }
        names = ("number", "first", "size", "segment", "offset", "time_ms")
        numbers = {name: int(value[name]) for name in names}
        peaks = tuple(str(peak) for peak in value["peaks"])
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedCheckpoint(f"no checkpoint: {error}") from error
    return Checkpoint(**texts, **numbers, peaks=peaks)  # type: ignore[arg-type]
