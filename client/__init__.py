"""The client of a decision service: typed answers, typed errors, and retries that are safe.

    with Client("https://cordon.example", "cordon_...") as cordon:
        answer = cordon.decide({"transaction_id": "tx-1", "time": "2026-11-21T10:00:00Z", ...})
        if answer.outcome == "decline": ...

`AsyncClient` has the same methods, to be awaited. This package imports nothing of the service.
"""

from client.answers import (
    Accepted,
    Answer,
    Batch,
    BatchResult,
    BatchResults,
    Change,
    Contribution,
    Counterfactual,
    CustomerExplanation,
    Decided,
    Difference,
    Entity,
    Explanation,
    Freshness,
    Hint,
    LineProblem,
    ModelExplanation,
    Reason,
    Record,
    Records,
    Replayed,
    RuleResult,
    Voice,
)
from client.asynchronous import AsyncClient
from client.call import Search
from client.errors import (
    Conflict,
    CordonError,
    Forbidden,
    InvalidRequest,
    NotFound,
    Problem,
    Refused,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from client.limits import Limits
from client.retry import Retry
from client.synchronous import Client

__all__ = [
    "Accepted",
    "Answer",
    "AsyncClient",
    "Batch",
    "BatchResult",
    "BatchResults",
    "Change",
    "Client",
    "Conflict",
    "Contribution",
    "CordonError",
    "Counterfactual",
    "CustomerExplanation",
    "Decided",
    "Difference",
    "Entity",
    "Explanation",
    "Forbidden",
    "Freshness",
    "Hint",
    "InvalidRequest",
    "Limits",
    "LineProblem",
    "ModelExplanation",
    "NotFound",
    "Problem",
    "Reason",
    "Record",
    "Records",
    "Refused",
    "Replayed",
    "Retry",
    "RuleResult",
    "Search",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "Voice",
]
