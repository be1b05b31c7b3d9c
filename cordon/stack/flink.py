"""Flink as two parts: a standalone job manager and task manager, from the pip package as FLINK_HOME.

Everything that they write (configuration, logs, checkpoints, scratch) lies in the stack's directory, never in
the installed package.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cordon.failure import Failure
from cordon.stack.part import Part
from cordon.stack.port import HOST
from cordon.stack.probe import Healthy, TaskManagers

LOGGING = """\
rootLogger.level = {level}
rootLogger.appenderRef.console.ref = console
appender.console.name = console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{{yyyy-MM-dd HH:mm:ss,SSS}} %-5p %c - %m%n
"""

# Ten times the usual numbers of calls before a method is compiled once more.
TASK_MANAGER_JAVA = (
    "-XX:+UseSerialGC -XX:Tier4InvocationThreshold=50000 -XX:Tier4MinInvocationThreshold=6000"
    " -XX:Tier4CompileThreshold=150000 -XX:Tier4BackEdgeThreshold=400000"
)


class FlinkMissing(Failure):
    """The Flink environment is not there: run `make setup`."""


@dataclass(frozen=True, slots=True)
class Flink:
    """A session cluster. `python`: the Flink environment's interpreter; `jars`: the connector's directory.

    `state`: RocksDB (incremental checkpoints, bloom filter; state larger than memory) or the heap (about
    twice the speed). Sizes are whole processes', in MiB.
    """

    directory: Path
    python: Path
    jars: Path
    rest_port: int
    rpc_port: int
    slots: int = 2
    state: Literal["rocksdb", "hashmap"] = "rocksdb"
    checkpoint_interval_ms: int = 30_000
    checkpoints: str = ""
    job_manager_mib: int = 1_000
    task_manager_mib: int = 2_560
    managed_mib: int = 1_024
    log_level: str = "INFO"

    @property
    def rest(self) -> str:
        """Address of the REST endpoint."""
        return f"http://{HOST}:{self.rest_port}"

    @property
    def home(self) -> Path:
        """FLINK_HOME: the installed package. Raises `FlinkMissing`."""
        # Not resolved: an environment's interpreter is a link, and the environment is around the link.
        found = sorted(self.python.absolute().parents[1].glob("lib/python3*/site-packages/pyflink"))
        if not found:
            raise FlinkMissing(f"no Flink beside {self.python}: run `make setup`")
        return found[0]

    @property
    def checkpoint_directory(self) -> str:
        """URI below which every job keeps its checkpoints."""
        return self.checkpoints or (self.directory.resolve() / "checkpoints").as_uri()

    def configuration(self) -> dict[str, str]:
        """The content of config.yaml."""
        directory = self.directory.resolve()
        connector = ";".join(jar.resolve().as_uri() for jar in sorted(self.jars.glob("*.jar")))
        return {
            "env.java.opts.all": self._java_options(),
            # The job manager computes nothing: it starts sooner without the optimising compiler.
            "env.java.opts.jobmanager": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
            # Its state lies outside the heap: little to collect, and one thread does that cheapest. What is
            # called now and then is not worth the optimising compiler, which took a third of its time.
            "env.java.opts.taskmanager": TASK_MANAGER_JAVA,
            "jobmanager.rpc.address": HOST,
            "jobmanager.rpc.port": str(self.rpc_port),
            "jobmanager.bind-host": HOST,
            "jobmanager.memory.process.size": f"{self.job_manager_mib}m",
            "jobmanager.execution.failover-strategy": "region",
            "taskmanager.host": HOST,
            "taskmanager.bind-host": HOST,
            "taskmanager.numberOfTaskSlots": str(self.slots),
            "taskmanager.memory.process.size": f"{self.task_manager_mib}m",
            "taskmanager.memory.managed.size": f"{self.managed_mib}m",
            "taskmanager.memory.network.min": "64m",
            "taskmanager.memory.network.max": "64m",
            "rest.address": HOST,
            "rest.port": str(self.rest_port),
            "rest.bind-address": HOST,
            "rest.bind-port": str(self.rest_port),
            "io.tmp.dirs": str(directory / "scratch"),
            "parallelism.default": "1",
            # A part that stood still for ten seconds comes back; one that died is missed at once.
            "heartbeat.interval": "2 s",
            "heartbeat.timeout": "60 s",
            # A task manager that started first asks again soon.
            "cluster.registration.error-delay": "500 ms",
            "cluster.registration.max-timeout": "2 s",
            "restart-strategy.type": "exponential-delay",
            "restart-strategy.exponential-delay.initial-backoff": "500 ms",
            "restart-strategy.exponential-delay.max-backoff": "10 s",
            "state.backend.type": self.state,
            "state.backend.rocksdb.use-bloom-filter": "true",
            "execution.checkpointing.incremental": "true",
            "execution.checkpointing.interval": f"{self.checkpoint_interval_ms} ms",
            "execution.checkpointing.mode": "EXACTLY_ONCE",
            "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
            "execution.checkpointing.num-retained": "2",
            "execution.checkpointing.dir": self.checkpoint_directory,
            "execution.buffer-timeout.interval": "5 ms",
            "pipeline.object-reuse": "true",
            "pipeline.jars": connector,
            "python.executable": str(self.python.absolute()),
            "python.client.executable": str(self.python.absolute()),
        }

    def configure(self) -> None:
        """Writes the configuration directory."""
        directory = self.directory.resolve()
        for name in ("conf", "log", "scratch", "checkpoints"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        lines = [f"{key}: {quoted(value)}\n" for key, value in self.configuration().items()]
        (directory / "conf" / "config.yaml").write_text("".join(lines))
        for name in ("log4j-console.properties", "log4j.properties", "log4j-cli.properties"):
            (directory / "conf" / name).write_text(LOGGING.format(level=self.log_level))

    def environment(self) -> dict[str, str]:
        """What Flink's own scripts and PyFlink's clients read."""
        directory = self.directory.resolve()
        return {
            "FLINK_HOME": str(self.home),
            "FLINK_CONF_DIR": str(directory / "conf"),
            "FLINK_LOG_DIR": str(directory / "log"),
            "FLINK_PID_DIR": str(directory),
            "FLINK_IDENT_STRING": "cordon",
        }

    def parts(self) -> tuple[Part, Part]:
        """Job manager and task manager; writes their configuration."""
        self.configure()
        scripts = self.home / "bin"
        return (
            Part(
                name="jobmanager",
                command=("/bin/bash", str(scripts / "jobmanager.sh"), "start-foreground"),
                probe=Healthy(f"{self.rest}/overview"),
                environment=self.environment(),
                directory=self.directory,
                address=self.rest,
                start_timeout_s=120.0,
            ),
            # Needs nothing to start: it looks for its job manager until it finds it.
            Part(
                name="taskmanager",
                command=("/bin/bash", str(scripts / "taskmanager.sh"), "start-foreground"),
                probe=TaskManagers(self.rest),
                environment=self.environment(),
                directory=self.directory,
                start_timeout_s=120.0,
            ),
        )

    def _java_options(self) -> str:
        """The module openings that the installed Flink ships for Java 17."""
        shipped = (self.home / "conf" / "config.yaml").read_text()
        options = re.search(r"^\s+all: (.+)$", shipped, flags=re.MULTILINE)
        return options.group(1).strip() if options else ""


def quoted(value: str) -> str:
    """A YAML scalar: plain where that is safe, single quotes otherwise."""
    if re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./ -]*", value):
        return value
    return "'" + value.replace("'", "''") + "'"
