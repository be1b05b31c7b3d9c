"""The supervisor: real processes, real deaths, nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from cordon.settings import Settings
from cordon.stack.guard import yield_processor
from cordon.stack.local import FOLLOWERS, Options, local
from cordon.stack.part import Backoff, Part, State
from cordon.stack.port import HOST, Ports, is_free
from cordon.stack.probe import Answering, Attempt, Listening, Probe, Running, Said
from cordon.stack.process import Identity, start_time, threads
from cordon.stack.supervisor import PartFailed, Stack, UnknownPart, paused
from cordon.stack.valkey import Valkey

PYTHON = sys.executable


UP = Running(0.1)
SILENT = Said("a word that is never said")


def script(text: str, name: str = "part", probe: Probe = UP, **options) -> Part:
    return Part(name=name, command=(PYTHON, "-S", "-c", text), probe=probe, **options)


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        if holds():
            return True
        time.sleep(0.02)
    return False


def state_of(stack: Stack, name: str) -> State:
    return next(part.state for part in stack.status() if part.name == name)


def process_of(stack: Stack, name: str) -> Identity:
    status = next(part for part in stack.status() if part.name == name)
    assert status.pid is not None
    assert status.started is not None
    return Identity(status.pid, status.started)


def niceness(stack: Stack, name: str) -> tuple[int, int]:
    """Of the process, and of its session among the others (as wished where there are no autogroups)."""
    pid = process_of(stack, name).pid
    own = os.getpriority(os.PRIO_PROCESS, pid)
    group = Path(f"/proc/{pid}/autogroup")
    if not group.exists():
        return own, 7 if name == "follower" else 0
    return own, int(group.read_text().rpartition("nice")[2])


def test_a_part_that_follows_yields_the_processor(tmp_path: Path):
    text = "import time; time.sleep(60)"
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with Stack([script(text, "follower", nice=7), script(text, "leader")], tmp_path) as stack:
        assert eventually(lambda: niceness(stack, "follower") == (min(19, own + 7), 7))
        assert niceness(stack, "leader") == (own, 0)


def test_parts_that_follow_leave_processors_to_the_others_once_all_serve(tmp_path: Path):
    go = tmp_path / "go"
    text = (
        "import pathlib, subprocess, sys, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)\n"
        "print('serves', flush=True)\n"
        "child.wait()"
    )
    own = sorted(os.sched_getaffinity(0))
    parts = [script(text, f"spares{spares}", Said("serves"), spares=spares) for spares in (0, 1, len(own))]

    def may_run_on(part: Part, wanted: list[int]) -> bool:
        tasks = [thread for pid in stack.processes(part.name) for thread in threads(pid)]
        return [sorted(os.sched_getaffinity(task)) for task in tasks] == [wanted] * 3

    go.touch()
    with Stack(parts, tmp_path) as stack:
        wanted = [own[: len(own) - part.spares] or own for part in parts]
        assert eventually(lambda: all(map(may_run_on, parts, wanted)))
        go.unlink()
        stack.kill("spares1")
        assert eventually(lambda: may_run_on(parts[1], own))
        assert state_of(stack, "spares1") is State.STARTING
        go.touch()
        stack.wait_ready()
        assert eventually(lambda: may_run_on(parts[1], own[:-1] or own))


def test_what_follows_keeps_off_as_many_processors_as_there_are_who_answer(tmp_path: Path):
    def spares(workers: int, *only: str) -> dict[str, int]:
        settings = Settings.load(service={"workers": workers})
        plan = local(settings, tmp_path, Options(only=only, usual_ports=False))
        return {part.name: part.spares for part in plan.parts}

    half = len(os.sched_getaffinity(0)) // 2
    for workers in (1, half + 1):
        expected = min(workers, half)
        found = spares(workers)
        assert {name for name, count in found.items() if count} == (FOLLOWERS.keys() if half else set())
        assert {found[name] for name in FOLLOWERS} == {expected}
    assert set(spares(1, "valkey", "kafka", "taskmanager").values()) == {0}


def test_who_may_goes_before_others_and_who_may_not_stays():
    own = os.getpriority(os.PRIO_PROCESS, 0)
    permitted = subprocess.run(["nice", "-n", "-5", "true"], capture_output=True, check=True).stderr == b""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as hasty:
        yield_processor(-5, hasty.pid)
        assert os.getpriority(os.PRIO_PROCESS, hasty.pid) == (max(-20, own - 5) if permitted else own)
        group = Path(f"/proc/{hasty.pid}/autogroup")
        if group.exists():
            assert int(group.read_text().rpartition("nice")[2]) == (-5 if permitted else 0)
        hasty.kill()


def test_parts_start_after_those_they_need_and_stop_before_them(tmp_path: Path):
    order: list[str] = []
    stack = Stack(
        [
            script("import time; time.sleep(60)", "reader", needs=("store",)),
            script("import time; time.sleep(60)", "store"),
        ],
        tmp_path,
        say=order.append,
    )
    with stack:
        assert state_of(stack, "reader") is State.READY
    assert order.index("store: ready") < order.index("reader: starting")
    assert {part.state for part in stack.status()} == {State.STOPPED}


def test_a_task_that_ends_well_is_done_and_lets_others_start(tmp_path: Path):
    once = script("print('made')", "topics", once=True)
    with Stack([once, script("import time; time.sleep(60)", "reader", needs=("topics",))], tmp_path) as stack:
        assert state_of(stack, "topics") is State.DONE
        assert stack.log("topics").read_text() == "made\n"


def test_a_part_that_does_not_start_fails_with_the_tail_of_its_log(tmp_path: Path):
    broken = script(
        "raise SystemExit('no such table: cards')", probe=SILENT, backoff=Backoff(first_s=0.01, deaths_max=1)
    )
    with pytest.raises(PartFailed, match=r"(?s)part: ended with status 1; log: .*no such table: cards"):
        Stack([broken], tmp_path).start()


def test_a_failed_start_stops_the_other_parts(tmp_path: Path):
    well = script("import time; time.sleep(60)", "well")
    broken = script("raise SystemExit(3)", "broken", SILENT, needs=("well",), backoff=Backoff(deaths_max=0))
    stack = Stack([well, broken], tmp_path)
    with pytest.raises(PartFailed):
        stack.start()
    assert state_of(stack, "well") is State.STOPPED


def test_a_missing_program_is_said_in_one_line(tmp_path: Path):
    with pytest.raises(PartFailed, match=r"no-such-server is missing: run `make setup`"):
        Stack([Part(name="part", command=("no-such-server",))], tmp_path).start()


def test_a_part_that_never_serves_fails_in_time(tmp_path: Path, ports: Ports):
    silent = Part(
        name="silent",
        command=(PYTHON, "-S", "-c", "import time; time.sleep(60)"),
        probe=Listening(HOST, ports.take()),
        start_timeout_s=0.3,
    )
    with pytest.raises(PartFailed, match="silent: not ready after 0 s"):
        Stack([silent], tmp_path).start()


def test_what_a_part_said_before_it_died_does_not_make_it_ready(tmp_path: Path):
    # It speaks at the first start only, then dies once; the second start never says that it is ready.
    text = f"""
import pathlib, sys, time
first = pathlib.Path({str(tmp_path / "first")!r})
if not first.exists():
    first.touch()
    print("ready: part", flush=True)
time.sleep(60)
"""
    part = Part(
        name="part",
        command=(PYTHON, "-S", "-c", text),
        probe=Said("ready: part"),
        backoff=Backoff(first_s=0.01),
        start_timeout_s=1.0,
    )
    with Stack([part], tmp_path) as stack:
        stack.kill("part")
        with pytest.raises(PartFailed, match="part: not ready after 1 s"):
            stack.wait_ready("part")


def test_an_unknown_part_is_named_with_those_that_exist(tmp_path: Path):
    with pytest.raises(UnknownPart, match="no part is named kafak; there are: part"):
        Stack([script("")], tmp_path).pause("kafak")


def test_a_part_that_ignores_the_request_to_end_is_killed(tmp_path: Path):
    stubborn = script(
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', flush=True)\n"
        "time.sleep(60)",
        stop_timeout_s=0.3,
    )
    stack = Stack([stubborn], tmp_path)
    stack.start()
    assert eventually(lambda: stack.log("part").read_text() == "up\n")
    process = process_of(stack, "part")
    stack.stop()
    assert not process.alive()


def test_what_daemonises_itself_away_is_ended_too(tmp_path: Path):
    # The part forks a child into a session of its own, as Flink's start scripts do, then goes on.
    text = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
    os._exit(0)
time.sleep(60)
"""
    stack = Stack([script(text)], tmp_path)
    stack.start()
    assert eventually(lambda: stack.log("part").read_text().endswith("\n"))
    strayed = int(stack.log("part").read_text())
    assert start_time(strayed) is not None
    stack.stop()
    assert start_time(strayed) is None


def test_a_part_ends_its_own_children_in_its_own_order(tmp_path: Path):
    # As PyFlink's client does with its Java gateway: it says goodbye to a child that is still there.
    text = """
import os, signal, sys, time
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.read(reader, 1)
    os._exit(0)
def end(*_):
    os.write(writer, b"x")
    print("child:", os.waitpid(child, 0)[1], flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("ready: part", flush=True)
while True: time.sleep(1)
"""
    stack = Stack([script(text, probe=Said("ready: part"))], tmp_path)
    stack.start()
    stack.stop()
    assert stack.log("part").read_text() == "ready: part\nchild: 0\n"


def test_a_killed_part_is_started_again_and_the_death_is_shown(make_stack, valkey_part: Part):
    stack = make_stack(valkey_part)
    before = process_of(stack, "valkey")
    stack.kill("valkey")
    assert not before.alive()
    stack.wait_ready("valkey", seconds=20)
    status = stack.status()[0]
    assert (status.state, status.deaths) == (State.READY, 1)
    assert status.pid != before.pid


def test_a_part_that_keeps_dying_is_given_up_and_the_others_go_on(tmp_path: Path):
    doomed = Part(
        name="doomed",
        command=(PYTHON, "-S", "-c", "import time; time.sleep(0.2); raise SystemExit(9)"),
        probe=Running(0.0),
        backoff=Backoff(first_s=0.01, factor=1.0, deaths_max=2),
    )
    with Stack([doomed, script("import time; time.sleep(60)", "well")], tmp_path) as stack:
        assert eventually(lambda: state_of(stack, "doomed") is State.FAILED)
        assert (stack.status()[0].deaths, stack.status()[0].exit_status) == (3, 9)
        assert state_of(stack, "well") is State.READY


def test_waits_between_deaths_grow_up_to_a_limit():
    backoff = Backoff(first_s=1, factor=2, longest_s=5)
    assert [backoff.delay_s(deaths) for deaths in (1, 2, 3, 4, 5)] == [1, 2, 4, 5, 5]


def test_a_held_part_stays_down_until_it_is_started(make_stack, valkey_part: Part):
    stack = make_stack(valkey_part)
    stack.kill("valkey", hold=True)
    time.sleep(0.6)
    assert state_of(stack, "valkey") is State.HELD
    stack.restart("valkey")
    assert state_of(stack, "valkey") is State.READY


def test_a_paused_part_answers_again_afterwards(make_stack, valkey_part: Part, valkey_node: Valkey):
    stack = make_stack(valkey_part)
    with paused(stack, "valkey"):
        assert not Answering(HOST, valkey_node.port).ready(Attempt())
        assert state_of(stack, "valkey") is State.PAUSED
    assert Answering(HOST, valkey_node.port).ready(Attempt())


def test_data_outlives_a_kill(make_stack, valkey_part: Part, valkey_node: Valkey):
    stack = make_stack(valkey_part)
    with redis.Redis(host=HOST, port=valkey_node.port) as client:
        client.set("card-1", 7)
        client.execute_command("WAITAOF", 1, 0, 5_000)
    stack.kill("valkey")
    stack.wait_ready("valkey", seconds=20)
    with redis.Redis(host=HOST, port=valkey_node.port) as client:
        assert client.get("card-1") == b"7"


def test_a_recycled_process_id_is_never_signalled():
    bystander = subprocess.Popen([PYTHON, "-S", "-c", "import time; time.sleep(60)"])
    try:
        true = Identity.of(bystander.pid)
        assert true is not None
        stale = Identity(bystander.pid, "1")
        assert not stale.alive()
        assert not stale.signal(signal.SIGKILL)
        assert true.alive()
    finally:
        bystander.kill()
        bystander.wait()


def test_taken_ports_are_passed_over():
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        busy = taken.getsockname()[1]
        assert not is_free(busy)
        given = Ports().take(busy)
    assert given != busy


def test_a_usual_port_is_kept_when_it_is_free_and_given_once():
    free = Ports().take()
    ports = Ports()
    assert ports.take(free) == free
    assert ports.take(free) != free


SUPERVISOR = """
import sys, time
from pathlib import Path
from cordon.stack.part import Part
from cordon.stack.probe import Running
from cordon.stack.supervisor import Stack
sleep = "import time; time.sleep(300)"
parts = [Part(name=n, command=(sys.executable, "-S", "-c", sleep), probe=Running(0.1)) for n in ("a", "b")]
with Stack(parts, Path(sys.argv[1])) as stack:
    print(*(part.pid for part in stack.status()), flush=True)
    time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_part_outlives_its_supervisor(tmp_path: Path, number: signal.Signals):
    supervisor = subprocess.Popen(
        [PYTHON, "-c", SUPERVISOR, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert supervisor.stdout is not None
    with supervisor, supervisor.stdout as out:
        pids = [int(word) for word in out.readline().split()]
        assert [start_time(pid) is not None for pid in pids] == [True, True]
        os.kill(supervisor.pid, number)
    assert eventually(lambda: all(start_time(pid) is None for pid in pids))


@pytest.fixture
def valkey_node(tmp_path_factory: pytest.TempPathFactory, ports: Ports) -> Valkey:
    return Valkey(tmp_path_factory.mktemp("node"), ports.take())


@pytest.fixture
def valkey_part(valkey_node: Valkey) -> Part:
    return valkey_node.part()
