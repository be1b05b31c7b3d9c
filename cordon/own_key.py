"""Own-key staleness: decisions that did not know an earlier transaction of one of their own entities."""

from dataclasses import replace

import numpy as np

from cordon.parity import Plan, replay_of, source_of
from cordon.recompute import Log, recompute
from features import Catalogue, Window
from features.parity import compare
from features.pseudonym import Pseudonyms
from features.tier import DAY, HOUR

OWN_HISTORY = (HOUR, DAY, 30 * DAY)


def own_key_stale(plan: Plan, catalogue: Catalogue, names: Pseudonyms, log: Log, ids: set[str]) -> int:
    """How many of `ids` have a vector that lacks an earlier observed transaction of one of their entities:
    counts of the last hour, day and month against the oracle, in the order in which the store observed.

    A decision that is not in the log counts. The vectors in `log` are cut down to these counts.
    """
    counts = tuple(
        f for f in catalogue.features if isinstance(f, Window) and f.aggregate == "count" and not f.delay_ms
        and f.source == "transaction" and f.window_ms in OWN_HISTORY
    )  # fmt: skip
    places = [catalogue.names.index(f.name) for f in counts]
    subset: Catalogue = replace(catalogue, features=counts)
    for record in log.decisions:
        if "features" in record:
            record["features"] = record["features"][places]
    source = source_of(replay_of(plan, catalogue), catalogue)
    found = recompute(subset, source, log, pseudonyms=names, compare=ids)
    report = compare(subset.names, found.expected, found.actual)
    wrong = np.isnan(found.expected) != np.isnan(found.actual)
    wrong |= ~np.isnan(found.expected) & (found.expected != found.actual)
    assert report.features == len(counts)
    return int(wrong.any(axis=1).sum()) + len(found.missing)
