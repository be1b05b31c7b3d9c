"""Entry point of the decision service: `python -m api.serve`.

One worker runs in this process; several are child processes, restarted when they die, ended when this
process ends. Each has a listening socket of its own at the one port, among which the kernel spreads
connections evenly; it also takes from the others', so that nobody waits for a worker that is away.
This module and door.py are the ones that read a clock.
"""

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from api.config import InvalidConfiguration, ServiceConfig, here

BACKLOG = 2_048
# The event loop takes one new connection per round from each listening socket, and a round may last as long
# as a batch: that many handles on the one socket take that many.
ACCEPTED_PER_ROUND = 16
RESTART_S = 0.5
LOG = logging.getLogger("cordon.serve")


def now_ms() -> int:
    """Wall clock."""
    return time.time_ns() // 1_000_000


def main() -> int:
    """Run until told to stop; the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        config = here()
    except InvalidConfiguration as error:
        LOG.error("%s", error)
        return 2
    if len(sys.argv) > 2:
        number, *files = map(int, sys.argv[1:])
        return _worker(config, number, [socket.socket(fileno=file) for file in files])
    listening = _listen(config)
    _share_metrics(config)
    if config.workers == 1:
        return _worker(config, 0, listening)
    return _supervise(config, listening)


def _listen(config: ServiceConfig) -> list[socket.socket]:
    """A socket for each worker."""
    found = []
    for _ in range(config.workers):
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if config.workers > 1:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((config.host, config.port))
        listening.listen(BACKLOG)
        found.append(listening)
    return found


def _share_metrics(config: ServiceConfig) -> None:
    """Prometheus' shared directory, emptied: values of earlier processes are not ours."""
    if config.workers == 1:
        return
    directory = Path(config.journal_dir) / ".metrics"
    directory.mkdir(parents=True, exist_ok=True)
    for file in directory.glob("*.db"):
        file.unlink()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)


def _worker(config: ServiceConfig, number: int, listening: Sequence[socket.socket]) -> int:
    # Imported here: Prometheus reads its environment when it is imported.
    import uvicorn

    from api.access import LOCAL_KEYS
    from api.api_keys import KeysUnusable
    from api.app import Service, create_app
    from api.compose import compose, settle_garbage
    from api.hot_protocol import HotProtocol
    from api.journal import JournalBusy, JournalUnavailable
    from api.key_set import KeySetUnusable
    from api.model import ModelRefused
    from api.rules.load import RuleSetError
    from features import SchemaError

    try:
        parts = compose(config, f"service-{number}", time.perf_counter_ns, now_ms)
        service = Service(parts, now_ms, time.perf_counter_ns)
    except (
        InvalidConfiguration,
        JournalBusy,
        JournalUnavailable,
        RuleSetError,
        ModelRefused,
        SchemaError,
        KeysUnusable,
        KeySetUnusable,
    ) as error:
        LOG.error("%s", error)
        return 2
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(service),
            loop="uvloop",
            http=HotProtocol,
            ws="none",
            # Nothing here asks whom a proxy speaks for.
            proxy_headers=False,
            access_log=False,
            log_level="warning",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
            server_header=False,
            date_header=False,
        )
    )
    if config.access.keys_in_force == LOCAL_KEYS and not config.host.startswith("127."):
        LOG.warning("dev-key opens this service to its network: configure keys, see docs/access.md")
    service.on_fatal = lambda: setattr(server, "should_exit", True)
    LOG.info("ready: service http://%s:%d", config.host, config.port)
    # uvicorn hands its signals on when it is done; ending is then up to us.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    settle_garbage()
    server.run(sockets=[*listening, *(listening[number].dup() for _ in range(ACCEPTED_PER_ROUND - 1))])
    parts.close()
    if service.fatal is not None:
        LOG.error("stopped: %s", service.fatal)
        return 1
    return 0


def _supervise(config: ServiceConfig, listening: Sequence[socket.socket]) -> int:
    """Keep the workers running until a signal."""
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    for each in listening:
        os.set_inheritable(each.fileno(), True)
    workers: dict[int, subprocess.Popen[bytes]] = {}
    while not stopping:
        for number in range(config.workers):
            worker = workers.get(number)
            if worker is None or worker.poll() is not None:
                if worker is not None:
                    LOG.error("worker %d ended with %d; starting it again", number, worker.returncode)
                workers[number] = _start(number, listening)
        time.sleep(RESTART_S)
    for worker in workers.values():
        worker.terminate()
    for worker in workers.values():
        worker.wait()
    return 0


def _start(number: int, listening: Sequence[socket.socket]) -> "subprocess.Popen[bytes]":
    files = [str(each.fileno()) for each in listening]
    return subprocess.Popen(
        [sys.executable, "-m", "api.serve", str(number), *files],
        close_fds=False,
        preexec_fn=_die_with_parent,
    )


def _die_with_parent() -> None:
    """No orphan when the supervisor is killed: Linux' PR_SET_PDEATHSIG."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
