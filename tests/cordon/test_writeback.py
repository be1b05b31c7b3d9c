"""What parts append is on its way to the disk before anybody syncs it."""

import ctypes
import os
import time
from itertools import pairwise
from pathlib import Path

from cordon.stack.port import Ports
from cordon.stack.supervisor import Stack
from cordon.stack.valkey import Valkey
from cordon.stack.writeback import CUT_BYTES, LOOK_S, PAGE, WriteBack
from features.resp import Address, Connection

CACHESTAT = 451


def dirty_pages(path):
    """Pages of the file that nobody has begun to write: Linux' cachestat."""
    of, found = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
    with path.open("rb") as file:
        assert not ctypes.CDLL(None).syscall(CACHESTAT, file.fileno(), of, found, 0)
    return found[1]


def test_whole_pages_are_begun_once_and_only_of_files_that_match(tmp_path):
    begun = []
    written = WriteBack(lambda: [(tmp_path, "*.aof")], lambda _, start, length: begun.append((start, length)))
    first = tmp_path / "a.aof"
    first.write_bytes(b"x" * PAGE)
    (tmp_path / "other").write_bytes(b"x" * PAGE)
    written.step(0.0)
    with first.open("ab") as file:
        for size, now_s in ((PAGE, 0.1), (10, 0.2), (3 * PAGE, 0.3), (0, 0.4)):
            file.write(b"x" * size)
            file.flush()
            written.step(now_s)
    assert begun == [(PAGE, PAGE), (2 * PAGE, 3 * PAGE)]
    second = tmp_path / "b.aof"
    second.touch()
    first.unlink()
    written.step(LOOK_S)
    second.write_bytes(b"x" * PAGE)
    written.step(LOOK_S + 0.1)
    assert begun[2:] == [(0, PAGE)]
    written.close()


def test_a_file_that_was_cut_off_is_followed_from_there(tmp_path):
    begun = []
    written = WriteBack(lambda: [(tmp_path, "*.aof")], lambda _, start, length: begun.append((start, length)))
    path = tmp_path / "a.aof"
    path.write_bytes(b"x" * 4 * PAGE)
    written.step(0.0)
    os.truncate(path, PAGE)
    written.step(0.1)
    path.write_bytes(b"x" * 2 * PAGE)
    written.step(0.2)
    assert begun == [(PAGE, PAGE)]
    written.close()


def test_what_is_deleted_is_freed_piece_by_piece_and_what_is_renamed_is_left(tmp_path):
    written = WriteBack(lambda: [(tmp_path, "*.aof")], lambda *_: None)
    deleted, renamed = tmp_path / "a.aof", tmp_path / "b.aof"
    for path in (deleted, renamed):
        path.write_bytes(b"x" * (2 * CUT_BYTES + 1))
    written.step(0.0)
    with deleted.open("rb") as file:
        deleted.unlink()
        renamed.rename(tmp_path / "b.other")
        sizes = []
        for number in range(4):
            written.step(LOOK_S + number / 100)
            sizes.append(os.fstat(file.fileno()).st_size)
    assert sizes == [CUT_BYTES + 1, 1, 1, 1]
    assert (tmp_path / "b.other").stat().st_size == 2 * CUT_BYTES + 1
    assert held_below(tmp_path) == []
    written.close()


def held_below(directory):
    """Files of a directory that this process has open, deleted ones too."""
    held = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [path for path in held if path.startswith(str(directory))]


def test_a_node_that_compacts_its_file_frees_the_old_one_piece_by_piece(tmp_path):
    node = Valkey(tmp_path / "valkey", Ports().take())
    with Stack([node.part()], tmp_path):
        connection = Connection(Address.parse(node.url))
        (path,) = (tmp_path / "valkey" / "appendonlydir").glob("*.incr.aof")
        time.sleep(2 * LOOK_S)
        for _ in range(40):
            connection.call("SET", "key", b"x" * (1 << 20))
        with path.open("rb") as file:
            connection.call("BGREWRITEAOF")
            sizes, until_s = [os.fstat(file.fileno()).st_size], time.monotonic() + 20
            while sizes[-1] > CUT_BYTES:
                assert time.monotonic() < until_s, sizes
                size = os.fstat(file.fileno()).st_size
                if size != sizes[-1]:
                    sizes.append(size)
        steps = [before - after for before, after in pairwise(sizes) if after < before]
        # A loop that was held up sees several at once.
        assert len(steps) >= 4, sizes
        assert [step for step in steps if step % CUT_BYTES] == [], sizes
        assert connection.call("STRLEN", "key") == 1 << 20
        connection.close()


def test_a_node_of_a_running_stack_has_little_left_to_sync(tmp_path):
    ports = Ports()
    node = Valkey(tmp_path / "valkey", ports.take())
    with Stack([node.part()], tmp_path):
        connection = Connection(Address.parse(node.url))
        connection.call("CONFIG", "SET", "appendfsync", "no")
        (path,) = (tmp_path / "valkey" / "appendonlydir").glob("*.incr.aof")
        time.sleep(2 * LOOK_S)
        for number in range(200):
            connection.call("SET", f"key-{number}", b"x" * 20_000)
        until_s = time.monotonic() + 10
        while path.stat().st_size < 4_000_000 or dirty_pages(path) > 2:
            assert time.monotonic() < until_s, (path.stat().st_size, dirty_pages(path))
            time.sleep(0.02)
        connection.close()
