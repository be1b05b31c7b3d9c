"""`POST /v1/decisions/batch`, `GET /v1/batches/{id}` and its results."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response

from api.access import Role, allow
from api.batch.result import LINES, Batch, NotABatch, lines_of
from api.batch.shelf import Shelf, ShelfFull, ShelfUnusable
from api.guard import GuardedRoute, caller_of
from api.openapi import answer, problem
from api.problem import SECURITY_HEADERS, Problem, too_large
from api.record import decode_json
from api.reply import reply, responses

if TYPE_CHECKING:
    from api.app import Service

CALLERS: Final[tuple[Role, ...]] = ("decide", "analyst")
PAGE_MAX: Final = 1_000
_KINDS: Final[dict[str, Literal["array", "lines"]]] = {"application/json": "array", LINES: "lines"}
Id = Annotated[str, Path(min_length=1, max_length=64)]


def batch_routes(service: "Service") -> APIRouter:
    """The routes."""
    router = APIRouter(route_class=GuardedRoute)
    limits, shelf, runner = service.parts.config.batches, service.desk.shelf, service.desk.runner

    @router.post(
        "/v1/decisions/batch",
        summary="Decide many transactions, later and beside the others",
        description=(
            "An array, or one transaction per line as application/x-ndjson. 202 means that the batch is"
            " durable: it will be decided once, whatever crashes. The same lines again are the same batch."
        ),
        status_code=202,
        responses=_accepted(),
        openapi_extra=allow(*CALLERS) | _body(limits.lines_max),
    )
    async def submit(request: Request) -> Response:
        kind = _KINDS.get(request.headers.get("content-type", "").partition(";")[0].strip().lower())
        if kind is None:
            raise Problem(415, "media_type", f"send application/json (an array) or {LINES}")
        body = await _read(request, limits.bytes_max)
        by = caller_of(request).name
        batch, known = await asyncio.to_thread(
            _accept, shelf, body, kind, limits.lines_max, service.clock(), by
        )
        runner.wake()
        found = reply(batch.to_json() | {"replay": known}, 202)
        found.headers["location"] = f"/v1/batches/{batch.id}"
        return found

    @router.get(
        "/v1/batches/{id}",
        summary="How far a batch is, and what became of its lines",
        responses=responses("Batch", 401, 403, 404, 422, 503),
        openapi_extra=allow(*CALLERS),
    )
    async def state(id: Id) -> Response:
        return reply((await _find(shelf, id)).to_json())

    @router.get(
        "/v1/batches/{id}/results",
        summary="What became of each line, in their order, page by page",
        description="With `Accept: application/x-ndjson` one per line; the header `Link` has the next page.",
        responses=_results(),
        openapi_extra=allow(*CALLERS),
    )
    async def results(
        id: Id,
        cursor: Annotated[int, Query(ge=0, le=2**53, description="`next` of the page before")] = 0,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 200,
        accept: Annotated[str, Header(max_length=512, include_in_schema=False)] = "",
    ) -> Response:
        await _find(shelf, id)
        try:
            lines, next_ = await asyncio.to_thread(shelf.page, id, cursor, limit)
        except ValueError as error:
            raise Problem(422, "invalid_parameter", f"cursor: {error}", "cursor") from None
        except ShelfUnusable:
            raise _unavailable() from None
        if LINES in accept:
            link = {} if next_ is None else {"link": f'</v1/batches/{id}/results?cursor={next_}>; rel="next"'}
            return Response(b"".join(lines), headers={**SECURITY_HEADERS, **link}, media_type=LINES)
        return reply({"results": [decode_json(line) for line in lines], "next": next_})

    return router


def _accept(
    shelf: Shelf, body: bytes, kind: Literal["array", "lines"], lines_max: int, now_ms: int, by: str
) -> tuple[Batch, bool]:
    """Raises `Problem`."""
    try:
        lines = lines_of(body, kind)
    except NotABatch as error:
        raise Problem(422, "malformed", str(error), "body") from None
    if not lines:
        raise Problem(422, "malformed", "body: a batch has one transaction at least", "body")
    if len(lines) > lines_max:
        raise Problem(413, "too_large", f"a batch has {lines_max} transactions at most")
    try:
        return shelf.accept(lines, now_ms=now_ms, by=by)
    except ShelfFull:
        raise Problem(429, "too_many_batches", "other batches wait; try again", retry_after_s=5) from None
    except ShelfUnusable:
        raise _unavailable() from None


async def _read(request: Request, bytes_max: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > bytes_max:
            raise too_large()
    return bytes(body)


async def _find(shelf: Shelf, id_: str) -> Batch:
    try:
        found = await asyncio.to_thread(shelf.find, id_)
    except ShelfUnusable:
        raise _unavailable() from None
    if found is None:
        raise Problem(404, "not_found", f"no batch {id_}")
    return found


def _unavailable() -> Problem:
    return Problem(503, "unavailable_batches", "batches cannot be kept now", retry_after_s=5)


def _accepted() -> dict[int | str, dict[str, Any]]:
    """Of the submission."""
    location = {"Location": {"description": "where to ask", "schema": {"type": "string"}, "required": True}}
    found = responses("Batch", 401, 403, 422, 503)
    del found[200]
    return found | {
        202: answer("AcceptedBatch", "durable; ask at `Location`") | {"headers": location},
        413: problem("the body is larger than allowed, or has too many lines"),
        415: problem("neither an array nor lines"),
        429: problem("too many batches wait; try again after `Retry-After` seconds"),
    }


def _results() -> dict[int | str, dict[str, Any]]:
    found = responses("BatchResults", 401, 403, 404, 422, 503)
    found[200]["content"][LINES] = {"schema": {"type": "string"}}
    return found


def _body(lines_max: int) -> dict[str, Any]:
    array = {"type": "array", "items": {"$ref": "#/components/schemas/Transaction"}}
    content = {
        "application/json": {"schema": array | {"minItems": 1, "maxItems": lines_max}},
        LINES: {"schema": {"type": "string", "description": "one transaction per line"}},
    }
    return {"requestBody": {"required": True, "content": content}}
