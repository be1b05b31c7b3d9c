"""One message of a replay."""

from typing import Literal, NamedTuple

Kind = Literal["transaction", "event", "label"]

PATHS: dict[Kind, str] = {"transaction": "/v1/decisions", "event": "/v1/events", "label": "/v1/labels"}
"""Where the HTTP door takes each kind."""


class Item(NamedTuple):
    """A message ready to be sent.

    `time_ms`: the event's own time. `key`: raw id of the transaction's primary entity, the Kafka key (empty
    if absent). `entities`: `entity=id` of every entity of a transaction, where asked for; labels and events
    have none of their own. `injected`: what it was made by, if not by the history.
    """

    time_ms: int
    kind: Kind
    id: str
    transaction_id: str
    key: bytes
    body: bytes
    entities: tuple[str, ...] = ()
    injected: str | None = None
