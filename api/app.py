"""The HTTP application: look-ups, explanations, health and metrics by FastAPI, the event routes before it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Annotated, Any

from fastapi import FastAPI, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from api.access import READERS, AccessDenied, allow, anybody
from api.batch.desk import Desk
from api.batch.routes import batch_routes
from api.batcher import Batcher
from api.brakes import routes as brake_routes
from api.brakes.patrol import EVERY_S as PATROL_EVERY_S
from api.case_routes import case_routes
from api.compose import Parts
from api.counterfactual import Counterfactual, nearest, search
from api.engine import QueryStoreUnavailable
from api.explain import NotExplainable, explanation
from api.gate import Gate, KeysAwaited
from api.guard import GuardedRoute, check_declared
from api.hot import HotRoutes
from api.lookup import LookupUnavailable, find_decision, live_features
from api.mean_routes import mean_routes
from api.metrics import Metrics
from api.model import ModelFailed, ModelRefused, ServingModel
from api.negotiation import JSON, SVG, language_of, media_of
from api.openapi import answer, complete
from api.personal import follow_keys, personal_routes, resume_erasures
from api.picture import picture, pictured
from api.problem import SECURITY_HEADERS, Problem, keys_awaited, of_denied
from api.replay import As, Replayer
from api.reply import reply, responses
from api.rules.feed import EVERY_S
from api.rules.load import RuleSetError
from api.rules.rule import RuleSet
from api.rules.shelf import SetChanged, SetMissing
from api.search_routes import pseudonym_of, search_routes
from api.webhooks import routes as webhook_routes
from features.evaluate import Evaluator
from features.event import mask_card_numbers
from features.store import StoreUnavailable
from models.reasons import Audience, Language

SWEEP_EVERY_S = 10.0
LOG = logging.getLogger("cordon.api")
Id = Annotated[str, Path(min_length=1, max_length=128)]


class Service:
    """What the routes share. `clock`: wall clock in ms; `timer`: monotonic nanoseconds."""

    def __init__(self, parts: Parts, clock: Callable[[], int], timer: Callable[[], int]) -> None:
        config = parts.config
        self.parts = parts
        self.clock = clock
        self.metrics = Metrics()
        self.gate = Gate(config.access, config.tenant, clock)
        self.batcher = Batcher(parts.engine, clock, size_max=config.batch, queue_max=config.queue)
        self.batcher.on_batch = self._note_batch
        self.desk = Desk(parts, self.batcher, self.metrics, clock)
        self.timer = timer
        self.evaluator = Evaluator(parts.catalogue)
        self.replayer = Replayer(parts.judge, parts.artefacts)
        self.fatal: BaseException | None = None
        self.on_fatal: Callable[[], None] = lambda: None

    def _note_batch(self, size: int) -> None:
        self.metrics.observe("cordon_batch_size", size, "http")
        journal = self.parts.journal
        self.metrics.set("cordon_journal_backlog_records", journal.backlog, journal.directory.name)
        lag_ms = self.parts.gauge.read().flink_lag_ms
        if lag_ms is not None:
            self.metrics.set("cordon_flink_lag_seconds", lag_ms / 1_000)

    def model(self, version: str | None) -> ServingModel | None:
        """The model of that version: the live one, or one beside it. Raises `NotExplainable`."""
        live = self.parts.judge.model
        if version is None or (live is not None and live.version == version):
            return live
        try:
            return self.parts.artefacts.model(version)
        except ModelRefused as error:
            raise NotExplainable(str(error)) from error

    async def counterfactuals(self, record: Mapping[str, Any]) -> list[Counterfactual]:
        """What would have given a milder outcome; the loop turns between the pieces. Raises `ModelFailed`."""
        parts = await asyncio.to_thread(self.replayer.open, record, "stored")
        judge = self.replayer.judge(parts)
        found = []
        for each in [] if judge is None else search(record, judge):
            if each is not None:
                found.append(each)
            await asyncio.sleep(0)
        return nearest(found)

    def rules(self, version: str) -> RuleSet:
        """The set of that version, where it is kept and sound; else the live one."""
        live = self.parts.judge.rules
        try:
            return live if live.version == version else self.parts.artefacts.rules(version)
        except (SetMissing, SetChanged, RuleSetError):
            return live

    async def follow_rules(self) -> None:
        """Adopt what was published, without holding up a batch: the set is compiled beside the loop."""
        feed = self.parts.feed
        while True:
            if feed.changed():
                update = await asyncio.to_thread(feed.read)
                if update is not None:
                    self.parts.judge.adopt(update)
                    LOG.info("rules: %s", self.parts.judge.rules.version)
            await asyncio.sleep(EVERY_S)

    async def patrol(self) -> None:
        """Exchange counts with the other processes and pull brakes, beside the loop."""
        patrol = self.parts.patrol
        patrol.metrics = self.metrics
        while True:
            await asyncio.to_thread(patrol.step)
            await asyncio.sleep(PATROL_EVERY_S)

    async def sweep(self) -> None:
        """Record attempts that nobody finished, now and then."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                found = self.parts.engine.sweep(now_ms=self.clock())
            except StoreUnavailable:
                continue
            if found:
                self.metrics.count("cordon_abandoned", by=found)
                LOG.warning("%d abandoned attempts recorded", found)

    def health(self) -> tuple[bool, dict[str, str]]:
        """Whether decisions can be made, and the state of each part."""
        parts = self.parts
        found = {
            "journal": "down" if parts.journal.failure else "ok",
            "model": "ok" if parts.judge.model is not None else "none",
            "rules": parts.judge.rules.version,
        }
        try:
            parts.store.generation()
            parts.store.claim("health:probe")
            found["redis"] = "ok"
        except StoreUnavailable:
            found["redis"] = "down"
        try:
            parts.past().positions()
            found["query_store"] = "ok"
        except QueryStoreUnavailable:
            found["query_store"] = "down"
        backlog = parts.journal.backlog
        found["log"] = "ok" if backlog < parts.config.backlog_max // 10 else "degraded"
        found["state"] = parts.gauge.read().state
        return found["journal"] == "ok" and backlog < parts.config.backlog_max, found


def create_app(service: Service) -> ASGIApp:
    """The ASGI application of one worker."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        work = (
            service.batcher.run(), service.sweep(), service.follow_rules(), service.gate.follow(),
            service.patrol(), service.desk.runner.run(), follow_keys(service), resume_erasures(service),
        )  # fmt: skip
        tasks = [asyncio.create_task(each) for each in work]
        for task in tasks:
            task.add_done_callback(lambda done: _note_end(service, done))
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    app = FastAPI(
        title="Cordon",
        summary="Streaming fraud decisions with reasons",
        version=service.parts.judge.code,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.router.route_class = GuardedRoute
    app.state.gate = service.gate
    _errors(app)
    app.include_router(search_routes(service))
    app.include_router(batch_routes(service))
    app.include_router(case_routes(service))
    _decisions(app, service)
    _entities(app, service)
    _operations(app, service)
    app.include_router(webhook_routes.router(service.parts.config, service.clock))
    app.include_router(mean_routes(service))
    app.include_router(brake_routes.router(service.parts, service.clock))
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        return complete(generated(), service.parts.catalogue)

    app.openapi = openapi  # type: ignore[method-assign]
    check_declared(app.routes)
    return HotRoutes(
        app,
        service.batcher,
        service.gate,
        service.metrics,
        service.parts.config.body_bytes_max,
        service.timer,
    )


def _note_end(service: Service, task: "asyncio.Task[None]") -> None:
    """A background task that ends by itself has failed: the process must stop, not limp."""
    if not task.cancelled() and task.exception() is not None:
        service.fatal = task.exception()
        service.on_fatal()


def _errors(app: FastAPI) -> None:
    def shown(found: Problem, more: Mapping[str, str] | None = None) -> Response:
        return Response(found.body(), found.status, headers={**found.headers(), **(more or {})})

    @app.exception_handler(Problem)
    async def on_problem(_: Request, error: Problem) -> Response:
        return shown(error)

    @app.exception_handler(AccessDenied)
    async def on_denied(_: Request, error: AccessDenied) -> Response:
        return shown(of_denied(error))

    @app.exception_handler(KeysAwaited)
    async def on_awaited(_: Request, error: KeysAwaited) -> Response:
        return shown(keys_awaited())

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        return shown(Problem(422, "invalid_parameter", f"{place}: {first['msg']}", place))

    @app.exception_handler(HTTPException)
    async def on_http(_: Request, error: HTTPException) -> Response:
        code = {400: "malformed", 404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http")
        return shown(Problem(error.status_code, code, mask_card_numbers(str(error.detail))), error.headers)


def _decisions(app: FastAPI, service: Service) -> None:
    def find(transaction_id: str) -> Mapping[str, Any]:
        parts = service.parts
        try:
            found = find_decision(transaction_id, parts.store, parts.attempts, parts.past)
        except LookupUnavailable as error:
            raise Problem(503, "unavailable_lookup", str(error), retry_after_s=1) from None
        if found is None:
            raise Problem(404, "not_found", f"no decision {transaction_id}")
        return found

    @app.get(
        "/v1/decisions/{id}",
        summary="The whole record of a decision",
        responses=responses("Record", 401, 403, 404, 422, 503),
        openapi_extra=allow("decide", *READERS),
    )
    async def decision(id: Id) -> Response:
        return reply(find(id))

    @app.get(
        "/v1/decisions/{id}/explanation",
        summary="Why it was decided so: exact contributions, rules in words, reasons",
        responses=pictured(responses("Explanation", 401, 403, 404, 406, 409, 422, 503)),
        openapi_extra=allow(*READERS),
    )
    async def explain(
        id: Id,
        audience: Audience = "analyst",
        lang: Language | None = None,
        accept: Annotated[str | None, Header()] = None,
        accept_language: Annotated[str | None, Header()] = None,
    ) -> Response:
        media = media_of(accept)
        if media is None:
            raise Problem(406, "not_acceptable", f"there is {JSON} and {SVG}")
        record = find(id)
        language = lang or language_of(accept_language)
        try:
            model = service.model(record["versions"]["model"]) if record["scored_by"] == "model" else None
            rules = service.rules(record["versions"]["rules"])
            others = [] if media == SVG else await service.counterfactuals(record)
            catalogue = service.parts.catalogue
            found = explanation(record, model, rules, catalogue, audience, language, others)
            return reply(found) if media == JSON else picture(found, language)
        except NotExplainable as error:
            raise Problem(409, "not_explainable", str(error)) from None
        except ModelFailed as error:
            raise Problem(503, "unavailable_model", str(error), retry_after_s=1) from None

    @app.post(
        "/v1/decisions/{id}/replay",
        summary="Decide again from the stored vector: with the versions that decided, or with today's",
        responses=responses("Replayed", 401, 403, 404, 422, 503),
        openapi_extra=allow(*READERS),
    )
    async def replay(id: Id, mode: Annotated[As, Query(alias="as")] = "stored") -> Response:
        record = find(id)
        parts = await asyncio.to_thread(service.replayer.open, record, mode)
        return reply(service.replayer.decide(record, mode, parts, service.clock()).to_json())

    app.include_router(personal_routes(service, find))


def _entities(app: FastAPI, service: Service) -> None:
    @app.get(
        "/v1/entities/{type}/{id}",
        summary="An entity's features as they are now",
        responses=responses("Entity", 401, 403, 404, 422, 503),
        openapi_extra=allow("analyst", "approver", "data_scientist"),
    )
    async def entity(
        type: Annotated[str, Path(max_length=64)],
        id: Annotated[str, Path(min_length=1, max_length=512, description="pairs: ids joined by a comma")],
        at_ms: Annotated[int | None, Query(ge=1, description="event time; now if absent")] = None,
    ) -> Response:
        parts = service.parts
        pseudonym = pseudonym_of(service, type, id)
        now_ms = parts.engine.newest_ms if parts.config.event_clock else service.clock()
        at = at_ms or now_ms or service.clock()
        if type not in parts.catalogue.layouts:
            raise Problem(404, "not_found", f"no state is kept for {type}")
        try:
            parts.gauge.refresh(service.clock())
            found = live_features(parts.catalogue, service.evaluator, parts.store, type, pseudonym, at)
        except StoreUnavailable:
            raise Problem(503, "unavailable_store", "it does not answer", retry_after_s=1) from None
        if found is None:
            raise Problem(404, "not_found", f"nothing is known about this {type}")
        fresh = parts.gauge.read()
        freshness = {
            "state": fresh.state, "generation": fresh.generation, "flink_lag_ms": fresh.flink_lag_ms,
        }  # fmt: skip
        return reply(
            {"entity": type, "pseudonym": pseudonym, "at_ms": at, "features": found, "freshness": freshness}
        )


def _operations(app: FastAPI, service: Service) -> None:
    @app.get(
        "/health/live",
        summary="The process runs",
        responses=responses("Alive"),
        openapi_extra=anybody(),
    )
    async def live() -> Response:
        return reply({"status": "ok"})

    @app.get(
        "/health/ready",
        summary="Whether decisions can be made, part by part",
        responses={200: answer("Ready"), 503: answer("Ready", "no decision can be made")},
        openapi_extra=anybody(),
    )
    async def ready() -> Response:
        able, parts = service.health()
        down = [name for name in ("redis", "query_store") if parts[name] != "ok"]
        status = "unavailable" if not able else "degraded" if down else "ok"
        return reply({"status": status, "parts": parts}, 200 if able else 503)

    @app.get("/openapi.json", include_in_schema=False, openapi_extra=anybody())
    async def document() -> Response:
        return reply(app.openapi())

    page: dict[int | str, dict[str, Any]] = {
        200: {"description": "the page", "content": {"text/plain": {"schema": {"type": "string"}}}}
    }

    @app.get(
        "/metrics",
        summary="Prometheus metrics of all workers",
        response_class=PlainTextResponse,
        responses=page,
        openapi_extra=anybody(),
    )
    async def metrics() -> Response:
        headers = dict(SECURITY_HEADERS)
        return Response(
            service.metrics.text(), headers=headers, media_type="text/plain; version=0.0.4; charset=utf-8"
        )
