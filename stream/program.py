"""A Flink job as a Table API program: sources, one grouping, the sink as a vectorised function.

What made it fast when measured, and is set here: one operator that fans out before one grouping; a pandas
function on batches of 10,000 rows, handed over every 10 ms at the latest; buffers flushed every 5 ms; objects
reused; no mini-batches. State never expires: a tile that started again from zero would be wrong.
"""

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import numpy as np
import pyflink
from pyflink.common import Configuration
from pyflink.table import DataTypes, EnvironmentSettings, TableEnvironment
from pyflink.table.udf import ScalarFunction, udf

from features import sql
from features.library import library
from stream import block
from stream.lane import MAX_PARALLELISM, lanes
from stream.setting import Setting
from stream.sink import Sink, Spec

JobName = Literal["features", "labels"]
JOBS: Final[tuple[JobName, ...]] = ("features", "labels")
GENERATION: Final = "cordon.generation"
PROGRAM: Final = "cordon.program"
# A cluster knows no Python by itself: each job brings Flink's Python operators along.
RUNTIME: Final = tuple(Path(pyflink.__file__).parent.glob("opt/flink-python-*.jar"))


class WriteRows(ScalarFunction):  # type: ignore[misc]
    """Pandas function that writes its arguments to the store and returns the codes."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec

    def is_deterministic(self) -> bool:
        """It writes: the planner must neither fold nor repeat it."""
        return False

    def open(self, function_context: Any) -> None:
        """Called once per worker."""
        self._sink = Sink(self._spec, time.time, time.monotonic, time.sleep)

    def eval(self, code: Any, ids: Any, key: Any, *slots: Any) -> Any:
        """One batch as pandas series; blocks until the store has it."""
        self._sink.write(code.to_numpy(), ids.to_list(), key.to_numpy(), np.stack(slots, axis=1))
        return code

    def close(self) -> None:
        """Release the connections."""
        self._sink.close()


@dataclass(frozen=True, slots=True)
class Program:
    """One job of an installation. `partitions`: of its topics, at most."""

    setting: Setting
    job: JobName
    partitions: int

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
        return lanes(codes, self.partitions, self.parallelism)

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

    def statements(self) -> tuple[str, ...]:
        """The sources, the sink, and last the insertion."""
        sums, greatest = sql.columns(self.setting.catalogue)
        names = ", ".join(("`code`", "`id`", "`key`", *sums, *greatest))
        rows = sql.grouping(self.setting.catalogue, self.topics, self.lanes)
        return (
            *(self._source(topic) for topic in self.topics),
            "CREATE TEMPORARY TABLE written (`code` INT) WITH ('connector' = 'blackhole')",
            f"INSERT INTO written SELECT write_rows({names}) FROM (\n{rows}\n)",
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

    def spec(self, generation: str) -> Spec:
        """What the sink is told."""
        setting = self.setting
        return Spec(
            plan=block.plan(setting.catalogue, setting.tenant),
            tenant=setting.tenant,
            fingerprint=setting.catalogue.state_fingerprint,
            generation=generation,
            topics={sql.TOPICS.index(topic): setting.topics[topic] for topic in self.topics},
            library=library(setting.catalogue),
            place=setting.place,
            lanes=self.lanes,
        )

    def configuration(
        self, generation: str, restore: str | None, python: str, parcel: Path
    ) -> Mapping[str, str]:
        """Flink's options of one run. `restore`: URI of a checkpoint; `python`: the workers' interpreter;
        `parcel`: the code that they import."""
        setting = self.setting
        rest = urlsplit(setting.rest)
        options = {
            "execution.target": "remote",
            "rest.address": rest.hostname or "127.0.0.1",
            "rest.port": str(rest.port or 8081),
            "pipeline.name": self.name,
            "pipeline.jars": ";".join(jar.resolve().as_uri() for jar in (*setting.jars, *RUNTIME)),
            "pipeline.global-job-parameters": f"{GENERATION}:{generation},{PROGRAM}:{self.fingerprint}",
            "parallelism.default": str(self.parallelism),
            "pipeline.max-parallelism": str(MAX_PARALLELISM),
            "pipeline.object-reuse": "true",
            "execution.buffer-timeout.interval": "5 ms",
            "table.exec.mini-batch.enabled": "false",
            "table.exec.state.ttl": "0 ms",
            "table.exec.source.idle-timeout": "1 s",
            "python.executable": python,
            "python.client.executable": python,
            "python.files": str(parcel),
            "python.fn-execution.bundle.size": "10000",
            "python.fn-execution.bundle.time": "10",
            "python.fn-execution.arrow.batch.size": "10000",
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


def submit(program: Program, generation: str, restore: str | None, python: str, parcel: Path) -> str:
    """Start the job on the cluster; its id. Blocks until the cluster has accepted it; raises Py4J errors."""
    # Without this PyFlink would run the workers inside this process, whose end is not the job's.
    os.environ.update({"_python_worker_execution_mode": "process"})
    configuration = Configuration()
    for name, value in program.configuration(generation, restore, python, parcel).items():
        configuration.set_string(name, value)
    settings = (
        EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(configuration).build()
    )
    tables = TableEnvironment.create(settings)
    writer = WriteRows(program.spec(generation))
    write_rows = udf(writer, result_type=DataTypes.INT(), func_type="pandas", deterministic=False)
    tables.create_temporary_function("write_rows", write_rows)
    *before, insertion = program.statements()
    for statement in before:
        tables.execute_sql(statement)
    return str(tables.execute_sql(insertion).get_job_client().get_job_id())
