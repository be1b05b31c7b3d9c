"""The label job alone: reported and withdrawn frauds into tiles, by their arrival (`flink run -py`)."""

import sys

from stream.jobs import run_one

if __name__ == "__main__":
    sys.exit(run_one("labels"))
