"""`python -m cordon.drill.writer SOURCE TARGET`: appends the records of one journal to another until killed.

In large batches, so that a kill falls into a write and not only between two of them.
"""

import itertools
import sys
import time
from pathlib import Path

from api.audit.diagnosis import read_segment
from api.journal import Journal
from api.segment import segments_in

BATCH = 2_000
PAUSE_S = 0.1
SEGMENT_BYTES = 32 * 1024 * 1024


def main(source: Path, target: Path) -> None:
    """Write for ever; one line on stdout once the first batch is durable."""
    bodies = [bytes(record.body) for path in segments_in(source) for record in read_segment(path).records]
    batches = list(itertools.batched(itertools.islice(itertools.cycle(bodies), 2 * BATCH), BATCH))
    with Journal(target, segment_bytes=SEGMENT_BYTES) as journal:
        for number in itertools.count():
            journal.append(batches[number % len(batches)])
            if number == 0:
                sys.stdout.write("writing\n")
                sys.stdout.flush()
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
