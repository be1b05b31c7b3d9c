"""JWTs (RFC 7519, by the advice of RFC 8725): one issuer, one audience, asymmetric signatures only.

Verification is a function of token, keys, policy and time; keeping keys fresh is gate.py's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt

from api.access import ROLES, AccessDenied, Caller, Role
from api.key_set import KeySet, PublicKey

TOKEN_BYTES_MAX: Final = 8_192
NAME_LENGTH_MAX: Final = 128
_CLAIMS: Final = ["exp", "iss", "aud", "sub"]


class UnknownKey(AccessDenied):
    """Signed with a key that is not in the set: the issuer may have rotated, read the keys again."""

    def __init__(self) -> None:
        super().__init__(401, "the token is signed with an unknown key")


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """What is expected of a token. Claims are paths with dots: `realm_access.roles`."""

    issuer: str
    audience: str
    roles_claim: str = "roles"
    tenant_claim: str = "tenant"
    leeway_s: int = 30


@dataclass(frozen=True, slots=True)
class Verified:
    """A caller, until `expires_s` of the epoch."""

    caller: Caller
    expires_s: float


def looks_like_token(credential: bytes) -> bool:
    """Whether it has the shape of a JWT."""
    return credential.startswith(b"ey") and credential.count(b".") == 2


def verify(token: bytes, keys: KeySet, policy: TokenPolicy, *, now_s: float) -> Verified:
    """Whose token it is. Raises `AccessDenied` 401, `UnknownKey`."""
    if len(token) > TOKEN_BYTES_MAX:
        raise AccessDenied(401, f"the token is longer than {TOKEN_BYTES_MAX} bytes")
    try:
        text = token.decode("ascii")
        key = _key(jwt.get_unverified_header(text), keys)
        claims = jwt.decode(
            text,
            key.key,
            algorithms=[key.algorithm],
            audience=policy.audience,
            issuer=policy.issuer,
            # Times are checked below, against the clock that was given.
            options={"require": _CLAIMS, "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise AccessDenied(401, f"the token is invalid: {error}") from None
    expires_s = _in_time(claims, policy.leeway_s, now_s)
    return Verified(_caller(claims, policy), expires_s)


def _key(header: Mapping[str, Any], keys: KeySet) -> PublicKey:
    """The key that the header names; without a name, the only one."""
    if "crit" in header:
        raise AccessDenied(401, "the token asks for extensions (crit) that are not understood")
    name = header.get("kid")
    if name is not None and not isinstance(name, str):
        raise AccessDenied(401, "the token's kid is no text")
    found = keys.get(name)
    if found is None and name is None and len(keys) == 1:
        found = next(iter(keys.values()))
    if found is None:
        raise UnknownKey
    if header.get("alg") != found.algorithm:
        raise AccessDenied(401, f"the token's key signs with {found.algorithm} only")
    return found


def _in_time(claims: Mapping[str, Any], leeway_s: int, now_s: float) -> float:
    """When the token ends for us, in seconds of the epoch."""
    expires_s = _seconds(claims, "exp")
    if now_s >= expires_s + leeway_s:
        raise AccessDenied(401, "the token has expired")
    for name in ("nbf", "iat"):
        if name in claims and _seconds(claims, name) > now_s + leeway_s:
            raise AccessDenied(401, f"the token is not valid yet ({name})")
    return expires_s + leeway_s


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**40:
        raise AccessDenied(401, f"the token's {name} is no time in seconds")
    return float(value)


def _caller(claims: Mapping[str, Any], policy: TokenPolicy) -> Caller:
    tenant, name = _claim(claims, policy.tenant_claim), claims["sub"]
    if not isinstance(tenant, str) or not tenant:
        raise AccessDenied(401, f"the token has no tenant in {policy.tenant_claim}")
    if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH_MAX:
        raise AccessDenied(401, f"the token's sub is a text of 1 to {NAME_LENGTH_MAX} characters")
    return Caller(tenant, _roles(_claim(claims, policy.roles_claim)), name)


def _roles(claim: object) -> frozenset[Role]:
    """Those that are ours, from a list or words: an issuer has other roles as well."""
    given = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    return frozenset(role for role in ROLES if role in given)


def _claim(claims: Mapping[str, Any], path: str) -> object:
    found: object = claims
    if path in claims:  # names such as https://example.com/roles have dots of their own
        return claims[path]
    for step in path.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found
