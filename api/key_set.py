"""Public keys of a token issuer: a JWKS document (RFC 7517), from a file or one fixed address.

Only asymmetric keys are kept, each for the one algorithm that its type allows: what a token's header says
about where keys are (`jku`, `x5u`, `jwk`) is never followed.

What can go wrong, and what the caller does about it:

* `KeySetUnusable`     at the start: correct the setting or the document; later: go on with the keys before
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

BYTES_MAX: Final = 256 * 1024
TIMEOUT_S: Final = 5.0
RSA_BITS_MIN: Final = 2_048
_ALGORITHMS: Final[Mapping[tuple[str, str | None], str]] = {
    ("OKP", "Ed25519"): "EdDSA",
    ("RSA", None): "RS256",
    ("EC", "P-256"): "ES256",
}


class KeySetUnusable(Exception):
    """The key set cannot be read or holds no key that can be used."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key and the one algorithm that it verifies."""

    algorithm: str
    key: Any = field(repr=False)


KeySet = Mapping[str | None, PublicKey]
"""Keys by `kid`; a key without one is under `None`."""


def parse(document: bytes, place: str) -> dict[str | None, PublicKey]:
    """The usable keys of a JWKS document. Raises `KeySetUnusable`."""
    try:
        entries = json.loads(document)["keys"]
        found = {entry.get("kid"): key for entry in entries if (key := _public(entry)) is not None}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, jwt.PyJWTError) as error:
        raise KeySetUnusable(f"{place}: is no JWKS document: {error}") from error
    if not found:
        raise KeySetUnusable(
            f"{place}: holds no Ed25519, RSA (2048 bits or more) or P-256 key for signatures"
        )
    return found


def _public(entry: Mapping[str, Any]) -> PublicKey | None:
    algorithm = _ALGORITHMS.get((entry.get("kty", ""), entry.get("crv")))
    if algorithm is None or entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig":
        return None
    # Should somebody publish the private half by mistake, only the public one is read.
    public = {name: value for name, value in entry.items() if name in ("kty", "crv", "x", "y", "n", "e")}
    key = jwt.PyJWK(public, algorithm).key
    if isinstance(key, RSAPublicKey) and key.key_size < RSA_BITS_MIN:
        return None
    return PublicKey(algorithm, key)


def is_file(source: str) -> bool:
    """Whether it is a path. Raises `KeySetUnusable` for an address that others could listen to."""
    parts = urlsplit(source)
    if parts.scheme in ("", "file"):
        return True
    here = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    if here or (parts.scheme == "https" and parts.hostname):
        return False
    raise KeySetUnusable(f"{source}: write https://HOST/PATH or the path of a file")


def read(source: str) -> bytes:
    """The document at a path or an address; redirects are not followed. Blocks. Raises `KeySetUnusable`."""
    if is_file(source):
        try:
            with Path(source.removeprefix("file://")).open("rb") as file:
                return _bounded(file.read(BYTES_MAX + 1), source)
        except OSError as error:
            raise KeySetUnusable(f"{source}: {error.strerror}") from error
    try:
        with (
            httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client,
            client.stream("GET", source) as response,
        ):
            if response.status_code != 200:
                raise KeySetUnusable(f"{source}: answered {response.status_code}")
            body = b""
            for part in response.iter_bytes(65_536):
                body = _bounded(body + part, source)
            return body
    except httpx.HTTPError as error:
        raise KeySetUnusable(f"{source}: {error or type(error).__name__}") from error


def _bounded(body: bytes, source: str) -> bytes:
    if len(body) > BYTES_MAX:
        raise KeySetUnusable(f"{source}: larger than {BYTES_MAX} bytes")
    return body
