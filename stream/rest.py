"""Flink's REST interface: which jobs run, cancel one, take a checkpoint.

What can go wrong, and what the caller does about it:

* `ClusterAway`   no answer, or not now: ask again later
"""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Final

_ENDED: Final = ("FAILED", "CANCELED", "FINISHED")
# An address in the environment must not send these requests through a proxy.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ClusterAway(Exception):
    """The cluster does not answer now."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job of the cluster. `serving`: all its tasks run. `started_ms`: wall clock of the cluster."""

    id: str
    name: str
    state: str
    serving: bool
    started_ms: int

    @property
    def ended(self) -> bool:
        """Whether it will never run again by itself."""
        return self.state in _ENDED


class Rest:
    """A session cluster at `address` (`http://host:port`). Calls block for at most `limit_s`."""

    def __init__(self, address: str, limit_s: float = 5.0) -> None:
        self._address = address
        self._limit_s = limit_s

    def jobs(self) -> list[Job]:
        """All jobs that the cluster remembers, newest first. Raises `ClusterAway`."""
        found = [
            Job(
                job["jid"],
                job["name"],
                job["state"],
                job["state"] == "RUNNING" and job["tasks"]["running"] == job["tasks"]["total"],
                job["start-time"],
            )
            for job in self._ask("GET", "/jobs/overview")["jobs"]
        ]
        return sorted(found, key=lambda job: -job.started_ms)

    def parameters(self, job_id: str) -> dict[str, str]:
        """The parameters that a job was started with. Raises `ClusterAway`."""
        told = self._ask("GET", f"/jobs/{job_id}/config").get("execution-config", {})
        return {str(k): str(v) for k, v in told.get("user-config", {}).items()}

    def slots(self) -> int:
        """Task slots of the cluster, free or not. Raises `ClusterAway`."""
        return int(self._ask("GET", "/overview")["slots-total"])

    def cancel(self, job_id: str) -> None:
        """Cancel a job; it ends a little later. Raises `ClusterAway`."""
        self._ask("PATCH", f"/jobs/{job_id}?mode=cancel")

    def take_checkpoint(self, job_id: str) -> str:
        """Ask for a checkpoint now; the trigger's id. Raises `ClusterAway`."""
        return str(self._ask("POST", f"/jobs/{job_id}/checkpoints", {})["request-id"])

    def is_taken(self, job_id: str, trigger_id: str) -> bool:
        """Whether that checkpoint has come to an end. Raises `ClusterAway`."""
        return bool(
            self._ask("GET", f"/jobs/{job_id}/checkpoints/{trigger_id}")["status"]["id"] == "COMPLETED"
        )

    def trouble(self, job_id: str) -> str:
        """First lines of a job's last failure, empty if there was none. Raises `ClusterAway`."""
        history = self._ask("GET", f"/jobs/{job_id}/exceptions").get("exceptionHistory", {})
        entries = history.get("entries", [])
        return "\n".join(entries[0].get("stacktrace", "").splitlines()[:8]) if entries else ""

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with _direct.open(request, timeout=self._limit_s) as answer:
                return json.loads(answer.read() or b"{}")
        except (OSError, ValueError) as error:
            raise ClusterAway(f"{method} {path}: {error}") from error
