"""Routes about persons: reading what was sealed, which is an audit event, and erasing a data subject."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response

from api.access import allow
from api.compose import store_of
from api.dead_letters import read_letters
from api.erasure import ErasedTooOften, Eraser, ErasureBusy, ErasureUnfinished, Means
from api.guard import GuardedRoute, caller_of
from api.journal import JournalUnavailable
from api.openapi import answer, problem
from api.problem import Problem
from api.query_store import open_store
from api.record import VERSION, Kind, decode_json, encode_json, pack
from api.reply import reply
from api.search_routes import pseudonym_of
from api.vault.directory import VaultUnusable
from api.vault.seal import Erased, NotOpened, of_subject, of_transaction
from features.event import holds_card_number

if TYPE_CHECKING:
    from api.app import Service

FOLLOW_EVERY_S: Final = 0.2
RESUME_EVERY_S: Final = 10.0
_TOKEN_BYTES: Final = 8
_AUDIT_KEY: Final = "audit"
LOG = logging.getLogger("cordon.personal")
Id = Annotated[str, Path(min_length=1, max_length=128)]
Find = Callable[[str], Mapping[str, Any]]


def eraser_of(service: "Service") -> Eraser:
    """What erases in this installation."""
    parts, config = service.parts, service.parts.config
    means = Means(
        vault=parts.vault,
        catalogue=parts.catalogue,
        pseudonyms=parts.pseudonyms,
        journals=config.journal_dir,
        store=lambda: store_of(config, parts.catalogue),
        past=lambda: open_store(config.query_store),
        letters=lambda: read_letters(config.kafka, config.topics),
    )
    return Eraser(means, service.clock, secrets.token_bytes)


async def follow_keys(service: "Service") -> None:
    """Drop keys that were destroyed, soon after they were: whoever destroys them waits for that."""
    parts = service.parts
    while True:
        if parts.follower.changed():
            parts.follow_keys(await asyncio.to_thread(parts.follower.read))
        await asyncio.sleep(FOLLOW_EVERY_S)


async def resume_erasures(service: "Service") -> None:
    """Finish what others had to leave, or what a part that was down held up."""
    eraser = eraser_of(service)
    while True:
        await asyncio.to_thread(_resume, eraser)
        await asyncio.sleep(RESUME_EVERY_S)


def _resume(eraser: Eraser) -> None:
    try:
        for receipt in eraser.resume():
            LOG.info("finished %s", receipt["id"])
    except ErasureBusy:
        return
    except (ErasureUnfinished, VaultUnusable) as error:
        LOG.warning("an erasure stays pending: %s", error)


def personal_routes(service: "Service", find: Find) -> APIRouter:
    """`find`: a decision's record by its id; it raises `Problem`."""
    router = APIRouter(route_class=GuardedRoute)
    eraser = eraser_of(service)
    erasing = {
        200: answer("Erasure", "the receipt"),
        202: answer("ErasureBegun", "it is finished as soon as the part that it waits for answers"),
        **_problems(401, 403, 404, 409, 422, 503),
    }

    @router.get(
        "/v1/decisions/{id}/personal",
        summary="The personal fields of a decided transaction; the access is recorded first",
        responses={200: answer("Personal"), **_problems(401, 403, 404, 409, 410, 422, 503)},
        openapi_extra=allow("analyst", "auditor"),
    )
    async def personal(
        request: Request,
        id: Id,
        purpose: Annotated[str, Query(min_length=1, max_length=200, description="why: a case, not a person")],
    ) -> Response:
        if holds_card_number(purpose):
            raise Problem(422, "card_number", "looks like a card number; name a case", "purpose")
        record = find(id)
        if "sealed" not in record:
            raise Problem(404, "not_found", f"no personal fields were kept with {id}")
        try:
            values = decode_json(service.parts.sealer.open(holder_of(service, record), id, record["sealed"]))
        except Erased:
            raise Problem(410, "erased", "the key of these personal fields was destroyed") from None
        except NotOpened as error:
            raise Problem(409, "sealed_elsewhere", str(error)) from None
        facts = {"transaction_id": id, "purpose": purpose, "by": caller_of(request).name}
        access = _record_access(service, facts)
        return reply({"transaction_id": id, "personal": values, "access": access})

    @router.delete(
        "/v1/subjects/{id:path}",
        summary="Erase a data subject: destroy its keys, delete its state; the receipt is in the journal",
        responses=erasing,
        openapi_extra=allow(),
    )
    async def erase(
        request: Request,
        id: Annotated[str, Path(min_length=1, max_length=512, description="several ids joined by a comma")],
    ) -> Response:
        schema = service.parts.catalogue.schema
        # The same refusals as where entities are looked up.
        pseudonym_of(service, schema.subject, id)
        ids = tuple(id.split(",")) if len(schema.entity(schema.subject).fields) > 1 else (id,)
        return await _erased(lambda: eraser.erase(ids, caller_of(request).name))

    @router.delete(
        "/v1/decisions/{id}/personal",
        summary="Erase the personal fields of a transaction that names no subject",
        responses=erasing,
        openapi_extra=allow(),
    )
    async def erase_transaction(request: Request, id: Id) -> Response:
        if service.parts.catalogue.schema.subject in find(id)["entities"]:
            raise Problem(409, "has_subject", "it is sealed with its subject's key: erase the subject")
        return await _erased(lambda: eraser.erase_transaction(id, caller_of(request).name))

    return router


async def _erased(erase: Callable[[], dict[str, Any]]) -> Response:
    """The receipt, or that it takes longer. Raises `Problem`."""
    try:
        return reply(await asyncio.to_thread(erase))
    except ErasedTooOften as error:
        raise Problem(409, "erased_too_often", str(error)) from None
    except ErasureBusy as error:
        raise Problem(503, "unavailable_erasure", str(error), retry_after_s=1) from None
    except ErasureUnfinished as error:
        LOG.warning("an erasure stays pending: %s", error)
        return reply({"event": "erasure_begun", "waits_for": error.part}, 202)
    except VaultUnusable:
        LOG.exception("an erasure stays pending")
        raise Problem(503, "unavailable_vault", "the keys cannot be replaced", retry_after_s=10) from None


def holder_of(service: "Service", record: Mapping[str, Any]) -> str:
    """Whose key the record's personal fields are sealed with."""
    subject = record["entities"].get(service.parts.catalogue.schema.subject)
    return of_transaction(record["id"]) if subject is None else of_subject(subject)


def _record_access(service: "Service", facts: Mapping[str, Any]) -> str:
    """Into this worker's journal, before anybody sees a value; the audit record's id."""
    parts = service.parts
    id = f"access-{secrets.token_hex(_TOKEN_BYTES)}"
    about = {"type": "audit", "v": VERSION, "tenant": parts.config.tenant, "id": id}
    record = {**about, "event": "personal_access", "time_ms": service.clock(), **facts}
    try:
        parts.journal.append([pack(Kind.AUDIT, _AUDIT_KEY, encode_json(record))])
    except JournalUnavailable:
        detail = "the access cannot be recorded, so nothing is shown"
        raise Problem(503, "unavailable_journal", detail, retry_after_s=1) from None
    return id


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    texts = {
        401: "no credential, or an unknown one",
        403: "the credential's roles may not do this, or it is another tenant's",
        404: "no such decision, or none with personal fields",
        409: "it was sealed with other keys, or erased too often",
        410: "its key was destroyed",
        422: "a parameter is invalid",
        503: "a part does not answer; what has begun will be finished",
    }
    return {status: problem(texts[status]) for status in statuses}
