"""API keys: `KEY=ROLE` for local use, a file of hashes for everything else.

    [[key]]
    name = "shop-checkout"
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    tenant = "demo"
    roles = ["decide"]
    expires = 2027-06-30T00:00:00Z      # optional

Keys are 256 random bits (`cordon access new-key`), so that a plain SHA-256 cannot be searched; looking the
digest up tells nothing by its timing.
"""

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from api.access import ROLES, Caller

FILE_BYTES_MAX: Final = 4 * 2**20
_FIELDS: Final = {"name", "sha256", "tenant", "roles", "expires"}


class KeysUnusable(ValueError):
    """The keys' setting or file is wrong; the message says how to write it. Correct it."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A caller and the time from which the key is refused, in ms; `None`: never."""

    caller: Caller
    expires_ms: int | None = None


ApiKeys = Mapping[bytes, ApiKey]
"""API keys by the SHA-256 of the key."""


def digest(key: bytes) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key).digest()


def of_setting(text: str, tenant: str) -> dict[bytes, ApiKey]:
    """Keys of one tenant from `KEY=ROLE[,KEY=ROLE...]`. Raises `KeysUnusable`."""
    found: dict[bytes, ApiKey] = {}
    for number, entry in enumerate(filter(None, text.split(",")), 1):
        key, _, role = entry.strip().rpartition("=")
        if role not in ROLES or not key:
            raise KeysUnusable(f"an API key is written KEY=ROLE; roles are {', '.join(ROLES)}")
        caller = Caller(tenant, frozenset([role]), f"key-{number}")
        found[digest(key.encode())] = ApiKey(caller)
    return found


def of_file(path: Path) -> dict[bytes, ApiKey]:
    """Keys of a file, of any tenant. Raises `KeysUnusable`."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
        if len(raw) > FILE_BYTES_MAX:
            raise KeysUnusable(f"{path}: larger than {FILE_BYTES_MAX} bytes")
        document = tomllib.loads(raw.decode())
    except OSError as error:
        raise KeysUnusable(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise KeysUnusable(f"{path}: {error}") from error
    return of_document(document, str(path))


def of_document(document: Mapping[str, Any], place: str) -> dict[bytes, ApiKey]:
    """Keys of a parsed file. Raises `KeysUnusable`, naming entry and field."""
    entries = document.get("key", [])
    if set(document) - {"key"} or not isinstance(entries, list):
        raise KeysUnusable(f"{place}: holds [[key]] tables and nothing else")
    found: dict[bytes, ApiKey] = {}
    for number, entry in enumerate(entries, 1):
        hashed, key = _entry(entry, f"{place}: key {number}")
        if hashed in found:
            raise KeysUnusable(f"{place}: key {number}: the same sha256 stands there twice")
        found[hashed] = key
    return found


def _entry(entry: Mapping[str, Any], place: str) -> tuple[bytes, ApiKey]:
    unknown = set(entry) - _FIELDS
    if unknown:
        raise KeysUnusable(
            f"{place}: no field {', '.join(sorted(unknown))}; there are {', '.join(sorted(_FIELDS))}"
        )
    for field in ("name", "sha256", "tenant"):
        if not isinstance(entry.get(field), str) or not entry[field]:
            raise KeysUnusable(f"{place}: {field} is missing")
    if not re.fullmatch("[0-9a-f]{64}", entry["sha256"]):
        raise KeysUnusable(f"{place}: sha256 is 64 lower-case hexadecimal digits")
    roles = entry.get("roles")
    if not isinstance(roles, list) or not roles or not _known(roles):
        raise KeysUnusable(f"{place}: roles is a list of {', '.join(ROLES)}")
    expires = entry.get("expires")
    if expires is not None and not (isinstance(expires, datetime) and expires.tzinfo):
        raise KeysUnusable(f"{place}: expires is a time with an offset, such as 2027-06-30T00:00:00Z")
    expires_ms = None if expires is None else int(expires.timestamp() * 1_000)
    caller = Caller(entry["tenant"], frozenset(roles), entry["name"])
    return bytes.fromhex(entry["sha256"]), ApiKey(caller, expires_ms)


def _known(roles: Iterable[object]) -> bool:
    return all(role in ROLES for role in roles)
