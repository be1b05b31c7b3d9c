"""Keeps the Flink jobs running and the store complete.

One step looks at the store's generation and at the cluster's jobs, and does what is missing:

* no such job (never started, failed, cluster restarted): start it from the generation's newest checkpoint
* another generation (the store lost state, or may have): mark it, cancel the jobs, start them from the
  beginning of the log, so that everything is asserted again
* the new generation's watermark has passed the log's end as it was at the detection: unmark it

Checkpoints lie below a directory of their program and generation: one that belongs to another program or to a
lost store is never restored. When a checkpoint cannot be restored several times over, the job starts from the
beginning of the log: merging by maximum makes that always right, only slower.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from stream.life import Positions
from stream.rest import Job

_RESTORES_MAX: Final = 3


class NotAccepted(Exception):
    """The cluster did not take the job: try again later."""


class Runnable(Protocol):
    """A job that can be started; see `stream.program.Program`."""

    @property
    def name(self) -> str:
        """The job's name in Flink."""

    @property
    def fingerprint(self) -> str:
        """Another one means another program."""

    def checkpoints(self, generation: str) -> str:
        """Directory of its checkpoints, a URI."""


class Cluster(Protocol):
    """What the keeper asks of Flink; see `stream.rest.Rest`."""

    def jobs(self) -> list[Job]:
        """All jobs, newest first."""

    def parameters(self, job_id: str) -> dict[str, str]:
        """What a job was started with."""

    def cancel(self, job_id: str) -> None:
        """Cancel a job."""

    def slots(self) -> int:
        """Task slots, free or not."""


class Store(Protocol):
    """What the keeper asks of the store; see `stream.life.Life`."""

    def generation(self) -> str:
        """Generation of the store."""

    def positions(self, life: str) -> Positions:
        """Published next offsets."""

    def rebuilding(self) -> str | None:
        """Generation being rebuilt."""

    def begin_rebuilding(self, life: str, now_ms: int) -> None:
        """Mark."""

    def end_rebuilding(self) -> None:
        """Unmark."""


class Log(Protocol):
    """What the keeper asks of Kafka; see `stream.log_end.LogEnd`."""

    def ends(self, topics: Sequence[str]) -> Positions:
        """End offsets."""

    def is_reached(self, ends: Positions, reached: Positions) -> bool:
        """Whether nothing lies between."""


@dataclass(slots=True)
class Attempts:
    """Starts of one program since it last served. Running counter."""

    made: int = 0
    not_before_s: float = 0.0


@dataclass(slots=True)
class Keeper[P: Runnable]:
    """`programs`: what must run. `topics`: Kafka topics that they read. `start(program, generation, restore)`
    submits; `say` tells a person; `wall_ms` and `monotonic_s` are clocks."""

    programs: Sequence[P]
    topics: Sequence[str]
    cluster: Cluster
    store: Store
    log: Log
    start: Callable[[P, str, str | None], str]
    say: Callable[[str], None]
    wall_ms: Callable[[], int]
    monotonic_s: Callable[[], float]
    parameter_names: tuple[str, str]
    generation: str | None = None
    _ends: Positions | None = None
    _parameters: dict[str, Mapping[str, str]] = field(default_factory=dict)
    _attempts: dict[str, Attempts] = field(default_factory=dict)

    def step(self) -> bool:
        """Look once and act; whether all jobs serve this generation. May block for seconds.

        Raises `StoreBusy`, `ClusterAway`, `LogAway`: nothing is lost, call again.
        """
        generation = self.store.generation()
        if generation != self.generation:
            self._enter(generation)
        jobs = [job for job in self.cluster.jobs() if not job.ended]
        serving = [self._keep(program, generation, jobs) for program in self.programs]
        self._finish(generation)
        return all(serving)

    def _enter(self, generation: str) -> None:
        """A generation that this keeper has not seen: find out whether state is missing."""
        ends = self.log.ends(self.topics)
        marked = self.store.rebuilding()
        reached = self.store.positions(generation)
        unfed = [at for at, end in ends.items() if end > 0 and at not in reached]
        if marked is not None or (unfed and not self.log.is_reached({at: ends[at] for at in unfed}, {})):
            self.store.begin_rebuilding(generation, self.wall_ms())
            self._ends = ends
            self.say(f"store {generation}: state is missing, rebuilding it from the log")
        self.generation = generation
        self._attempts.clear()

    def _keep(self, program: P, generation: str, jobs: Sequence[Job]) -> bool:
        """Whether the program's job serves; starts or cancels otherwise."""
        attempts = self._attempts.setdefault(program.name, Attempts())
        mine = [job for job in jobs if job.name == program.name]
        wanted = {self.parameter_names[0]: generation, self.parameter_names[1]: program.fingerprint}
        fitting = [job for job in mine if _fits(self._told(job.id), wanted)]
        for job in mine:
            if job not in fitting[:1] and job.state != "CANCELLING":
                self.say(f"{program.name}: cancelling {job.id}")
                self.cluster.cancel(job.id)
        if fitting:
            if fitting[0].serving:
                attempts.made = 0
            return fitting[0].serving
        if not mine and self.monotonic_s() >= attempts.not_before_s and self.cluster.slots() > 0:
            self._start(program, generation, attempts)
        return False

    def _told(self, job_id: str) -> Mapping[str, str]:
        """What a job was started with, asked once: a job never changes it."""
        known = self._parameters.get(job_id) or self.cluster.parameters(job_id)
        if known:
            self._parameters[job_id] = known
        return known

    def _start(self, program: P, generation: str, attempts: Attempts) -> None:
        attempts.made += 1
        attempts.not_before_s = self.monotonic_s() + min(2.0**attempts.made, 30.0)
        restore = (
            newest_checkpoint(program.checkpoints(generation)) if attempts.made <= _RESTORES_MAX else None
        )
        try:
            job_id = self.start(program, generation, restore)
        except NotAccepted as error:
            self.say(f"{program.name}: not accepted: {error}")
            return
        origin = "the beginning of the log" if restore is None else restore.rsplit("/", 1)[-1]
        self.say(f"{program.name}: started {job_id} from {origin}")

    def _finish(self, generation: str) -> None:
        if self._ends is not None and self.log.is_reached(self._ends, self.store.positions(generation)):
            self.store.end_rebuilding()
            self._ends = None
            self.say(f"store {generation}: state is complete")

    @property
    def rebuilding(self) -> bool:
        """Whether state is missing."""
        return self._ends is not None


def _fits(parameters: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(parameters.get(name) == value for name, value in wanted.items())


def newest_checkpoint(directory: str) -> str | None:
    """URI of the newest completed checkpoint below a `file:` URI; `None` if there is none, or elsewhere.

    A checkpoint is complete when its `_metadata` exists. On other file systems nothing is listed: the jobs
    then start from the beginning of the log.
    """
    parts = urlsplit(directory)
    if parts.scheme != "file":
        return None
    found = Path(unquote(parts.path)).glob("*/chk-*/_metadata")
    newest = max(found, key=lambda path: path.stat().st_mtime_ns, default=None)
    return None if newest is None else newest.parent.as_uri()
