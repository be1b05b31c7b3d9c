"""The store's commands from compiled code are, byte by byte, those that the reference's words become."""

from copy import deepcopy
from typing import Any

import hiredis
from hypothesis import given
from hypothesis import strategies as st

from api.intake.calls import CompiledCommands, best
from features import payments
from features.claim import KEPT
from features.command import Commands
from features.store import Arrival, Target

TENANT = "größer"
MADE = payments.CATALOGUE, TENANT, 5_000
IDS = st.text(min_size=1, max_size=12)
B16 = st.binary(min_size=16, max_size=16)
TARGETS = st.lists(
    st.builds(Target, st.sampled_from(payments.CATALOGUE.entities), IDS, st.binary(max_size=60)), max_size=6
)
ARRIVALS = st.builds(
    Arrival, IDS.map("tx:{}".format), B16, B16, st.binary(max_size=90), TARGETS.map(tuple), st.booleans()
)


def packed(commands: Any) -> list[bytes]:
    return [one if isinstance(one, bytes) else hiredis.pack_command(one) for one in commands]


@given(
    arrivals=st.lists(ARRIVALS, max_size=6),
    now_ms=st.integers(0, 2**52),
    others=st.lists(st.tuples(IDS, B16, st.binary(max_size=90)), max_size=3),
    data=st.data(),
)
def test_commands_are_the_same_bytes(arrivals, now_ms, others, data):
    reference, compiled = Commands(*MADE), CompiledCommands(*MADE)
    wanted = packed(reference.arrivals(arrivals, now_ms, now_ms + 250))
    found = compiled.arrivals(arrivals, now_ms, now_ms + 250)
    assert all(type(one) is bytes for one in found)
    assert (found, compiled.origins.known) == (wanted, reference.origins.known)
    own = [(one.key, data.draw(st.sampled_from([one.owner, b"somebody else 00"])), b"{}") for one in arrivals]
    answers = [*own, *others, *own]
    assert compiled.answers(answers) == packed(reference.answers(answers))
    assert compiled.origins.known == reference.origins.known


IRREGULAR: dict[str, dict[str, Any]] = {
    "a surrogate": {"key": "tx:\ud800"},
    "no text": {"key": 7},
    "a short content": {"content": b"c"},
    "a long owner": {"owner": b"o" * 17},
    "a payload of another kind": {"payload": bytearray(b"p")},
    "an entity that nobody knows": {"targets": (Target("nobody", "p", b""),)},
    "too many targets": {"targets": (Target("card", "p", b"x"),) * 256},
    "a target that is none": {"targets": (("card", "p"),)},
    "neither true nor false": {"observe": 1},
}


def outcome(commands: Commands, arrivals: list[Any]) -> Any:
    """What they give, or what they raise."""
    try:
        return packed(commands.arrivals(arrivals, 7, 257))
    except Exception as error:  # noqa: BLE001 -- whatever the reference raises
        return type(error)


def test_what_is_not_regular_is_the_references_affair():
    regular = Arrival("tx:a", b"c" * 16, b"o" * 16, b"{}", (Target("card", "p", b"x"),))
    for change in IRREGULAR.values():
        reference, compiled = Commands(*MADE), CompiledCommands(*MADE)
        arrivals = [regular, regular._replace(**deepcopy(change))]
        assert outcome(compiled, arrivals) == outcome(reference, arrivals), change
    forever = (*MADE[:2], 2**40)
    assert outcome(CompiledCommands(*forever), [regular]) is outcome(Commands(*forever), [regular])


def test_a_client_remembers_so_many_and_no_more():
    compiled = best(*MADE)
    assert isinstance(compiled, CompiledCommands)
    arrivals = [Arrival(f"tx:{i}", b"c" * 16, b"o" * 16, b"", ()) for i in range(KEPT + 2)]
    compiled.arrivals(arrivals, 7, 257)
    assert list(compiled.origins.known) == [one.key for one in arrivals[2:]]
