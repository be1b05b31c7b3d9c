"""Three streams become one, in event-time order."""

from collections.abc import Iterator
from heapq import merge
from operator import itemgetter

from stream.replay.history import Extent, History, events, labels, transactions
from stream.replay.item import Item


def merged(history: History, known: Extent, *, entities: bool = False) -> Iterator[Item]:
    """Everything of a history by event time. At the same millisecond transactions come first, in file order,
    then lifecycle events, then labels: the order that `features.history` gives a history without running
    numbers, so that a tie means the same in training and in a replay."""
    return merge(
        transactions(history, known, entities=entities),
        events(history, known),
        labels(history, known),
        key=itemgetter(0),
    )
