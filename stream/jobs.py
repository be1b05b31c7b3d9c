"""`python -m stream.jobs`: starts the Flink jobs of an installation and keeps them (Flink environment only).

Says `ready: jobs` on stderr when they run. SIGTERM and SIGINT take a last checkpoint and cancel them.
"""

import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from py4j.protocol import Py4JError
from pyflink.util.exceptions import TableException

from features.library import Keys
from features.schema import SchemaError
from stream.keeper import Keeper, NotAccepted
from stream.life import Life
from stream.link import StoreBusy
from stream.log_end import LogAway, LogEnd
from stream.program import GENERATION, JOBS, PROGRAM, JobName, Program, submit
from stream.rest import ClusterAway, Rest
from stream.setting import InvalidSetting, Setting, parse

PAUSE_S: Final = 0.5
# While nothing is missing: each look makes a JVM answer, on processors that others need.
CALM_S: Final = 2.0
LAST_CHECKPOINT_S: Final = 4.0
CANCELLED_S: Final = 4.0


def programs(setting: Setting, names: Sequence[JobName]) -> list[Program]:
    """The jobs among `names` that this catalogue needs."""
    wanted = [Program(setting, name) for name in names]
    return [program for program in wanted if program.topics]


def say(text: str) -> None:
    """One line for a person."""
    sys.stderr.write(f"jobs: {text}\n")
    sys.stderr.flush()


def life(setting: Setting) -> Life:
    """The store of this installation."""
    keys = Keys(setting.tenant, setting.catalogue.state_fingerprint)
    return Life(setting.place, keys, lambda: secrets.token_hex(8))


def log_end(setting: Setting) -> LogEnd:
    """The log of this installation."""
    return LogEnd(setting.bootstrap, [jar.resolve().as_uri() for jar in setting.jars])


def start(program: Program, generation: str, restore: str | None) -> str:
    """Submit; the job's id. Raises `NotAccepted`."""
    try:
        return submit(program, generation, restore)
    except (Py4JError, TableException) as error:
        raise NotAccepted(str(error).splitlines()[0] if str(error) else repr(error)) from error


def bound_client() -> None:
    """Limits of the Java client that submits: it plans a query now and then, no more. Before its start."""
    os.environ.setdefault("JVM_ARGS", "-Xms128m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1")


def keep(setting: Setting, stop: threading.Event) -> None:
    """Keep the jobs until `stop`."""
    rest, store, log = Rest(setting.rest), life(setting), log_end(setting)
    mine = programs(setting, JOBS)
    topics = [setting.topics[topic] for topic in sorted({t for program in mine for t in program.topics})]
    keeper = Keeper(
        programs=mine,
        topics=topics,
        cluster=rest,
        store=store,
        log=log,
        start=start,
        say=say,
        wall_ms=lambda: int(time.time() * 1000),
        monotonic_s=time.monotonic,
        parameter_names=(GENERATION, PROGRAM),
    )
    told, ready, serving = "", False, False
    while not stop.is_set():
        try:
            serving = keeper.step()
            if serving and not ready:
                ready = True
                sys.stderr.write("ready: jobs\n")
                sys.stderr.flush()
            told = ""
        except (StoreBusy, ClusterAway, LogAway) as error:
            serving = False
            if str(error) != told:
                told = str(error)
                say(f"waiting: {told}")
        stop.wait(CALM_S if serving and not keeper.rebuilding else PAUSE_S)
    leave(rest, [program.name for program in mine])
    log.close()


def leave(rest: Rest, names: Sequence[str]) -> None:
    """Take a last checkpoint of the running jobs, as far as that is quick, and cancel them."""
    try:
        mine = [job for job in rest.jobs() if job.name in names and not job.ended]
        taken = {job.id: rest.take_checkpoint(job.id) for job in mine if job.serving}
        give_up_at = time.monotonic() + LAST_CHECKPOINT_S
        while taken and time.monotonic() < give_up_at:
            taken = {job: trigger for job, trigger in taken.items() if not rest.is_taken(job, trigger)}
            time.sleep(0.1)
        for job in mine:
            rest.cancel(job.id)
        give_up_at = time.monotonic() + CANCELLED_S
        while time.monotonic() < give_up_at and any(
            job.name in names and not job.ended for job in rest.jobs()
        ):
            time.sleep(0.1)
    except ClusterAway as error:
        say(f"left without cancelling: {error}")


def run_one(name: JobName) -> int:
    """Submit one job without keeping it, for `flink run -py`."""
    setting = parse(os.environ, Path.cwd())
    program = Program(setting, name)
    if not program.topics:
        say(f"catalogue {setting.catalogue.name} needs no job {name}")
        return 0
    job_id = submit(program, life(setting).generation(), None)
    say(f"{program.name}: started {job_id} from the beginning of the log")
    return 0


def main() -> int:
    """Exit status: 0 stopped, 2 wrong settings."""
    stop = threading.Event()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    try:
        setting = parse(os.environ, Path.cwd())
    except (InvalidSetting, SchemaError) as error:
        say(str(error))
        return 2
    bound_client()
    keep(setting, stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
