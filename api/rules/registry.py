"""How a rule set becomes live: proposed by one person, approved by another, rolled back by anybody.

    <directory>/sets/               every set ever proposed or served, by version (shelf.py)
    <directory>/steps/000001.json   one immutable file per step, each with the hash of the one before
    <directory>/live.json           the set that is live; deciding processes look at this file only
    <directory>/snoozes.json        rules that rest for one entity until a time
    <directory>/trips.json          brakes that were pulled or reset (api/brakes)

Proposals are numbered. Everything else follows from the steps; `live.json` is replaced in one piece.

What can go wrong, and what the caller does about it:

* `Refused`        the step is not allowed: do what the message says
* `RuleSetError`   the set itself is unfit: correct it
* `OSError`        the directory cannot be written
"""

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from api.rules.rule import Snooze
from api.rules.shelf import Shelf, sync, write_once
from api.rules.trips import Trip, joined, released

StepKind = Literal["proposed", "approved", "rolled_back", "snoozed", "woken", "tripped", "reset"]
FIRST: Final = "0" * 64
NOTE_MAX: Final = 500


class Refused(Exception):
    """This step is not allowed; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `number`: of the proposal (0 for snoozes); `version`: the set; `base`: what was live then.
    `before`: SHA-256 of the file of the step before."""

    sequence: int
    kind: StepKind
    number: int
    version: str
    base: str
    by: str
    at_ms: int
    note: str
    before: str


@dataclass(frozen=True, slots=True)
class Live:
    """The pointer: number and version of the live set."""

    number: int
    version: str


class Registry:
    """The directory of one tenant's rules. `audit` hears of every step before it is taken; what it raises
    prevents the step."""

    def __init__(self, directory: Path, audit: Callable[[Step], None] = lambda _: None) -> None:
        self.directory = directory
        self.shelf = Shelf(directory / "sets")
        self._audit = audit

    def steps(self) -> list[Step]:
        """Everything that happened, oldest first. Raises `Refused` where a file was changed or removed."""
        found: list[Step] = []
        before = FIRST
        for place in sorted((self.directory / "steps").glob("*.json")):
            raw = place.read_bytes()
            step = Step(**json.loads(raw))
            if step.before != before or step.sequence != len(found) + 1:
                raise Refused(f"{place}: it does not continue the step before; restore the directory")
            found.append(step)
            before = hashlib.sha256(raw).hexdigest()
        return found

    def live(self) -> Live | None:
        """The live set, if one was ever approved. Raises `Refused` where the pointer is unreadable."""
        try:
            value = json.loads((self.directory / "live.json").read_text())
            return Live(int(value["number"]), str(value["version"]))
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(f"{self.directory / 'live.json'}: not readable: {error}") from error

    def propose(self, text: str, by: str, at_ms: int, *, base: str, note: str = "") -> Step:
        """Keep a set that was found fit and number it. `base`: the version that is served now.

        Raises `Refused` where it is live or proposed already.
        """
        with self._alone():
            steps = self._settled()
            live = self.live()
            version = self.shelf.put(text).version
            served = base if live is None else live.version
            if version == served:
                raise Refused(f"{version} is live already: nothing would change")
            for step in _waiting(steps, served):
                if step.version == version:
                    raise Refused(f"{version} is proposed already, as number {step.number}")
            number = 1 + sum(step.kind == "proposed" for step in steps)
            return self._write(steps, "proposed", number, version, served, by, at_ms, note)

    def approve(self, number: int, by: str, at_ms: int, note: str = "") -> Step:
        """Make a proposal live; another person than its author. Raises `Refused`."""
        with self._alone():
            steps = self._settled()
            live = self.live()
            proposal = _proposal(steps, number)
            if any(s.kind == "approved" and s.number == number for s in steps):
                raise Refused(
                    f"{number} was approved before; `cordon rules rollback {number}` brings it back"
                )
            if _same(proposal.by, by):
                raise Refused(f"{proposal.by} proposed it: another person must approve")
            if live is not None and live.version != proposal.base:
                raise Refused(
                    f"{number} was proposed on {proposal.base}, but {live.version} is live since: "
                    "look at the difference and publish it again"
                )
            self.shelf.text(proposal.version)
            return self._switch(steps, "approved", proposal, by, at_ms, note)

    def roll_back(self, number: int | None, by: str, at_ms: int, note: str = "") -> Step:
        """Make an earlier approved set live again; without a number the one before. Raises `Refused`."""
        with self._alone():
            steps = self._settled()
            live = self.live()
            if live is None:
                raise Refused("no set was ever approved: there is nothing to go back to")
            if number is None:
                earlier = [s.number for s in steps if s.kind in ("approved", "rolled_back")]
                earlier = [n for n in earlier if n != live.number]
                if not earlier:
                    raise Refused("only one set was ever live: publish another one")
                number = earlier[-1]
            proposal = _proposal(steps, number)
            if not any(s.kind == "approved" and s.number == number for s in steps):
                raise Refused(f"{number} was never approved: nobody may go back to it")
            if number == live.number:
                raise Refused(f"{number} is live already")
            self.shelf.text(proposal.version)
            return self._switch(steps, "rolled_back", proposal, by, at_ms, note)

    def snooze(self, snooze: Snooze, at_ms: int) -> Step:
        """Let a rule rest for one entity; until a time that has passed: wake it."""
        with self._alone():
            steps = self.steps()
            rest = [s for s in self.snoozes() if (s.rule, s.entity) != (snooze.rule, snooze.entity)]
            rest = [s for s in [*rest, snooze] if s.until_ms > at_ms]
            note = f"{snooze.rule} for {snooze.entity} until {snooze.until_ms}: {snooze.reason}"
            kind: StepKind = "snoozed" if snooze.until_ms > at_ms else "woken"
            step = self._write(steps, kind, 0, "", "", snooze.by, at_ms, note)
            self._replace("snoozes.json", [asdict(s) for s in rest])
            return step

    def snoozes(self) -> list[Snooze]:
        """Rules that rest, also those whose time is over. Raises `Refused`."""
        place = self.directory / "snoozes.json"
        try:
            return [Snooze(**value) for value in json.loads(place.read_text())]
        except FileNotFoundError:
            return []
        except (TypeError, ValueError) as error:
            raise Refused(f"{place}: not readable: {error}") from error

    def trip(self, name: str, epoch: int, until_ms: int, by: str, at_ms: int, why: str) -> Step | None:
        """Pull a brake; `None` where another process did something to it since `epoch`."""
        with self._alone():
            trips = self.trips()
            if epoch != epoch_of(trips, name):
                return None
            steps = self.steps()
            step = self._write(steps, "tripped", 0, "", "", by, at_ms, f"{name}: {why}")
            self._put_trips(joined(trips, Trip(name, step.sequence, at_ms, until_ms, why)))
            return step

    def reset(self, name: str, by: str, at_ms: int, why: str, *, epoch: int | None = None) -> Step | None:
        """Release a brake; it counts from zero. `None` where something else happened to it since `epoch`.

        Raises `Refused` where it is not pulled.
        """
        with self._alone():
            trips = self.trips()
            found = next((t for t in trips if t.name == name), None)
            if epoch is not None and (found is None or found.epoch != epoch):
                return None
            if found is None or not found.holds(at_ms):
                pulled = ", ".join(t.name for t in trips if t.holds(at_ms)) or "none"
                raise Refused(f"{name} has not tripped; tripped: {pulled}")
            step = self._write(self.steps(), "reset", 0, "", "", by, at_ms, f"{name}: {why}")
            self._put_trips(joined(trips, released(found, step.sequence, at_ms, why)))
            return step

    def trips(self) -> list[Trip]:
        """What last happened to each brake, also those released. Raises `Refused`."""
        place = self.directory / "trips.json"
        try:
            return [Trip(**value) for value in json.loads(place.read_text())]
        except FileNotFoundError:
            return []
        except (TypeError, ValueError) as error:
            raise Refused(f"{place}: not readable: {error}") from error

    def _put_trips(self, trips: Sequence[Trip]) -> None:
        self._replace("trips.json", [asdict(t) for t in trips])

    def _settled(self) -> list[Step]:
        """The steps; the pointer follows them, also after a crash between the two."""
        steps = self.steps()
        switches = [s for s in steps if s.kind in ("approved", "rolled_back")]
        if switches:
            wanted = Live(switches[-1].number, switches[-1].version)
            if self.live() != wanted:
                self._replace("live.json", asdict(wanted))
        return steps

    def _switch(
        self, steps: Sequence[Step], kind: StepKind, proposal: Step, by: str, at_ms: int, note: str
    ) -> Step:
        live = self.live()
        base = "" if live is None else live.version
        step = self._write(steps, kind, proposal.number, proposal.version, base, by, at_ms, note)
        self._replace("live.json", asdict(Live(proposal.number, proposal.version)))
        return step

    def _write(
        self,
        steps: Sequence[Step],
        kind: StepKind,
        number: int,
        version: str,
        base: str,
        by: str,
        at_ms: int,
        note: str,
    ) -> Step:
        if not by.strip():
            raise Refused("say who you are: --by NAME")
        folder = self.directory / "steps"
        folder.mkdir(parents=True, exist_ok=True)
        before = FIRST
        if steps:
            before = hashlib.sha256((folder / _file(len(steps))).read_bytes()).hexdigest()
        step = Step(len(steps) + 1, kind, number, version, base, by.strip(), at_ms, note[:NOTE_MAX], before)
        self._audit(step)
        write_once(folder / _file(step.sequence), json.dumps(asdict(step), indent=1) + "\n")
        return step

    def _replace(self, name: str, value: Any) -> None:
        handle, draft = tempfile.mkstemp(prefix=f".{name}-", dir=self.directory)
        with os.fdopen(handle, "w") as file:
            file.write(json.dumps(value, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, 0o644)
        os.replace(draft, self.directory / name)
        sync(self.directory)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One step at a time, over all processes."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def epoch_of(trips: Sequence[Trip], name: str) -> int:
    """How often something happened to a brake, as a number that only grows; 0: never."""
    return next((t.epoch for t in trips if t.name == name), 0)


def waiting(steps: Sequence[Step], live: Live | None) -> list[Step]:
    """Proposals that can still be approved."""
    return _waiting(steps, None if live is None else live.version)


def _waiting(steps: Sequence[Step], served: str | None) -> list[Step]:
    done = {s.number for s in steps if s.kind == "approved"}
    return [
        s
        for s in steps
        if s.kind == "proposed" and s.number not in done and (served is None or s.base == served)
    ]


def _proposal(steps: Sequence[Step], number: int) -> Step:
    for step in steps:
        if step.kind == "proposed" and step.number == number:
            return step
    raise Refused(f"there is no number {number}; `cordon rules list` shows them")


def _same(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()


def _file(sequence: int) -> str:
    return f"{sequence:06}.json"
