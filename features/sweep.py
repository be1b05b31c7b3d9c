"""Kernels of the offline builder: each entity's events in order of arrival, swept once per question.

An entity's events lie together (`starts[g]` to `starts[g + 1]`), in order of arrival. `asked` are the
transactions, whose value is made of the events before them and themselves. Where a group arrived in order of
event time, a window is a slice of the group, found by two pointers; where it did not, the events are ranked
by time and entered one by one into a tree over the ranks.

    arrival    e0   e1   e2   e3 (asked)   e4         e4 was not known yet
    time            |-------- window ------)          slice [low, high) of the arrivals, or of the ranks
"""

from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.formula import Floats, Ints, gap_seconds, speed_kmh
from features.kernel import float64, int64, kernel, uint64
from features.tier import DAY, HOUR, MINUTE

Unsigned = NDArray[np.uint64]
Bools = NDArray[np.bool_]


@kernel
def group(codes: Ints, order: Ints, groups: int) -> tuple[Ints, Ints]:
    """Places of `order` with code >= 0, grouped by code; and where each group starts (`[groups + 1]`)."""
    starts = np.zeros(groups + 1, np.int64)
    for place in order:
        if codes[place] >= 0:
            starts[codes[place] + 1] += 1
    for g in range(groups):
        starts[g + 1] += starts[g]
    at = starts[:-1].copy()
    events = np.empty(starts[groups], np.int64)
    for place in order:
        if codes[place] >= 0:
            events[at[codes[place]]] = place
            at[codes[place]] += 1
    return events, starts


@kernel
def in_order(times: Ints, starts: Ints) -> Bools:
    """Whether each group arrived in order of event time."""
    found = np.ones(len(starts) - 1, np.bool_)
    for g in range(len(starts) - 1):
        for i in range(starts[g] + 1, starts[g + 1]):
            if times[i] < times[i - 1]:
                found[g] = False
                break
    return found


@kernel
def rank(times: Ints, starts: Ints, ordered: Bools) -> tuple[Ints, Ints]:
    """Of disordered groups: the rank of each event by (time, arrival), and the times by rank."""
    ranks = np.arange(len(times))
    by_rank = times.copy()
    for g in range(len(starts) - 1):
        if not ordered[g]:
            begin, end = starts[g], starts[g + 1]
            sequence = np.argsort(times[begin:end], kind="mergesort")
            for r in range(end - begin):
                ranks[begin + sequence[r]] = begin + r
                by_rank[begin + r] = times[begin + sequence[r]]
    return ranks, by_rank


@kernel
def span(time_ms: int, window_ms: int, delay_ms: int, exact: bool) -> tuple[int, int]:
    """`[start, end)` of a window (`tier.bounds`); `exact`: seconds, open on the left."""
    at = time_ms - delay_ms
    if exact:
        second = at // 1000
        return (second - window_ms // 1000 + 1) * 1000, (second + 1) * 1000
    step = DAY if window_ms >= 6 * DAY else (HOUR if window_ms >= 6 * HOUR else MINUTE)
    return (at - window_ms) // step * step, at // MINUTE * MINUTE + MINUTE


@kernel
def _first(times: Ints, begin: int, end: int, time_ms: int) -> int:
    """The first place in `[begin, end)` of ascending `times` with a time of at least `time_ms`."""
    while begin < end:
        middle = (begin + end) // 2
        if times[middle] < time_ms:
            begin = middle + 1
        else:
            end = middle
    return begin


@kernel
def slices(
    times: Ints,
    by_rank: Ints,
    starts: Ints,
    ordered: Bools,
    asked: Bools,
    window_ms: int,
    delay_ms: int,
    exact: bool,
) -> tuple[Ints, Ints]:
    """The window of each asked event as `[low, high)`: of arrivals up to itself, or of ranks. `[asked]`."""
    count = 0
    for i in range(len(asked)):
        count += asked[i]
    lows = np.empty(count, np.int64)
    highs = np.empty(count, np.int64)
    k = 0
    for g in range(len(starts) - 1):
        begin, end = starts[g], starts[g + 1]
        low, high = begin, begin
        for i in range(begin, end):
            if not asked[i]:
                continue
            start_ms, end_ms = span(times[i], window_ms, delay_ms, exact)
            if ordered[g]:
                while low <= i and times[low] < start_ms:
                    low += 1
                while high <= i and times[high] < end_ms:
                    high += 1
                lows[k], highs[k] = low, max(low, high)
            else:
                lows[k] = _first(by_rank, begin, end, start_ms)
                highs[k] = _first(by_rank, begin, end, end_ms)
            k += 1
    return lows, highs


@kernel
def sums(
    deltas: Unsigned, starts: Ints, ordered: Bools, asked: Bools, lows: Ints, highs: Ints, out: Floats
) -> None:
    """Sums over the slices, in groups that arrived in order. `out[asked]`."""
    running = np.empty(len(deltas) + 1, np.uint64)
    running[0] = uint64(0)
    for i in range(len(deltas)):
        running[i + 1] = running[i] + deltas[i]
    k = 0
    for g in range(len(starts) - 1):
        for i in range(starts[g], starts[g + 1]):
            if asked[i]:
                if ordered[g]:
                    out[k] = float64(running[highs[k]] - running[lows[k]])
                k += 1


@kernel
def maxima(
    deltas: Unsigned, starts: Ints, ordered: Bools, asked: Bools, lows: Ints, highs: Ints, out: Floats
) -> None:
    """Maxima (stored as value + 1) over the slices, in groups that arrived in order. `out[asked]`."""
    falling = np.empty(len(deltas), np.int64)
    k = 0
    for g in range(len(starts) - 1):
        head, tail, entered = 0, 0, starts[g]
        for i in range(starts[g], starts[g + 1]):
            if not asked[i]:
                continue
            if ordered[g]:
                while entered < highs[k]:
                    if deltas[entered] > uint64(0):
                        while tail > head and deltas[falling[tail - 1]] <= deltas[entered]:
                            tail -= 1
                        falling[tail] = entered
                        tail += 1
                    entered += 1
                while tail > head and falling[head] < lows[k]:
                    head += 1
                out[k] = float64(deltas[falling[head]] - uint64(1)) if tail > head else nan
            k += 1


@kernel
def trees(
    deltas: Unsigned,
    ranks: Ints,
    starts: Ints,
    ordered: Bools,
    asked: Bools,
    lows: Ints,
    highs: Ints,
    largest: bool,
    out: Floats,
) -> None:
    """Sums or maxima over slices of ranks, in groups that did not arrive in order. `out[asked]`."""
    k = 0
    for g in range(len(starts) - 1):
        begin, size = starts[g], starts[g + 1] - starts[g]
        if ordered[g]:
            for i in range(begin, begin + size):
                k += asked[i]
            continue
        tree = np.zeros(2 * size, np.uint64)
        for i in range(begin, begin + size):
            _enter(tree, ranks[i] - begin + size, deltas[i], largest)
            if asked[i]:
                total = _query(tree, lows[k] - begin + size, highs[k] - begin + size, largest)
                if largest:
                    out[k] = float64(total - uint64(1)) if total > uint64(0) else nan
                else:
                    out[k] = float64(total)
                k += 1


@kernel
def _enter(tree: Unsigned, node: int, delta: int, largest: bool) -> None:
    """Add `delta` to a leaf and everything above it."""
    if delta == uint64(0):
        return
    while node >= 1:
        tree[node] = max(tree[node], delta) if largest else tree[node] + delta
        node //= 2


@kernel
def _query(tree: Unsigned, low: int, high: int, largest: bool) -> Any:
    """Sum or maximum of the leaves `[low, high)`."""
    total = uint64(0)
    while low < high:
        if low & 1:
            total = max(total, tree[low]) if largest else total + tree[low]
            low += 1
        if high & 1:
            high -= 1
            total = max(total, tree[high]) if largest else total + tree[high]
        low //= 2
        high //= 2
    return total


@kernel
def gaps(times: Ints, heads: Ints, starts: Ints, asked: Bools, out: Floats) -> None:
    """Seconds since the largest head (ms, 0 is none) among the events before. `out[asked]`."""
    k = 0
    for g in range(len(starts) - 1):
        last = int64(0)
        for i in range(starts[g], starts[g + 1]):
            if asked[i]:
                out[k] = gap_seconds(times[i], last)
                k += 1
            last = max(last, heads[i])


@kernel
def speeds(times: Ints, heads: Ints, places: Ints, starts: Ints, asked: Bools, out: Floats) -> None:
    """km/h since the largest packed `(seconds, place)` among the events before. `out[asked]`."""
    k = 0
    for g in range(len(starts) - 1):
        last = int64(0)
        for i in range(starts[g], starts[g + 1]):
            if asked[i]:
                out[k] = speed_kmh(times[i], places[i], last)
                k += 1
            last = max(last, heads[i])


@kernel
def seen(
    times: Ints,
    marks: Ints,
    starts: Ints,
    asked: Bools,
    windows: Ints,
    distinct: Bools,
    bound: int,
    exact: bool,
    out: Floats,
) -> None:
    """Novelty and distinct values over a map of the `bound` newest marks. `out[windows, asked]`.

    `marks[i]`: the event's value, 0 where it has none or is not a transaction. The map is kept in
    ascending order of (last seen, mark), as the online state is.
    """
    last = np.empty(bound + 1, np.int64)
    known = np.empty(bound + 1, np.int64)
    k = 0
    for g in range(len(starts) - 1):
        size = 0
        for i in range(starts[g], starts[g + 1]):
            own = marks[i]
            if asked[i]:
                for w in range(len(windows)):
                    start_ms, _ = span(times[i], windows[w], 0, exact)
                    out[w, k] = _seen_one(last, known, size, start_ms, own, distinct[w])
                k += 1
            if own != 0:
                size = _remember(last, known, size, times[i], own, bound)


@kernel
def _seen_one(last: Ints, known: Ints, size: int, start_ms: int, own: int, distinct: bool) -> float:
    met = False
    total = 0
    for j in range(size - 1, -1, -1):
        if last[j] < start_ms:
            break
        total += 1
        met = met or known[j] == own
    if distinct:
        return float(total + 1) if own != 0 and not met else float(total)
    if own == 0:
        return nan
    return 0.0 if met else 1.0


@kernel
def _remember(last: Ints, known: Ints, size: int, time_ms: int, own: int, bound: int) -> int:
    """Enter one sighting; the new size."""
    at = size - 1
    while at >= 0 and known[at] != own:
        at -= 1
    if at >= 0:
        if last[at] >= time_ms:
            return size
        for j in range(at, size - 1):
            last[j], known[j] = last[j + 1], known[j + 1]
        size -= 1
    at = size
    while at > 0 and (last[at - 1] > time_ms or (last[at - 1] == time_ms and known[at - 1] > own)):
        last[at], known[at] = last[at - 1], known[at - 1]
        at -= 1
    last[at], known[at] = time_ms, own
    size += 1
    if size > bound:
        for j in range(bound):
            last[j], known[j] = last[j + 1], known[j + 1]
        size = bound
    return size
