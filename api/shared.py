"""What records of many batches have in common, as values and as JSON: made anew where it changes."""

from typing import Any, Final

import msgspec

from api.decide import Freshness, Policy
from api.model import ServingModel
from api.rules.rule import RuleSet

_encode: Final = msgspec.json.Encoder().encode


class Shared:
    """Versions and freshness of the batch that `of` was told last; nobody changes the values.

    `fixed`: versions of what no update replaces (catalogue, state, code).
    """

    def __init__(self, fixed: dict[str, str]) -> None:
        self._fixed = fixed
        self._by: tuple[object, ...] = ()
        self._freshness: Freshness | None = None
        self.versions: dict[str, str | None] = {}
        self.versions_raw = msgspec.Raw(b"{}")
        self.freshness: dict[str, Any] = {}
        self.freshness_raw = msgspec.Raw(b"{}")

    def of(self, model: ServingModel | None, rules: RuleSet, policy: Policy, freshness: Freshness) -> None:
        """A batch is decided by these."""
        by = self._by
        # By identity: they are values, replaced as a whole.
        if not by or by[0] is not model or by[1] is not rules or by[2] is not policy:
            self._by = (model, rules, policy)
            self.versions = {
                "model": None if model is None else model.version,
                "rules": rules.version,
                "lists": rules.lists_version,
                "catalogue": self._fixed["catalogue"],
                "state": self._fixed["state"],
                "policy": policy.version,
                "code": self._fixed["code"],
            }
            self.versions_raw = msgspec.Raw(_encode(self.versions))
        if freshness != self._freshness:
            self._freshness = freshness
            self.freshness = {
                "flink_lag_ms": freshness.flink_lag_ms,
                "generation": freshness.generation,
                "state": freshness.state,
            }
            self.freshness_raw = msgspec.Raw(_encode(self.freshness))
