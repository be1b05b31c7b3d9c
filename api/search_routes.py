"""`GET /v1/decisions`: past decisions by what is known about them, page by page."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Final, Literal

from fastapi import APIRouter, Query, Response

from api.access import Role, allow
from api.engine import QueryStoreUnavailable
from api.guard import GuardedRoute
from api.past.search import CURSOR_BYTES_MAX, PAGE_MAX, InvalidCursor, Label, Search, cursor_of, place_of
from api.problem import Problem
from api.reply import reply, responses

if TYPE_CHECKING:
    from api.app import Service

READERS: Final[tuple[Role, ...]] = ("analyst", "approver", "data_scientist", "auditor")
PRINTABLE: Final = r"^[^\x00-\x1f\x7f]+$"
Outcome = Literal["approve", "challenge", "review", "decline"]
Score = Annotated[int | None, Query(ge=0, le=1_000)]
From = Annotated[int | None, Query(ge=0, le=2**53, description="epoch milliseconds, inclusive")]
Until = Annotated[int | None, Query(ge=0, le=2**53, description="epoch milliseconds, exclusive")]
Cursor = Annotated[str | None, Query(max_length=CURSOR_BYTES_MAX, description="`next` of the page before")]
DESCRIPTION = (
    "Newest first by the time of deciding; all filters that are given have to hold. `next` leads to the"
    " following page and is null at the end; what is decided meanwhile neither repeats nor hides anything."
    " A page may hold fewer than `limit` and still have a next one: the work for one page is limited."
)


def search_routes(service: "Service") -> APIRouter:
    """The route."""
    router = APIRouter(route_class=GuardedRoute)

    @router.get(
        "/v1/decisions",
        summary="Past decisions that match, newest first",
        description=DESCRIPTION,
        responses=responses("Records", 401, 403, 404, 422, 503),
        openapi_extra=allow(*READERS),
    )
    async def search(
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
        cursor: Cursor = None,
        entity: Annotated[str | None, Query(max_length=64, description="with `id`")] = None,
        id: Annotated[str | None, Query(max_length=512, description="pairs: ids joined by a comma")] = None,
        outcome: Outcome | None = None,
        rule: Annotated[
            str | None, Query(max_length=128, pattern=PRINTABLE, description="that hit, live or shadow")
        ] = None,
        reason: Annotated[
            str | None, Query(max_length=128, pattern=PRINTABLE, description="a reason's code")
        ] = None,
        score_min: Score = None,
        score_max: Score = None,
        time_from: From = None,
        time_until: Until = None,
        decided_from: From = None,
        decided_until: Until = None,
        label: Annotated[Label | None, Query(description="the newest one")] = None,
    ) -> Response:
        if (entity is None) != (id is None):
            raise Problem(422, "invalid_parameter", "entity and id are given together", "entity")
        known = None if entity is None or id is None else (entity, pseudonym_of(service, entity, id))
        asked = Search(
            known, outcome, rule, reason, score_min, score_max, time_from, time_until, decided_from,
            decided_until, label,
        )  # fmt: skip
        try:
            after = None if cursor is None else place_of(cursor, asked)
            # Beside the loop that decides: a search may take a while.
            page = await asyncio.to_thread(lambda: service.parts.past().search(asked, after, limit))
        except InvalidCursor as error:
            raise Problem(422, "invalid_parameter", f"cursor: {error}", "cursor") from None
        except QueryStoreUnavailable:
            raise Problem(503, "unavailable_query_store", "it does not answer", retry_after_s=1) from None
        next_ = None if page.after is None else cursor_of(page.after, asked)
        return reply({"decisions": page.records, "next": next_})

    return router


def pseudonym_of(service: "Service", entity: str, id_: str) -> str:
    """Pseudonym of a raw id. Raises `Problem`: 404 for an entity that the schema has not, 422."""
    schema = service.parts.catalogue.schema
    spec = next((e for e in schema.entities if e.name == entity), None)
    if spec is None:
        known = ", ".join(e.name for e in schema.entities)
        raise Problem(404, "not_found", f"no entity {entity}; there are {known}")
    parts = tuple(id_.split(",")) if len(spec.fields) > 1 else (id_,)
    if len(parts) != len(spec.fields):
        raise Problem(
            422, "invalid_parameter", f"{entity} has {len(spec.fields)} ids, joined by commas", "id"
        )
    return service.parts.pseudonyms.entity(entity, parts)
