"""A data subject erased from a whole running stack, searched for before and after in bytes and by the APIs.

canary values --HTTP, Kafka, rubbish--> service, door --> journal, topics, query store, claims, letters,
                                                          Flink, logs
                                        search everywhere | erase | search everywhere
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pyarrow.parquet as pq
import redis
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from api.audit.export import export
from api.audit.inspection import inspect
from api.config import ServiceConfig
from api.letter import place_of
from api.segment import segments_in
from api.vault.directory import Vault
from api.vault.seal import Erased, NotOpened, Sealer, leaf_of, of_subject
from api.vault.tree import Frontier, child
from api.warehouse import project
from cordon.drill.canary import Search, content
from cordon.failure import Failure
from cordon.letter_desk import NoLetter, Post
from cordon.pipeline import Pipeline, pipeline
from cordon.stack.local import Options

PATIENCE_S: Final = 90.0
# A file of the topic of transactions closes after a second, if another message comes.
SETTINGS: Final[dict[str, Any]] = {
    "catalogue": {"name": "payments"},
    "kafka": {"trim_ms": 500, "transactions_segment_ms": 1_000},
    "audit": {"checkpoint_records": 10, "checkpoint_ms": 500},
    "flink": {"checkpoint_interval_ms": 1_000},
}
PROBES: Final = 12
OTHER: Final = "cu_somebody_else"


class NotReached(Failure):
    """The stack did not get as far as the drill needs; the message says where it stood still."""


@dataclass(slots=True)
class Found:
    """What was found. `readable_*`: through the APIs; `plain_*`: places whose bytes hold a canary."""

    places: list[str] = field(default_factory=list)
    readable_before: int = 0
    readable_after: int = 0
    plain_before: list[str] = field(default_factory=list)
    plain_trimmed: list[str] = field(default_factory=list)
    plain_after: list[str] = field(default_factory=list)
    keys_left: list[str] = field(default_factory=list)
    opened_after: int = 0
    state_before: int = 0
    state_after: int = 0
    replayed: bool = False
    others_readable: bool = False
    returns: bool = False
    verified: bool = False
    receipt: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Readable before through the API and nowhere after; nothing in plain at rest but where producers
        write; others and the chain untouched."""
        return (
            self.verified
            and self.readable_before > 0
            and not self.readable_after
            and not self.opened_after
            and set(self.plain_before) <= {"topic of transactions"}
            and not self.plain_trimmed
            and not self.plain_after
            and not self.keys_left
            and self.state_before == 200
            and self.state_after == 404
            and self.replayed
            and self.others_readable
            and self.returns
        )

    def as_json(self) -> dict[str, Any]:
        """The last line of the drill."""
        return {
            "verified": self.verified,
            "places": len(self.places),
            "readable_before": self.readable_before,
            "readable_after": self.readable_after,
            "searched": self.places,
            "plain_before": self.plain_before,
            "plain_once_trimmed": self.plain_trimmed,
            "plain_after": self.plain_after,
            "sealed_values_opened_after": self.opened_after,
            "files_with_a_destroyed_key": self.keys_left,
            "subject_state_before": self.state_before,
            "subject_state_after": self.state_after,
            "replayed_after": self.replayed,
            "others_readable_after": self.others_readable,
            "returning_subject_readable": self.returns,
            "receipt": self.receipt,
        }


def drill(directory: Path, say: Callable[[str], None], *, flink: bool = True) -> Found:
    """Run it below `directory`; minutes. Raises `NotReached` and what the stack raises."""
    parts = ("valkey", "kafka", "topics", "service", "door", "publisher", "projector")
    more = ("jobmanager", "taskmanager", "jobs") if flink else ()
    options = Options(only=(*parts, *more), usual_ports=False)
    found = Found()
    with pipeline(directory, SETTINGS, options=options, say=say) as running, Client(running) as client:
        case = Case(running, client, directory)
        case.fill()
        say(f"{len(case.ids)} decisions and {len(case.letters())} dead letters about one subject")
        with case.running_log(flink):
            found.places = sorted(case.places())
            found.plain_before = case.plain()
            if missing := case.empty():
                raise NotReached(f"nothing lies in {', '.join(missing)}: a search there says nothing")
            case.trim()
            found.plain_trimmed = case.plain()
        found.readable_before = case.readable()
        found.state_before = client.state(case.subject)
        say(f"readable in {found.readable_before} places of the APIs; in plain: {found.plain_before}")
        destroyed, sealed = case.secrets(), case.sealed()
        found.receipt = client.erase(case.subject)
        say(f"erased: {found.receipt['keys']} keys")
        found.readable_after = case.readable()
        found.plain_after = case.plain()
        found.opened_after = case.opened(sealed)
        found.keys_left = case.files_with(destroyed)
        found.state_after = client.state(case.subject)
        found.replayed = all(client.replayed(id) for id in case.ids)
        found.others_readable = client.personal("other") == 200
        found.returns = case.returns()
        found.verified = case.verified()
    return found


class Client(httpx.Client):
    """The service, asked as an analyst and as an administrator."""

    def __init__(self, running: Pipeline) -> None:
        super().__init__(base_url=running.plan.addresses["http"], headers=running.headers, timeout=60)

    def personal(self, id: str) -> int:
        """Status of a look at personal fields."""
        return self.get(f"/v1/decisions/{id}/personal", params={"purpose": "drill"}).status_code

    def state(self, subject: str) -> int:
        """Status of a look at the subject's state."""
        return self.get(f"/v1/entities/customer/{subject}").status_code

    def replayed(self, id: str) -> bool:
        """Whether a decision can still be made again, the same."""
        return bool(self.post(f"/v1/decisions/{id}/replay").raise_for_status().json()["same"])

    def erase(self, subject: str) -> dict[str, Any]:
        """The receipt. Raises `NotReached`."""
        answer = self.delete(f"/v1/subjects/{subject}")
        if answer.status_code != 200:
            raise NotReached(f"the erasure was not finished: {answer.status_code} {answer.text}")
        found: dict[str, Any] = answer.json()
        return found


class Case:
    """One subject in a running stack: what is known about it, and where it is looked for."""

    def __init__(self, running: Pipeline, client: Client, directory: Path) -> None:
        token = secrets.token_hex
        self.running = running
        self.client = client
        self.directory = directory
        self.canaries = [f"k{token(9)}" for _ in range(5)]
        customer, card, device, mail, _ = self.canaries
        self.subject = f"cu_{customer}"
        self.raw = {
            "customer": self.subject,
            "card": f'cd "{card}"/\u00fc',
            "device": f"de_{device}",
            "email": f"{mail}+x@example.com",
        }
        self.ids = [f"http-{n}" for n in range(PROBES)] + [f"kafka-{n}" for n in range(PROBES)]
        self.search = Search(self.canaries)
        config = ServiceConfig.from_environment(running.settings.environment())
        self.post = Post(config, self._vault())
        self._producer = Producer({"bootstrap.servers": running.settings.kafka.bootstrap})

    def body(self, id: str, **changes: Any) -> dict[str, Any]:
        """A transaction of the subject, now."""
        given = {
            "transaction_id": id, "time": time.time_ns() // 1_000_000, "amount": 1_500, "currency": "EUR",
            "merchant": "me_drill", "channel": "ecom", "category": "grocery", **self.raw,
        }  # fmt: skip
        return given | changes

    def fill(self) -> None:
        """Decisions through both doors, labels, events, and letters that name the subject or only hold it."""
        for id in self.ids[:PROBES]:
            self.client.post("/v1/decisions", json=self.body(id)).raise_for_status()
        other = self.body("other", customer=OTHER, card="cd_other", device="de_other", email="o@example.com")
        self.client.post("/v1/decisions", json=other).raise_for_status()
        follow = {"transaction_id": self.ids[0], "time": time.time_ns() // 1_000_000}
        self.client.post("/v1/labels", json={**follow, "label_id": "l", "fraud": False}).raise_for_status()
        self.client.post(
            "/v1/events", json={**follow, "event_id": "e", "kind": "captured"}
        ).raise_for_status()
        # What is refused is told to its sender alone.
        self.client.post("/v1/decisions", json=self.body("bad-http", amount=-1))
        self.client.post("/v1/decisions", json=self.body("bad-field") | {self.canaries[4]: 1})
        for id in self.ids[PROBES:]:
            self.send(self.body(id))
        self.send(self.body("bad-kafka", amount=-1))
        self.send(self.body("bad-name") | {self.canaries[4]: 1})
        self.send(b'{"transaction_id": "cut", "email": "' + self.raw["email"].encode())
        self.send({"type": "colour", "of": self.raw["card"]})
        self.await_(lambda: len(self.letters()) >= 4, "dead letters")
        self.await_(lambda: all(self.client.personal(id) == 200 for id in self.ids), "decisions")
        kafka = self.running.settings.kafka
        self.running.reader.until({kafka.decisions: len(self.ids) + 1}, patience_s=PATIENCE_S)
        wanted = len(self.ids) + 1
        self.await_(
            lambda: len(self.client.get("/v1/decisions?limit=200").json()["decisions"]) >= wanted,
            "the query store",
        )

    def send(self, message: dict[str, Any] | bytes) -> None:
        """To the topic of transactions."""
        raw = message if isinstance(message, bytes) else json.dumps(message).encode()
        self._producer.produce(self.running.settings.kafka.transactions, raw)
        self._producer.flush(30)

    def await_(self, condition: Callable[[], bool], what: str) -> None:
        """Raises `NotReached`."""
        until_s = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > until_s:
                raise NotReached(f"not within {PATIENCE_S:.0f} s: {what}")
            time.sleep(0.2)

    @contextlib.contextmanager
    def running_log(self, flink: bool) -> Iterator[None]:
        """With Flink past all of it and a checkpoint after that."""
        if flink:
            self.running.settle(patience_s=PATIENCE_S)
            passed_s = time.time()
            self.await_(lambda: self._checkpointed(passed_s), "a checkpoint of Flink")
        yield

    def _checkpointed(self, after_s: float) -> bool:
        """Whether Flink has finished a checkpoint since."""
        found = self.running.plan.flink.directory.rglob("chk-*/_metadata")
        return any(path.stat().st_mtime > after_s for path in found)

    def empty(self) -> list[str]:
        """Places without any bytes: nothing was looked for there."""
        files = {
            name: [file for path in paths for file in (path, *path.rglob("*")) if file.is_file()]
            for name, paths in self.places().items()
        }
        return [name for name, found in files.items() if not any(file.stat().st_size for file in found)]

    def trim(self) -> None:
        """Other messages follow, and what the door had deleted leaves the disk. Raises `NotReached`."""
        place = self.places()["topic of transactions"]
        until_s = time.monotonic() + PATIENCE_S
        number = 0
        while self.search.files(*place):
            if time.monotonic() > until_s:
                raise NotReached(f"transactions are still on the broker's disk after {PATIENCE_S:.0f} s")
            number += 1
            filler = {"customer": OTHER, "card": "cd_other", "device": "de_other", "email": "o@example.com"}
            self.send(self.body(f"filler-{number}", **filler))
            time.sleep(1.2)

    def places(self) -> dict[str, list[Path]]:
        """Where bytes lie, by name."""
        settings, kafka = self.running.settings, self.running.settings.kafka
        data = self.running.plan.kafka.directory / "data"
        incoming = sorted(data.glob(f"{kafka.transactions}-[0-9]*"))
        letters = sorted(data.glob(f"{kafka.dead_letters}-[0-9]*"))
        others = [p for p in sorted(data.iterdir()) if p not in (*incoming, *letters)]
        exports = self.directory / "exports"
        store = Path(settings.store_url.removeprefix("sqlite:///"))
        return {
            "journal": [settings.journal.directory],
            "anchors": [settings.audit.anchors, settings.audit.keys],
            "vault": [settings.vault.directory],
            "topic of transactions": incoming,
            "dead letters": letters,
            "other topics": others,
            "query store": sorted(store.parent.glob(f"{store.name}*")),
            "Redis": [self.directory / "valkey"],
            "Flink": [self.directory / "flink"],
            "logs": [self.directory / "logs"],
            "Parquet and audit export": [exports],
        }

    def plain(self) -> list[str]:
        """Places whose bytes hold a canary in any spelling, and what stores say through their clients."""
        self.export()
        found = [name for name, paths in self.places().items() if self.search.files(*paths)]
        asked = {
            "Redis, asked": self._redis(),
            "topics, read": self._topics(),
            "Parquet, read": self._parquet(),
            "records by the API": self._records(),
        }
        return found + [name for name, held in asked.items() if any(self.search.holds(d) for d in held)]

    def export(self) -> None:
        """What people take out: columns for backtests, the journals for an auditor."""
        exports, settings = self.directory / "exports", self.running.settings
        project(settings.journal.directory, exports / "columns", self.running.catalogue)
        audit = exports / f"audit-{time.time_ns()}"
        journals = [p for p in sorted(settings.journal.directory.iterdir()) if segments_in(p)]
        export(journals, settings.audit.anchors, settings.audit.keys, audit)

    def _redis(self) -> Iterator[bytes]:
        with redis.Redis.from_url(self.running.settings.redis.url) as client:
            for key in client.scan_iter(count=1_000):
                kind = client.type(key)
                value = client.get(key) if kind == b"string" else repr(client.dump(key)).encode()
                yield key + b"\n" + (value or b"")

    def _topics(self) -> Iterator[bytes]:
        kafka = self.running.settings.kafka
        consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": f"{kafka.group}-drill"})
        known = consumer.list_topics(timeout=10).topics
        topics = [t for t in known if t != kafka.transactions and not t.startswith("__")]
        consumer.assign([TopicPartition(t, p, OFFSET_BEGINNING) for t in topics for p in known[t].partitions])
        while messages := consumer.consume(1_000, 1.0):
            yield from ((m.key() or b"") + b"\n" + (m.value() or b"") for m in messages if not m.error())
        consumer.close()

    def _parquet(self) -> Iterator[bytes]:
        for path in sorted((self.directory / "exports").rglob("*.parquet")):
            yield json.dumps(pq.read_table(path).to_pylist(), default=str).encode()

    def _records(self) -> Iterator[bytes]:
        for path in ("", "/explanation"):
            for id in (*self.ids, "other"):
                yield self.client.get(f"/v1/decisions/{id}{path}").content
        yield self.client.get("/v1/decisions?limit=200").content
        yield self.client.get("/metrics").content

    def readable(self) -> int:
        """In how many answers of the APIs a canary stands: personal fields, and dead letters."""
        found = 0
        for id in self.ids:
            shown = self.client.get(f"/v1/decisions/{id}/personal", params={"purpose": "drill"})
            found += self.search.holds(shown.content)
        return found + sum(self.search.holds(self.letter(place_of(each).id)) for each in self.letters())

    def letters(self) -> list[dict[str, Any]]:
        """The dead letters that there are."""
        return list(self.post.letters())

    def letter(self, id: str) -> bytes:
        """What a look into one shows; nothing if it opens no more."""
        try:
            letter, inside = self.post.look(id, "drill", time.time_ns() // 1_000_000)
        except NoLetter:
            return b""
        told = json.dumps([letter, inside.field, inside.reason]).encode()
        return told + inside.original

    def secrets(self) -> list[bytes]:
        """Of every node from the root to the subject's key, as kept now; memory of this process only."""
        vault = self._vault()
        kept = vault.read()
        found = path_of(kept.frontier, leaf_of(self.running.settings.tenant, self.holder(), 0))
        if not self.files_with(found[:1]):
            raise NotReached("the search does not find a key that is there")
        return found

    def holder(self) -> str:
        """The subject as holder of a key."""
        return of_subject(self.running.pseudonyms.entity("customer", (self.subject,)))

    def sealed(self) -> list[tuple[str, str]]:
        """Sealed values of the subject's records, as anybody may have copied them."""
        return [(id, self.client.get(f"/v1/decisions/{id}").json()["sealed"]) for id in self.ids]

    def opened(self, sealed: list[tuple[str, str]]) -> int:
        """How many of them the vault still opens."""
        sealer = Sealer(self._vault().read(), self.running.settings.tenant, lambda: b"")
        count = 0
        for id, value in sealed:
            with contextlib.suppress(Erased, NotOpened):
                sealer.open(self.holder(), id, value)
                count += 1
        return count

    def files_with(self, keys: list[bytes]) -> list[str]:
        """Files of the whole stack that hold one of these secrets."""
        found = []
        for path in sorted(self.directory.rglob("*")):
            data = content(path) if path.is_file() else b""
            if any(key in data for key in keys):
                found.append(str(path.relative_to(self.directory)))
        return found

    def returns(self) -> bool:
        """Whether the subject, seen again, is readable again while its past is not."""
        self.client.post("/v1/decisions", json=self.body("again")).raise_for_status()
        return self.client.personal("again") == 200 and self.client.personal(self.ids[0]) == 410

    def verified(self) -> bool:
        """Whether all journals are what was written and signed."""
        settings = self.running.settings
        journals = [p for p in sorted(settings.journal.directory.iterdir()) if segments_in(p)]
        found = inspect(journals, settings.audit.anchors, settings.audit.keys, all_of=True)
        return bool(found) and not any(each.findings for each in found)

    def _vault(self) -> Vault:
        return Vault(self.running.settings.vault.directory, secrets.token_bytes)


def path_of(frontier: Frontier, index: int) -> list[bytes]:
    """Secrets of the nodes from the one that is kept down to the leaf."""
    leaf = frontier.leaf(index)
    for start, depth, secret in frontier.nodes():
        found = [secret]
        for shift in range(62 - 2 * depth, -1, -2):
            found.append(child(found[-1], index >> shift & 3))
        if start <= index and found[-1] == leaf:
            return found
    raise NotReached("the subject has no key")
