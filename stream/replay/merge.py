"""Three streams become one, in event-time order."""

from collections.abc import Iterator
from heapq import merge
from operator import itemgetter

from stream.replay.history import Extent, History, events, labels, transactions
from stream.replay.item import Item


def merged(history: History, known: Extent, *, entities: bool = False) -> Iterator[Item]:
    """Everything of a history by event time. At the same millisecond labels come first, then lifecycle
    events, then transactions in file order: what has become known by then is known to the decision."""
    return merge(
        labels(history, known),
        events(history, known),
        transactions(history, known, entities=entities),
        key=itemgetter(0),
    )
