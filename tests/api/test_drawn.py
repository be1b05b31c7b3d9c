"""Random strings out of blocks: each once, in a child process too."""

import os
import secrets
import threading

import pytest

from api.drawn import BLOCK, Drawn


def test_every_string_is_a_piece_of_what_the_system_gave():
    given = []

    def source(size):
        given.append(os.urandom(size))
        return given[-1]

    drawn = Drawn(12, source)
    found = [drawn() for _ in range(3 * BLOCK)]
    assert len(given) == 3
    assert {b"".join(found).count(piece) for piece in found} == {1}
    assert sorted(found) == sorted(block[at : at + 12] for block in given for at in range(0, 12 * BLOCK, 12))


def test_no_string_comes_twice_whichever_thread_asks():
    drawn, found = Drawn(16, secrets.token_bytes), []
    threads = [
        threading.Thread(target=lambda: found.extend([drawn() for _ in range(20_000)])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(set(found)) == 80_000


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_shares_nothing_with_its_parent():
    drawn = Drawn(16, secrets.token_bytes)
    drawn()
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, b"".join(drawn() for _ in range(BLOCK)))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        theirs = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    ours = b"".join(drawn() for _ in range(BLOCK))
    assert len(theirs) == len(ours) == 16 * BLOCK
    assert not {theirs[at : at + 16] for at in range(0, len(theirs), 16)} & {
        ours[at : at + 16] for at in range(0, len(ours), 16)
    }
