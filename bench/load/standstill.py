"""How long the processors stand still by themselves: where the machine is a guest, its host may need them.

As a program (`standstill.py SECONDS PLACE`) it keeps one processor busy and prints when that did not run.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

SECONDS: Final = 4.0
LEAST_S: Final = 0.0003
"""A loop that is never kept waiting for so long has a processor to itself."""


def standstills(seconds: float = SECONDS) -> dict[str, float]:
    """`share`: of the time that all processors, kept busy at once, did not run; `max`: milliseconds, the
    longest time. Only what is longer than `LEAST_S` counts, and nothing else should run."""
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    command = [sys.executable, "-S", "-E", str(Path(__file__)), str(seconds)]
    running = [
        subprocess.Popen([*command, str(place)], stdout=subprocess.PIPE, text=True) for place in range(count)
    ]
    found = [gap for process in running for gap in json.loads(process.communicate()[0])]
    return {"share": round(sum(found) / (seconds * count), 4), "max": round(max(found, default=0.0) * 1e3, 3)}


def gaps(seconds: float, place: int) -> list[float]:
    """Seconds of each time that a busy loop on one processor did not run."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[place]})
    found = []
    last_s = time.perf_counter()
    until_s = last_s + seconds
    while last_s < until_s:
        now_s = time.perf_counter()
        if now_s - last_s > LEAST_S:
            found.append(now_s - last_s)
        last_s = now_s
    return found


if __name__ == "__main__":
    print(json.dumps(gaps(float(sys.argv[1]), int(sys.argv[2]))))
