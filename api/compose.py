"""Composition of the engine from its configuration: the one place of `api` that opens things."""

import gc
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from api.artefacts import Artefacts
from api.attempts import Attempts
from api.brakes.brake import Brake
from api.brakes.patrol import Patrol, recorder
from api.brakes.shared import Exchange, RedisShared
from api.config import InvalidConfiguration, ServiceConfig
from api.decide import Policy
from api.drawn import Drawn
from api.engine import Engine, Limits
from api.gauge import FreshnessGauge
from api.intake.calls import best as best_commands
from api.intake.compiled import best
from api.journal import Journal, JournalBusy
from api.judge import Judge
from api.model import ServingModel
from api.query_store import QueryStore, open_store
from api.rules.feed import Feed
from api.rules.load import Pseudonym, RuleSetError
from api.rules.load import load as load_rules
from api.rules.registry import Refused, Registry
from api.rules.rule import EMPTY, RuleSet
from api.rules.shelf import SetChanged, SetMissing
from api.rules.vocabulary import vocabulary_of
from api.syncing import Syncing
from api.syncing import best as syncing_best
from api.vault.directory import Follower, Kept, Vault, VaultUnusable
from api.vault.seal import NONCE_BYTES, Sealer
from api.work import OWNER_BYTES, Intake
from features.catalogue import Catalogue, load
from features.node import Limits as StoreLimits
from features.pseudonym import Pseudonyms
from features.rates import rates
from features.redis_store import connect
from features.store import OnlineStore

BUSY_TRIES = 20
BUSY_WAIT_S = 0.1


@dataclass(slots=True)
class Parts:
    """Everything one deciding process holds."""

    config: ServiceConfig
    catalogue: Catalogue
    pseudonyms: Pseudonyms
    store: OnlineStore
    journal: Journal
    judge: Judge
    gauge: FreshnessGauge
    past: "LazyStore"
    attempts: Attempts
    engine: Engine
    artefacts: Artefacts
    feed: Feed
    patrol: Patrol
    shared: RedisShared
    vault: Vault
    follower: Follower
    sealer: Sealer

    def follow_keys(self, kept: Kept) -> None:
        """Work with these keys from now on, and let whoever destroyed others know."""
        self.sealer.adopt(kept)
        self.follower.adopted()

    def close(self) -> None:
        """Release files and connections."""
        self.shared.close()
        self.journal.close()
        self.store.close()
        self.past.close()
        self.follower.close()


class LazyStore:
    """The query store, opened at the first look-up and again after a failure."""

    def __init__(self, url: str, warm: Path | None = None) -> None:
        self._url = url
        self._warm = warm
        self._open: QueryStore | None = None

    def __call__(self) -> QueryStore:
        """The open store. Raises `QueryStoreUnavailable`."""
        if self._open is None:
            self._open = open_store(self._url, self._warm)
        return self._open

    def record(self, transaction_id: str) -> Mapping[str, Any] | None:
        """See `QueryStore.record`."""
        return self().record(transaction_id)

    def close(self) -> None:
        """Release the database."""
        if self._open is not None:
            self._open.close()
            self._open = None


def code_version() -> str:
    """Version of this code, as decisions name it."""
    try:
        return version("cordon")
    except PackageNotFoundError:
        return "source"


def pseudonyms_of(config: ServiceConfig) -> Pseudonyms:
    """The tenant's keyed hashes. Raises `InvalidConfiguration` for a secret that is none."""
    try:
        return Pseudonyms.of(config.tenant, config.secret)
    except ValueError as error:
        raise InvalidConfiguration(f"CORDON_SECRETS__PSEUDONYM: {error}") from error


def store_of(config: ServiceConfig, catalogue: Catalogue) -> OnlineStore:
    """The online store; nothing is sent yet."""
    limits = StoreLimits(config.redis_connect_timeout_ms / 1_000, config.redis_timeout_ms / 1_000)
    return connect(config.redis, catalogue, config.tenant, limits, commands=best_commands)


def vault_of(config: ServiceConfig) -> Vault:
    """The keys of personal fields. Raises `InvalidConfiguration`."""
    try:
        return Vault(config.vault_dir, secrets.token_bytes)
    except VaultUnusable as error:
        raise InvalidConfiguration(f"CORDON_VAULT__DIRECTORY: {error}") from error


def follower_of(vault: Vault, worker: str) -> Follower:
    """This process among those that work with the keys. Raises `InvalidConfiguration`."""
    try:
        return Follower(vault, worker)
    except VaultUnusable as error:
        raise InvalidConfiguration(f"CORDON_VAULT__DIRECTORY: {error}") from error


def artefacts_of(config: ServiceConfig, catalogue: Catalogue, pseudonyms: Pseudonyms) -> Artefacts:
    """Models beside the configured one, rule sets of the configured directory."""
    models = None if config.model_dir is None else config.model_dir.parent
    shelf = None if config.rules_dir is None else Registry(config.rules_dir).shelf
    return Artefacts(catalogue, pseudonym_of(pseudonyms), models, shelf)


def pseudonym_of(pseudonyms: Pseudonyms) -> Pseudonym:
    """How lists hide their ids."""
    return lambda entity, id_: pseudonyms.entity(entity, (id_,))


def rules_of(
    config: ServiceConfig, catalogue: Catalogue, pseudonyms: Pseudonyms, artefacts: Artefacts
) -> RuleSet:
    """The live set, else that of the configured file, which is kept by its version. Raises `RuleSetError`."""
    if config.rules_dir is not None:
        try:
            live = Registry(config.rules_dir).live()
            if live is not None:
                return artefacts.rules(live.version)
        except (Refused, SetMissing, SetChanged) as error:
            raise RuleSetError(str(error)) from error
    if config.rules is None:
        return EMPTY
    found = load_rules(config.rules, vocabulary_of(catalogue), pseudonym_of(pseudonyms))
    if artefacts.shelf is not None:
        try:
            artefacts.shelf.put(config.rules.read_text())
        except OSError as error:
            raise InvalidConfiguration(f"CORDON_DECIDE__RULES_DIR={config.rules_dir}: {error}") from error
    return found


def model_of(config: ServiceConfig, catalogue: Catalogue) -> ServingModel | None:
    """The configured model. Raises `ModelRefused`: what was given a model does not start without."""
    if config.model_dir is None:
        return None
    # Imported when there is a model: XGBoost brings seconds of other imports with it.
    from api.serving import open_model

    return open_model(config.model_dir, catalogue)


def policy_of(config: ServiceConfig) -> Policy:
    """What happens when parts fail, named by its content."""
    return Policy.of(config.unseen_amount_max, config.stale)


def compose(config: ServiceConfig, worker: str, timer: Callable[[], int], clock: Callable[[], int]) -> Parts:
    """Open everything that a deciding process needs; the journal `worker` is its own. `clock`: wall ms.

    Raises `InvalidConfiguration`, `RuleSetError`, `ModelRefused`, `JournalBusy`, `JournalUnavailable`.
    """
    catalogue = load(config.catalogue)
    pseudonyms = pseudonyms_of(config)
    store = store_of(config, catalogue)
    artefacts = artefacts_of(config, catalogue, pseudonyms)
    rules = rules_of(config, catalogue, pseudonyms, artefacts)
    model = model_of(config, catalogue)
    brake = Brake(config.brakes)
    judge = Judge(catalogue, config.tenant, model, rules, policy_of(config), code_version(), timer, brake)
    feed = Feed(Registry(config.brakes_dir), artefacts.rules)
    if (update := feed.read()) is not None:
        judge.adopt(update)
    judge.warm_up()
    gauge = FreshnessGauge(store, config.stale_after_ms)
    past = LazyStore(config.query_store, config.warm_dir)
    parent = Path(config.journal_dir)
    vault = vault_of(config)
    follower = follower_of(vault, worker)
    sealer = Sealer(follower.kept, config.tenant, Drawn(NONCE_BYTES, secrets.token_bytes))
    attempts = Attempts(parent)
    journal = open_journal(parent / worker, config.segment_bytes, syncing_best())
    table = rates(catalogue.schema.base_currency)
    intake = Intake(
        catalogue,
        pseudonyms,
        table,
        Drawn(OWNER_BYTES, secrets.token_bytes),
        observe=config.fast_lane,
        sealing=sealer,
        stages=best(catalogue, pseudonyms, table),
    )
    limits = Limits(
        deadline_ms=config.redis_timeout_ms,
        backlog_max=config.backlog_max,
        lateness_ms=config.lateness_ms,
        future_skew_ms=config.future_skew_ms,
    )
    engine = Engine(intake, store, journal, judge, gauge, past, attempts, limits, timer, config.tenant)
    engine.inherit(attempts.inherited(worker))
    shared = RedisShared(config.redis, config.tenant, secrets.token_hex(6), config.redis_timeout_ms / 1_000)
    steps = Registry(config.brakes_dir, recorder(config.journal_dir, config.tenant))
    patrol = Patrol(brake, Exchange(shared), steps, lambda: judge.rules, clock)
    return Parts(
        config, catalogue, pseudonyms, store, journal, judge, gauge, past, attempts, engine, artefacts, feed,
        patrol, shared,
        vault, follower, sealer,
    )  # fmt: skip


def open_journal(directory: Path, segment_bytes: int, syncing: Syncing) -> Journal:
    """The worker's journal; a predecessor, or the publisher at a dead worker's tail, may hold it briefly.

    Raises `JournalBusy`, `JournalUnavailable`, `Damage`.
    """
    for _ in range(BUSY_TRIES):
        try:
            return Journal(directory, segment_bytes=segment_bytes, syncing=syncing)
        except JournalBusy:
            time.sleep(BUSY_WAIT_S)
    return Journal(directory, segment_bytes=segment_bytes, syncing=syncing)


def settle_garbage(young: int = 5_000) -> None:
    """What start-up made stays for ever, and is not looked through again; batches make little that is cyclic.
    `young`: so many new objects are looked through at once, for which everybody waits."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(young, 50, 100)
