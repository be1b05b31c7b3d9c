"""What deciding processes follow: the live set, the snoozes and the trips of a registry."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from api.rules.load import RuleSetError
from api.rules.registry import Refused, Registry
from api.rules.rule import RuleSet
from api.rules.shelf import SetChanged, SetMissing
from api.rules.trips import Trip

EVERY_S: Final = 0.2
"""How often a process looks."""
FOLLOWED: Final = ("live.json", "snoozes.json", "trips.json")
LOG = logging.getLogger("cordon.rules")
_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Update:
    """What is live now. `rules`: `None` where nothing was approved yet, or it cannot be used. `trips`: what
    last happened to each brake, by name."""

    rules: RuleSet | None
    snoozes: Mapping[tuple[str, str], int]
    trips: Mapping[str, Trip] = field(default_factory=dict)


class Feed:
    """Follows a registry. `open_set`: a verified set by version."""

    def __init__(self, registry: Registry, open_set: Callable[[str], RuleSet]) -> None:
        self._registry = registry
        self._open = open_set
        self._seen: tuple[_Stamp | None, ...] | None = None

    def changed(self) -> bool:
        """Whether the files were replaced since `read`: three look-ups of names, never blocks for long."""
        return self._stamps() != self._seen

    def read(self) -> Update | None:
        """What the files say now; `None` where they cannot be used: what is live stays live."""
        self._seen = self._stamps()
        try:
            live = self._registry.live()
            snoozes = {(s.rule, s.entity): s.until_ms for s in self._registry.snoozes()}
            trips = {trip.name: trip for trip in self._registry.trips()}
            return Update(None if live is None else self._open(live.version), snoozes, trips)
        except (Refused, SetMissing, SetChanged, RuleSetError) as error:
            LOG.error("the rules stay as they are: %s", error)
            return None

    def _stamps(self) -> tuple[_Stamp | None, ...]:
        return tuple(_stamp(self._registry.directory / name) for name in FOLLOWED)


def _stamp(path: os.PathLike[str]) -> _Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
