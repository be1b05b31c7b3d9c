"""A copy of journals for somebody outside: segments, checkpoints, public keys, and how to verify them.

The copy holds no secret. Of a journal that is being written it holds what was durable when the copy began.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.journal import durable_of
from api.segment import name_of, segments_in
from api.segment_file import stored_at

README: Final = """# Decisions, exported for verification

    journal/NAME/*.segment   the records, hash-chained, one directory per process that decided
    anchors/NAME/*.jsonl     signed checkpoints of each journal
    keys/*.public.pem        Ed25519 public keys that signed; rotations.jsonl says which followed which

Verify everything, offline:

    cordon audit verify --journal journal --anchors anchors --keys keys --json

It leaves with 0 and `"damaged": 0`, or names segment, record and kind of every damage. Compare the key files
with those that you got another way, and use your own copy of the checkpoints if you have one (the topic
`audit.checkpoints` or the store of anchors): whoever made this copy could have made all three parts of it.

What is computed, for those who would rather write their own:

- A segment is a header of 68 bytes and batches. A batch is a header of 40 bytes and records. A record is its
  length (4 bytes, little endian), its body, and 32 bytes SHA-256(hash of the record before | body). The first
  record's predecessor is 32 zeros. Lengths and places of all fields: `api/segment.py`.
- The tree is that of RFC 6962: leaf SHA-256(0x00 | record hash), node SHA-256(0x01 | left | right).
- A checkpoint is signed over "cordon checkpoint 1\\n" and its JSON without `signature`: keys sorted, no
  spaces, ASCII. Its `previous` is the SHA-256 of the whole line of the checkpoint before.
- A record's body is one byte kind, one byte length of the key, the key, and the decision as JSON.
"""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was copied."""

    journals: int
    segments: int
    checkpoint_files: int
    public_keys: int


class ExportRefused(ValueError):
    """The target is not empty: name a directory that does not exist yet."""


def export(journals: Sequence[Path], anchors: Path, keys: Path, to: Path) -> Exported:
    """Copy. Raises `ExportRefused`, `OSError`."""
    if to.exists() and any(to.iterdir()):
        raise ExportRefused(f"{to} is not empty: name a directory that does not exist yet")
    (to / "keys").mkdir(parents=True)
    (to / "anchors").mkdir()
    files = segments = 0
    # Checkpoints first: the journal may only be further on than they are.
    for path in sorted(anchors.rglob("*.jsonl")) if anchors.is_dir() else []:
        target = to / "anchors" / path.relative_to(anchors)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        files += 1
    public = [p for p in [*sorted(keys.glob("*.public.pem")), keys / "rotations.jsonl"] if p.is_file()]
    for path in public:
        shutil.copyfile(path, to / "keys" / path.name)
    for journal in journals:
        segments += _copy(journal, to / "journal" / journal.name)
    (to / "README.md").write_text(README)
    return Exported(len(journals), segments, files, sum(path.suffix == ".pem" for path in public))


def _copy(journal: Path, to: Path) -> int:
    """Segments and mark; the newest segment only as far as it was durable when the mark was read."""
    to.mkdir(parents=True)
    mark = journal / "mark"
    noted = mark.read_bytes() if mark.is_file() else b""
    number, offset = durable_of(noted) if noted else (0, 0)
    copied = [path for path in segments_in(journal) if not number or path.name <= name_of(number)]
    for path in copied:
        lies = stored_at(path) or path
        with lies.open("rb") as source, (to / lies.name).open("wb") as target:
            if path.name == name_of(number):
                target.write(source.read(offset))
            else:
                shutil.copyfileobj(source, target, 1 << 20)
    if noted:
        (to / "mark").write_bytes(noted)
    return len(copied)
