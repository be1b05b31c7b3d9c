"""The keeper's link to the store: addresses and replies."""

import pytest

from cordon.stack.valkey import Valkey
from features import cluster_store
from features.library import Keys
from stream.link import Connection, StoreBusy, StoreRefused, command, parse_place, slot


@pytest.mark.parts
def test_replies_of_every_kind_are_read(valkey: Valkey) -> None:
    connection = Connection(parse_place(valkey.url).seeds[0], 2.0)
    assert connection.ask("SET", "a", 1) == b"OK"
    assert connection.ask("INCR", "a") == 2
    assert connection.ask("GET", "nothing") is None
    assert connection.ask("MGET", "a", "nothing") == [b"2", None]
    with pytest.raises(StoreRefused, match="unknown command"):
        connection.ask("NONSENSE")
    connection.close()


def test_nobody_at_an_address_is_busy(ports) -> None:
    with pytest.raises(StoreBusy, match=r"127\.0\.0\.1"):
        Connection(parse_place(f"redis://127.0.0.1:{ports.take()}").seeds[0], 2.0)


def test_slots_are_those_of_the_service() -> None:
    keys = Keys("demo", "0123")
    for key in (keys.watermark, *(keys.state("card", f"{number:032x}") for number in range(20))):
        assert slot(key) == cluster_store.slot(key)


def test_addresses() -> None:
    assert parse_place("redis://user:p%40ss@host:7000/2").seeds[0].password == "p@ss"
    assert [s.port for s in parse_place("cluster://a:1,b:2").seeds] == [1, 2]
    assert parse_place("cluster://a:1,b:2").cluster
    assert parse_place("unix:///tmp/x.sock").seeds[0].path == "/tmp/x.sock"
    assert parse_place("redis://host").seeds[0].port == 6379
    with pytest.raises(ValueError, match="store address"):
        parse_place("http://host")
    assert command("SET", b"k", 12) == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n12\r\n"
