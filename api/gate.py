"""Who is calling: the one place where credentials become callers, for every route.

    header -> verified before? -> API key? -> JWT? -> of this tenant? -> caller

A request costs one look-up: verified tokens are remembered until they expire, in a bounded dictionary. Key
file and JWKS are read again beside the event loop; what was verified with keys before is then forgotten.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from api.access import AccessConfig, AccessDenied, Caller
from api.api_keys import ApiKey, ApiKeys, KeysUnusable, digest, of_file, of_setting
from api.key_set import KeySet, KeySetUnusable, is_file, parse, read
from api.tokens import TokenPolicy, UnknownKey, Verified, looks_like_token, verify

REMEMBERED_MAX: Final = 8_192
CREDENTIAL_BYTES_MAX: Final = 8_192
FILE_EVERY_S: Final = 1.0
# An unknown `kid` asks the issuer again, but not more often than this.
UNKNOWN_EVERY_S: Final = 10.0
LOG = logging.getLogger("cordon.access")


class KeysAwaited(Exception):
    """The issuer's keys have not been read yet: 503, try again. An outage is no refusal."""


def policy_of(config: AccessConfig) -> TokenPolicy | None:
    """What is expected of tokens; `None`: none are accepted. Raises `KeysUnusable` for half a setting."""
    given = {"issuer": config.issuer, "audience": config.audience, "jwks": config.jwks}
    missing = [name for name, value in given.items() if not value]
    if len(missing) == len(given):
        return None
    if missing:
        raise KeysUnusable(f"tokens need CORDON_ACCESS__{missing[0].upper()} as well")
    return TokenPolicy(
        config.issuer, config.audience, config.roles_claim, config.tenant_claim, config.leeway_s
    )


class Gate:
    """Callers of one tenant. `clock`: wall clock in ms. Raises `KeysUnusable`, `KeySetUnusable`."""

    def __init__(self, config: AccessConfig, tenant: str, clock: Callable[[], int]) -> None:
        self._config = config
        self._tenant = tenant
        self._clock = clock
        self._policy = policy_of(config)
        self._own = of_setting(config.keys_in_force, tenant)
        self._api_keys: ApiKeys = self._own
        self._file_state: tuple[int, int, int] | None = None
        self._public: KeySet = {}
        self._remembered: dict[bytes, Verified] = {}
        self._seen: dict[bytes, ApiKey] = {}
        self._wanted = asyncio.Event()
        if config.keys_file is not None:
            self._read_file(config.keys_file)
        if self._policy is not None and is_file(config.jwks):
            self._public = parse(read(config.jwks), config.jwks)

    def caller(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Whoever sent `Authorization: Bearer CREDENTIAL` or `X-API-Key: KEY`.

        Raises `AccessDenied`: 401 for no credential or a wrong one, 403 for another tenant's; `KeysAwaited`.
        """
        for name, value in headers:
            if name == b"authorization" and value[:7].lower() == b"bearer ":
                caller = self._known(value[7:].strip())
                break
            if name == b"x-api-key":
                caller = self._known(value)
                break
        else:
            raise AccessDenied(401, "send Authorization: Bearer CREDENTIAL or X-API-Key: KEY")
        if caller.tenant != self._tenant:
            raise AccessDenied(403, "the credential belongs to another tenant")
        return caller

    def _known(self, credential: bytes) -> Caller:
        before = self._remembered.get(credential)
        if before is not None:
            if self._clock() < before.expires_s * 1_000:
                return before.caller
            del self._remembered[credential]
        if len(credential) > CREDENTIAL_BYTES_MAX:
            raise AccessDenied(401, f"the credential is longer than {CREDENTIAL_BYTES_MAX} bytes")
        key = self._seen.get(credential)
        if key is None and (key := self._api_keys.get(digest(credential))) is not None:
            if len(self._seen) >= REMEMBERED_MAX:
                self._seen.clear()
            self._seen[credential] = key
        if key is not None:
            if key.expires_ms is not None and self._clock() >= key.expires_ms:
                raise AccessDenied(401, "the API key has expired")
            return key.caller
        if self._policy is None or not looks_like_token(credential):
            raise AccessDenied(401, "unknown API key")
        return self._verified(credential, self._policy)

    def _verified(self, token: bytes, policy: TokenPolicy) -> Caller:
        if not self._public:
            self._wanted.set()
            raise KeysAwaited
        try:
            found = verify(token, self._public, policy, now_s=self._clock() / 1_000)
        except UnknownKey:
            self._wanted.set()
            raise
        if len(self._remembered) >= REMEMBERED_MAX:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[token] = found
        return found.caller

    async def follow(self) -> None:
        """Keep keys as their file and their issuer have them, until cancelled."""
        work = []
        if self._config.keys_file is not None:
            work.append(self._follow_file(self._config.keys_file))
        if self._policy is not None:
            work.append(self._follow_issuer())
        await asyncio.gather(*work, asyncio.Event().wait())

    async def _follow_file(self, path: Path) -> None:
        while True:
            await asyncio.sleep(FILE_EVERY_S)
            try:
                if await asyncio.to_thread(_state, path) != self._file_state:
                    self._read_file(path)
                    LOG.info("%d API keys", len(self._api_keys))
            except KeysUnusable as error:
                # Keys that were good stay: a typo must not lock everybody out.
                LOG.error("the API keys before stay in force: %s", error)

    def _read_file(self, path: Path) -> None:
        self._file_state = _state(path)
        self._api_keys = {**of_file(path), **self._own}
        self._seen.clear()

    async def _follow_issuer(self) -> None:
        while True:
            wait_s = float(self._config.jwks_refresh_s)
            try:
                found = parse(await asyncio.to_thread(read, self._config.jwks), self._config.jwks)
                self._adopt(found)
            except KeySetUnusable as error:
                LOG.error("token keys: %s", error)
                wait_s = min(wait_s, UNKNOWN_EVERY_S)
            self._wanted.clear()
            await asyncio.sleep(min(wait_s, UNKNOWN_EVERY_S))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), max(wait_s - UNKNOWN_EVERY_S, 0.001))

    def _adopt(self, found: KeySet) -> None:
        """Tokens signed with a key that is gone must not live on in memory."""
        self._remembered.clear()
        self._public = found


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
