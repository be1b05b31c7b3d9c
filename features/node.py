"""What the online store asks of one server: that it is fit, has the functions, and which one it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from features.catalogue import Catalogue
from features.claim import parse_claim
from features.command import Commands
from features.library import library, library_name, packed_layouts
from features.memory_store import TAKEOVER_MS
from features.resp import Answer, Command, Connection, Reply
from features.store import Claim, StoreMisused, StoreUnavailable

SWEEP: Final = 256
# How long after an arrival's deadline its answer ("expired") is still waited for; and the longest wait.
GRACE_S: Final = 0.005
PATIENCE_S_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """`connect_s`, `read_s`: of opening a connection, of one round trip; arrivals bring their own deadline.
    `takeover_ms`: age at which an open claim is taken over."""

    connect_s: float = 0.5
    read_s: float = 1.0
    takeover_ms: int = TAKEOVER_MS


def patience_s(now_ms: int, deadline_ms: int) -> float:
    """How long to wait for arrivals: never less than until the deadline, so that none is executed later."""
    return min(PATIENCE_S_MAX, max(0, deadline_ms - now_ms) / 1_000 + GRACE_S)


def replies_of(answers: Sequence[Answer]) -> list[Reply]:
    """The replies, all of them good. Raises the first that is not."""
    replies: list[Reply] = []
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
        replies.append(answer)
    return replies


def open_claims(
    ask: Callable[[list[Command]], list[Reply]], commands: Commands, older_than_ms: int, limit: int
) -> list[tuple[str, Claim]]:
    """Open claims among the noted ones, oldest first; notes of claims that are not open are removed."""
    found: list[tuple[str, Claim]] = []
    skip = 0
    while len(found) < limit:
        page: Command = ("ZRANGEBYSCORE", commands.keys.open_claims, "-inf", f"({older_than_ms}",
                         "WITHSCORES", "LIMIT", skip, SWEEP)  # fmt: skip
        noted = list(pairs(ask([page])[0]).items())
        if not noted:
            break
        held = ask([("GET", commands.keys.claim(key.decode())) for key, _ in noted])
        stale = []
        for (key, score), reply in zip(noted, held, strict=True):
            claim = found_claim(reply)
            if claim is None or claim.answer is not None:
                stale.append((key, score))
            elif claim.claimed_ms < older_than_ms:
                found.append((key.decode(), claim))
        if stale:
            ask([commands.unindex(stale)])
        skip += len(noted) - len(stale)
    return sorted(found, key=lambda item: item[1].claimed_ms)[:limit]


def found_claim(reply: Reply) -> Claim | None:
    """The claim in a reply to GET."""
    return parse_claim(reply) if isinstance(reply, bytes) else None


def pairs(reply: Reply) -> dict[bytes, bytes]:
    """A flat reply of alternating names and values."""
    words = reply if isinstance(reply, list) else []
    texts = [word for word in words if isinstance(word, bytes)]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def load(connection: Connection, catalogue: Catalogue) -> None:
    """Load the function library unless the very same is loaded; tell the server's module, if it has one.

    The library stays beside the module: it has the functions that are called seldom, and all where a server
    was started anew and nobody has told it the layouts yet, or whose module is missing, refuses them or is of
    another revision.
    """
    (told,) = connection.pipeline([("CORDON.LAYOUT", library_name(catalogue), packed_layouts(catalogue))])
    if isinstance(told, StoreUnavailable):
        raise told
    source = library(catalogue)
    known = connection.call("FUNCTION", "LIST", "LIBRARYNAME", library_name(catalogue), "WITHCODE")
    libraries = known if isinstance(known, list) else []
    if not any(isinstance(held, list) and source.encode() in held for held in libraries):
        connection.call("FUNCTION", "LOAD", "REPLACE", source)


def token(connection: Connection, key: str, new_token: Callable[[], str]) -> bytes:
    """The generation's token; a new one where there is none."""
    connection.call("SET", key, new_token(), "NX")
    held = connection.call("GET", key)
    if not isinstance(held, bytes):
        raise StoreUnavailable(f"{connection.address}: the generation's token is gone at once")
    return held


def info(connection: Connection, section: str) -> dict[str, str]:
    """`INFO` of one section."""
    reply = connection.call("INFO", section)
    text = reply.decode() if isinstance(reply, bytes) else ""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def run_id(connection: Connection) -> str:
    """The server process's own random id."""
    return info(connection, "server").get("run_id", "")


def check_fitness(connection: Connection) -> None:
    """Raises `StoreMisused` where the server would evict: a missing state must never look like a new card."""
    policy = info(connection, "memory").get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise StoreMisused(
            f"{connection.address}: maxmemory-policy is {policy}, which drops state silently;"
            " run CONFIG SET maxmemory-policy noeviction and put it into the server's configuration"
        )
