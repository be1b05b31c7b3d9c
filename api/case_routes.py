"""`/v1/cases`: decisions to review, who looks at them, and what they turned out to be."""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.access import Role, allow
from api.audit.logbook import note
from api.batcher import QueueFull
from api.case import PREFIX, Change, Resolution, StaleCase, Status, UnknownCase, label_id, name_of
from api.engine import QueryStoreUnavailable
from api.guard import GuardedRoute, caller_of
from api.journal import JournalBusy, JournalUnavailable
from api.openapi import problem
from api.past.cases import CaseSearch
from api.past.search import PAGE_MAX, InvalidCursor, cursor_of, place_of
from api.problem import Problem, of_answer, overloaded
from api.reply import reply, responses
from api.search_routes import PRINTABLE, Cursor
from api.segment import Damage
from api.work import Inbound
from features.event import holds_card_number

if TYPE_CHECKING:
    from api.app import Service

READERS: Final[tuple[Role, ...]] = ("analyst", "auditor")
Id = Annotated[str, Path(min_length=1, max_length=128, description="of the decision that was to be reviewed")]
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=PRINTABLE)]
Version = Annotated[int, Field(ge=1, le=2**31 - 2, description="of the case as you read it")]
Text = Annotated[str, Field(max_length=4_000, description="no personal data: it is kept for ever")]


class Assign(BaseModel):
    """Who looks at it; null: nobody."""

    model_config = ConfigDict(extra="forbid")

    expected_version: Version
    assignee: Name | None


class Comment(BaseModel):
    """What somebody found out."""

    model_config = ConfigDict(extra="forbid")

    expected_version: Version
    text: Annotated[Text, Field(min_length=1)]


class Resolve(BaseModel):
    """What it turned out to be: this becomes a label of the transaction."""

    model_config = ConfigDict(extra="forbid")

    expected_version: Version
    resolution: Resolution
    text: Text = ""


def case_routes(service: "Service") -> APIRouter:
    """The routes."""
    router = APIRouter(route_class=GuardedRoute)

    @router.get(
        "/v1/cases",
        summary="Review cases, newest first",
        responses=responses("Cases", 401, 403, 422, 503),
        openapi_extra=allow(*READERS),
    )
    async def cases(
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
        cursor: Cursor = None,
        status: Status | None = None,
        assignee: Annotated[str | None, Query(min_length=1, max_length=128, pattern=PRINTABLE)] = None,
    ) -> Response:
        asked = CaseSearch(status, assignee)
        try:
            after = None if cursor is None else place_of(cursor, asked)
        except InvalidCursor as error:
            raise Problem(422, "invalid_parameter", f"cursor: {error}", "cursor") from None
        page = await _told(lambda: service.parts.past().cases(asked, after, limit))
        next_ = None if page.after is None else cursor_of(page.after, asked)
        return reply({"cases": page.cases, "next": next_})

    @router.get(
        "/v1/cases/{id}",
        summary="A review case with all that was done",
        responses=responses("Case", 401, 403, 404, 422, 503),
        openapi_extra=allow(*READERS),
    )
    async def case(id: Id) -> Response:
        _no_nul(id)
        found = await _told(lambda: service.parts.past().case(id))
        if found is None:
            raise Problem(404, "unknown_case", f"no case {id}")
        return reply(found)

    _changes(router, service)
    return router


def _changes(router: APIRouter, service: "Service") -> None:
    refusals = {
        **responses("Case", 401, 403, 404, 422, 503),
        400: problem("the body is no text"),
        409: problem("the case has another version by now"),
    }
    declared = allow("analyst")

    @router.post(
        "/v1/cases/{id}/assign", summary="Say who looks at it", responses=refusals, openapi_extra=declared
    )
    async def assign(request: Request, id: Id, asked: Assign) -> Response:
        change = Change("assigned", caller_of(request).name, assignee=asked.assignee)
        return reply(await _change(service, id, asked.expected_version, change))

    @router.post(
        "/v1/cases/{id}/comment", summary="Add a comment", responses=refusals, openapi_extra=declared
    )
    async def comment(request: Request, id: Id, asked: Comment) -> Response:
        change = Change("commented", caller_of(request).name, text=asked.text)
        return reply(await _change(service, id, asked.expected_version, change))

    @router.post(
        "/v1/cases/{id}/resolve",
        summary="Say what it turned out to be: the transaction gets a label",
        responses=refusals,
        openapi_extra=declared,
    )
    async def resolve(request: Request, id: Id, asked: Resolve) -> Response:
        change = Change("resolved", caller_of(request).name, text=asked.text, resolution=asked.resolution)
        found = await _change(service, id, asked.expected_version, change)
        await _label(service, found["events"][-1])
        return reply(found)


async def _change(service: "Service", id_: str, expected: int, change: Change) -> Mapping[str, Any]:
    """Make it durable, then visible; the case. The same change again is answered as before."""
    _no_nul(id_)
    if holds_card_number(change.text) or holds_card_number(change.assignee or ""):
        raise Problem(422, "card_number", "digits that look like a card number are refused", "text")
    parts, now_ms = service.parts, service.clock()
    # A label's time is the events' own where decisions follow it.
    label_ms = parts.engine.newest_ms if parts.config.event_clock else now_ms

    def record(version: int) -> tuple[str, int, bytes]:
        facts = change.facts(id_, version)
        if change.step == "resolved":
            facts["label_time_ms"] = label_ms or now_ms
        event_id = f"case-{name_of(id_)}-{version}-{now_ms}"
        journals, tenant = parts.config.journal_dir, parts.config.tenant
        payload = note(journals, PREFIX + change.step, facts, id=event_id, time_ms=now_ms, tenant=tenant)
        return event_id, now_ms, payload

    found, _ = await _told(lambda: parts.past().change_case(id_, expected, change, record))
    return found


async def _label(service: "Service", event: Mapping[str, Any]) -> None:
    """Report the label through the same door as everybody. Raises `Problem`: resolve it again."""
    payload = {
        "label_id": label_id(event["case_id"], event["version"]),
        "transaction_id": event["case_id"],
        "time": event["label_time_ms"],
        "fraud": event["resolution"] == "fraud",
    }
    try:
        refused = of_answer(await service.batcher.decide(Inbound("label", payload, "http")))
    except QueueFull:
        raise overloaded() from None
    if refused is not None:
        raise refused


async def _told[Found](work: Callable[[], Found]) -> Found:
    """Beside the loop that decides; what goes wrong as a `Problem`."""
    try:
        return await asyncio.to_thread(work)
    except UnknownCase as error:
        raise Problem(404, "unknown_case", f"no case {error}") from None
    except StaleCase as error:
        raise Problem(409, "stale_version", str(error), "expected_version") from None
    except QueryStoreUnavailable:
        raise Problem(503, "unavailable_query_store", "it does not answer", retry_after_s=1) from None
    except (JournalBusy, JournalUnavailable, Damage):
        raise Problem(503, "unavailable_journal", "the step could not be recorded", retry_after_s=1) from None


def _no_nul(id_: str) -> None:
    if "\0" in id_:
        raise Problem(404, "unknown_case", "no case has such an id")
