"""Who may call: API keys, each with a tenant and a role. The tenant comes from the key, never from a body."""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Role = Literal["decide", "analyst", "approver", "data_scientist", "auditor", "admin"]
ROLES: Final = ("decide", "analyst", "approver", "data_scientist", "auditor", "admin")


class AccessDenied(Exception):
    """No key, an unknown key (401), or a role that may not do this (403)."""

    def __init__(self, status: Literal[401, 403], detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a key belongs to."""

    tenant: str
    role: Role


class Keys:
    """The keys of one tenant, from `key=role,key=role`. Raises `ValueError` for an unknown role."""

    def __init__(self, text: str, tenant: str) -> None:
        self._callers: list[tuple[bytes, Caller]] = []
        for entry in filter(None, text.split(",")):
            key, _, role = entry.partition("=")
            if role not in ROLES or not key:
                raise ValueError(f"an API key is written key=role; roles are {', '.join(ROLES)}")
            self._callers.append((key.encode(), Caller(tenant, role)))  # type: ignore[arg-type]

    def caller(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Whoever sent `Authorization: Bearer KEY` or `X-API-Key: KEY`. Raises `AccessDenied`."""
        for name, value in headers:
            if name == b"authorization" and value[:7].lower() == b"bearer ":
                return self._find(value[7:].strip())
            if name == b"x-api-key":
                return self._find(value)
        raise AccessDenied(401, "send Authorization: Bearer KEY or X-API-Key: KEY")

    def _find(self, key: bytes) -> Caller:
        for known, caller in self._callers:
            if hmac.compare_digest(known, key):
                return caller
        raise AccessDenied(401, "unknown API key")


def require(caller: Caller, *roles: Role) -> None:
    """Raises `AccessDenied` unless the caller has one of the roles; `admin` has them all."""
    if caller.role != "admin" and caller.role not in roles:
        raise AccessDenied(403, f"the role {caller.role} may not do this; needed: {', '.join(roles)}")
