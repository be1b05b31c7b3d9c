"""The service's processes, started for a test on real parts and stopped by their ids."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from cordon.settings import Kafka
from tests.parts import ROOT, SERVICE_PYTHON

SECRET = "0123456789abcdef0123456789abcdef"
KEY = {"authorization": "Bearer dev-key"}


class Processes:
    """Starts modules with one environment; `close` ends what still runs."""

    def __init__(self, directory: Path, redis_url: str, kafka: Kafka | None = None, **more: str) -> None:
        self.directory = directory
        self.redis_url = redis_url
        self._running: list[subprocess.Popen[bytes]] = []
        self.clients: list[httpx.Client] = []
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("CORDON_")},
            "CORDON_SECRETS__PSEUDONYM": SECRET,
            "CORDON_REDIS__URL": redis_url,
            "CORDON_JOURNAL__DIRECTORY": str(directory / "journal"),
            "CORDON_JOURNAL__SEGMENT_BYTES": str(4 << 20),
            "CORDON_AUDIT__ANCHORS": str(directory / "anchors"),
            "CORDON_AUDIT__KEYS": str(directory / "keys"),
            "CORDON_VAULT__DIRECTORY": str(directory / "vault"),
            "CORDON_STORE_URL": f"sqlite:///{directory / 'query.sqlite'}",
            "CORDON_TIER__WARM": str(directory / "warm"),
            "CORDON_DECIDE__CLOCK": "event",
            "CORDON_KAFKA__BOOTSTRAP": "127.0.0.1:1",
            "PYTHONUNBUFFERED": "1",
            **more,
        }
        if kafka is not None:
            names = kafka.model_dump()
            self.environment |= {f"CORDON_KAFKA__{name.upper()}": str(value) for name, value in names.items()}

    def start(self, module: str, *, ready: str = "ready:", **more: str) -> subprocess.Popen[bytes]:
        """The process, once it said that it is ready."""
        log = self.directory / f"{module}-{len(self._running)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [str(SERVICE_PYTHON), "-m", module], cwd=ROOT, env=self.environment | more, stderr=file,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
        self._running.append(process)
        self.log = log
        wait_for(lambda: ready in log.read_text() or process.poll() is not None, 60)
        if process.poll() is not None:
            raise AssertionError(f"{module} ended with {process.returncode}: {log.read_text()}")
        return process

    def service(self, port: int, **more: str) -> tuple[subprocess.Popen[bytes], httpx.Client]:
        """The HTTP service and a client of it."""
        process = self.start("api.serve", CORDON_SERVICE__PORT=str(port), **more)
        client = self.client(port)
        wait_for(lambda: answers(client), 30)
        return process, client

    def client(self, port: int) -> httpx.Client:
        """One more client of a service."""
        self.clients.append(httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=KEY, timeout=10))
        return self.clients[-1]

    def close(self) -> None:
        """End everything that still runs."""
        for client in self.clients:
            client.close()
        for process in self._running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._running:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def kill(process: "subprocess.Popen[bytes]") -> None:
    """kill -9, and wait for the end."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health/live").status_code == 200
    except httpx.HTTPError:
        return False


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The condition's first true value; fails after `seconds`."""
    until = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"not within {seconds} s: {condition}")
        time.sleep(0.03)


def metric(text: str, name: str, **labels: str) -> float:
    """One sample of a metrics page; 0 if it is not there."""
    for line in text.splitlines():
        match = re.match(rf"{name}(\{{(.*)\}})? (\S+)$", line)
        if match and all(f'{k}="{v}"' in (match.group(2) or "") for k, v in labels.items()):
            return float(match.group(3))
    return 0.0


def body(id: str, number: int = 0, **changes: Any) -> Mapping[str, Any]:
    """A valid payments transaction."""
    given = {
        "transaction_id": id, "time": 1_760_000_000_000 + number * 1_000, "amount": 1_500, "currency": "EUR",
        "card": f"cd_{number % 7}", "customer": f"cu_{number % 7}", "merchant": "me_a", "channel": "ecom",
        "category": "grocery",
    }  # fmt: skip
    return given | changes
