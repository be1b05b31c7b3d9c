"""The online store: one claim per event, observation before decision, merging by maximum.

One behavioural suite (tests/features/test_store.py) holds every implementation.

What can go wrong, and what the caller does about it:

* `StoreUnavailable`   go on without the store, declared degraded; try again later (down, slow, out of memory)
* `StoreMisused`       a bug or a wrong configuration: stop
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from features.state import Assertion


class StoreUnavailable(Exception):
    """The store gave no answer in time. Nothing is known about what it did, unless the deadline passed."""


class StoreMisused(Exception):
    """The store refused a command for a reason that a retry does not change."""


class Status(StrEnum):
    """What became of a claim."""

    NEW = "new"  # claimed and observed now
    RECOVERED = (
        "recovered"  # taken over from an attempt that did not finish; observed by whichever came first
    )
    REPLAY = "replay"  # decided before with the same content: `answer` holds what was stored
    CONFLICT = "conflict"  # decided or claimed before with other content: nothing changed
    PENDING = "pending"  # another attempt is deciding it: ask again
    EXPIRED = "expired"  # the deadline passed before the store got to it: nothing changed


class Target(NamedTuple):
    """One entity that an event touches. `packed`: the observation, as features/library.py packs it."""

    entity: str
    pseudonym: str
    packed: bytes


class Arrival(NamedTuple):
    """One event that asks to be claimed and observed.

    `key`: `tx:<id>`, `label:<id>` or `event:<id>`. `content`: keyed 16-byte digest. `owner`: token of
    this attempt, 16 bytes. `payload`: kept in the open claim, so that an attempt that nobody finishes
    can be recorded as abandoned. With `observe` false (fast lane off) the event is claimed and the
    states are read, but nothing is counted.
    """

    key: str
    content: bytes
    owner: bytes
    payload: bytes
    targets: tuple[Target, ...]
    observe: bool = True


class Observed(NamedTuple):
    """What the store answers to an arrival.

    `states`: bytes of each target's state as it was before, `None` if there was none; aligned with the
    targets. `numbers`: the running numbers after observing (0 where not observed). `repeated`: for
    each target, whether an earlier attempt had counted this event, so that the state already holds it.
    """

    status: Status
    answer: bytes | None = None
    states: tuple[bytes | None, ...] = ()
    numbers: tuple[int, ...] = ()
    repeated: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """A stored claim: open (`answer` is `None`, `payload` is the event) or answered."""

    content: bytes
    owner: bytes
    claimed_ms: int
    answer: bytes | None
    payload: bytes | None


Positions = dict[tuple[str, int], tuple[str, int, int, int]]
"""`(topic, partition) -> (generation, next offset, event time ms, wall ms)`."""


class OnlineStore(Protocol):
    """Claims and states of one tenant and one state fingerprint. Calls block up to their time limit.

    `descriptor`: readable when `landed` should be asked; `None`: there is nothing to wait for, all waiting is
    done in `depart`.
    """

    descriptor: int | None

    def arrive(self, arrivals: Sequence[Arrival], *, now_ms: int, deadline_ms: int) -> list[Observed]:
        """Claim and observe, in order; right when one batch touches an entity twice.

        `now_ms`, `deadline_ms`: wall clock. An arrival whose deadline passed on the store's own clock
        is `EXPIRED`. An open claim older than the takeover time is taken over (`RECOVERED`).
        Raises `StoreUnavailable`.
        """

    def depart(self, arrivals: Sequence[Arrival], *, now_ms: int, deadline_ms: int) -> None:
        """`arrive` without waiting for the results: `land` gives them. Raises `StoreUnavailable`."""

    def landed(self) -> bool:
        """Whether `land` would return, or raise, at once. Takes in what has come: a store that cannot get rid
        of its replies stands still."""

    def land(self) -> list[Observed]:
        """What `arrive` would have said of the batch that departed first of those that have not landed.

        Every `depart` that did not raise is followed by one `land`. Raises `StoreUnavailable`.
        """

    def complete(self, answers: Sequence[tuple[str, bytes, bytes]]) -> list[bool]:
        """Store `(key, owner, answer)`; False where the claim has another owner by now."""

    def post(self, answers: Sequence[tuple[str, bytes, bytes]]) -> None:
        """`complete` without waiting: done before any later call of this client, with which it may be sent.

        Raises `StoreUnavailable` where nothing can be sent.
        """

    def flush(self) -> None:
        """Send what was posted, where no other call follows soon. Raises `StoreUnavailable`."""

    def posted(self, *, wait: bool = False) -> list[bool]:
        """What became of what was posted and not yet told, in order: as far as it is known, or (`wait`) all.

        Raises `StoreUnavailable` where it will never be known: all that was not told is to be posted again.
        """

    def claim(self, key: str) -> Claim | None:
        """The claim under `key`."""

    def claims(self, keys: Sequence[str]) -> list[Claim | None]:
        """The claims under `keys`, in one round trip."""

    def open_claims(self, older_than_ms: int, limit: int) -> list[tuple[str, Claim]]:
        """Claims that were taken before `older_than_ms` (wall clock) and never answered."""

    def read(self, entity: str, pseudonyms: Sequence[str]) -> list[bytes | None]:
        """States without observing."""

    def merge(self, entity: str, assertions: Sequence[tuple[str, Assertion]]) -> None:
        """Join `(pseudonym, absolute values)` into the states."""

    def delete(self, entity: str, pseudonyms: Sequence[str]) -> int:
        """Remove states; the number that existed."""

    def generation(self) -> str:
        """Token of this store's life; another one means that state was lost or may have been."""

    def rebuilding(self) -> bool:
        """Whether state was lost and the log has not yet given all of it back."""

    def watermark(self) -> Positions:
        """Positions of the Flink jobs."""

    def inquire(self) -> None:
        """Ask for `rebuilding` and `watermark` with whatever is sent next. Raises `StoreUnavailable`."""

    def inquired(self) -> tuple[bool, Positions] | None:
        """What the last `inquire` found, once; `None`: nothing yet. Raises `StoreUnavailable`: ask again."""

    def close(self) -> None:
        """Release connections."""
