"""The life of the online store, as the keeper sees it: its generation, the watermark, the rebuilding mark."""

from collections.abc import Callable
from dataclasses import dataclass

from features.library import Keys, generation, parse_watermark
from stream.link import Address, Connection, Place, Reply, StoreBusy, slot, slot_owners

Positions = dict[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class Life:
    """The store of one tenant at `place`. Every call opens its own connections and blocks for at most
    `answer_s` each; all raise `StoreBusy`.

    `new_token` names a store that has no token yet.
    """

    place: Place
    keys: Keys
    new_token: Callable[[], str]
    answer_s: float = 5.0

    def generation(self) -> str:
        """The store's generation; gives an empty store a token."""
        owners = self._owners()
        run_ids = [_run_id(_ask(node, self.answer_s, "INFO", "server")) for node in dict.fromkeys(owners)]
        meta = owners[slot(self.keys.generation)] if len(owners) > 1 else owners[0]
        _ask(meta, self.answer_s, "SET", self.keys.generation, self.new_token(), "NX")
        token = _ask(meta, self.answer_s, "GET", self.keys.generation)
        if not isinstance(token, bytes):
            raise StoreBusy("the generation's token is gone at once")
        return generation(token.decode(), *run_ids)

    def positions(self, life: str) -> Positions:
        """Next offsets that the jobs published under this generation."""
        reply = self._meta("HGETALL", self.keys.watermark)
        words = [word for word in reply if isinstance(word, bytes)] if isinstance(reply, list) else []
        marks = parse_watermark(dict(zip(words[::2], words[1::2], strict=True)))
        return {at: offset for at, (of, offset, _, _) in marks.items() if of == life}

    def rebuilding(self) -> str | None:
        """The generation that is being rebuilt, if one is."""
        reply = self._meta("GET", self.keys.rebuilding)
        return reply.decode().split(" ")[0] if isinstance(reply, bytes) else None

    def begin_rebuilding(self, life: str, now_ms: int) -> None:
        """Say that state is missing: answers are degraded until `end_rebuilding`."""
        self._meta("SET", self.keys.rebuilding, f"{life} {now_ms}")

    def end_rebuilding(self) -> None:
        """Say that state is complete again."""
        self._meta("DEL", self.keys.rebuilding)

    def _meta(self, *arguments: str) -> Reply:
        owners = self._owners()
        node = owners[slot(self.keys.generation)] if len(owners) > 1 else owners[0]
        return _ask(node, self.answer_s, *arguments)

    def _owners(self) -> list[Address]:
        """The one server, or the owner of every slot."""
        if not self.place.cluster:
            return [self.place.seeds[0]]
        trouble = StoreBusy("no seed")
        for seed in self.place.seeds:
            try:
                return slot_owners(seed, _ask(seed, self.answer_s, "CLUSTER", "SLOTS"))
            except StoreBusy as error:
                trouble = error
        raise trouble


def _ask(node: Address, answer_s: float, *arguments: str) -> Reply:
    connection = Connection(node, answer_s)
    try:
        return connection.ask(*arguments)
    finally:
        connection.close()


def _run_id(reply: Reply) -> str:
    text = reply.decode() if isinstance(reply, bytes) else ""
    return next((line[7:].strip() for line in text.splitlines() if line.startswith("run_id:")), "")
