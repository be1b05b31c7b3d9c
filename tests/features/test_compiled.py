"""The module beside the library: who answers, what the server keeps, and what no argument can do to it."""

import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import features.compiled
from cordon.stack.port import HOST, Ports
from cordon.stack.supervisor import Stack
from cordon.stack.valkey import Valkey
from features.catalogue import load
from features.handbook import CATALOGUE
from features.library import REVISION, Keys, function_name, library_name, packed_layouts
from features.redis_store import connect
from features.resp import Address, Connection, Reply
from features.store import StoreMisused, StoreUnavailable
from tests.features.stores import TENANT, arrive, pseudonym, purchase, state, wall_ms

KEYS = Keys(TENANT, CATALOGUE.state_fingerprint)
FUNCTIONS = [
    function_name(CATALOGUE, "arrive"),
    function_name(CATALOGUE, "claim"),
    function_name(CATALOGUE, "observe"),
    function_name(CATALOGUE, "complete"),
    *(function_name(CATALOGUE, "merge", name) for name in CATALOGUE.entities),
]
FOLDER = Path(features.compiled.__file__).parent


@pytest.fixture
def raw(valkey: Valkey) -> Iterator[Connection]:
    connection = Connection(Address.parse(valkey.url))
    yield connection
    connection.close()


def calls(connection: Connection) -> dict[str, int]:
    """How often each of both commands was called."""
    stats = connection.call("INFO", "commandstats")
    assert isinstance(stats, bytes)
    lines = [line.split(b":calls=") for line in stats.splitlines() if b"fcall" in line]
    return {name.decode().removeprefix("cmdstat_"): int(rest.split(b",")[0]) for name, rest in lines}


def test_the_module_answers_what_every_decision_calls_and_lua_the_rest(
    valkey: Valkey, raw: Connection
) -> None:
    store = connect(valkey.url, CATALOGUE, TENANT)
    store.read("customer", ["nobody"])
    raw.call("CONFIG", "RESETSTAT")
    event = purchase("a")
    arrive(store, event)
    store.complete([(event.key, event.owner, b"approve")])
    assert calls(raw) == {"cordon.fcall": 2}
    raw.call("FCALL", function_name(CATALOGUE, "unindex"), 1, KEYS.open_claims, "tx:a", "0")
    assert calls(raw) == {"cordon.fcall": 2, "fcall": 1}
    store.close()


def test_a_server_that_was_not_told_the_layouts_answers_in_lua(
    make_stack: Callable[..., Stack], ports: Ports, tmp_path: Path
) -> None:
    node = Valkey(tmp_path / "data", ports.take())
    stack = make_stack(node.part())
    first = connect(node.url, CATALOGUE, TENANT)
    arrive(first, purchase("a"))
    first.close()
    stack.restart("valkey")
    raw = Connection(Address.parse(node.url))
    merge, key = function_name(CATALOGUE, "merge", "customer"), KEYS.state("customer", "who")
    assert raw.call("FCALL", merge, 1, key, b"") == 0
    assert calls(raw) == {"fcall": 1}
    second = connect(node.url, CATALOGUE, TENANT)
    assert arrive(second, purchase("b"))[0].numbers == (2, 2)
    assert calls(raw) == {"fcall": 1, "cordon.fcall": 1}
    second.close()
    raw.close()


def test_what_the_module_wrote_is_there_after_a_crash_and_on_a_replica_without_it(
    make_stack: Callable[..., Stack], ports: Ports, tmp_path: Path
) -> None:
    node = Valkey(tmp_path / "data", ports.take())
    bare = Valkey(tmp_path / "bare", ports.take(), name="bare", module=None)
    stack = make_stack(node.part(), bare.part())
    raw, other = Connection(Address.parse(node.url)), Connection(Address.parse(bare.url))
    raw.call("CONFIG", "SET", "appendfsync", "always")
    other.call("REPLICAOF", HOST, node.port)
    store = connect(node.url, CATALOGUE, TENANT)
    events = [purchase(f"e{i}", customer=f"c{i % 3}", amount=i + 1) for i in range(40)]
    arrive(store, *events)
    # An entity twice in one event, an answer whose origin the client knows.
    twice = events[0]._replace(key="tx:twice", targets=events[0].targets[:1] * 2)
    assert arrive(store, twice)[0].repeated == (False, True)
    store.complete([(event.key, event.owner, b"answer") for event in events])

    def held(connection: Connection) -> dict[bytes, tuple[Reply, Reply]]:
        keys = connection.call("KEYS", "{*")
        assert isinstance(keys, list)
        strings = [
            key for key in keys if isinstance(key, bytes) and connection.call("TYPE", key) == b"string"
        ]
        return {key: (connection.call("GET", key), connection.call("PEXPIRETIME", key)) for key in strings}

    before = held(raw)
    assert len(before) > 40
    assert sum(moment != -1 for _, moment in before.values()) == 41
    until_s = time.monotonic() + 10
    while held(other) != before:
        assert time.monotonic() < until_s
    stack.kill("valkey", hold=True)
    shutil.copytree(node.directory, tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock"))
    lua = Valkey(tmp_path / "copy", ports.take(), name="lua", module=None)
    make_stack(lua.part())
    third = Connection(Address.parse(lua.url))
    assert held(third) == before
    store.close()
    for connection in (raw, other, third):
        connection.close()


def test_the_server_knows_the_keys_of_a_call(raw: Connection) -> None:
    assert raw.call("COMMAND", "GETKEYS", "CORDON.FCALL", "any", 2, "a", "b", "c") == [b"a", b"b"]
    with pytest.raises(StoreMisused):
        raw.call("COMMAND", "GETKEYS", "CORDON.FCALL", "any", 9, "a")


@pytest.mark.parametrize(
    "packed",
    [b"", b"\x00", packed_layouts(CATALOGUE)[:-1], packed_layouts(CATALOGUE) + b"x", b"\x01" + b"\xff" * 200],
    ids=["nothing", "none", "cut off", "longer", "too many"],
)
def test_layouts_that_are_none_are_refused(packed: bytes, raw: Connection) -> None:
    with pytest.raises(StoreMisused, match="no layouts"):
        raw.call("CORDON.LAYOUT", library_name(CATALOGUE), packed)


def test_another_revision_of_the_functions_is_answered_in_lua(
    valkey: Valkey, raw: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.library.REVISION", REVISION + 1)
    with pytest.raises(StoreMisused, match="another revision"):
        raw.call("CORDON.LAYOUT", library_name(CATALOGUE), packed_layouts(CATALOGUE))
    store = connect(valkey.url, CATALOGUE, TENANT)
    store.read("customer", ["nobody"])
    raw.call("CONFIG", "RESETSTAT")
    assert arrive(store, purchase("a"))[0].numbers == (1, 1)
    assert calls(raw) == {"fcall": 1}
    store.close()


@st.composite
def arguments(draw: st.DrawFn, keys: int) -> list[bytes]:
    """Any; or those of an arrival at these keys, whose targets are anything, in their place."""
    if draw(st.booleans()):
        return draw(st.lists(st.binary(max_size=120), max_size=3))
    head = struct.pack("<QQIIBB", wall_ms(), wall_ms() + 10_000, 5_000, 60, 1, max(0, keys - 1))
    entities = sorted(range(1, 1 + len(CATALOGUE.layouts)))
    targets = [
        bytes([draw(st.sampled_from([*entities, 0, 9]))]) + draw(st.binary(min_size=8, max_size=8)) * 9
        for _ in range(keys)
    ]
    cut = draw(st.sampled_from([None, None, -1, 40, 20]))
    return [(head + b"".join(targets))[:cut], draw(st.binary(min_size=40, max_size=60))]


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_argument_and_no_value_bring_the_server_down_and_what_is_refused_changes_nothing(
    data: st.DataObject, valkey: Valkey, raw: Connection
) -> None:
    raw.call("FLUSHALL")
    raw.call("CORDON.LAYOUT", library_name(CATALOGUE), packed_layouts(CATALOGUE))
    function, keys = data.draw(st.sampled_from(FUNCTIONS)), data.draw(st.integers(0, 4))
    names = [f"{{acme:{i}}}" for i in range(keys)]
    for name in names:
        if data.draw(st.booleans()):
            raw.call("SET", name, data.draw(st.binary(max_size=200)))
    before = [raw.call("GET", name) for name in names]
    (answer,) = raw.pipeline([("FCALL", function, keys, *names, *data.draw(arguments(keys)))])
    assert raw.call("PING") == b"PONG"
    if isinstance(answer, Exception):
        assert isinstance(answer, StoreMisused | StoreUnavailable)
        assert [raw.call("GET", name) for name in names] == before


def test_a_damaged_target_changes_nothing(valkey: Valkey, raw: Connection) -> None:
    store = connect(valkey.url, CATALOGUE, TENANT)
    arrive(store, purchase("a"))
    before = state(store, "customer", "anna"), state(store, "terminal", "till")
    event = purchase("b")
    cut = event._replace(
        targets=(event.targets[0], event.targets[1]._replace(packed=event.targets[1].packed[:-1]))
    )
    with pytest.raises(StoreMisused, match="a target is cut off"):
        arrive(store, cut)
    raw.call("SET", KEYS.state("terminal", pseudonym("broken")), b"\x01\x00\x00\x00 damaged")
    with pytest.raises(StoreMisused, match="damaged state"):
        arrive(store, purchase("c", terminal="broken"))
    assert (state(store, "customer", "anna"), state(store, "terminal", "till")) == before
    assert store.claims(["tx:b", "tx:c"]) == [None, None]
    store.close()


@pytest.mark.parametrize("name", ["handbook", "payments"])
def test_states_are_changed_within_their_memory(name: str, tmp_path: Path) -> None:
    """The C code alone, any bytes, under the compiler's checks of memory and arithmetic."""
    program = tmp_path / "fuzz"
    sources = [str(FOLDER / "state.c"), str(Path(__file__).with_name("fuzz_state.c"))]
    flags = [
        "-std=c99",
        "-g",
        "-O1",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        f"-I{FOLDER}",
    ]
    subprocess.run(["cc", *flags, "-o", str(program), *sources], check=True)
    layouts = tmp_path / "layouts"
    layouts.write_bytes(packed_layouts(load(name)))
    # Looking for leaks needs ptrace, which not every container permits.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    command = [str(program), str(layouts), "200000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "200000 changes" in done.stdout
