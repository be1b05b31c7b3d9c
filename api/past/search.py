"""Finding decisions: what is asked, in which order, from where on. Pure but for the statement's text.

The order is that of deciding, newest first; ties by id. A cursor is the last place that was looked at, so
that what is decided meanwhile neither repeats nor hides anything. No page looks at more than `SCAN` rows.
"""

import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec
from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.sql.expression import FromClause

from api.past.rows import entity_kind
from api.past.schema import DECISION
from api.past.terms import Stretch, Terms, behind
from api.record import decode_json, encode_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Label = Literal["fraud", "legitimate", "none"]
PAGE_MAX: Final = 200
SCAN: Final = 50_000
LOOKS_FIRST: Final = 500
LOOKS_FACTOR: Final = 8
CURSOR_BYTES_MAX: Final = 1_024
_FRAUD: Final[Mapping[Label, int | None]] = {"fraud": 1, "legitimate": 0, "none": None}


class InvalidCursor(ValueError):
    """It was not made here, or for another search: begin without one."""


class Digested(Protocol):
    """A search that cursors belong to."""

    def digest(self) -> int:
        """What tells a cursor of this search from one of another."""


@dataclass(frozen=True, slots=True)
class Place:
    """Behind one decision of the order."""

    decided_ms: int
    id: str


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for; all that is given has to hold. Times in ms, from (inclusive) until (exclusive).

    `entity`: its name and pseudonym. `rule`: one that hit, live or shadow. `label`: the newest one.
    """

    entity: tuple[str, str] | None = None
    outcome: str | None = None
    rule: str | None = None
    reason: str | None = None
    score_min: int | None = None
    score_max: int | None = None
    time_from_ms: int | None = None
    time_until_ms: int | None = None
    decided_from_ms: int | None = None
    decided_until_ms: int | None = None
    label: Label | None = None

    @property
    def terms(self) -> list[tuple[str, str]]:
        """Kinds and values of the terms that are asked for, the most telling first."""
        found = []
        if self.entity is not None:
            found.append((entity_kind(self.entity[0]), self.entity[1]))
        if self.rule is not None:
            found.append(("rule", self.rule))
        if self.reason is not None:
            found.append(("reason", self.reason))
        return found

    def digest(self) -> int:
        """What tells a cursor of this search from one of another."""
        return digest_of(self)


@dataclass(frozen=True, slots=True)
class Page:
    """Records, newest first, and from where to go on: `None` where nothing is left.

    A page may have fewer records than asked for, even none, and still go on: it looked at `SCAN` rows.
    """

    records: list[Mapping[str, Any]]
    after: Place | None


def digest_of(search: "DataclassInstance") -> int:
    """A number that follows from a search's values."""
    return zlib.crc32(encode_json(astuple(search)))


def cursor_of(place: Place, search: Digested) -> str:
    """The place as an opaque word."""
    raw = encode_json([place.decided_ms, place.id, search.digest()])
    return urlsafe_b64encode(raw).decode().rstrip("=")


def place_of(cursor: str, search: Digested) -> Place:
    """The place of a cursor that was made for this search. Raises `InvalidCursor`."""
    try:
        raw = urlsafe_b64decode(cursor[:CURSOR_BYTES_MAX] + "=" * (-len(cursor) % 4))
        decided_ms, id_, digest = decode_json(raw)
    except (Base64Error, msgspec.DecodeError, UnicodeError, TypeError, ValueError):
        raise InvalidCursor("it is none that was handed out here") from None
    if type(decided_ms) is not int or not isinstance(id_, str) or abs(decided_ms) >= 2**63 or "\0" in id_:
        raise InvalidCursor("it is none that was handed out here")
    if digest != search.digest():
        raise InvalidCursor("it belongs to a search with other filters; begin without a cursor")
    return Place(decided_ms, id_)


def matching(terms: Terms, search: Search, after: Place | None, looks: int, limit: int) -> Select[Any]:
    """The newest places that match among the next `looks` rows, newest first."""
    if _led_by_terms(search):
        rows, others = terms.leading(search.terms, _stretch(search, after), looks)
        looked = rows.cte("looked")
        found = select(looked.c.decided_ms, looked.c.id)
        own = _own(search, DECISION)
        if own:
            found = found.join_from(looked, DECISION, DECISION.c.id == looked.c.id)
    else:
        looked = _decisions(search, after, *terms.columns()).limit(looks).cte("looked")
        found, others = select(looked.c.decided_ms, looked.c.id), search.terms
        own = _own(search, looked)
    found = found.where(*own, *(terms.present(term, looked) for term in others))
    return found.order_by(looked.c.decided_ms.desc(), looked.c.id.desc()).limit(limit)


def last_of(terms: Terms, search: Search, after: Place | None, looks: int) -> Select[Any]:
    """The place of the last of the next `looks` rows, if there are as many."""
    if _led_by_terms(search):
        return terms.last(search.terms, _stretch(search, after), looks)
    return _decisions(search, after).offset(looks - 1).limit(1)


def first_looks(search: Search, limit: int) -> int:
    """How many rows to look at first: exactly the page, where each of them matches."""
    own = replace(search, decided_from_ms=None, decided_until_ms=None)
    if own in (
        Search(),
        Search(entity=search.entity),
        Search(rule=search.rule),
        Search(reason=search.reason),
    ):
        return limit
    return max(limit, LOOKS_FIRST)


def _labelled(search: Search) -> bool:
    """Whether the index of labelled decisions leads."""
    return search.entity is None and search.label in ("fraud", "legitimate")


def _led_by_terms(search: Search) -> bool:
    """Whether the most telling term leads."""
    return bool(search.terms) and not _labelled(search)


def _stretch(search: Search, after: Place | None) -> Stretch:
    return Stretch(after, search.decided_from_ms, search.decided_until_ms)


def _decisions(search: Search, after: Place | None, *more: ColumnElement[Any]) -> Select[Any]:
    """Rows of the one index of decisions that leads, in order."""
    columns = [
        DECISION.c.decided_ms, DECISION.c.id, DECISION.c.outcome, DECISION.c.score, DECISION.c.time_ms,
        DECISION.c.fraud, *more,
    ]  # fmt: skip
    found = select(*columns).where(*behind(DECISION, _stretch(search, after)))
    if _labelled(search):
        found = found.where(DECISION.c.fraud == _FRAUD[search.label or "none"])
    return found.order_by(DECISION.c.decided_ms.desc(), DECISION.c.id.desc())


def _own(search: Search, row: FromClause) -> list[ColumnElement[bool]]:
    """Conditions on a decision's own columns."""
    found: list[ColumnElement[bool]] = []
    if search.outcome is not None:
        found.append(row.c.outcome == search.outcome)
    if search.score_min is not None:
        found.append(row.c.score >= search.score_min)
    if search.score_max is not None:
        found.append(row.c.score <= search.score_max)
    if search.time_from_ms is not None:
        found.append(row.c.time_ms >= search.time_from_ms)
    if search.time_until_ms is not None:
        found.append(row.c.time_ms < search.time_until_ms)
    if search.label is not None:
        fraud = _FRAUD[search.label]
        found.append(row.c.fraud.is_(None) if fraud is None else row.c.fraud == fraud)
    return found
