"""A Flink job as SQL: sources, one grouping, the online store as a table.

What made it fast when measured, and is set here: one operator that fans out before one grouping, one row per
entity; buffers flushed every 5 ms; objects reused; no mini-batches. Flink expires no state: a tile that
started again from zero would be wrong. The aggregate function drops what the store drops, no sooner.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment

from features import sql
from stream import store_table
from stream.lane import MAX_PARALLELISM, lanes
from stream.setting import Setting

JobName = Literal["features", "labels"]
JOBS: Final[tuple[JobName, ...]] = ("features", "labels")
GENERATION: Final = "cordon.generation"
PROGRAM: Final = "cordon.program"


@dataclass(frozen=True, slots=True)
class Program:
    """One job of an installation."""

    setting: Setting
    job: JobName

    @property
    def name(self) -> str:
        """The job's name in Flink; stable, one running job each."""
        return f"cordon-{self.setting.tenant}-{self.job}"

    @property
    def topics(self) -> tuple[sql.Topic, ...]:
        """Topics of the log that it reads."""
        return sql.topics(self.setting.catalogue, self.job)

    @property
    def parallelism(self) -> int:
        """Subtasks of every operator; labels are few."""
        return self.setting.parallelism if self.job == "features" else 1

    @property
    def lanes(self) -> sql.Lanes:
        """Where its position rows go."""
        codes = tuple(sql.TOPICS.index(topic) for topic in self.topics)
        return lanes(codes, self.parallelism)

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits of everything that keyed state depends on; another one cannot be restored."""
        setting = self.setting
        text = [
            sql.grouping(setting.catalogue, self.topics),
            setting.state,
            setting.catalogue.state_fingerprint,
        ]
        text += [self._source(topic) for topic in self.topics]
        return hashlib.sha256("\n".join(text).encode()).hexdigest()[:12]

    def checkpoints(self, generation: str) -> str:
        """Directory of the checkpoints of this program for one generation of the store, a URI."""
        life = hashlib.sha256(generation.encode()).hexdigest()[:12]
        return f"{self.setting.checkpoints}/{self.name}-{self.fingerprint}/{life}"

    def statements(self, generation: str) -> tuple[str, ...]:
        """The function, the sources, the store, and last the insertion."""
        rows = sql.grouping(self.setting.catalogue, self.topics, self.lanes)
        return (
            "CREATE TEMPORARY FUNCTION assertion AS 'cordon.Assertion' LANGUAGE JAVA",
            *(self._source(topic) for topic in self.topics),
            sql.table(store_table.NAME, store_table.COLUMNS, self._store(generation)),
            f"INSERT INTO `{store_table.NAME}` {rows}",
        )

    def _store(self, generation: str) -> Mapping[str, str]:
        setting = self.setting
        topics = {topic: setting.topics[topic] for topic in self.topics}
        return store_table.options(
            setting.catalogue, setting.tenant, setting.place, generation, topics, self.lanes
        )

    def _source(self, topic: sql.Topic) -> str:
        options = {
            "properties.bootstrap.servers": self.setting.bootstrap,
            "properties.group.id": f"{self.setting.group}-{self.job}",
            "properties.auto.offset.reset": "earliest",
            "properties.client.id.prefix": self.name,
            "scan.topic-partition-discovery.interval": "30 s",
        }
        return sql.source(self.setting.catalogue, topic, self.setting.topics[topic], options)

    def configuration(self, generation: str, restore: str | None) -> Mapping[str, str]:
        """Flink's options of one run. `restore`: URI of a checkpoint."""
        setting = self.setting
        rest = urlsplit(setting.rest)
        options = {
            "execution.target": "remote",
            "rest.address": rest.hostname or "127.0.0.1",
            "rest.port": str(rest.port or 8081),
            "pipeline.name": self.name,
            "pipeline.jars": ";".join(jar.resolve().as_uri() for jar in setting.jars),
            "pipeline.global-job-parameters": f"{GENERATION}:{generation},{PROGRAM}:{self.fingerprint}",
            "parallelism.default": str(self.parallelism),
            "pipeline.max-parallelism": str(MAX_PARALLELISM),
            "pipeline.object-reuse": "true",
            "execution.buffer-timeout.interval": "5 ms",
            "table.exec.mini-batch.enabled": "false",
            "table.exec.state.ttl": "0 ms",
            "table.exec.source.idle-timeout": "1 s",
            "execution.checkpointing.interval": f"{setting.checkpoint_interval_ms} ms",
            # On the heap every checkpoint writes everything: one must not follow at the heels of the other.
            "execution.checkpointing.min-pause": f"{setting.checkpoint_interval_ms} ms",
            "execution.checkpointing.mode": "EXACTLY_ONCE",
            "execution.checkpointing.timeout": "5 min",
            "execution.checkpointing.tolerable-failed-checkpoints": "10",
            "execution.checkpointing.dir": self.checkpoints(generation),
            "execution.checkpointing.num-retained": "2",
            "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
            "execution.checkpointing.incremental": "true" if setting.state == "rocksdb" else "false",
            "state.backend.type": setting.state,
            "state.backend.rocksdb.use-bloom-filter": "true",
            # The job waits until a checkpoint has written these: what is full before is written beside it.
            "state.backend.rocksdb.writebuffer.size": "16 mb",
            # Nor does merging what was written go before what the job has to do then.
            "state.backend.rocksdb.options-factory": "cordon.MergingLast",
            "restart-strategy.type": "exponential-delay",
            "restart-strategy.exponential-delay.initial-backoff": "500 ms",
            "restart-strategy.exponential-delay.max-backoff": "10 s",
        }
        if restore is not None:
            options |= {
                "execution.state-recovery.path": restore,
                "execution.state-recovery.claim-mode": "CLAIM",
            }
        return options


def submit(program: Program, generation: str, restore: str | None) -> str:
    """Start the job on the cluster; its id. Blocks until the cluster has accepted it; raises Py4J errors."""
    configuration = Configuration()
    for name, value in program.configuration(generation, restore).items():
        configuration.set_string(name, value)
    settings = (
        EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(configuration).build()
    )
    tables = TableEnvironment.create(settings)
    *before, insertion = program.statements(generation)
    for statement in before:
        tables.execute_sql(statement)
    return str(tables.execute_sql(insertion).get_job_client().get_job_id())
