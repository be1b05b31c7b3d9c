"""The HTTP routes of the brakes; what they do writes files, so it runs beside the loop."""

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.access import READERS, allow
from api.brakes.patrol import recorder
from api.compose import Parts
from api.guard import GuardedRoute, caller_of
from api.journal import JournalBusy, JournalUnavailable
from api.openapi import answer, problem
from api.problem import SECURITY_HEADERS, Problem
from api.record import encode_json
from api.rules.registry import Refused, Registry
from api.segment import Damage

Responses = dict[int | str, dict[str, Any]]
Name = Annotated[str, Path(min_length=1, max_length=128, description="a rule's id, or guard:decline_rate")]


class Reset(BaseModel):
    """Why a brake is released."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(min_length=1, max_length=300)]


def router(parts: Parts, clock: Callable[[], int]) -> APIRouter:
    """`GET /v1/brakes`, `POST /v1/brakes/{name}/reset`. `clock`: wall clock in ms."""
    made = APIRouter(route_class=GuardedRoute)
    refusals: Responses = {
        401: problem("no credential, or an unknown one"),
        403: problem("not with these roles"),
    }
    unread: Responses = {400: problem("the body is no text"), 422: problem("say why")}
    down: Responses = {503: problem("the steps cannot be read or written; try again")}

    @made.get(
        "/v1/brakes",
        summary="What is tripped now",
        responses={200: answer("Brakes"), **refusals, **down},
        openapi_extra=allow(*READERS),
    )
    async def brakes() -> Response:
        return _json({"tripped": await asyncio.to_thread(tripped, parts, clock())})

    @made.post(
        "/v1/brakes/{name}/reset",
        summary="Bring a tripped rule back, or end the guarded mode",
        responses={
            200: answer("BrakeStep"),
            **refusals,
            **down,
            404: problem("it has not tripped"),
            **unread,
        },
        openapi_extra=allow("approver"),
    )
    async def reset(request: Request, name: Name, asked: Reset) -> Response:
        by = caller_of(request).name
        return _json(await asyncio.to_thread(release, parts, name, by, asked.reason, clock()))

    return made


def tripped(parts: Parts, now_ms: int) -> list[dict[str, Any]]:
    """Brakes that are pulled. Raises `Problem`."""
    try:
        trips = Registry(parts.config.brakes_dir).trips()
    except Refused as error:
        raise Problem(503, "unavailable_brakes", str(error), retry_after_s=1) from None
    return [asdict(trip) for trip in trips if trip.holds(now_ms)]


def release(parts: Parts, name: str, by: str, reason: str, now_ms: int) -> dict[str, Any]:
    """Release one; the step. Raises `Problem`."""
    record = recorder(parts.config.journal_dir, parts.config.tenant)
    registry = Registry(parts.config.brakes_dir, record)
    try:
        step = registry.reset(name, by, now_ms, reason)
    except Refused as error:
        raise Problem(404, "not_found", str(error)) from None
    except (OSError, JournalBusy, JournalUnavailable, Damage) as error:
        raise Problem(503, "unavailable_brakes", str(error), retry_after_s=1) from None
    if step is None:
        raise Problem(404, "not_found", f"{name} was changed just now")
    return asdict(step)


def _json(content: dict[str, Any]) -> Response:
    return Response(encode_json(content), headers=dict(SECURITY_HEADERS), media_type="application/json")
