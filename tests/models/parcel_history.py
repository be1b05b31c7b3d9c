"""A seeded history for the catalogue of `parcels.py`, as a Parquet file."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DAY_MS = 86_400_000
START_MS = 1_704_067_200_000  # 2024-01-01
PARCELS = str(Path(__file__).with_name("parcels.py"))
ROWS, DAYS = 6000, 75


def write_parcels(path: Path) -> Path:
    """Two bad depots, each for weeks; false claims there are dear. In file order, not in time order."""
    random = np.random.default_rng(8)
    at = random.integers(0, DAYS * DAY_MS, ROWS)
    depot = random.integers(0, 40, ROWS)
    bad = ((depot == 3) & (at < 60 * DAY_MS)) | ((depot == 7) & (at > 20 * DAY_MS))
    fraud = (random.random(ROWS) < 0.01) | (bad & (random.random(ROWS) < 0.5))
    dear, usual = random.lognormal(9.5, 0.8, ROWS), random.lognormal(8.5, 0.8, ROWS)
    table = pa.table(
        {
            "parcel_id": [f"p{i}" for i in range(ROWS)],
            "handed_in": START_MS + at,
            "who": [f"s{i}" for i in random.integers(0, 300, ROWS)],
            "where": [None if i == 0 else f"d{i}" for i in depot],
            "insured": np.where(fraud, dear, usual).astype(np.int64),
            "grams": random.integers(10, 30_000, ROWS),
            "service": random.choice(["letter", "parcel", "pallet"], ROWS),
            "claimed_falsely": fraud,
        }
    )
    pq.write_table(table, path)
    return path
