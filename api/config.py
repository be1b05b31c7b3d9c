"""Configuration of the service's processes: what the environment says, parsed once at the edge.

The names are those that `cordon config` prints. Everything beyond the entry modules takes arguments.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from api.access import AccessConfig
from api.brakes.cap import LIMITS, Cap, Limits, RateLimit
from api.decide import StalePolicy
from api.webhooks.config import WebhookConfig
from api.webhooks.schedule import Retries

RULES = Path(__file__).resolve().parent.parent / "deploy" / "rules"


class InvalidConfiguration(ValueError):
    """A variable is missing or wrong; the message says how to write it. Fix it and start again."""


@dataclass(frozen=True, slots=True)
class Topics:
    """Names of the topics and the prefix of the consumer groups."""

    transactions: str = "transactions"
    decisions: str = "decisions"
    labels: str = "labels"
    events: str = "events"
    alerts: str = "alerts"
    dead_letters: str = "dead-letters"
    checkpoints: str = "audit.checkpoints"
    positions: str = "journal.positions"
    group: str = "cordon"


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Of submitted batches. `directory` absent: below the journals. `open_max`: that have not ended."""

    directory: Path | None = None
    lines_max: int = 10_000
    bytes_max: int = 16 * 2**20
    open_max: int = 32
    keep_hours: int = 168


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """Everything that differs between two installations, as far as the service's processes care."""

    secret: str
    tenant: str = "demo"
    redis: str = "redis://127.0.0.1:6379/0"
    redis_timeout_ms: int = 250
    redis_door_timeout_ms: int = 900
    redis_connect_timeout_ms: int = 1_000
    kafka: str = "127.0.0.1:9092"
    topics: Topics = Topics()
    journal_dir: Path = Path(".cordon/journal")
    segment_bytes: int = 64 * 2**20
    backlog_max: int = 2_000_000
    anchors_dir: Path = Path(".cordon/anchors")
    keys_dir: Path = Path(".cordon/keys")
    checkpoint_records: int = 10_000
    checkpoint_ms: int = 5_000
    vault_dir: Path = Path(".cordon/vault")
    query_store: str = "sqlite:///.cordon/store.sqlite"
    warm_dir: Path = Path(".cordon/warm")
    hot_days: int | None = None
    move_every_s: int = 600
    catalogue: str = "payments"
    lateness_ms: int | None = None
    future_skew_ms: int | None = None
    model_dir: Path | None = None
    rules: Path | None = None
    rules_dir: Path | None = None
    fast_lane: bool = True
    event_clock: bool = False
    stale: StalePolicy = "score_anyway"
    stale_after_ms: int = 5_000
    unseen_amount_max: int = 10_000
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    batch: int = 64
    queue: int = 1_024
    body_bytes_max: int = 65_536
    door_batch: int = 512
    door_worker: int = 0
    trim_ms: int = 60_000
    dead_letters_max: int = 100
    access: AccessConfig = field(default_factory=AccessConfig)
    metrics_port: int = 0
    brakes: Limits = LIMITS
    batches: BatchLimits = field(default_factory=BatchLimits)
    review_amount_min: int | None = None
    webhooks: WebhookConfig = field(default_factory=WebhookConfig)

    @property
    def brakes_dir(self) -> Path:
        """Where brakes are written that were pulled: beside the published sets, else beside the journals."""
        return self.rules_dir if self.rules_dir is not None else self.journal_dir / ".brakes"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "ServiceConfig":
        """The configuration in `environment`. Raises `InvalidConfiguration`."""
        read = _Reader(environment)
        defaults = cls(secret="")
        topics = Topics(
            **{
                name: read.text(f"KAFKA__{name.upper()}", getattr(defaults.topics, name))
                for name in Topics.__slots__
            }
        )
        url = read.text("REDIS__URL", defaults.redis)
        if read.flag("REDIS__CLUSTER", False) and url.startswith("redis://"):
            url = "cluster://" + url.removeprefix("redis://").split("/")[0]
        catalogue = read.text("CATALOGUE__NAME", defaults.catalogue)
        return cls(
            secret=read.text("SECRETS__PSEUDONYM", ""),
            tenant=read.text("TENANT", defaults.tenant),
            redis=url,
            redis_timeout_ms=read.number("REDIS__TIMEOUT_MS", defaults.redis_timeout_ms),
            redis_door_timeout_ms=read.number("REDIS__DOOR_TIMEOUT_MS", defaults.redis_door_timeout_ms),
            redis_connect_timeout_ms=read.number(
                "REDIS__CONNECT_TIMEOUT_MS", defaults.redis_connect_timeout_ms
            ),
            kafka=read.text("KAFKA__BOOTSTRAP", defaults.kafka),
            topics=topics,
            journal_dir=Path(read.text("JOURNAL__DIRECTORY", str(defaults.journal_dir))),
            segment_bytes=read.number("JOURNAL__SEGMENT_BYTES", defaults.segment_bytes),
            backlog_max=read.number("JOURNAL__BACKLOG_MAX", defaults.backlog_max),
            anchors_dir=Path(read.text("AUDIT__ANCHORS", str(defaults.anchors_dir))),
            keys_dir=Path(read.text("AUDIT__KEYS", str(defaults.keys_dir))),
            checkpoint_records=read.number("AUDIT__CHECKPOINT_RECORDS", defaults.checkpoint_records),
            checkpoint_ms=read.number("AUDIT__CHECKPOINT_MS", defaults.checkpoint_ms),
            vault_dir=Path(read.text("VAULT__DIRECTORY", str(defaults.vault_dir))),
            query_store=read.text("STORE_URL", defaults.query_store),
            warm_dir=Path(read.text("TIER__WARM", str(defaults.warm_dir))),
            hot_days=read.optional_number("TIER__HOT_DAYS"),
            move_every_s=read.number("TIER__EVERY_S", defaults.move_every_s),
            catalogue=catalogue,
            lateness_ms=read.optional_number("CATALOGUE__LATENESS_MS"),
            future_skew_ms=read.optional_number("CATALOGUE__FUTURE_SKEW_MS"),
            model_dir=read.path("DECIDE__MODEL_DIR"),
            rules=read.path("DECIDE__RULES") or _shipped_rules(catalogue),
            rules_dir=read.path("DECIDE__RULES_DIR"),
            fast_lane=read.flag("DECIDE__FAST_LANE", defaults.fast_lane),
            event_clock=read.choice("DECIDE__CLOCK", "wall", ("wall", "event")) == "event",
            stale=cast(
                StalePolicy,
                read.choice("DECIDE__STALE", "score_anyway", ("score_anyway", "rules_only", "review")),
            ),
            stale_after_ms=read.number("DECIDE__STALE_AFTER_MS", defaults.stale_after_ms),
            unseen_amount_max=read.number("DECIDE__UNSEEN_AMOUNT_MAX", defaults.unseen_amount_max),
            host=read.text("SERVICE__HOST", defaults.host),
            port=read.number("SERVICE__PORT", defaults.port),
            workers=read.number("SERVICE__WORKERS", defaults.workers),
            batch=read.number("SERVICE__BATCH", defaults.batch),
            queue=read.number("SERVICE__QUEUE", defaults.queue),
            body_bytes_max=read.number("SERVICE__BODY_BYTES_MAX", defaults.body_bytes_max),
            door_batch=read.number("SERVICE__DOOR_BATCH", defaults.door_batch),
            door_worker=read.number("DOOR_WORKER", defaults.door_worker),
            trim_ms=read.number("KAFKA__TRIM_MS", defaults.trim_ms),
            dead_letters_max=read.number("SERVICE__DEAD_LETTERS_MAX", defaults.dead_letters_max),
            access=_access(read, defaults.access),
            metrics_port=read.number("METRICS_PORT", defaults.metrics_port),
            brakes=_brakes(read),
            batches=_batches(read, defaults.batches),
            webhooks=_webhooks(read, defaults.webhooks),
            review_amount_min=read.optional_number("ALERTS__REVIEW_AMOUNT_MIN"),
        )


def here() -> ServiceConfig:
    """The configuration of this process. Raises `InvalidConfiguration`."""
    return ServiceConfig.from_environment(os.environ)


def _access(read: "_Reader", defaults: AccessConfig) -> AccessConfig:
    return AccessConfig(
        keys=read.text("SERVICE__API_KEYS", defaults.keys),
        keys_file=read.path("ACCESS__KEYS_FILE"),
        issuer=read.text("ACCESS__ISSUER", defaults.issuer),
        audience=read.text("ACCESS__AUDIENCE", defaults.audience),
        jwks=read.text("ACCESS__JWKS", defaults.jwks),
        jwks_refresh_s=read.number("ACCESS__JWKS_REFRESH_S", defaults.jwks_refresh_s),
        roles_claim=read.text("ACCESS__ROLES_CLAIM", defaults.roles_claim),
        tenant_claim=read.text("ACCESS__TENANT_CLAIM", defaults.tenant_claim),
        leeway_s=read.number("ACCESS__LEEWAY_S", defaults.leeway_s),
    )


def _batches(read: "_Reader", defaults: BatchLimits) -> BatchLimits:
    return BatchLimits(
        directory=read.path("BATCHES__DIRECTORY"),
        lines_max=read.number("BATCHES__LINES_MAX", defaults.lines_max),
        bytes_max=read.number("BATCHES__BYTES_MAX", defaults.bytes_max),
        open_max=read.number("BATCHES__OPEN_MAX", defaults.open_max),
        keep_hours=read.number("BATCHES__KEEP_HOURS", defaults.keep_hours),
    )


def _webhooks(read: "_Reader", defaults: WebhookConfig) -> WebhookConfig:
    retries = Retries(
        read.number("WEBHOOKS__ATTEMPTS_MAX", defaults.retries.attempts_max),
        read.number("WEBHOOKS__RETRY_MS", defaults.retries.first_ms),
    )
    file = read.path("WEBHOOKS__FILE") or defaults.file
    return WebhookConfig(file, read.flag("WEBHOOKS__INSIDE", defaults.inside), retries)


def _brakes(read: "_Reader") -> Limits:
    """Caps and the limit of the guard; 0 switches one off."""
    rate = RateLimit()
    declines = read.number("BRAKES__DECLINES_MAX", 5_000)
    within_ms = read.number("BRAKES__DECLINES_WITHIN_S", 3_600) * 1_000
    enter = read.number("BRAKES__GUARD_PERCENT", round(rate.enter_percent))
    found = RateLimit(
        enter,
        read.number("BRAKES__GUARD_LEAVE_PERCENT", round(rate.leave_percent)),
        read.number("BRAKES__GUARD_DECISIONS_MIN", rate.decisions_min),
        read.number("BRAKES__GUARD_WITHIN_S", rate.within_ms // 1_000) * 1_000,
    )
    if found.leave_percent > found.enter_percent > 0:
        raise InvalidConfiguration("CORDON_BRAKES__GUARD_LEAVE_PERCENT: at most CORDON_BRAKES__GUARD_PERCENT")
    return Limits(Cap(declines, within_ms) if declines else None, found if enter else None)


def _shipped_rules(catalogue: str) -> Path | None:
    path = RULES / f"{catalogue}.toml"
    return path if path.is_file() else None


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str, default: str) -> str:
        return self._environment.get(f"CORDON_{name}") or default

    def path(self, name: str) -> Path | None:
        text = self.text(name, "")
        return Path(text) if text else None

    def number(self, name: str, default: int) -> int:
        found = self.optional_number(name)
        return default if found is None else found

    def optional_number(self, name: str) -> int | None:
        text = self.text(name, "")
        if not text:
            return None
        if not text.isdecimal():
            raise InvalidConfiguration(f"CORDON_{name}={text}: write a whole number")
        return int(text)

    def flag(self, name: str, default: bool) -> bool:
        text = self.text(name, "true" if default else "false").lower()
        if text not in ("true", "false", "on", "off"):
            raise InvalidConfiguration(f"CORDON_{name}={text}: write true or false")
        return text in ("true", "on")

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        text = self.text(name, default)
        if text not in choices:
            raise InvalidConfiguration(f"CORDON_{name}={text}: write one of {', '.join(choices)}")
        return text
