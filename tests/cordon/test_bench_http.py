"""The measurement of the HTTP door: what it sees, and what it refuses to report."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bench.load import generator, standstill
from tests.api.artefact import small_artefact
from tests.parts import ROOT

HOST = "127.0.0.1"


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with the body that it got; to `slow` only after half a second, to `drop` not at all."""

    protocol_version = "HTTP/1.1"
    paths: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.paths.append(self.path)
        if body == b"drop":
            self.close_connection = True
            return
        if body == b"slow":
            time.sleep(0.5)
        self.send_response(202 if body == b"other" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer((HOST, 0), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def sent(*bodies: bytes) -> list[bytes]:
    return [generator.request("/x", body, HOST) for body in bodies]


def test_every_request_has_its_own_answer_at_its_time(port: int):
    bodies = [str(number).encode() * 50 for number in range(200)]
    found = generator.run(sent(*bodies), [n / 400 for n in range(200)], HOST, port, connections=8)
    assert [answer.body for answer in found.answers] == bodies
    assert {answer.status for answer in found.answers} == {200}
    assert 0.49 < found.elapsed_s < 1.5
    assert found.cpu_s < 0.2


def test_what_was_due_while_nothing_answered_waited_from_then_on(port: int):
    found = generator.run(sent(b"slow", b"a", b"b"), [0.0, 0.1, 0.4], HOST, port, connections=1)
    slow, first, second = (answer.latency_ms for answer in found.answers)
    assert slow >= 500
    assert first >= 400
    assert second >= 100
    assert found.waited == 2
    assert max(answer.late_ms for answer in found.answers) < 100


def test_a_lost_answer_is_no_answer_and_the_rest_goes_on(port: int):
    found = generator.run(sent(b"a", b"drop", b"other"), [0.0, 0.01, 0.02], HOST, port, connections=1)
    assert [answer.status for answer in found.answers] == [200, 0, 202]


def test_nobody_there_is_said():
    with pytest.raises(generator.GeneratorFailed, match="connect"):
        generator.run(sent(b"a"), [0.0], HOST, 1, connections=1)


WARM = ("--warm", "300", "--warm-seconds", "1")


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cordon.main", "bench", "http", "--alone", "--runs", "1", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=ROOT)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_artefact(tmp_path_factory.mktemp("models")))


@pytest.mark.parts
def test_a_service_that_stands_still_for_a_second_shows_in_p99(model: str):
    done = bench("--rate", "100", "--seconds", "6", *WARM, "--model", model, "--stall", "1")
    assert done.stdout, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["p99_ms"] > 850
    assert report["p50_ms"] < 500
    assert report["stalled_s"] == 1
    assert (report["errors"], report["journalled"]) == (0, 1_000)
    waits_ms = report["disk_alone_ms"]
    assert 0 < waits_ms["p50"] <= waits_ms["p99"] <= waits_ms["max"]
    stood = report["standstill_alone"]
    assert 0 <= stood["share"] < 1
    assert stood["max"] == 0 or stood["max"] > 0.3
    assert report["achieved_rps"] >= 0.98 * report["intended_rps"]


def test_a_processor_that_others_use_is_seen_to_stand_still():
    processors = sorted(os.sched_getaffinity(0))
    others = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
    busy = [subprocess.Popen([sys.executable, "-S", "-c", others, str(each)]) for each in processors]
    try:
        found = standstill.standstills(1.0)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert found["share"] > 0.2
    assert found["max"] > 1.0


@pytest.mark.parts
def test_a_rate_out_of_reach_gives_no_latency(model: str):
    done = bench("--rate", "20000", "--seconds", "0.5", *WARM, "--warm-seconds", "0", "--model", model)
    assert done.returncode == 2
    assert "latency would say nothing" in done.stderr
    assert not done.stdout


@pytest.mark.parts
def test_a_taken_port_is_not_measured(model: str):
    with socket.create_server((HOST, 0)) as other:
        done = bench("--rate", "100", "--port", str(other.getsockname()[1]), "--warm", "10", "--model", model)
    assert done.returncode == 2
    assert "is taken" in done.stderr


def test_the_generator_compiles_without_a_warning(tmp_path: Path):
    command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(tmp_path / "load")]
    done = subprocess.run([*command, str(generator.SOURCE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
