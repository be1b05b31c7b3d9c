"""The dispatcher: due deliveries to their receivers, each subscription by itself.

Every subscription has a few deliveries under way at most, and a deadline for each: a receiver that is slow or
gone holds up nobody but itself. Redirects are not followed. The order of events is kept where nothing fails.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx

from api.metrics import Metrics
from api.webhooks.box import Box, BoxUnavailable, Delivery, Subscription
from api.webhooks.schedule import Retries
from api.webhooks.signature import sign
from api.webhooks.target import ForbiddenTarget, Resolve, target_of

LOOK_EVERY_S: Final = 0.1
TIDY_EVERY_MS: Final = 60_000
SHOW_EVERY_MS: Final = 1_000
LOG = logging.getLogger("cordon.webhooks")


@dataclass(frozen=True, slots=True)
class Policy:
    """`at_once`: deliveries under way of one subscription. `inside`: private addresses are allowed."""

    retries: Retries = field(default_factory=Retries)
    at_once: int = 4
    timeout_s: float = 10.0
    inside: bool = False


class Dispatcher:
    """`clock`: wall clock in ms; `random`: from 0 to 1; `resolve`: addresses of a name, may block."""

    def __init__(
        self,
        box: Box,
        policy: Policy,
        metrics: Metrics,
        clock: Callable[[], int],
        random: Callable[[], float],
        resolve: Resolve,
    ) -> None:
        self._box = box
        self._policy = policy
        self._metrics = metrics
        self._clock = clock
        self._random = random
        self._resolve = resolve
        self._under_way: dict[str, dict[int, asyncio.Task[None]]] = {}
        self._tidied_ms = 0
        self._shown_ms = 0
        self.stopping = False

    async def run(self) -> None:
        """Until `stopping`; what is under way then is tried again by the next life."""
        limits = httpx.Limits(max_keepalive_connections=20, max_connections=None)
        async with httpx.AsyncClient(
            follow_redirects=False, trust_env=False, timeout=self._policy.timeout_s, limits=limits
        ) as client:
            while not self.stopping:
                try:
                    self._start(client)
                except BoxUnavailable as error:
                    LOG.warning("no deliveries now: %s", error)
                await asyncio.sleep(LOOK_EVERY_S)
            tasks = [task for group in self._under_way.values() for task in group.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, client: httpx.AsyncClient) -> None:
        now_ms = self._clock()
        known = self._box.subscriptions()
        for subscription in known:
            group = self._under_way.setdefault(subscription.id, {})
            for number in [n for n, task in group.items() if task.done()]:
                group.pop(number).result()
            free = self._policy.at_once - len(group)
            if free > 0:
                for delivery in self._box.due(subscription.id, now_ms, free, tuple(group)):
                    work = self._deliver(client, subscription, delivery)
                    group[delivery.number] = asyncio.create_task(work)
        if now_ms - self._tidied_ms > TIDY_EVERY_MS:
            self._tidied_ms = now_ms
            self._box.tidy(now_ms)
        if now_ms - self._shown_ms > SHOW_EVERY_MS:
            self._shown_ms = now_ms
            self._show(known)

    def _show(self, known: Sequence[Subscription]) -> None:
        counts = self._box.counts()
        for subscription in known:
            for state in ("waits", "dead"):
                count = counts.get((subscription.id, state), 0)
                self._metrics.set("cordon_webhook_deliveries", count, subscription.id, state)

    async def _deliver(
        self, client: httpx.AsyncClient, subscription: Subscription, delivery: Delivery
    ) -> None:
        error = await self._post(client, subscription, delivery)
        now_ms = self._clock()
        try:
            if error is None:
                self._box.delivered(delivery.number, now_ms)
            else:
                retries = self._policy.retries
                next_ms = retries.next_ms(delivery.attempts + 1, now_ms, self._random())
                self._box.failed(delivery.number, error, next_ms, now_ms)
        except BoxUnavailable as problem:
            # It is still due: delivered once more rather than not at all.
            LOG.warning("an outcome was not written: %s", problem)
        self._metrics.count("cordon_webhook_attempts", "failed" if error else "delivered")

    async def _post(
        self, client: httpx.AsyncClient, subscription: Subscription, delivery: Delivery
    ) -> str | None:
        """Why it failed; `None`: the receiver has it."""
        policy, now_ms = self._policy, self._clock()
        keys = [key for key in subscription.keys if key.signs(now_ms)]
        try:
            async with asyncio.timeout(policy.timeout_s):
                target = await asyncio.to_thread(
                    target_of, subscription.url, self._resolve, inside=policy.inside
                )
                headers = {
                    "host": target.host,
                    "content-type": "application/json",
                    "user-agent": "cordon-webhooks",
                    "cordon-delivery": f"{subscription.id}-{delivery.number}",
                    "cordon-event": delivery.type,
                    **sign(keys, delivery.body, now_ms // 1_000),
                }
                async with client.stream(
                    "POST",
                    target.url,
                    content=delivery.body,
                    headers=headers,
                    extensions={"sni_hostname": target.name},
                ) as answer:
                    return None if answer.is_success else f"answered {answer.status_code}"
        except TimeoutError:
            return f"no answer within {policy.timeout_s:g} s"
        except (ForbiddenTarget, httpx.HTTPError, OSError) as error:
            return f"{type(error).__name__}: {error}"
