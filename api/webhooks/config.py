"""Configuration of the webhooks, parsed with the service's."""

from dataclasses import dataclass, field
from pathlib import Path

from api.webhooks.schedule import Retries


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """`file`: of subscriptions and deliveries, shared by service and dispatcher. `inside`: whether private,
    link-local and loopback addresses may be called."""

    file: Path = Path(".cordon/webhooks.sqlite")
    inside: bool = False
    retries: Retries = field(default_factory=Retries)
