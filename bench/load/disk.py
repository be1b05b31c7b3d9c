"""What the disk does by itself: a service that waits for it cannot be faster."""

import os
import time
from pathlib import Path
from typing import Final

import numpy as np

SECONDS: Final = 3.0
PER_SECOND: Final = 400
BYTES: Final = 10_000


def syncs(directory: Path, seconds: float = SECONDS) -> dict[str, float]:
    """Waits for `fdatasync` in milliseconds, while 10 KB are appended 400 times a second to a file that was
    written before, as a journal's is, and nothing else runs."""
    path, count = directory / "syncs", round(seconds * PER_SECOND)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(file, bytes(count * BYTES))
        os.fsync(file)
        waits_ms = []
        began_s = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, began_s + number / PER_SECOND - time.monotonic()))
            os.pwrite(file, os.urandom(BYTES), number * BYTES)
            before_s = time.perf_counter()
            os.fdatasync(file)
            waits_ms.append((time.perf_counter() - before_s) * 1_000)
    finally:
        os.close(file)
        path.unlink()
    p50, p99 = np.percentile(waits_ms, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(max(waits_ms), 3)}
