"""`GET /v1/explanations/mean`: what drove a filtered set of past decisions, on average."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, Query, Response

from api.access import READERS, allow
from api.engine import QueryStoreUnavailable
from api.explain import NotExplainable
from api.guard import GuardedRoute
from api.mean import Sums, explainable
from api.model import ModelFailed
from api.past.search import PAGE_MAX, Label, Search
from api.problem import Problem
from api.reply import reply, responses
from api.search_routes import From, Outcome, Score, Until

if TYPE_CHECKING:
    from api.app import Service

AT_ONCE: Final = 25
"""Vectors explained before the loop turns."""


def mean_routes(service: "Service") -> APIRouter:
    """The route."""
    router = APIRouter(route_class=GuardedRoute)

    @router.get(
        "/v1/explanations/mean",
        summary="Mean contributions over the newest decisions that match, per model version",
        responses=responses("MeanExplanations", 401, 403, 422, 503),
        openapi_extra=allow(*READERS),
    )
    async def mean(
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = PAGE_MAX,
        outcome: Outcome | None = None,
        rule: Annotated[str | None, Query(max_length=128, description="that hit, live or shadow")] = None,
        reason: Annotated[str | None, Query(max_length=128, description="a reason's code")] = None,
        score_min: Score = None,
        score_max: Score = None,
        decided_from: From = None,
        decided_until: Until = None,
        label: Annotated[Label | None, Query(description="the newest one")] = None,
    ) -> Response:
        asked = Search(
            None, outcome, rule, reason, score_min, score_max, None, None, decided_from, decided_until, label
        )
        try:
            page = await asyncio.to_thread(lambda: service.parts.past().search(asked, None, limit))
        except QueryStoreUnavailable:
            raise Problem(503, "unavailable_query_store", "it does not answer", retry_after_s=1) from None
        records = [r for r in page.records if explainable(r, service.parts.catalogue)]
        sums: dict[str, Sums] = {}
        try:
            for version in dict.fromkeys(record["versions"]["model"] for record in records):
                own = [record for record in records if record["versions"]["model"] == version]
                try:
                    model = service.model(version)
                except NotExplainable:
                    continue
                if model is None:
                    continue
                sums[version] = Sums(model)
                for start in range(0, len(own), AT_ONCE):
                    sums[version].add(own[start : start + AT_ONCE])
                    await asyncio.sleep(0)
        except ModelFailed as error:
            raise Problem(503, "unavailable_model", str(error), retry_after_s=1) from None
        left_out = len(page.records) - sum(one.rows for one in sums.values())
        return reply({"models": [one.to_json() for one in sums.values()], "left_out": left_out})

    return router
