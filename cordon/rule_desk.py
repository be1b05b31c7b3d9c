"""What people do with rules, on one installation: checked, published, approved, audited."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from api.audit.logbook import note
from api.brakes.patrol import recorder
from api.compose import pseudonym_of, pseudonyms_of
from api.config import InvalidConfiguration, ServiceConfig
from api.journal import JournalBusy, JournalUnavailable
from api.rules.budget import check_budget
from api.rules.load import RuleSetError, build, manifest_of
from api.rules.manifest import Changes, changes
from api.rules.registry import Refused, Registry, Step, waiting
from api.rules.rule import RuleSet, Snooze
from api.rules.shelf import SetChanged, SetMissing
from api.rules.trips import Trip
from api.rules.vocabulary import Vocabulary, vocabulary_of
from api.segment import Damage
from cordon.failure import Failure
from cordon.settings import Settings
from cordon.stack.record import Record, directory_of
from features import Catalogue, SchemaError, load
from features.pseudonym import Pseudonyms


class NotPublished(Failure):
    """The step was not taken and nothing changed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Desk:
    """An installation's rules. `timer`: monotonic nanoseconds."""

    config: ServiceConfig
    catalogue: Catalogue
    vocabulary: Vocabulary
    pseudonyms: Pseudonyms
    timer: Callable[[], int]

    @classmethod
    def open(cls, stack: str, timer: Callable[[], int], directory: Path | None = None) -> Desk:
        """The desk of a running stack, else of the settings. `directory`: other published sets.

        Raises `NotPublished`.
        """
        environment: Mapping[str, str] = Settings.load().environment()
        record = Record.read(directory_of(stack))
        if record is not None:
            environment = {**environment, **record.environment}
        if directory is not None:
            environment = {**environment, "CORDON_DECIDE__RULES_DIR": str(directory)}
        try:
            config = ServiceConfig.from_environment(environment)
            catalogue = load(config.catalogue)
            return cls(config, catalogue, vocabulary_of(catalogue), pseudonyms_of(config), timer)
        except (InvalidConfiguration, SchemaError) as error:
            raise NotPublished(str(error)) from error

    @property
    def registry(self) -> Registry:
        """The published sets; every step is an audit record first. Raises `NotPublished`."""
        if self.config.rules_dir is None:
            raise NotPublished("nowhere to publish: set CORDON_DECIDE__RULES_DIR, or start a stack")
        return Registry(self.config.rules_dir, self._audit)

    def check(self, file: Path) -> tuple[str, RuleSet, float]:
        """Text, set, and nanoseconds per rule of a draft that is fit. Raises `NotPublished`."""
        try:
            text = file.read_text()
            rules = self.built(text, file.name)
            return text, rules, check_budget(rules, self.timer)
        except (OSError, UnicodeDecodeError, RuleSetError) as error:
            raise NotPublished(f"refused, what is live stays live: {error}") from error

    def built(self, text: str, origin: str) -> RuleSet:
        """A set of this installation. Raises `RuleSetError`."""
        return build(text, self.vocabulary, pseudonym_of(self.pseudonyms), origin=origin)

    def served(self) -> str:
        """The version that is served now: the live one, else the configured file's."""
        live = self.registry.live()
        if live is not None:
            return live.version
        return "" if self.config.rules is None else manifest_of(self.config.rules.read_text()).version

    def publish(self, file: Path, by: str, at_ms: int, message: str) -> Step:
        """Propose a draft. Raises `NotPublished`."""
        text, _, _ = self.check(file)
        if self.registry.live() is None and self.config.rules is not None:
            # What is served now stays on the shelf, to compare with and to go back to.
            self.registry.shelf.put(self.config.rules.read_text())
        return self._step(lambda r: r.propose(text, by, at_ms, base=self.served(), note=message))

    def approve(self, number: int, by: str, at_ms: int, message: str) -> Step:
        """Make a proposal live, checked again. Raises `NotPublished`."""
        for step in waiting(self.registry.steps(), self.registry.live()):
            if step.number == number:
                self._fit(step.version)
        return self._step(lambda r: r.approve(number, by, at_ms, message))

    def roll_back(self, number: int | None, by: str, at_ms: int, message: str) -> Step:
        """Make an earlier set live again. Raises `NotPublished`."""
        return self._step(lambda r: r.roll_back(number, by, at_ms, message))

    def snooze(
        self, rule: str, entity: str, id_: str, until_ms: int, by: str, reason: str, at_ms: int
    ) -> Step:
        """Let a rule rest for one entity. Raises `NotPublished`."""
        spec = next((e for e in self.catalogue.schema.entities if e.name == entity), None)
        known = ", ".join(e.name for e in self.catalogue.schema.entities)
        if spec is None:
            raise NotPublished(f"no entity {entity}; there are {known}")
        parts = tuple(id_.split(",")) if len(spec.fields) > 1 else (id_,)
        if len(parts) != len(spec.fields):
            raise NotPublished(f"{entity} has {len(spec.fields)} ids, joined by commas")
        if rule not in {r.id for r in self._live_set().rules}:
            raise NotPublished(f"no rule {rule} is live")
        snooze = Snooze(rule, self.pseudonyms.entity(entity, parts), until_ms, by, reason)
        return self._step(lambda r: r.snooze(snooze, at_ms))

    def reset(self, name: str, by: str, at_ms: int, reason: str) -> Step:
        """Release a rule's breaker, or the guard: it counts from zero. Raises `NotPublished`."""
        record = recorder(self.config.journal_dir, self.config.tenant)
        registry = Registry(self.config.brakes_dir, record)
        step = self._taken(lambda: registry.reset(name, by, at_ms, reason))
        if step is None:
            raise NotPublished(f"{name} was changed by somebody else just now: look again")
        return step

    def trips(self) -> list[Trip]:
        """What last happened to each brake. Raises `NotPublished`."""
        return self._taken(Registry(self.config.brakes_dir).trips)

    def version_of(self, name: str) -> str:
        """The version that a number, `live`, or a version names. Raises `NotPublished`."""
        if name == "live":
            return self.served()
        if not name.isdecimal():
            return name
        for step in self.registry.steps():
            if step.kind == "proposed" and step.number == int(name):
                return step.version
        raise NotPublished(f"there is no number {name}; `cordon rules list` shows them")

    def text(self, name: str) -> str:
        """The text of a number, a version, or `live`. Raises `NotPublished`."""
        version = self.version_of(name)
        file = self.config.rules
        try:
            return self.registry.shelf.text(version)
        except SetMissing as error:
            if file is not None and manifest_of(file.read_text()).version == version:
                return file.read_text()
            raise NotPublished(str(error)) from error
        except SetChanged as error:
            raise NotPublished(str(error)) from error

    def difference(self, before: str, after: str) -> tuple[Changes, str]:
        """Rules and lists that differ, and the lines of the texts. Raises `NotPublished`."""
        old, new = self.text(before), self.text(after)
        lines = difflib.unified_diff(old.splitlines(), new.splitlines(), before, after, lineterm="", n=2)
        return changes(manifest_of(old), manifest_of(new)), "\n".join(lines)

    def _live_set(self) -> RuleSet:
        return self.built(self.text("live"), "live")

    def _fit(self, version: str) -> None:
        try:
            check_budget(self.built(self.registry.shelf.text(version), version), self.timer)
        except (SetMissing, SetChanged, RuleSetError) as error:
            raise NotPublished(f"refused, what is live stays live: {error}") from error

    def _step(self, take: Callable[[Registry], Step]) -> Step:
        return self._taken(lambda: take(self.registry))

    def _taken[T](self, take: Callable[[], T]) -> T:
        try:
            return take()
        except (Refused, SetMissing, SetChanged, RuleSetError, OSError) as error:
            raise NotPublished(str(error)) from error
        except (JournalBusy, JournalUnavailable, Damage) as error:
            raise NotPublished(f"the step could not be recorded, so it was not taken: {error}") from error

    def _audit(self, step: Step) -> None:
        note(
            self.config.journal_dir,
            f"rules_{step.kind}",
            {"step": asdict(step), "by": step.by},
            id=f"rules-{step.sequence}-{step.at_ms}",
            time_ms=step.at_ms,
            tenant=self.config.tenant,
        )
