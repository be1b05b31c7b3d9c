"""From an inbound event to what is asked of the store: validation, pseudonyms, observations."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Protocol

from msgspec import Struct

from api.intake.stages import Reference, Stages
from api.record import encode_json, members
from api.vault.seal import of_subject, of_transaction
from features.catalogue import Catalogue
from features.event import (
    Identity,
    LabelEvent,
    LifecycleEvent,
    Transaction,
    parse_label,
    parse_lifecycle,
)
from features.measure import FRAUD, TRANSACTION, WITHDRAWN, Scalar
from features.pseudonym import Pseudonyms
from features.rates import Rates
from features.store import Arrival

OWNER_BYTES: Final = 16
CORE: Final = ("id", "time_ms", "transaction", "entities", "marks")
OWN: Final = ("door", "sealed")
"""Facts of a transaction: those that its receipt keeps, and the others, as far as there are any."""
Door = Literal["http", "kafka"]
EventKind = Literal["transaction", "label", "event"]


class Inbound(Struct, frozen=True, gc=False):
    """One event at a door: its kind and the decoded JSON, not yet validated.

    `waited`: it was in time when it first came and had to wait for a part that was down since.
    """

    kind: EventKind
    payload: object
    door: Door
    waited: bool = False


class Work(Struct, frozen=True, gc=False):
    """One valid event, ready to be claimed and observed.

    `facts`: what goes into the record and, meanwhile, into the open claim. `values`: the transaction's
    fields with ids as pseudonyms. `core`, `own`: of a transaction, its facts as members of a JSON object,
    those that its receipt keeps and the others.
    """

    key: str
    kind: EventKind
    id: str
    time_ms: int
    facts: Mapping[str, Any]
    values: Mapping[str, Scalar]
    identity: Identity
    arrival: Arrival
    core: bytes = b""
    own: bytes = b""


class Sealing(Protocol):
    """What seals personal fields (see api/vault/seal.py)."""

    def seal(self, holder: str, id: str, plain: bytes) -> str:
        """`plain`, sealed for the holder as a part of record `id`."""


class Intake:
    """Makes `Work` of inbound events. `token`: 16 fresh random bytes per call.

    `sealing`: keeps what records show as pseudonyms only; without it nothing of that is kept.
    `stages`: instead of the reference.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        pseudonyms: Pseudonyms,
        rates: Rates,
        token: Callable[[], bytes],
        *,
        observe: bool = True,
        sealing: Sealing | None = None,
        stages: Stages | None = None,
    ) -> None:
        self.catalogue = catalogue
        self.pseudonyms = pseudonyms
        self._token = token
        self._stages = stages or Reference(catalogue, pseudonyms, rates)
        self._observe = observe
        self._sealing = sealing
        self._subject = catalogue.schema.subject

    def parse(self, inbound: Inbound) -> Transaction | LabelEvent | LifecycleEvent:
        """Validate. Raises `InvalidEvent`."""
        if inbound.kind == "transaction":
            return self._stages.parse(inbound.payload)
        if inbound.kind == "label":
            return parse_label(inbound.payload)
        return parse_lifecycle(self.catalogue.schema, inbound.payload)

    def transaction(self, event: Transaction, door: Door) -> Work:
        """Work of a transaction."""
        identity, values, content, plain = self._stages.identify(event)
        shown = dict(values)
        values.pop("original_amount", None)
        if event.original_amount is not None:
            shown["original_amount"] = event.original_amount
        core = {
            "id": event.id,
            "time_ms": event.time_ms,
            "transaction": shown,
            "entities": identity.entities,
            "marks": identity.marks,
        }
        own: dict[str, str] = {"door": door}
        if self._sealing is not None:
            # The fields that travel as pseudonyms, readable with the subject's key only.
            subject = identity.entities.get(self._subject)
            holder = of_transaction(event.id) if subject is None else of_subject(subject)
            own["sealed"] = self._sealing.seal(holder, event.id, plain)
        return self._transaction(core, own, values, identity, content)

    def resume(self, facts: Mapping[str, Any], content: bytes) -> Work:
        """Work from the payload of an open claim that nobody finished."""
        if facts["kind"] == "transaction":
            values = {k: v for k, v in facts["transaction"].items() if k != "original_amount"}
            identity = Identity(facts["entities"], facts["marks"])
            core = {key: facts[key] for key in CORE}
            own = {key: facts[key] for key in OWN if key in facts}
            return self._transaction(core, own, values, identity, content)
        return self._follow(facts, content)

    def label(self, event: LabelEvent, original: Mapping[str, Any]) -> Work:
        """Work of a label. `original`: record or receipt of the decision."""
        facts = {
            "kind": "label",
            "id": event.id,
            "transaction_id": event.transaction_id,
            "time_ms": event.time_ms,
            "fraud": event.fraud,
            **_of_original(original),
        }
        content = encode_json([event.transaction_id, event.time_ms, event.fraud])
        return self._follow(facts, self.pseudonyms.content(content))

    def lifecycle(self, event: LifecycleEvent, original: Mapping[str, Any]) -> Work:
        """Work of a lifecycle event: the transaction's fields, with the event's own amount."""
        facts = {
            "kind": "event",
            "event": event.kind,
            "id": event.id,
            "transaction_id": event.transaction_id,
            "time_ms": event.time_ms,
            **_of_original(original),
        }
        amount_field = self.catalogue.schema.amount
        if amount_field is not None:
            transaction = {k: v for k, v in facts["transaction"].items() if k != amount_field}
            if event.amount is not None:
                transaction[amount_field] = event.amount
            facts["transaction"] = transaction
        if event.amount is not None:
            facts["amount"] = event.amount
        content = encode_json([event.transaction_id, event.time_ms, event.kind, event.amount])
        return self._follow(facts, self.pseudonyms.content(content))

    def _transaction(
        self,
        core: Mapping[str, Any],
        own: Mapping[str, str],
        values: Mapping[str, Scalar],
        identity: Identity,
        content: bytes,
    ) -> Work:
        id_, time_ms = core["id"], core["time_ms"]
        key = f"tx:{id_}"
        targets = self._stages.targets(key, TRANSACTION, time_ms, values, identity)
        kept, more = members(core), members(own)
        payload = b'{"kind":"transaction",%b,%b}' % (kept, more)
        arrival = Arrival(key, content, self._token(), payload, targets, self._observe)
        facts = {**core, **own}
        return Work(key, "transaction", id_, time_ms, facts, values, identity, arrival, kept, more)

    def _follow(self, facts: Mapping[str, Any], content: bytes) -> Work:
        kind: EventKind = "label" if facts["kind"] == "label" else "event"
        source = (FRAUD if facts["fraud"] else WITHDRAWN) if kind == "label" else str(facts["event"])
        id_, time_ms, values = facts["id"], facts["time_ms"], facts["transaction"]
        identity = Identity(facts["entities"], facts["marks"])
        key = f"{kind}:{id_}"
        targets = self._stages.targets(key, source, time_ms, values, identity)
        arrival = Arrival(key, content, self._token(), encode_json(facts), targets, self._observe)
        return Work(key, kind, id_, time_ms, facts, values, identity, arrival)


def _of_original(original: Mapping[str, Any]) -> dict[str, Any]:
    transaction = {k: v for k, v in original["transaction"].items() if k != "original_amount"}
    return {
        "transaction_time_ms": original["time_ms"],
        "entities": original["entities"],
        "marks": original["marks"],
        "transaction": transaction,
    }
