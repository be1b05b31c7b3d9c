"""Durable records per second: batches of real decision records appended, synced, read back and verified.

    .venv/bin/python -m bench.journal [--seconds 10] [--json] [--write]

Records are decisions of the payments catalogue with their full vectors, 64 to a batch, one `fdatasync` each.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from api.audit.verify import verify
from api.journal import Journal
from api.record import Kind, encode_json, pack
from bench.command import arguments, teller, terms
from cordon.evidence import Evidence
from features import load

BATCH: Final = 64
RECORDS_PER_S_MIN: Final = 20_000
SECONDS: Final = 10.0


class WrongRecords(RuntimeError):
    """The journal does not hold what was written: nothing to report."""


def bodies() -> list[bytes]:
    """A batch of records as the engine writes them; ids and vectors differ."""
    names = load("payments").names
    found = []
    for number in range(BATCH):
        entities = dict.fromkeys(("card", "customer", "merchant", "device", "ip"), f"{number:032x}")
        record = {
            "type": "decision", "v": 2, "tenant": "bench", "id": f"tx-{number}",
            "decided_ms": 1_760_000_000_000, "time_ms": 1_760_000_000_000, "door": "http",
            "entities": entities, "outcome": "approve",
            "transaction": {"amount": 1_000 + number, "currency": "EUR", "channel": "ecom", **entities},
            "order": {e: ["0123456789abcdef", number] for e in entities}, "score": number,
            "rules": [], "no_hit": [f"rule_of_the_set_{i}" for i in range(22)],
            "not_evaluated": {f"rule_of_the_set_{i}": ["card_feature_1h"] for i in range(22, 31)},
            "features": [number * 1.25 + place for place, _ in enumerate(names)],
        }  # fmt: skip
        found.append(pack(Kind.DECISION, entities["card"], encode_json(record)))
    return found


def measure(seconds: float, directory: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """The report of `seconds` of appending. Raises `WrongRecords`."""
    batch = bodies()
    taken_ms = []
    with Journal(directory) as journal:
        began_s, own_s = time.perf_counter(), time.process_time()
        while time.perf_counter() - began_s < seconds:
            at_s = time.perf_counter()
            journal.append(batch)
            taken_ms.append((time.perf_counter() - at_s) * 1_000)
        spent_s, own_s = time.perf_counter() - began_s, time.process_time() - own_s
    records = len(taken_ms) * BATCH
    at_s = time.perf_counter()
    verified = verify(directory)
    if verified.records != records:
        raise WrongRecords(f"{verified.records} records of {records}")
    verify_s = time.perf_counter() - at_s
    taken_ms.sort()
    say(f"{records:,} records verified")
    return {
        "records_per_s": round(records / spent_s),
        "record_bytes": sum(map(len, batch)) // BATCH,
        "batch": BATCH,
        "append_p50_ms": round(taken_ms[len(taken_ms) // 2], 3),
        "append_p99_ms": round(taken_ms[int(len(taken_ms) * 0.99)], 3),
        "cpu_us_per_record": round(own_s / records * 1e6, 2),
        "verify_records_per_s": round(records / verify_s),
        "records": records,
        **terms(seconds=spent_s),
    }


def main() -> None:
    """Measures and keeps the result."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of appending")
    options = parser.parse_args()
    evidence = Evidence.begin("journal")
    with tempfile.TemporaryDirectory(dir=".") as name:
        say = teller(options, evidence)
        report = measure(options.seconds, Path(name), say)
    evidence.end(report, holds=report["records_per_s"] >= RECORDS_PER_S_MIN, write=options.write)


if __name__ == "__main__":
    main()
