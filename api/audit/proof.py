"""The proof that one record is in a journal: what a third party checks with a public key and nothing else.

record hash = SHA-256(previous | body)      leaf = SHA-256(0x00 | record hash)
leaf and path lead to the checkpoint's root, and the checkpoint bears the key's signature
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from api.audit.checkpoint import Checkpoint, MalformedCheckpoint, read_checkpoint
from api.audit.diagnosis import read_segment
from api.audit.keys import PublicKey
from api.audit.merkle import MalformedTree, leaves_of, path_of, root_by
from api.record import MalformedRecord, decode_json, encode_json, unpack
from api.segment import segments_in
from api.segment_file import content_of


class ProofFails(Exception):
    """The proof does not show what it says; the message names the step that fails. Do not rely on it."""


@dataclass(frozen=True, slots=True)
class Located:
    """A record in a journal: its number, its body, the hash before it."""

    directory: Path
    number: int
    body: bytes
    previous: bytes


@dataclass(frozen=True, slots=True)
class Shown:
    """What a proof that holds shows."""

    record: Mapping[str, Any]
    number: int
    checkpoint: Checkpoint


def locate(directories: Sequence[Path], record_id: str) -> Located | None:
    """The first record with this id in the journals; reads them all if need be."""
    sought = re.compile(b'"id":' + re.escape(encode_json(record_id)))
    for directory in directories:
        for path in segments_in(directory):
            if sought.search(content_of(path)) is None:
                continue
            segment = read_segment(path)
            number, before = segment.head.sequence, segment.head.hash
            for record in segment.records:
                body = bytes(record.body)
                if (
                    sought.search(body) is not None
                    and decode_json(unpack(body).payload).get("id") == record_id
                ):
                    return Located(directory, number, body, before)
                number, before = number + 1, record.hash
    return None


def prove(located: Located, checkpoint: Checkpoint) -> dict[str, Any]:
    """The proof, as JSON. `checkpoint`: one that covers the record. Raises `ProofFails` where the journal is
    not the one that was signed."""
    hashes: list[bytes] = []
    for path in segments_in(located.directory):
        hashes += [record.hash for record in read_segment(path).records]
        if len(hashes) >= checkpoint.size:
            break
    leaves = leaves_of(hashes[: checkpoint.size])
    if len(leaves) < checkpoint.size:
        raise ProofFails("the journal ends before the checkpoint: run `cordon audit verify`")
    proof = {
        "type": "inclusion_proof",
        "v": 1,
        "number": located.number,
        "body": b64encode(located.body).decode(),
        "previous": located.previous.hex(),
        "path": [each.hex() for each in path_of(leaves, located.number)],
        "checkpoint": decode_json(checkpoint.line()),
    }
    _check_path(proof, checkpoint)
    return proof


def check(proof: Mapping[str, Any], key: PublicKey) -> Shown:
    """What the proof shows, to somebody who has only the key. Raises `ProofFails`."""
    try:
        if (proof["type"], proof["v"]) != ("inclusion_proof", 1):
            raise ProofFails("this is no inclusion proof of version 1")
        checkpoint = read_checkpoint(proof["checkpoint"])
        if checkpoint.key != key.id:
            raise ProofFails(f"the checkpoint was signed with key {checkpoint.key}, not with {key.id}")
        if not checkpoint.holds(key):
            raise ProofFails("the checkpoint's signature is not right")
        body = _check_path(proof, checkpoint)
        record = decode_json(unpack(body).payload)
    except (KeyError, TypeError, ValueError, MalformedCheckpoint, MalformedRecord) as error:
        raise ProofFails(f"the proof is not complete: {error}") from error
    return Shown(record, int(proof["number"]), checkpoint)


def _check_path(proof: Mapping[str, Any], checkpoint: Checkpoint) -> bytes:
    """The record's body, if it leads to the checkpoint's root."""
    body = b64decode(proof["body"], validate=True)
    leaf = leaves_of([sha256(bytes.fromhex(proof["previous"]) + body).digest()])[0]
    path = [bytes.fromhex(each) for each in proof["path"]]
    try:
        root = root_by(path, leaf, int(proof["number"]), checkpoint.size)
    except MalformedTree as error:
        raise ProofFails(str(error)) from error
    if root.hex() != checkpoint.root:
        raise ProofFails("the record and its path do not lead to the root that was signed")
    return body
