"""The store's commands by compiled code: `features.command.Commands`, as they go over the wire."""

import logging
from collections.abc import Callable, Sequence

from api.intake.compiled import module
from features.catalogue import Catalogue
from features.claim import CLAIM_LIFETIME_S
from features.command import Commands
from features.resp import Command, Packed
from features.store import Arrival
from models.kernel.errors import NotBuilt

LOG = logging.getLogger("cordon.intake")


class CompiledCommands(Commands):
    """`Commands` in C, with the reference behind them. Raises `NotBuilt`."""

    def __init__(self, catalogue: Catalogue, tenant: str, takeover_ms: int) -> None:
        super().__init__(catalogue, tenant, takeover_ms)
        before, after = self.keys.claim("\0").encode().split(b"\0")
        ends = {name: (first.encode(), last.encode()) for name, (first, last) in self.ends.items()}
        calls = module().Calls(
            self.arrive_name.encode(), self.complete_name.encode(), before, after, ends, takeover_ms,
            CLAIM_LIFETIME_S,
        )  # fmt: skip
        self._compiled_arrive: Callable[..., list[Packed] | None] = calls.arrive
        self._compiled_complete: Callable[..., list[Packed] | None] = calls.complete

    def arrivals(
        self, arrivals: Sequence[Arrival], now_ms: int, deadline_ms: int
    ) -> Sequence[Command | Packed]:
        """See `Commands.arrivals`."""
        known = self.origins.known
        found = self._compiled_arrive(arrivals, now_ms, deadline_ms, known)
        self.origins.trim()
        return super().arrivals(arrivals, now_ms, deadline_ms) if found is None else found

    def answers(self, answers: Sequence[tuple[str, bytes, bytes]]) -> Sequence[Command | Packed]:
        """See `Commands.answers`. Where the reference takes over, origins that were taken out before are
        filled in by the server."""
        found = self._compiled_complete(answers, self.origins.known)
        return super().answers(answers) if found is None else found


def best(catalogue: Catalogue, tenant: str, takeover_ms: int) -> Commands:
    """The fastest commands that there are."""
    try:
        return CompiledCommands(catalogue, tenant, takeover_ms)
    except NotBuilt as error:
        LOG.warning("Python makes the store's commands, not compiled code, which is slower: %s", error)
        return Commands(catalogue, tenant, takeover_ms)
