"""Audit records that no deciding process writes: rotations of keys, what people do on the command line.

They have a journal of their own, `audit`, beside those of the workers. It is opened for one record and closed
again, so that any process may be the next writer.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from api.journal import Journal, JournalBusy
from api.record import VERSION, Kind, encode_json, pack, unpack

NAME: Final = "audit"
SEGMENT_BYTES: Final = 4 * 1024 * 1024
_TRIES: Final = 50
_WAIT_S: Final = 0.1


def note(
    parent: Path,
    event: str,
    facts: Mapping[str, Any],
    *,
    id: str,
    time_ms: int,
    tenant: str,
    sleep: Callable[[float], None] = time.sleep,
) -> bytes:
    """Append one record durably; its JSON. `parent`: the directory of journals; `id`: unique among them.

    Raises `JournalBusy` where others keep writing for seconds, `JournalUnavailable`, `Damage`.
    """
    body = audit_body(event, facts, id, time_ms, tenant)
    append(parent, [body], sleep)
    return unpack(body).payload


def audit_body(event: str, facts: Mapping[str, Any], id: str, time_ms: int, tenant: str) -> bytes:
    """The journal's body of an audit record."""
    record = {"type": "audit", "v": VERSION, "tenant": tenant, "id": id, "event": event, "time_ms": time_ms}
    return pack(Kind.AUDIT, NAME, encode_json({**record, **facts}))


def append(parent: Path, bodies: Sequence[bytes], sleep: Callable[[float], None] = time.sleep) -> None:
    """Append records in one piece: all of them are durable, or none. Raises what `note` raises."""
    with _opened(parent / NAME, sleep) as journal:
        journal.append(bodies)


def _opened(directory: Path, sleep: Callable[[float], None]) -> Journal:
    for _ in range(_TRIES):
        try:
            return Journal(directory, segment_bytes=SEGMENT_BYTES)
        except JournalBusy:
            sleep(_WAIT_S)
    return Journal(directory, segment_bytes=SEGMENT_BYTES)
