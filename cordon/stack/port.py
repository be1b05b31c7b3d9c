"""Free ports: the usual one when it is free, otherwise a random one below the ephemeral range."""

from __future__ import annotations

import random
import socket

from cordon.failure import Failure

HOST = "127.0.0.1"
# Linux gives 32768 and above to outgoing connections: a port chosen below is not taken before it is bound.
LOWEST, HIGHEST = 12_000, 32_000


class NoFreePort(Failure):
    """A hundred random ports were all taken: free some and start again."""


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now, on this machine's loopback or on all addresses."""
    for host in (HOST, "0.0.0.0"):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


class Ports:
    """Hands out ports, each once. `usual` are tried first; a part's name remembers nothing here."""

    def __init__(self, *, random_source: random.Random | None = None) -> None:
        self._given: set[int] = set()
        self._random = random_source or random.SystemRandom()

    def take(self, *usual: int) -> int:
        """The first of `usual` that is free, else a random free port. Raises `NoFreePort`."""
        candidates = [*usual, *(self._random.randint(LOWEST, HIGHEST) for _ in range(100))]
        for port in candidates:
            if port not in self._given and is_free(port):
                self._given.add(port)
                return port
        raise NoFreePort(f"no free port between {LOWEST} and {HIGHEST} on {HOST}")
