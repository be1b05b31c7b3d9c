"""What is stored of a claim, and what a client remembers of it."""

from struct import pack

import pytest

from features.claim import KEPT, Origins, parse_claim
from features.store import Claim
from tests.features.stores import purchase

OWNER = b"first attempt 00"


def test_claim_and_answer_are_packed_as_they_are_stored() -> None:
    event = purchase("a", content=b"c" * 16)
    origins = Origins()
    opened = origins.opened(event, 7)
    assert opened == pack("<B16s16sQ", 1, b"c" * 16, OWNER, 7) + b"payload of a"
    assert parse_claim(opened) == Claim(b"c" * 16, OWNER, 7, None, b"payload of a")
    answered = origins.answered(event.key, OWNER, b"done")
    assert answered == pack("<B16s16sQ", 2, b"c" * 16, OWNER, 7) + b"done"
    assert parse_claim(answered) == Claim(b"c" * 16, OWNER, 7, b"done", None)


@pytest.mark.parametrize("key", ["tx:a", "tx:b"])
def test_what_is_not_known_is_left_to_the_server(key: str) -> None:
    origins = Origins()
    origins.opened(purchase("a"), 7)
    assert origins.answered(key, b"second attempt 0", b"done") == bytes((2,)) + bytes(16) + (
        b"second attempt 0" + bytes(8) + b"done"
    )


def test_a_client_remembers_so_many_and_forgets_the_oldest() -> None:
    origins = Origins()
    for number in range(KEPT + 1):
        origins.opened(purchase(str(number), content=b"c" * 16), 7)
    assert origins.answered("tx:0", OWNER, b"")[1:17] == bytes(16)
    assert origins.answered("tx:1", OWNER, b"")[1:17] == b"c" * 16
    assert origins.answered("tx:1", OWNER, b"")[1:17] == bytes(16)
