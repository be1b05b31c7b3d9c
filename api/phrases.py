"""What records say of decisions, as JSON: most of it was said before, and is not encoded again.

`members(brief_of(...))` and `members(rest_of(...))` are what it says, byte by byte; a test holds it to them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from api.decide import Decision, Voice
from api.record import encode_json, members
from features.store import Target

KEPT_MAX: Final = 8_192
_NO_NUMBERS: Final = b'"probability":null,"margin":null,"expected_loss":null,"scored_by":null'
Brief = tuple[Mapping[str, Any], bytes]
Order = Callable[[Sequence[Target], Sequence[int], dict[str, bytes]], bytes | None]
"""`{entity: [generation, number]}` from what stands before each number; `None`: that is missing somewhere."""


def brief_of(decision: Decision, reasons: list[dict[str, Any]]) -> dict[str, Any]:
    """What a receipt keeps of a decision."""
    verdict = decision.verdict
    guard = {} if decision.guard is None else {"guard": decision.guard}
    return {
        "outcome": decision.outcome.word,
        "score": None if verdict is None else verdict.score,
        "reasons": reasons,
        "degraded": list(decision.degraded),
        **guard,
    }


def rest_of(decision: Decision) -> dict[str, Any]:
    """What only the record has, its rules' results apart."""
    verdict = decision.verdict
    return {
        "probability": None if verdict is None else verdict.probability,
        "margin": None if verdict is None else verdict.margin,
        "expected_loss": None if verdict is None else verdict.expected_loss,
        "scored_by": None if verdict is None else verdict.source,
        "winner": _voice(decision.winner),
        "others": [_voice(voice) for voice in decision.others],
    }


class Phrases:
    """Keeps at most `limit` of each kind. Not for use by several threads.

    `compiled`: writes running numbers (api/intake/order.c), instead of Python.
    """

    def __init__(self, limit: int = KEPT_MAX, compiled: Order | None = None) -> None:
        self._limit = limit
        self._compiled = compiled
        self._briefs: dict[tuple[object, ...], Brief] = {}
        self._voices: dict[tuple[str, ...], bytes] = {}
        self._orders: dict[str, bytes] = {}
        self._generation = ""

    def brief(self, decision: Decision, reasons: list[dict[str, Any]]) -> Brief:
        """What a receipt keeps, as values that nobody changes, and as members."""
        if reasons:
            said = brief_of(decision, reasons)
            return said, members(said)
        verdict = decision.verdict
        score = None if verdict is None else verdict.score
        key = (decision.outcome.word, score, decision.degraded, decision.guard)
        found = self._briefs.get(key)
        if found is None:
            if len(self._briefs) >= self._limit:
                self._briefs.clear()
            said = brief_of(decision, [])
            found = self._briefs[key] = said, members(said)
        return found

    def rests(self, decisions: Sequence[Decision]) -> list[bytes]:
        """What only records have, as members; one for each decision."""
        numbers: list[float] = []
        for decision in decisions:
            if (verdict := decision.verdict) is not None:
                numbers += (verdict.probability, verdict.margin, verdict.expected_loss)
        written = iter(encode_json(numbers)[1:-1].split(b","))
        found = []
        for decision in decisions:
            said = _NO_NUMBERS
            if (verdict := decision.verdict) is not None:
                said = b'"probability":%b,"margin":%b,"expected_loss":%b,"scored_by":"%b"' % (
                    next(written), next(written), next(written), verdict.source.encode(),
                )  # fmt: skip
            others = b",".join(map(self._said, decision.others)) if decision.others else b""
            found.append(b'%b,"winner":%b,"others":[%b]' % (said, self._said(decision.winner), others))
        return found

    def order(self, targets: Sequence[Target], numbers: Sequence[int], generation: str) -> bytes:
        """Running numbers of the entities that were observed: `{entity: [generation, number]}`."""
        if generation != self._generation:
            self._generation, self._orders = generation, {}
        known = self._orders
        if self._compiled is not None and (found := self._compiled(targets, numbers, known)) is not None:
            return found
        said = []
        for (entity, _, _), number in zip(targets, numbers, strict=True):
            if number:
                before = known.get(entity)
                if before is None:
                    before = known[entity] = b"%b:[%b," % (encode_json(entity), encode_json(generation))
                said.append(b"%b%d]" % (before, number))
        return b"{%b}" % b",".join(said)

    def _said(self, voice: Voice) -> bytes:
        key = (voice.by, voice.id, voice.outcome.word)
        found = self._voices.get(key)
        if found is None:
            if len(self._voices) >= self._limit:
                self._voices.clear()
            found = self._voices[key] = encode_json(_voice(voice))
        return found


def _voice(voice: Voice) -> dict[str, str]:
    return {"by": voice.by, "id": voice.id, "outcome": voice.outcome.word}
