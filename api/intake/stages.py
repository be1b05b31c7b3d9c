"""The stages between a decoded transaction and its arrival at the store, and what each is: in Python."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from api.observer import Observer
from api.record import encode_json
from features.catalogue import Catalogue
from features.event import Identity, Transaction, identify, parse_transaction
from features.library import Packing
from features.measure import TRANSACTION, Scalar
from features.pseudonym import Pseudonyms
from features.rates import Rates
from features.store import Target


class Identified(NamedTuple):
    """A transaction beyond the door. `shown`: its fields, those that must not be readable as pseudonyms.
    `content`: keyed digest of the whole. `plain`: JSON of what is not readable in `shown`, to be sealed."""

    identity: Identity
    shown: dict[str, Scalar]
    content: bytes
    plain: bytes


class Stages(Protocol):
    """What the intake does to transactions, and the last stage to every event."""

    def parse(self, payload: object) -> Transaction:
        """Validate a decoded JSON object. Raises `InvalidEvent`."""

    def identify(self, event: Transaction) -> Identified:
        """Pseudonyms and content of a validated transaction."""

    def targets(
        self, key: str, source: str, time_ms: int, values: Mapping[str, Scalar], identity: Identity
    ) -> tuple[Target, ...]:
        """The states that the event `key` touches, in the catalogue's order.

        A transaction reads every state; what follows it touches only where it leaves a trace.
        """


class Reference:
    """`Stages` in Python."""

    def __init__(self, catalogue: Catalogue, pseudonyms: Pseudonyms, rates: Rates) -> None:
        schema = catalogue.schema
        self.catalogue = catalogue
        self.pseudonyms = pseudonyms
        self.rates = rates
        self._observer = Observer(catalogue)
        self._packing = Packing(catalogue)
        self.alone = {e.fields[0]: e.name for e in schema.entities if len(e.fields) == 1}
        self.hidden = schema.hidden

    def parse(self, payload: object) -> Transaction:
        """See `Stages.parse`."""
        return parse_transaction(self.catalogue.schema, self.rates, payload)

    def identify(self, event: Transaction) -> Identified:
        """See `Stages.identify`."""
        values = event.values
        identity = identify(self.catalogue, self.pseudonyms, values)
        content = encode_json([event.time_ms, event.original_amount, sorted(values.items())])
        plain = encode_json({name: values[name] for name in self.hidden if name in values})
        return Identified(identity, self._shown(event, identity), self.pseudonyms.content(content), plain)

    def targets(
        self, key: str, source: str, time_ms: int, values: Mapping[str, Scalar], identity: Identity
    ) -> tuple[Target, ...]:
        """See `Stages.targets`."""
        number = self.pseudonyms.event(key)
        known, target = identity.entities, self._packing.target
        return tuple(
            target(entity, known[entity], seen)
            for entity, seen in self._observer.observations(number, source, time_ms, values, identity.marks)
            if entity in known and (source == TRANSACTION or not seen.empty)
        )

    def _shown(self, event: Transaction, identity: Identity) -> dict[str, Scalar]:
        shown = dict(event.values)
        for name in self.hidden:
            value = shown.get(name)
            if value is None:
                continue
            entity = self.alone.get(name)
            if entity is not None:
                shown[name] = identity.entities[entity]
            else:
                shown[name] = f"{self.pseudonyms.mark(name, str(value)):016x}"
        return shown
