"""The HTTP routes of the webhooks, for admins. Every change is an audit record first."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.access import allow
from api.audit.logbook import note
from api.config import ServiceConfig
from api.guard import GuardedRoute, caller_of
from api.journal import JournalBusy, JournalUnavailable
from api.openapi import problem
from api.problem import Problem
from api.reply import reply, responses
from api.segment import Damage
from api.webhooks.box import Box, BoxUnavailable, Subscription, TooManySubscriptions
from api.webhooks.event import unknown
from api.webhooks.signature import Key
from api.webhooks.target import URL_MAX, ForbiddenTarget, check_url

OVERLAP_MS: Final = 86_400_000
"""For how long an old key signs beside its successor."""
Id = Annotated[str, Path(min_length=1, max_length=64)]


class Wish(BaseModel):
    """A new subscription."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, Field(min_length=1, max_length=URL_MAX)]
    events: Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=64)]


def router(config: ServiceConfig, clock: Callable[[], int]) -> APIRouter:
    """`/v1/webhooks`. `clock`: wall clock in ms."""
    made = APIRouter(route_class=GuardedRoute)
    desk = Desk(config, clock)
    admin = allow("admin")
    unread: dict[int | str, dict[str, Any]] = {400: problem("the body is no text")}

    @made.post(
        "/v1/webhooks",
        summary="Subscribe to events; the secret is shown once",
        responses={**responses("WebhookKey", 401, 403, 409, 422, 503), **unread},
        openapi_extra=admin,
    )
    async def create(request: Request, wish: Wish) -> Response:
        return reply(await asyncio.to_thread(desk.create, wish, caller_of(request).name))

    @made.get(
        "/v1/webhooks",
        summary="Subscriptions, and how many deliveries wait or are dead",
        responses=responses("Webhooks", 401, 403, 503),
        openapi_extra=admin,
    )
    async def listed() -> Response:
        return reply({"webhooks": await asyncio.to_thread(desk.listed)})

    @made.delete(
        "/v1/webhooks/{id}",
        summary="End a subscription; what it waits for is dropped",
        responses=responses("WebhookDone", 401, 403, 404, 422, 503),
        openapi_extra=admin,
    )
    async def delete(request: Request, id: Id) -> Response:
        return reply(await asyncio.to_thread(desk.delete, id, caller_of(request).name))

    @made.post(
        "/v1/webhooks/{id}/rotate",
        summary="A new secret, shown once; the old one signs beside it for a day",
        responses=responses("WebhookKey", 401, 403, 404, 422, 503),
        openapi_extra=admin,
    )
    async def rotate(request: Request, id: Id) -> Response:
        return reply(await asyncio.to_thread(desk.rotate, id, caller_of(request).name))

    @made.get(
        "/v1/webhooks/{id}/dead",
        summary="Deliveries that were given up, the newest first",
        responses=responses("DeadDeliveries", 401, 403, 404, 422, 503),
        openapi_extra=admin,
    )
    async def dead(id: Id, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> Response:
        return reply({"dead": await asyncio.to_thread(desk.dead, id, limit)})

    @made.post(
        "/v1/webhooks/{id}/redeliver",
        summary="Try the dead deliveries again",
        responses=responses("WebhookDone", 401, 403, 404, 422, 503),
        openapi_extra=admin,
    )
    async def redeliver(request: Request, id: Id) -> Response:
        return reply(await asyncio.to_thread(desk.redeliver, id, caller_of(request).name))

    return made


class Desk:
    """What the routes do; each call opens the file for itself. Raises `Problem`."""

    def __init__(self, config: ServiceConfig, clock: Callable[[], int]) -> None:
        self._config = config
        self._clock = clock

    def create(self, wish: Wish, by: str) -> dict[str, Any]:
        """A new subscription and its secret."""
        try:
            check_url(wish.url, inside=self._config.webhooks.inside)
        except ForbiddenTarget as error:
            raise Problem(422, "forbidden_target", str(error), "url") from None
        if names := unknown(wish.events):
            raise Problem(422, "unknown_value", f"no such event: {names[0]}", "events")
        now_ms, key = self._clock(), _key()
        subscription = Subscription(
            f"wh_{secrets.token_hex(6)}", wish.url, tuple(wish.events), (key,), now_ms, by
        )
        self._audit("webhook_created", subscription.id, by, {"url": wish.url, "events": wish.events})
        self._with(lambda box: box.put(subscription))
        return {"id": subscription.id, "key_id": key.id, "secret": key.secret}

    def listed(self) -> list[dict[str, Any]]:
        """Without secrets."""
        found, counts = self._with(lambda box: (box.subscriptions(), box.counts()))
        now_ms = self._clock()
        return [
            {
                "id": s.id, "url": s.url, "events": list(s.events), "made_ms": s.made_ms,
                "made_by": s.made_by, "key_ids": [key.id for key in s.keys if key.signs(now_ms)],
                "waits": counts.get((s.id, "waits"), 0), "dead": counts.get((s.id, "dead"), 0),
            }
            for s in found
        ]  # fmt: skip

    def delete(self, id_: str, by: str) -> dict[str, Any]:
        """End one."""
        self._find(id_)
        self._audit("webhook_deleted", id_, by, {})
        self._with(lambda box: box.delete(id_))
        return {"id": id_, "deliveries": 0}

    def rotate(self, id_: str, by: str) -> dict[str, Any]:
        """A new key beside the last one."""
        found, key, now_ms = self._find(id_), _key(), self._clock()
        self._audit("webhook_rotated", id_, by, {"key_id": key.id})
        last = replace(found.keys[0], until_ms=now_ms + OVERLAP_MS)
        self._with(lambda box: box.put(replace(found, keys=(key, last))))
        return {"id": id_, "key_id": key.id, "secret": key.secret}

    def dead(self, id_: str, limit: int) -> list[dict[str, Any]]:
        """What was given up, and why."""
        self._find(id_)
        found = self._with(lambda box: box.dead(id_, limit))
        return [{"event": d.event, "type": d.type, "attempts": d.attempts, "error": d.error} for d in found]

    def redeliver(self, id_: str, by: str) -> dict[str, Any]:
        """Try the dead ones again."""
        self._find(id_)
        self._audit("webhook_redelivered", id_, by, {})
        return {"id": id_, "deliveries": self._with(lambda box: box.redeliver(id_, self._clock()))}

    def _find(self, id_: str) -> Subscription:
        for subscription in self._with(lambda box: box.subscriptions()):
            if subscription.id == id_:
                return subscription
        raise Problem(404, "not_found", f"no webhook {id_}")

    def _with[T](self, work: Callable[[Box], T]) -> T:
        box = Box(self._config.webhooks.file)
        try:
            return work(box)
        except TooManySubscriptions as error:
            raise Problem(409, "too_many_webhooks", str(error)) from None
        except BoxUnavailable as error:
            raise Problem(503, "unavailable_webhooks", str(error), retry_after_s=1) from None
        finally:
            box.close()

    def _audit(self, event: str, id_: str, by: str, facts: dict[str, Any]) -> None:
        now_ms = self._clock()
        name = f"{event}-{id_}-{now_ms}-{secrets.token_hex(3)}"
        try:
            note(
                self._config.journal_dir, event, {"webhook": id_, "by": by, **facts}, id=name,
                time_ms=now_ms, tenant=self._config.tenant,
            )  # fmt: skip
        except (OSError, JournalBusy, JournalUnavailable, Damage) as error:
            raise Problem(503, "unavailable_webhooks", f"no record: {error}", retry_after_s=1) from None


def _key() -> Key:
    return Key(f"k{secrets.token_hex(4)}", f"whsec_{secrets.token_urlsafe(32)}")
