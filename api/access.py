"""Who may do what: roles, callers, and what a route declares.

A caller's tenant comes from their credential, never from a body. What can go wrong, and what the caller does:

* `AccessDenied` 401   send a credential, or a valid one
* `AccessDenied` 403   ask for the role, or go to the service of one's own tenant
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

Role = Literal["decide", "analyst", "approver", "data_scientist", "auditor", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
READERS: Final[tuple[Role, ...]] = ("analyst", "approver", "data_scientist", "auditor")
# Under this key an operation of the OpenAPI document names the roles that may call it.
DECLARED: Final = "x-roles"


# Known to everybody who has read the documentation: for one's own machine.
LOCAL_KEYS: Final = "dev-key=admin"


class AccessDenied(Exception):
    """No credential or a wrong one (401), another tenant's, or one whose roles may not do this (403)."""

    def __init__(self, status: Literal[401, 403], detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a credential belongs to. `name`: for the audit record; never a secret."""

    tenant: str
    roles: frozenset[Role]
    name: str


@dataclass(frozen=True, slots=True)
class AccessConfig:
    """Where credentials come from. `issuer` empty: no tokens. `jwks`: a path or an https address."""

    keys: str = LOCAL_KEYS
    keys_file: Path | None = None
    issuer: str = ""
    audience: str = ""
    jwks: str = ""
    jwks_refresh_s: int = 300
    roles_claim: str = "roles"
    tenant_claim: str = "tenant"
    leeway_s: int = 30

    @property
    def keys_in_force(self) -> str:
        """Keys of the setting; the one that everybody knows counts only where nothing else is configured."""
        others = self.keys_file is not None or bool(self.issuer)
        return "" if others and self.keys == LOCAL_KEYS else self.keys


def allow(*roles: Role) -> dict[str, Any]:
    """A route's declaration, as `openapi_extra`: who may call it besides `admin`."""
    return {DECLARED: sorted({*roles, "admin"})}


def anybody() -> dict[str, Any]:
    """A route's declaration: no credential is asked for."""
    return {DECLARED: [], "security": []}


def declared(extra: Mapping[str, Any] | None) -> frozenset[Role] | None:
    """Roles of a declaration; empty: anybody; `None`: nothing is declared. Raises `ValueError` for a typo."""
    names = None if extra is None else extra.get(DECLARED)
    if names is None:
        return None
    unknown = set(names) - set(ROLES)
    if unknown:
        raise ValueError(f"no such role: {', '.join(sorted(unknown))}; roles are {', '.join(ROLES)}")
    return frozenset(names)


def require(caller: Caller, roles: frozenset[Role]) -> None:
    """Raises `AccessDenied` unless the caller has one of the roles."""
    if caller.roles.isdisjoint(roles):
        held = ", ".join(sorted(caller.roles)) or "none"
        raise AccessDenied(
            403, f"the roles held ({held}) may not do this; needed: {', '.join(sorted(roles))}"
        )
