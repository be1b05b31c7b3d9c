"""Erasing a data subject: its keys destroyed, its state deleted, a receipt in the journal (docs/erasure.md).

    pending file   journal   look            vault        others        Redis    journal   pending file
    written     -> "begun" -> for letters -> keys      -> have dropped -> states -> receipt -> removed
                              and pairs      destroyed    them            deleted

Each step may be repeated: whoever finds a pending file goes on where its predecessor died. The raw id is in
that file only sealed with the subject's own key.

* `ErasureUnfinished`  a part does not answer; the erasure stays pending and is finished when it does
* `ErasureBusy`        another one is under way: try again
* `ErasedTooOften`     refuse: this subject was erased a thousand times
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec

from api.attempts import Attempts
from api.audit import logbook
from api.engine import QueryStoreUnavailable
from api.journal import JournalBusy, JournalUnavailable
from api.letter import holder_of, opened, place_of
from api.past.search import PAGE_MAX, Search
from api.query_store import QueryStore
from api.record import decode_json, encode_json
from api.vault.directory import Kept, Vault
from api.vault.seal import (
    NONCE_BYTES,
    Erased,
    NotOpened,
    Sealer,
    generation_of,
    leaf_of,
    of_subject,
    of_transaction,
)
from features.catalogue import Catalogue
from features.pseudonym import Pseudonyms
from features.store import OnlineStore, StoreUnavailable

ERASURES_MAX: Final = 1_000
# Instead of an entity, where a transaction names no subject.
TRANSACTION: Final = "transaction"
RECORDS_MAX: Final = 10_000
# Shorter values say nothing about one person, and would be found everywhere.
NEEDLE_MIN: Final = 4
FOLLOWED_WITHIN_S: Final = 5.0
LOOK_EVERY_S: Final = 0.05
BUSY_WITHIN_S: Final = 10.0
_TOKEN_BYTES: Final = 8


class ErasureUnfinished(Exception):
    """A part does not answer. What was begun stays pending and is finished as soon as it does."""

    def __init__(self, part: str, detail: str) -> None:
        super().__init__(f"{part}: {detail}")
        self.part = part


class ErasureBusy(Exception):
    """Another erasure is under way in this installation: try again."""


class ErasedTooOften(Exception):
    """Each erasure costs the vault kilobytes for ever; this subject has had its share."""


class LettersUnavailable(Exception):
    """The dead letters cannot be read now: try again."""


@dataclass(frozen=True, slots=True)
class Means:
    """What an erasure works with. `letters`: every dead letter there is, decoded; it raises
    `LettersUnavailable`. `store`, `past`: opened for one erasure and closed after it."""

    vault: Vault
    catalogue: Catalogue
    pseudonyms: Pseudonyms
    journals: Path
    store: Callable[[], OnlineStore]
    past: Callable[[], QueryStore]
    letters: Callable[[], Iterable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Pending:
    """An erasure that was begun. `entity`, `subject`: the subject's entity and pseudonym, or `transaction`
    and its id. `raw`: the raw ids, sealed with the key that is to be destroyed.

    `leaves`: of the keys that go, in hex; `None` until it is known which. `pairs`: states that go with the
    subject's own. `version`, `digest`: of the vault before.
    """

    id: str
    entity: str
    subject: str
    generation: int
    raw: str
    by: str
    begun_ms: int
    leaves: tuple[str, ...] | None = None
    pairs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    version: int = 0
    digest: str = ""


class Eraser:
    """Erases, one subject at a time over all processes. `clock`: wall clock in ms; `fresh`: random bytes;
    `followed_within_s`: how long to wait for other processes.

    Blocks for seconds: not for an event loop.
    """

    def __init__(
        self,
        means: Means,
        clock: Callable[[], int],
        fresh: Callable[[int], bytes],
        sleep: Callable[[float], None] = time.sleep,
        followed_within_s: float = FOLLOWED_WITHIN_S,
    ) -> None:
        self._means = means
        self._clock = clock
        self._fresh = fresh
        self._sleep = sleep
        self._followed_within_s = followed_within_s
        self._entity = means.catalogue.schema.subject
        self._tenant = means.pseudonyms.tenant
        self._folder = means.vault.directory / "pending"
        self._attempts = Attempts(means.journals)
        self.on_step: Callable[[str], None] = lambda step: None

    def erase(self, ids: tuple[str, ...], by: str) -> dict[str, Any]:
        """Erase the subject with these raw ids; the receipt. `by`: who asked, by name.

        What was begun for this subject and not finished is finished. Raises `ErasureUnfinished`,
        `ErasureBusy`, `ErasedTooOften`, `VaultUnusable`.
        """
        return self._erase(self._entity, self._means.pseudonyms.entity(self._entity, ids), ids, by)

    def erase_transaction(self, id: str, by: str) -> dict[str, Any]:
        """Erase what was sealed for one transaction whose subject is unknown; as `erase` does."""
        return self._erase(TRANSACTION, id, (), by)

    def _erase(self, entity: str, subject: str, ids: tuple[str, ...], by: str) -> dict[str, Any]:
        with self._alone(BUSY_WITHIN_S):
            pending = self._load(self._path(entity, subject))
            return self._finish(pending or self._begin(entity, subject, ids, by))

    def resume(self) -> list[dict[str, Any]]:
        """Finish what others have begun; the receipts. Raises as `erase` does."""
        if not any(self._folder.glob("*.json")):
            return []
        with self._alone(0.0):
            found = [self._load(path) for path in sorted(self._folder.glob("*.json"))]
            return [self._finish(pending) for pending in found if pending is not None]

    def _begin(self, entity: str, subject: str, ids: tuple[str, ...], by: str) -> Pending:
        kept = self._means.vault.read()
        holder = _holder(entity, subject)
        generation = generation_of(kept.frontier, self._tenant, holder)
        if generation >= ERASURES_MAX:
            raise ErasedTooOften(f"{subject} was erased {generation} times")
        name = f"erasure-{self._fresh(_TOKEN_BYTES).hex()}"
        raw = self._sealer(kept).seal(holder, name, encode_json(ids))
        pending = Pending(name, entity, subject, generation, raw, by, self._clock())
        self._save(pending)
        self.on_step("pending")
        return pending

    def _finish(self, pending: Pending) -> dict[str, Any]:
        means = self._means
        self._note(
            f"{pending.id}-begun",
            "erasure_begun",
            pending.begun_ms,
            {"entity": pending.entity, "subject": pending.subject, "by": pending.by},
        )
        self.on_step("begun")
        if pending.leaves is None:
            pending = self._look(pending)
            self._save(pending)
            self.on_step("looked")
        leaves = pending.leaves or ()
        _, after = means.vault.destroy(int(leaf, 16) for leaf in leaves)
        self.on_step("destroyed")
        self._await_followers(after.version)
        self.on_step("followed")
        deleted = self._delete_states(pending)
        self.on_step("deleted")
        receipt = self._note(
            pending.id,
            "erasure",
            self._clock(),
            {
                "entity": pending.entity,
                "subject": pending.subject,
                "generation": pending.generation,
                "begun_ms": pending.begun_ms,
                "by": pending.by,
                "keys": len(leaves),
                "leaves": list(leaves),
                "letters": len(leaves) - 1,
                "vault": {
                    "id": after.id.hex(),
                    "version_before": pending.version,
                    "version": after.version,
                    "sha256_before": pending.digest,
                    "sha256": after.digest,
                },
                "states": deleted,
            },
        )
        self.on_step("journalled")
        self._path(pending.entity, pending.subject).unlink(missing_ok=True)
        return receipt

    def _look(self, pending: Pending) -> Pending:
        """Which keys and states go: the subject's, and those of letters and pairs that name it."""
        kept = self._means.vault.read()
        sealer = self._sealer(kept)
        holder = _holder(pending.entity, pending.subject)
        values = set(decode_json(sealer.open(holder, pending.id, pending.raw)))
        pairs: dict[str, set[str]] = {name: set() for name in self._pairs()}
        for record in self._records(pending):
            for name in pairs:
                if name in record["entities"]:
                    pairs[name].add(record["entities"][name])
            with suppress(Erased, NotOpened, KeyError):
                plain = decode_json(sealer.open(holder, record["id"], record["sealed"]))
                values |= {v for name, v in plain.items() if self._is_personal(name) and isinstance(v, str)}
        leaves = [leaf_of(self._tenant, holder, pending.generation), *self._letters(kept, values)]
        return replace(
            pending,
            leaves=tuple(f"{leaf:016x}" for leaf in leaves),
            pairs={name: tuple(sorted(found)) for name, found in pairs.items() if found},
            version=kept.version,
            digest=kept.digest,
        )

    def _pairs(self) -> list[str]:
        """Entities of several fields that the subject is a part of."""
        schema = self._means.catalogue.schema
        own = set(schema.entity(schema.subject).fields)
        return [e.name for e in schema.entities if e.name != schema.subject and own & set(e.fields)]

    def _is_personal(self, name: str) -> bool:
        schema = self._means.catalogue.schema
        spec = schema.by_name.get(name)
        return name in schema.entity(schema.subject).fields or (spec is not None and spec.personal)

    def _records(self, pending: Pending) -> Iterator[Mapping[str, Any]]:
        """The subject's newest decisions, or the one transaction's."""
        try:
            with closing(self._means.past()) as past:
                if pending.entity == TRANSACTION:
                    record = past.record(pending.subject)
                    yield from () if record is None else (record,)
                else:
                    yield from _newest(past, Search(entity=(pending.entity, pending.subject)))
        except QueryStoreUnavailable as error:
            raise ErasureUnfinished("query_store", str(error)) from error

    def _letters(self, kept: Kept, values: Iterable[str]) -> list[int]:
        """Leaves of letters with a key of their own in which one of the values stands."""
        sealer = self._sealer(kept)
        needles = [needle for value in sorted(values) for needle in spellings(value)]
        found = []
        try:
            for letter in self._means.letters():
                if letter.get("v") != 2 or letter["subject"] is not None:
                    continue
                place = place_of(letter)
                holder = holder_of(None, place)
                with suppress(Erased, NotOpened):
                    inside = opened(sealer.open(holder, place.id, letter["sealed"]))
                    text = inside.original + b"\n" + inside.field.encode() + b"\n" + inside.reason.encode()
                    if any(needle in text for needle in needles):
                        generation = generation_of(kept.frontier, self._tenant, holder)
                        found.append(leaf_of(self._tenant, holder, generation))
        except LettersUnavailable as error:
            raise ErasureUnfinished("kafka", str(error)) from error
        return found

    def _await_followers(self, version: int) -> None:
        """Until every living process has dropped the keys. A new one reads the new file."""
        until_s = time.monotonic() + self._followed_within_s
        while behind := self._means.vault.behind(version):
            if time.monotonic() > until_s:
                raise ErasureUnfinished("processes", f"{', '.join(behind)} still hold the old keys")
            self._sleep(LOOK_EVERY_S)

    def _delete_states(self, pending: Pending) -> dict[str, int]:
        """How many states of each entity were deleted."""
        wanted = {pending.entity: (pending.subject,), **pending.pairs}
        try:
            with closing(self._means.store()) as store:
                return {
                    name: store.delete(name, list(pseudonyms))
                    for name, pseudonyms in wanted.items()
                    if name in self._means.catalogue.layouts
                }
        except StoreUnavailable as error:
            raise ErasureUnfinished("redis", str(error)) from error

    def _note(self, id: str, event: str, time_ms: int, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The record, once it is in the journal: the one that an earlier attempt wrote, or a new one."""
        key = f"audit:{id}"
        earlier = self._attempts.find([key]).get(key)
        if earlier is not None:
            return earlier.record
        try:
            payload = logbook.note(
                self._means.journals,
                event,
                facts,
                id=id,
                time_ms=time_ms,
                tenant=self._tenant,
                sleep=self._sleep,
            )
        except (JournalBusy, JournalUnavailable) as error:
            raise ErasureUnfinished("journal", str(error)) from error
        record: dict[str, Any] = decode_json(payload)
        return record

    def _sealer(self, kept: Kept) -> Sealer:
        return Sealer(kept, self._tenant, lambda: self._fresh(NONCE_BYTES))

    def _path(self, entity: str, subject: str) -> Path:
        name = blake2b(_holder(entity, subject).encode(), digest_size=16).hexdigest()
        return self._folder / f"{name}.json"

    def _load(self, path: Path) -> Pending | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Pending)
        except FileNotFoundError:
            return None

    def _save(self, pending: Pending) -> None:
        path = self._path(pending.entity, pending.subject)
        draft = path.with_suffix(".draft")
        with draft.open("wb") as file:
            file.write(encode_json(asdict(pending)))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        folder = os.open(self._folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    @contextmanager
    def _alone(self, within_s: float) -> Iterator[None]:
        file = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        until_s = time.monotonic() + within_s
        try:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() >= until_s:
                        raise ErasureBusy("another erasure is under way") from None
                    self._sleep(LOOK_EVERY_S)
            yield
        finally:
            os.close(file)


def _holder(entity: str, subject: str) -> str:
    return of_transaction(subject) if entity == TRANSACTION else of_subject(subject)


def _newest(past: QueryStore, search: Search) -> Iterator[Mapping[str, Any]]:
    """At most `RECORDS_MAX` records that match, newest first."""
    after, left = None, RECORDS_MAX
    while left > 0:
        page = past.search(search, after, min(left, PAGE_MAX))
        yield from page.records
        after, left = page.after, left - len(page.records)
        if after is None:
            return


def spellings(value: str) -> list[bytes]:
    """A value as JSON may spell it; none for one that is too short to mean a person."""
    if len(value) < NEEDLE_MIN:
        return []
    escaped = "".join(c if c.isascii() else "".join(_units(c)) for c in encode_json(value).decode()[1:-1])
    return list({value.encode(), encode_json(value)[1:-1], escaped.encode()})


def _units(character: str) -> Iterator[str]:
    raw = character.encode("utf-16-be")
    for at in range(0, len(raw), 2):
        yield f"\\u{raw[at] << 8 | raw[at + 1]:04x}"
