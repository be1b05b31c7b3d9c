"""From an inbound event to what is asked of the store: validation, pseudonyms, observations."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, Protocol

from api.observer import Observer
from api.record import encode_json
from api.vault.seal import of_subject, of_transaction
from features.catalogue import Catalogue
from features.event import (
    Identity,
    LabelEvent,
    LifecycleEvent,
    Transaction,
    identify,
    parse_label,
    parse_lifecycle,
    parse_transaction,
)
from features.measure import FRAUD, TRANSACTION, WITHDRAWN, Scalar
from features.pseudonym import Pseudonyms
from features.rates import Rates
from features.store import Arrival, Target

OWNER_BYTES: Final = 16
Door = Literal["http", "kafka"]
EventKind = Literal["transaction", "label", "event"]


class Inbound(NamedTuple):
    """One event at a door: its kind and the decoded JSON, not yet validated.

    `waited`: it was in time when it first came and had to wait for a part that was down since.
    """

    kind: EventKind
    payload: object
    door: Door
    waited: bool = False


class Work(NamedTuple):
    """One valid event, ready to be claimed and observed.

    `facts`: what goes into the record and, meanwhile, into the open claim. `values`: the transaction's
    fields with ids as pseudonyms.
    """

    key: str
    kind: EventKind
    facts: Mapping[str, Any]
    values: Mapping[str, Scalar]
    identity: Identity
    arrival: Arrival

    @property
    def id(self) -> str:
        """Id of the event."""
        return str(self.facts["id"])

    @property
    def time_ms(self) -> int:
        """Event time."""
        return int(self.facts["time_ms"])


class Sealing(Protocol):
    """What seals personal fields (see api/vault/seal.py)."""

    def seal(self, holder: str, id: str, plain: bytes) -> str:
        """`plain`, sealed for the holder as a part of record `id`."""


class Intake:
    """Makes `Work` of inbound events. `token`: 16 fresh random bytes per call.

    `sealing`: keeps what records show as pseudonyms only; without it nothing of that is kept.
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
    ) -> None:
        self.catalogue = catalogue
        self.pseudonyms = pseudonyms
        self.rates = rates
        self._token = token
        self._observer = Observer(catalogue)
        self._observe = observe
        self._alone = {e.fields[0]: e.name for e in catalogue.schema.entities if len(e.fields) == 1}
        self._sealing = sealing
        self._subject = catalogue.schema.subject
        self._hidden = catalogue.schema.hidden

    def parse(self, inbound: Inbound) -> Transaction | LabelEvent | LifecycleEvent:
        """Validate. Raises `InvalidEvent`."""
        if inbound.kind == "transaction":
            return parse_transaction(self.catalogue.schema, self.rates, inbound.payload)
        if inbound.kind == "label":
            return parse_label(inbound.payload)
        return parse_lifecycle(self.catalogue.schema, inbound.payload)

    def transaction(self, event: Transaction, door: Door) -> Work:
        """Work of a transaction."""
        identity = identify(self.catalogue, self.pseudonyms, event.values)
        facts = {
            "kind": "transaction",
            "id": event.id,
            "time_ms": event.time_ms,
            "door": door,
            "transaction": self._shown(event, identity),
            "entities": identity.entities,
            "marks": identity.marks,
        }
        if self._sealing is not None:
            facts["sealed"] = self._sealed(self._sealing, event, identity)
        content = self.pseudonyms.content(
            encode_json([event.time_ms, event.original_amount, sorted(event.values.items())])
        )
        return self._transaction(facts, content)

    def resume(self, facts: Mapping[str, Any], content: bytes) -> Work:
        """Work from the payload of an open claim that nobody finished."""
        if facts["kind"] == "transaction":
            return self._transaction(facts, content)
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

    def _transaction(self, facts: Mapping[str, Any], content: bytes) -> Work:
        values = {k: v for k, v in facts["transaction"].items() if k != "original_amount"}
        identity = Identity(facts["entities"], facts["marks"])
        return self._work(f"tx:{facts['id']}", "transaction", TRANSACTION, facts, values, identity, content)

    def _follow(self, facts: Mapping[str, Any], content: bytes) -> Work:
        kind: EventKind = "label" if facts["kind"] == "label" else "event"
        source = (FRAUD if facts["fraud"] else WITHDRAWN) if kind == "label" else str(facts["event"])
        identity = Identity(facts["entities"], facts["marks"])
        return self._work(
            f"{kind}:{facts['id']}", kind, source, facts, facts["transaction"], identity, content
        )

    def _work(
        self,
        key: str,
        kind: EventKind,
        source: str,
        facts: Mapping[str, Any],
        values: Mapping[str, Scalar],
        identity: Identity,
        content: bytes,
    ) -> Work:
        number = self.pseudonyms.event(key)
        seen = self._observer.observations(number, source, int(facts["time_ms"]), values, identity.marks)
        known = identity.entities
        # A transaction reads every state; what follows it touches only where it leaves a trace.
        targets = [
            Target(entity, known[entity], observation)
            for entity, observation in seen
            if entity in known and (kind == "transaction" or not observation.empty)
        ]
        payload = encode_json(facts)
        arrival = Arrival(key, content, self._token(), payload, tuple(targets), self._observe)
        return Work(key, kind, facts, values, identity, arrival)

    def _sealed(self, sealing: Sealing, event: Transaction, identity: Identity) -> str:
        """The fields that travel as pseudonyms, readable with the subject's key only."""
        subject = identity.entities.get(self._subject)
        holder = of_transaction(event.id) if subject is None else of_subject(subject)
        values = event.values
        hidden = {name: values[name] for name in self._hidden if name in values}
        return sealing.seal(holder, event.id, encode_json(hidden))

    def _shown(self, event: Transaction, identity: Identity) -> dict[str, Scalar]:
        """The validated fields, those that must not be readable replaced by pseudonyms."""
        shown = dict(event.values)
        for name in self._hidden:
            value = shown.get(name)
            if value is None:
                continue
            entity = self._alone.get(name)
            if entity is not None:
                shown[name] = identity.entities[entity]
            else:
                shown[name] = f"{self.pseudonyms.mark(name, str(value)):016x}"
        if event.original_amount is not None:
            shown["original_amount"] = event.original_amount
        return shown


def _of_original(original: Mapping[str, Any]) -> dict[str, Any]:
    transaction = {k: v for k, v in original["transaction"].items() if k != "original_amount"}
    return {
        "transaction_time_ms": original["time_ms"],
        "entities": original["entities"],
        "marks": original["marks"],
        "transaction": transaction,
    }
