"""A batch between the steps of the engine (see engine.py)."""

from dataclasses import dataclass, field

from api.answer import Answer, Unavailable
from api.journal import Written
from api.judge import Judged, Read
from api.work import Work


@dataclass(slots=True)
class Verdicts:
    """What was made of some works. `answers`: known so far, in order. `reads`: those that are answered once
    their records are durable, with their places. `failure`: what to answer these if that went wrong."""

    answers: list[Answer | None]
    reads: list[tuple[int, Read]] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    written: Written | None = None
    failure: Unavailable | None = None


@dataclass(slots=True)
class Flight:
    """A batch between its steps.

    `answers`: known so far, in order. `works`: by key, with their place among the answers; `twins`: further
    ones of the same ids. `departed`: whether the store will say something. `started`: of the timer;
    `departing_ms`: from then until they were sent. `verdicts`: once it is recorded.
    """

    answers: list[Answer | None]
    works: dict[str, tuple[int, Work]] = field(default_factory=dict)
    twins: list[tuple[int, Work]] = field(default_factory=list)
    now_ms: int = 0
    started: int = 0
    departed: bool = False
    departing_ms: int = 0
    verdicts: Verdicts | None = None
