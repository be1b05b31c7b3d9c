"""Prepared requests at prepared times: the compiled load generator (load.c) and what it found.

A process of its own, one thread, a few microseconds a request: it does not slow down what it measures, and it
reports what it took itself. Compiled at the first use, beside its source.
"""

import hashlib
import json
import os
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cordon.failure import Failure
from cordon.stack.guard import yield_processor
from models.kernel.build import find_compiler

SOURCE: Final = Path(__file__).with_name("load.c")
FLAGS: Final = ("-std=gnu11", "-O2", "-Wall")
PATIENCE_S: Final = 10.0
_PLANNED = struct.Struct("<QI")
_ANSWERED = struct.Struct("<QQII")


class GeneratorFailed(Failure):
    """The load generator cannot be built or broke off; nothing was measured."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of one request. `status` 0: no answer. `late_ms`: what the generator itself added."""

    latency_ms: float
    late_ms: float
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Load:
    """One run. `answers` are in the order of the requests. `elapsed_s`: from the start to the last answer.
    `waited`: requests that were due when no connection was free. `cpu_s`: the generator's own. `started_s`:
    the start by the system's monotonic clock, which all processes of a machine share."""

    answers: tuple[Answered, ...]
    elapsed_s: float
    waited: int
    cpu_s: float
    started_s: float

    @property
    def achieved_rps(self) -> float:
        """Answers per second."""
        return sum(answer.status > 0 for answer in self.answers) / self.elapsed_s


def request(path: str, body: bytes, host: str, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """The bytes of a POST of JSON."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"host: {host}",
        *(f"{name}: {value}" for name, value in headers),
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def run(requests: Sequence[bytes], due_s: Sequence[float], host: str, port: int, *, connections: int) -> Load:
    """Sends every request when it is due (seconds from the start, ascending) and waits for the answers.

    Blocks. Raises `GeneratorFailed`.
    """
    with tempfile.TemporaryDirectory() as name:
        plan, results = Path(name) / "plan", Path(name) / "results"
        with plan.open("wb") as file:
            for sent, at_s in zip(requests, due_s, strict=True):
                file.write(_PLANNED.pack(round(at_s * 1e9), len(sent)))
                file.write(sent)
        words = (str(program()), str(plan), str(results), host, str(port), str(connections), str(PATIENCE_S))
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as running:
            # It stands for clients on machines of their own: what it sends late, it would call latency.
            yield_processor(-20, running.pid)
            try:
                printed, error = running.communicate()
            except BaseException:
                running.kill()
                raise
        if running.returncode != 0:
            raise GeneratorFailed(error.strip() or f"the generator ended with {running.returncode}")
        told = json.loads(printed)
        answers = _answers(results.read_bytes())
    return Load(answers, told["elapsed_s"], told["waited"], told["cpu_s"], told["started_s"])


def program() -> Path:
    """The executable, compiled if need be. Raises `GeneratorFailed`."""
    compiler = find_compiler()
    if compiler is None:
        raise GeneratorFailed("the load generator needs a C compiler (cc, gcc, clang or $CC): install one")
    key = hashlib.sha256(SOURCE.read_bytes() + repr((FLAGS, compiler)).encode()).hexdigest()[:12]
    target = SOURCE.parent / "build" / f"load-{key}"
    if not target.is_file():
        target.parent.mkdir(exist_ok=True)
        draft = target.with_suffix(f".{os.getpid()}")
        command = [*map(os.fsdecode, compiler[1:]), *FLAGS, "-o", str(draft), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise GeneratorFailed(f"{' '.join(command)} failed: {done.stderr.strip()}")
        draft.replace(target)
    return target


def _answers(data: bytes) -> tuple[Answered, ...]:
    found, at = [], 0
    while at < len(data):
        latency_ns, late_ns, status, length = _ANSWERED.unpack_from(data, at)
        at += _ANSWERED.size
        found.append(Answered(latency_ns / 1e6, late_ns / 1e6, status, data[at : at + length]))
        at += length
    return tuple(found)
