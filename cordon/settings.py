"""Settings: one file (`cordon.toml`) and the environment (`CORDON_*`), parsed once at the edge.

The environment wins over the file, the file over the defaults. A nested value is written with two
underscores: `CORDON_REDIS__URL` is `url` of the table `[redis]`. The processes of a stack receive everything
through their environment (`Settings.environment()`), so that a part started by hand behaves exactly like one
started by `cordon up`; `api` and `stream` read these variables, never this module.

    [redis]
    url = "redis://127.0.0.1:6379/0"

    [kafka]
    bootstrap = "127.0.0.1:9092"
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from cordon.failure import Failure

FILE_VARIABLE = "CORDON_CONFIG"
DEFAULT_FILE = Path("cordon.toml")
HIDDEN = "********"


class InvalidSettings(Failure):
    """The settings do not parse; the message names each one and says how to write it. Fix and start again."""


class Group(BaseModel):
    """One table of the file. Unknown names are refused: a typo must not be a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Redis(Group):
    """The online store (Redis or Valkey; one node or a cluster)."""

    url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="redis://HOST:PORT/DB, or unix://PATH; the first of the list on a cluster",
    )
    cluster: bool = Field(default=False, description="true where the address is one of a Redis Cluster")
    timeout_ms: int = Field(default=250, ge=1, le=10_000, description="one round trip in the decision path")
    door_timeout_ms: int = Field(
        default=900, ge=1, le=950, description="one round trip of a batch of the Kafka door"
    )
    connect_timeout_ms: int = Field(default=1_000, ge=1, le=60_000, description="opening a connection")

    @field_validator("url")
    @classmethod
    def scheme(cls, value: str) -> str:
        """Refuses an address that no client understands."""
        if not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("write redis://HOST:PORT/DB, rediss://... or unix://PATH")
        return value


class Kafka(Group):
    """The broker and the names of the topics."""

    bootstrap: str = Field(default="127.0.0.1:9092", description="HOST:PORT[,HOST:PORT...]")
    transactions: str = Field(default="transactions", description="in: transactions, labels, events")
    decisions: str = Field(default="decisions", description="out: the log of everything decided")
    labels: str = Field(default="labels", description="out: labels with entities and times")
    events: str = Field(default="events", description="out: lifecycle events with entities and times")
    alerts: str = Field(default="alerts", description="out: alerts")
    checkpoints: str = Field(
        default="audit.checkpoints", description="out: signed checkpoints of the journals, and audit records"
    )
    dead_letters: str = Field(default="dead-letters", description="out: what could not be decided, and why")
    positions: str = Field(
        default="journal.positions", description="published position per journal, compacted"
    )
    group: str = Field(default="cordon", description="prefix of the consumer groups")
    partitions: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="of the topics of transactions and the log; one keeps a replay in order",
    )
    trim_ms: int = Field(
        default=60_000,
        ge=0,
        description="how often the door deletes transactions that are decided and in the log; 0: never",
    )
    transactions_segment_ms: int = Field(
        default=600_000,
        ge=1_000,
        description="age at which the topic of transactions begins a new file: what was deleted goes by file",
    )
    transactions_retention_ms: int = Field(
        default=7 * 86_400_000,
        ge=60_000,
        description="transactions are deleted after this, decided or not: longer than any outage of the door",
    )
    dead_letters_retention_ms: int = Field(
        default=30 * 86_400_000, ge=60_000, description="dead letters are deleted after this"
    )


class Journal(Group):
    """The durable record, written before any answer."""

    directory: Path = Field(default=Path(".cordon/journal"), description="one directory per worker below it")
    segment_bytes: int = Field(default=64 * 2**20, ge=4096, description="size of a segment file")
    backlog_max: int = Field(
        default=2_000_000, ge=1, description="records not yet published, at most; more stop the doors"
    )


class Audit(Group):
    """What makes the journals verifiable by outsiders. See docs/audit.md."""

    anchors: Path = Field(
        default=Path(".cordon/anchors"), description="where checkpoints are kept: a place outside the host"
    )
    keys: Path = Field(
        default=Path(".cordon/keys"), description="signing keys, readable by the publisher only"
    )
    checkpoint_records: int = Field(
        default=10_000, ge=1, description="records without a checkpoint, at most: the unprotected interval"
    )
    checkpoint_ms: int = Field(
        default=5_000, ge=100, description="time without a checkpoint, at most: the unprotected interval"
    )


class Tier(Group):
    """Where decisions go when they are old. See docs/query-store.md."""

    warm: Path = Field(
        default=Path(".cordon/warm"), description="Parquet files of decisions that left the query store"
    )
    hot_days: int | None = Field(
        default=None, ge=1, description="days that decisions stay in the query store; absent: for ever"
    )
    every_s: int = Field(default=600, ge=1, description="how often the projector moves what is older")


class Vault(Group):
    """Keys of personal fields, one per data subject. See docs/erasure.md."""

    directory: Path = Field(
        default=Path(".cordon/vault"),
        description="shared by service, door and commands, readable by them only; without it nobody reads"
        " personal fields any more",
    )


class Catalogue(Group):
    """What the features are, and how event time is treated."""

    name: str = Field(default="payments", description="payments, handbook, or FILE.py that defines CATALOGUE")
    lateness_ms: int | None = Field(
        default=None, ge=0, description="refuse events later than this; absent: the schema's own limit"
    )
    future_skew_ms: int | None = Field(
        default=None,
        ge=0,
        description="refuse events further ahead than this; absent: the schema's own limit",
    )


class Service(Group):
    """The decision service and its HTTP door."""

    host: str = Field(default="127.0.0.1", description="address to bind")
    port: int = Field(default=8000, ge=1, le=65535, description="port of the HTTP door")
    workers: int = Field(default=1, ge=1, le=64, description="processes behind the port")
    batch: int = Field(default=64, ge=1, le=1024, description="transactions decided together, at most")
    queue: int = Field(default=1024, ge=1, le=65536, description="requests waiting, at most; more get 503")
    body_bytes_max: int = Field(default=65_536, ge=1024, description="a larger body gets 413")
    door_batch: int = Field(default=512, ge=1, le=10_000, description="messages the Kafka door takes at once")
    api_keys: SecretStr = Field(
        default=SecretStr("dev-key=admin"),
        description="KEY=ROLE[,KEY=ROLE...] of the HTTP door, for local use; see [access]",
    )
    dead_letters_max: int = Field(
        default=100, ge=1, description="consecutive invalid messages before the Kafka door stops"
    )


class Access(Group):
    """Who may call the HTTP door. See docs/access.md."""

    keys_file: Path | None = Field(
        default=None, description="API keys as hashes, TOML; read again when it changes"
    )
    issuer: str = Field(default="", description="`iss` of the tokens (JWT) that are accepted; empty: none")
    audience: str = Field(default="", description="`aud` of the tokens")
    jwks: str = Field(
        default="", description="the issuer's public keys: https://HOST/PATH or the path of a file"
    )
    jwks_refresh_s: int = Field(default=300, ge=10, le=86_400, description="between two readings of `jwks`")
    roles_claim: str = Field(default="roles", description="claim with the roles; dots lead into objects")
    tenant_claim: str = Field(default="tenant", description="claim with the tenant; dots lead into objects")
    leeway_s: int = Field(default=30, ge=0, le=300, description="clocks may differ by this much")


class Decide(Group):
    """How decisions are made."""

    fast_lane: bool = Field(default=True, description="observe in the decision path, not only through Flink")
    clock: Literal["wall", "event"] = Field(
        default="wall", description="event: freshness and `future` follow the events' own time (replays)"
    )
    model_dir: Path | None = Field(default=None, description="artefact to serve; absent: rules only")
    rules: Path | None = Field(default=None, description="rule set file; absent: the built-in first rules")
    rules_dir: Path | None = Field(
        default=None,
        description="published rule sets; absent: only the file, and nothing can be published",
    )
    stale: Literal["score_anyway", "rules_only", "review"] = Field(
        default="score_anyway", description="what happens to a decision on stale state"
    )
    unseen_amount_max: int = Field(
        default=10_000,
        ge=0,
        description="without any state: approve up to this, in minor units of the base currency",
    )
    stale_after_ms: int = Field(default=5_000, ge=1, description="Flink's lag above which state is `stale`")
    rebuild: bool = Field(default=True, description="rebuild lost state from the log of decisions")


class Batches(Group):
    """Submitted batches. See docs/batches.md."""

    directory: Path | None = Field(
        default=None, description="where they are kept, for all workers; absent: below the journals"
    )
    lines_max: int = Field(default=10_000, ge=1, le=1_000_000, description="transactions of a batch, at most")
    bytes_max: int = Field(default=16 * 2**20, ge=1024, description="a larger body gets 413")
    open_max: int = Field(default=32, ge=1, le=10_000, description="batches waiting, at most; more get 429")
    keep_hours: int = Field(default=168, ge=1, description="how long results are kept")


class Brakes(Group):
    """What stops a bad rule, or a service gone wrong. See docs/brakes.md."""

    declines_max: int = Field(
        default=5_000, ge=0, description="declines of a rule that declares no cap of its own; 0: no cap"
    )
    declines_within_s: int = Field(default=3_600, ge=60, le=86_400, description="time of that cap")
    guard_percent: int = Field(
        default=50, ge=0, le=100, description="share of declines above which nothing is declined; 0: never"
    )
    guard_leave_percent: int = Field(default=25, ge=0, le=100, description="share below which it ends")
    guard_decisions_min: int = Field(default=1_000, ge=1, description="decisions that a share needs")
    guard_within_s: int = Field(default=300, ge=60, le=86_400, description="time over which they count")


class Alerts(Group):
    """What people are told beside what is always an alert. See docs/alerts.md."""

    review_amount_min: int | None = Field(
        default=None,
        ge=0,
        description="alert of reviews from this amount on, in minor units of the base currency; absent: none",
    )


class Webhooks(Group):
    """Events told to other systems. See docs/webhooks.md."""

    file: Path = Field(
        default=Path(".cordon/webhooks.sqlite"), description="subscriptions, their secrets, and deliveries"
    )
    inside: bool = Field(default=False, description="true: private and loopback addresses may be called")
    attempts_max: int = Field(default=12, ge=1, le=100, description="then a delivery is dead")
    retry_ms: int = Field(default=2_000, ge=10, le=3_600_000, description="first wait; it doubles each time")


class Flink(Group):
    """The jobs and the cluster they run on."""

    rest: str = Field(default="http://127.0.0.1:8081", description="address of the cluster's REST endpoint")
    checkpoints: str = Field(
        default="file:.cordon/checkpoints", description="directory of the checkpoints, a URI"
    )
    checkpoint_interval_ms: int = Field(
        default=30_000, ge=100, description="between two checkpoints; so much of the log a crash reads again"
    )
    state: Literal["rocksdb", "hashmap"] = Field(
        default="rocksdb", description="hashmap: faster, the state of the jobs has to fit the memory"
    )
    jars: Path = Field(default=Path(".jars/flink"), description="directory of the jars that the jobs take")
    parallelism: int = Field(default=1, ge=1, le=1024, description="of the jobs; at most the partitions")


class Secrets(Group):
    """Keys. Never printed, never logged."""

    pseudonym: SecretStr = Field(
        default=SecretStr("cordon-local-pseudonym-key-change-me"),
        description="key of the pseudonyms; changing it forgets every entity",
    )
    pseudonym_version: int = Field(default=1, ge=1, description="version written with each pseudonym's key")


class Settings(BaseSettings):
    """Everything that differs between two installations."""

    model_config = SettingsConfigDict(
        env_prefix="CORDON_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    tenant: str = Field(
        default="demo", pattern=r"^[a-z0-9][a-z0-9-]{0,31}$", description="lower case, digits, hyphens"
    )
    secrets: Secrets = Secrets()
    redis: Redis = Redis()
    kafka: Kafka = Kafka()
    journal: Journal = Journal()
    audit: Audit = Audit()
    vault: Vault = Vault()
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="metrics page of this door, publisher or projector; 0: none"
    )
    door_worker: int = Field(
        default=0,
        ge=0,
        le=1023,
        description="number of this Kafka door among several; each has its own journal",
    )
    store_url: str = Field(
        default="sqlite:///.cordon/store.sqlite",
        description="query store: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE",
    )
    tier: Tier = Tier()
    catalogue: Catalogue = Catalogue()
    service: Service = Service()
    access: Access = Access()
    decide: Decide = Decide()
    brakes: Brakes = Brakes()
    batches: Batches = Batches()
    alerts: Alerts = Alerts()
    webhooks: Webhooks = Webhooks()
    flink: Flink = Flink()

    def __repr__(self) -> str:
        """Without secrets: a repr ends up in logs."""
        return f"Settings({self.printable()})"

    __str__ = __repr__

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then environment, then the file."""
        path = Path(os.environ.get(FILE_VARIABLE, DEFAULT_FILE))
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=path)

    @classmethod
    def load(cls, **values: Any) -> Self:
        """Reads file and environment. Raises `InvalidSettings` with one line per wrong setting."""
        path = os.environ.get(FILE_VARIABLE)
        if path is not None and not Path(path).is_file():
            raise InvalidSettings(f"{FILE_VARIABLE}={path}: no such file; correct the path or unset it")
        try:
            return cls(**values)
        except ValidationError as error:
            raise InvalidSettings(explain(error)) from None
        except ValueError as error:  # a file that is not TOML
            raise InvalidSettings(f"{path or DEFAULT_FILE}: {error}") from None

    def environment(self, *, explicit: bool = False, secrets: bool = True) -> dict[str, str]:
        """The same settings as variables: what a part of the stack is started with, the secrets included.

        `explicit`: only what file, environment or arguments said, without the defaults.
        """
        return dict(flatten(self.model_dump(mode="python", exclude_unset=explicit), secrets=secrets))

    def printable(self) -> dict[str, Any]:
        """Plain values with every secret hidden, for `cordon config`."""
        return hide(self.model_dump(mode="python"))


def variable(path: tuple[str, ...]) -> str:
    """`("redis", "url")` -> `CORDON_REDIS__URL`."""
    return "CORDON_" + "__".join(path).upper()


def flatten(
    values: Mapping[str, Any], path: tuple[str, ...] = (), *, secrets: bool = True
) -> list[tuple[str, str]]:
    """Variables of nested values; what is absent stays absent."""
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        here = (*path, key)
        if isinstance(value, Mapping):
            pairs += flatten(value, here, secrets=secrets)
        elif isinstance(value, SecretStr):
            if secrets:
                pairs.append((variable(here), value.get_secret_value()))
        elif isinstance(value, bool):
            pairs.append((variable(here), "true" if value else "false"))
        elif value is not None:
            pairs.append((variable(here), str(value)))
    return pairs


def hide(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain JSON values: secrets as asterisks, passwords cut from addresses."""
    plain: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            plain[key] = hide(value)
        elif isinstance(value, SecretStr):
            plain[key] = HIDDEN
        elif isinstance(value, Path):
            plain[key] = str(value)
        elif isinstance(value, str):
            plain[key] = without_password(value)
        else:
            plain[key] = value
    return plain


def without_password(address: str) -> str:
    """`redis://user:word@host` -> `redis://user:********@host`; anything else as it is."""
    scheme, separator, rest = address.partition("://")
    userinfo, at, host = rest.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    if not (separator and at and colon):
        return address
    return f"{scheme}://{user}:{HIDDEN}@{host}"


def explain(error: ValidationError) -> str:
    """One line per wrong setting: its name in both spellings, what is wrong, never a secret's value."""
    lines = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        path = tuple(str(part) for part in fault["loc"])
        unknown = fault["type"] == "extra_forbidden"
        advice = "no such setting; `cordon config` lists them" if unknown else fault["msg"]
        lines.append(f"{'.'.join(path)} (or {variable(path)}): {advice}")
    return "\n".join(lines)


def reference() -> str:
    """The page of all settings, in Markdown."""
    lines = [
        "# Settings",
        "",
        "Generated by `cordon config --reference`. In `cordon.toml`, or as the variable, which wins.",
        "",
    ]
    alone = {name: each for name, each in Settings.model_fields.items() if not is_group(each.annotation)}
    for title, group, fields in [
        ("", (), alone),
        *((name, (name,), each.annotation.model_fields) for name, each in groups().items()),
    ]:
        lines += [f"## [{title}]", ""] if title else []
        lines += ["| setting | variable | default | meaning |", "|---|---|---|---|"]
        for name, each in fields.items():
            default = each.default
            shown = HIDDEN if isinstance(default, SecretStr) else "" if default is None else f"`{default}`"
            lines.append(f"| `{name}` | `{variable((*group, name))}` | {shown} | {each.description} |")
        lines.append("")
    return "\n".join(lines)


def variables() -> tuple[str, ...]:
    """The name of every setting in the environment."""
    names = []
    for name, each in Settings.model_fields.items():
        inner = groups()[name].annotation.model_fields if is_group(each.annotation) else None
        names += [variable((name, key)) for key in inner] if inner is not None else [variable((name,))]
    return tuple(names)


def is_group(annotation: Any) -> bool:
    """Whether a setting is a table of settings."""
    return isinstance(annotation, type) and issubclass(annotation, Group)


def groups() -> dict[str, Any]:
    """The tables of the file."""
    return {name: each for name, each in Settings.model_fields.items() if is_group(each.annotation)}
