"""Kafka as a part: one KRaft node (broker and controller) run from Maven's jars."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from cordon.stack.part import Part
from cordon.stack.port import HOST
from cordon.stack.probe import Broker

# The identity of a one-node cluster says nothing; a fixed one lets a directory be opened again.
CLUSTER_ID = "Y29yZG9uLWxvY2FsLTAwMQ"

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}

# One node: everything is replicated once. Left at 3, the internal topics fail for ever.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1

# A topic that nobody declared is a mistake; a replayed old event is not expired.
auto.create.topics.enable=false
log.retention.ms=-1
log.message.timestamp.after.max.ms=9223372036854775807
# What the door has deleted from the topic of transactions leaves the disk soon.
log.retention.check.interval.ms=10000
group.initial.rebalance.delay.ms=0
transaction.max.timeout.ms=900000
num.network.threads=2
num.io.threads=2
num.recovery.threads.per.data.dir=1
"""

LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss,SSS} %-5p %c - %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


@dataclass(frozen=True, slots=True)
class Kafka:
    """One broker. `jars`: the directory of its jars (`.jars/kafka`); `directory` holds its log."""

    directory: Path
    jars: Path
    port: int
    controller_port: int
    heap: str = "512m"
    name: str = "kafka"

    @property
    def bootstrap(self) -> str:
        """For clients."""
        return f"{HOST}:{self.port}"

    def configure(self) -> Path:
        """Writes server.properties and the logging configuration; returns the former's path."""
        directory = self.directory.resolve()
        directory.mkdir(parents=True, exist_ok=True)
        properties = directory / "server.properties"
        properties.write_text(
            PROPERTIES.format(
                host=HOST, port=self.port, controller_port=self.controller_port, data=directory / "data"
            )
        )
        (directory / "log4j2.properties").write_text(LOGGING)
        return properties

    def command(self, properties: Path) -> tuple[str, ...]:
        """Formats the directory where it is new, then becomes the broker."""
        java = ["java", f"-Dlog4j2.configurationFile={self.directory.resolve() / 'log4j2.properties'}"]
        classpath = ["-cp", f"{self.jars.resolve()}/*"]
        tool = [*java, "-XX:TieredStopAtLevel=1", *classpath, "kafka.tools.StorageTool", "format"]
        tool += ["--standalone", "-t", CLUSTER_ID, "-c", str(properties)]
        # It moves bytes: the optimising compiler took as long as all requests together, and gained little.
        broker = [*java, "-Xms256m", f"-Xmx{self.heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        broker += [*classpath, "kafka.Kafka", str(properties)]
        formatted = shlex.quote(str(self.directory.resolve() / "data" / "meta.properties"))
        script = f"test -f {formatted} || {shlex.join(tool)}; exec {shlex.join(broker)}"
        return ("/bin/sh", "-ec", script)

    def part(self) -> Part:
        """The part of the stack; writes its configuration."""
        return Part(
            name=self.name,
            command=self.command(self.configure()),
            probe=Broker(self.bootstrap),
            directory=self.directory,
            address=self.bootstrap,
            start_timeout_s=120.0,
            stop_timeout_s=20.0,
        )
