"""Reading back: a decision by its id, an entity's features as they are now."""

from collections.abc import Callable, Mapping
from typing import Any

from api.attempts import Attempts
from api.engine import QueryStoreUnavailable
from api.query_store import QueryStore
from api.record import Location, decode_json
from features.catalogue import Catalogue
from features.evaluate import Evaluator, Row
from features.event import Identity
from features.store import OnlineStore, StoreUnavailable


class LookupUnavailable(Exception):
    """Nobody knows, or what is known is not within reach: 503."""


def find_decision(
    transaction_id: str, store: OnlineStore, attempts: Attempts, past: Callable[[], QueryStore]
) -> Mapping[str, Any] | None:
    """A decision's record: from the query store, else from the journals, where its claim says or among the
    newest batches.

    `None` if it was never decided. Raises `LookupUnavailable` where that cannot be known, while it is being
    decided, and where another host decided and the query store does not have it yet.
    """
    key = f"tx:{transaction_id}"
    held: Mapping[str, Any] | None = None
    unknown = is_open = False
    try:
        claim = store.claim(key)
        is_open = claim is not None and claim.answer is None
        if claim is not None and claim.answer is not None:
            held = decode_json(claim.answer)
            if "receipt" not in held:
                return held  # answered by a version that kept the whole
    except StoreUnavailable:
        unknown = True
    try:
        record = past().record(transaction_id)
        if record is not None:
            return record
    except QueryStoreUnavailable:
        unknown = True
    if held is not None and held["receipt"] is not True:
        found = attempts.read(key, Location(*held["receipt"]))
    else:
        newest = attempts.find([key]).get(key)
        found = None if newest is None else newest.record
    if found is None and unknown:
        raise LookupUnavailable("no store answers")
    if found is None and is_open:
        raise LookupUnavailable("it is being decided")
    if found is None and held is not None:
        raise LookupUnavailable("it was decided on another host; the query store does not have it yet")
    return found


def live_features(
    catalogue: Catalogue,
    evaluator: Evaluator,
    store: OnlineStore,
    entity: str,
    pseudonym: str,
    at_ms: int,
) -> dict[str, float | None] | None:
    """The entity's own features as of `at_ms`, without any new transaction; `None` if it has no history.

    What needs a transaction (novelty, gap, speed, ratios of its amount) is absent. Raises `StoreUnavailable`.
    """
    (state,) = store.read(entity, [pseudonym])
    if state is None:
        return None
    # Counted already: the row adds nothing of its own.
    row = Row(at_ms, {}, Identity({entity: pseudonym}, {}), {entity: state}, {entity: True})
    vector = evaluator.vectors([row])[0].tolist()
    return {
        feature.name: None if value != value else value
        for feature, value in zip(catalogue.features, vector, strict=True)
        if feature.entity == entity
    }
