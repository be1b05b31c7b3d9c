"""The stages in C: `python -m api.intake.compiled` builds them, at installation or at the first use.

They take what is plainly regular and leave everything else to the reference, refusals above all. Without a
compiler, or without Python's headers, the reference does it all (`best`); a test holds both equal.
"""

import logging
import sys
import sysconfig
from collections.abc import Mapping
from functools import cache
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Final

from api.intake import tables
from api.intake.stages import Identified, Reference, Stages
from api.phrases import Order
from features.catalogue import Catalogue
from features.event import Identity, Transaction
from features.measure import Scalar
from features.pseudonym import Pseudonyms
from features.rates import Rates
from features.store import Target
from models.kernel.build import Source, library, report
from models.kernel.errors import NotBuilt

LOG = logging.getLogger("cordon.intake")
_NAME: Final = "cordon_intake"
INTAKE: Final = Source(
    "intake",
    Path(__file__).parent,
    ("module.c", "parse.c", "identify.c", "observe.c", "calls.c", "order.c", "blake2b.c"),
    ("intake.h", "blake2b.h"),
    (f"-I{sysconfig.get_paths()['include']}", f"-DCORDON_ABI={sysconfig.get_config_var('SOABI')}"),
)


@cache
def module() -> Any:
    """The compiled types. Raises `NotBuilt`."""
    path = str(library(INTAKE))
    loader = ExtensionFileLoader(_NAME, path)
    spec = spec_from_file_location(_NAME, path, loader=loader)
    if spec is None:
        raise NotBuilt("the shared object cannot be loaded")
    try:
        made = module_from_spec(spec)
        loader.exec_module(made)
    except ImportError as error:
        raise NotBuilt(f"the shared object cannot be loaded: {error}") from error
    return made


def ordering() -> Order | None:
    """Writes running numbers (order.c), where it is built."""
    try:
        found: Order = module().order
    except NotBuilt:
        return None
    return found


class Compiled:
    """`Stages` in C, with the reference behind them. Raises `NotBuilt`."""

    def __init__(self, reference: Reference) -> None:
        types = module()
        self.reference = reference
        self._observer = types.Observer
        self._parse = types.Parser(*tables.parser(reference.catalogue.schema, reference.rates)).parse
        identifier = types.Identifier(*tables.identifier(reference))
        self._identify, self._event = identifier.identify, identifier.event
        catalogue = reference.catalogue
        self._targets = {s: types.Observer(*tables.observer(catalogue, s)).targets for s in catalogue.sources}

    def parse(self, payload: object) -> Transaction:
        """See `Stages.parse`."""
        found: Transaction | None = self._parse(payload)
        return self.reference.parse(payload) if found is None else found

    def identify(self, event: Transaction) -> Identified:
        """See `Stages.identify`."""
        found: Identified | None = self._identify(event.time_ms, event.original_amount, event.values)
        return self.reference.identify(event) if found is None else found

    def targets(
        self, key: str, source: str, time_ms: int, values: Mapping[str, Scalar], identity: Identity
    ) -> tuple[Target, ...]:
        """See `Stages.targets`."""
        compiled = self._targets.get(source)
        found: tuple[Target, ...] | None = None
        if compiled is not None:
            found = compiled(self._event(key), time_ms, values, identity.entities, identity.marks)
        if found is None:
            return self.reference.targets(key, source, time_ms, values, identity)
        return found


def best(catalogue: Catalogue, pseudonyms: Pseudonyms, rates: Rates) -> Stages:
    """The fastest stages that there are."""
    reference = Reference(catalogue, pseudonyms, rates)
    try:
        return Compiled(reference)
    except NotBuilt as error:
        LOG.warning("Python reads transactions, not compiled code, which is slower: %s", error)
        return reference


def _built() -> Path:
    module()
    return library(INTAKE)


if __name__ == "__main__":
    sys.exit(report("intake", _built, "Python does it"))
