"""The offline builder: training rows a minute on one core, from a generated payments world on disk.

    .venv/bin/python -m bench.offline [--transactions 500000] [--runs 3] [--json] [--write]

First a small world with labels and lifecycle events is built, and 1,000 of its rows must equal the oracle's.
Timed is what training does: read the Parquet history and build every feature of the catalogue, one worker.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.command import arguments, teller, terms
from bench.model import NothingToMeasure
from cordon.evidence import Evidence
from cordon.parity import Plan, replay_of, source_of
from cordon.recompute import Log, recompute
from features import Catalogue, load
from features.history import load_history
from features.offline import build
from features.pseudonym import Pseudonyms
from stream.world.spec import WorldSpec
from stream.world.world import events_path, generate, write_history

PER_MINUTE_MIN: Final = 1_000_000
CHECKED_ROWS: Final = 1_000
PSEUDONYMS: Final = Pseudonyms.of("bench", "a-key-for-measurements-only")
PER_CUSTOMER_AND_DAY: Final = 1.5


def check(catalogue: Catalogue, folder: Path) -> None:
    """Compare the last rows of a small world with the oracle. Raises `NothingToMeasure`."""
    path = folder / "small.parquet"
    write_history(generate(WorldSpec(customers=120, days=45, fraud_share=0.01), seed=11), path)
    history = load_history(path, catalogue.schema)
    values = build(catalogue, history, pseudonyms=PSEUDONYMS).values
    source = source_of(replay_of(Plan("payments", path, events=events_path(path)), catalogue), catalogue)
    ids = [str(i) for i in history.ids]
    log = Log(
        decisions=[
            {"type": "decision", "id": i, "claim": "new", "order": {}, "features": row}
            for i, row in zip(ids, values, strict=True)
        ],
        labels=[
            {"type": "label", "id": "", "transaction_id": i, "fraud": fraud, "order": {}}
            for i, fraud in source.labels
        ],
        events=[
            {"type": "event", "id": i, "transaction_id": event.transaction_id, "order": {}}
            for i, event in source.events.items()
        ],
    )
    checked = set(ids[-CHECKED_ROWS:])
    found = recompute(catalogue, source, log, pseudonyms=PSEUDONYMS, compare=checked)
    same = np.array_equal(found.expected, found.actual, equal_nan=True)
    if not same or len(found.ids) < CHECKED_ROWS or found.surplus:
        raise NothingToMeasure(f"rows differ from the oracle's among {len(found.ids)} of {CHECKED_ROWS}")


def measure(transactions: int, runs: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The report. Raises `NothingToMeasure`."""
    catalogue = load("payments")
    with tempfile.TemporaryDirectory(prefix="cordon-offline-") as name:
        folder = Path(name)
        check(catalogue, folder)
        say(f"{CHECKED_ROWS:,} rows equal the oracle's")
        path = folder / "world.parquet"
        days = 60
        customers = max(50, round(transactions / days / PER_CUSTOMER_AND_DAY))
        write_history(generate(WorldSpec(customers=customers, days=days), seed=12), path)
        read_s, built_s, rows = [], [], 0
        for run in range(runs + 1):
            began = time.process_time()
            history = load_history(path, catalogue.schema)
            read = time.process_time()
            rows = len(build(catalogue, history).values)
            ended = time.process_time()
            if run:  # the first run compiles
                read_s.append(read - began)
                built_s.append(ended - read)
            say(f"{rows:,} rows: read {read - began:.2f} s, built {ended - read:.2f} s of processor time")
    whole_s = statistics.median([a + b for a, b in zip(read_s, built_s, strict=True)])
    return {
        "tx_per_min_per_core": round(rows / whole_s * 60),
        "transactions": rows,
        "features": len(catalogue.names),
        "read_s": round(statistics.median(read_s), 3),
        "built_s": round(statistics.median(built_s), 3),
        **terms(seconds=whole_s, runs=runs),
    }


def main() -> None:
    """Measures and keeps the result."""
    parser = arguments(__doc__)
    parser.add_argument("--transactions", type=int, default=500_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    evidence = Evidence.begin("offline")
    report = measure(options.transactions, options.runs, teller(options, evidence))
    evidence.end(report, holds=report["tx_per_min_per_core"] >= PER_MINUTE_MIN, write=options.write)


if __name__ == "__main__":
    main()
