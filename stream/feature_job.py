"""The feature job alone: decisions and lifecycle events into tiles, heads and maps (`flink run -py`)."""

import sys

from stream.jobs import run_one

if __name__ == "__main__":
    sys.exit(run_one("features"))
