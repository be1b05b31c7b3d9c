"""Lines of a batch: reading them, what became of each, and the sums. Nothing here does any I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import msgspec

from api.answer import Answer, Decided, Pending, Unavailable
from api.problem import Problem, of_answer
from api.record import answer_of, decode_json
from features.event import holds_card_number, mask_card_numbers

Status = Literal["waiting", "running", "finished", "failed"]
# Errors that the state shows; the results have all of them.
ERRORS_SHOWN: Final = 100
ID_LENGTH_MAX: Final = 128
LINES: Final = "application/x-ndjson"
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])
OUTCOMES: Final = ("approve", "challenge", "review", "decline")


class NotABatch(ValueError):
    """The body is no list of transactions; the message says how to write one."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that is no JSON."""

    detail: str


def lines_of(body: bytes, kind: Literal["array", "lines"]) -> list[bytes]:
    """One JSON text per transaction, without line breaks. Raises `NotABatch` for an array that is none.

    A line that is no JSON stays a line: it gets a result of its own.
    """
    if kind == "lines":
        return [line for line in body.split(b"\n") if line.strip()]
    try:
        found = _ARRAY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = "is no JSON" if holds_card_number(str(error)) else str(error)
        raise NotABatch(f"body: write an array of transactions, or lines as {LINES}: {why}") from None
    # A line break in valid JSON is white space: inside of a text it is escaped.
    return [bytes(each).replace(b"\n", b" ") for each in found]


def payload_of(line: bytes) -> Any:
    """A line's JSON, or what is wrong with it."""
    try:
        return decode_json(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Malformed("is no JSON" if holds_card_number(str(error)) else str(error))


def result_of(number: int, payload: Any, answer: Answer | Malformed) -> dict[str, Any] | None:
    """What became of line `number` (from 1); `None`: not known yet, ask the engine again."""
    if isinstance(answer, Pending | Unavailable):
        return None
    found: dict[str, Any] = {"line": number, "transaction_id": _id_of(payload)}
    if isinstance(answer, Decided):
        return found | {"status": 200, "answer": answer_of(answer.record, replay=answer.replay)}
    wrong = Problem(422, "malformed", answer.detail) if isinstance(answer, Malformed) else of_answer(answer)
    assert wrong is not None
    problem: dict[str, Any] = {"code": wrong.code, "detail": mask_card_numbers(wrong.detail)}
    if wrong.field is not None:
        problem["field"] = mask_card_numbers(wrong.field)
    return found | {"status": wrong.status, "problem": problem}


def _id_of(payload: Any) -> str | None:
    given = payload.get("transaction_id") if isinstance(payload, dict) else None
    return mask_card_numbers(given[:ID_LENGTH_MAX]) if isinstance(given, str) else None


@dataclass(frozen=True, slots=True)
class Sums:
    """What became of the lines so far. `replays`: had been decided before, by this batch or anybody."""

    done: int = 0
    outcomes: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    replays: int = 0
    failed: int = 0
    errors: tuple[Mapping[str, Any], ...] = ()

    def add(self, result: Mapping[str, Any]) -> "Sums":
        """With one more result."""
        if "answer" in result:
            answer = result["answer"]
            outcomes = {**self.outcomes, answer["outcome"]: self.outcomes[answer["outcome"]] + 1}
            return replace(
                self, done=self.done + 1, outcomes=outcomes, replays=self.replays + answer["replay"]
            )
        errors = self.errors if len(self.errors) >= ERRORS_SHOWN else (*self.errors, result)
        return replace(self, done=self.done + 1, failed=self.failed + 1, errors=errors)


@dataclass(frozen=True, slots=True)
class Batch:
    """What is known about a batch. Times in ms of the epoch."""

    id: str
    lines: int
    accepted_ms: int
    by: str
    status: Status = "waiting"
    sums: Sums = field(default_factory=Sums)
    finished_ms: int | None = None
    why: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What `GET /v1/batches/{id}` answers."""
        return {
            "id": self.id,
            "status": self.status,
            "lines": self.lines,
            "done": self.sums.done,
            "outcomes": dict(self.sums.outcomes),
            "replays": self.sums.replays,
            "failed": self.sums.failed,
            "errors": list(self.sums.errors),
            "accepted_ms": self.accepted_ms,
            "finished_ms": self.finished_ms,
            "why": self.why,
        }
