"""A thin HTTP/1.1 client: one keep-alive connection, one request at a time, no more than a replay needs.

What can go wrong, and what the caller does about it:

* `ConnectionLost`   retry on a new connection: the request carries an id, so a repeat counts once
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_HEAD_BYTES_MAX = 65_536


class ConnectionLost(OSError):
    """The connection broke, timed out or spoke no HTTP; whether the request arrived is unknown."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the door is."""

    host: str
    port: int
    tls: bool
    prefix: str

    @classmethod
    def parse(cls, url: str) -> "Address":
        """`http://HOST:PORT[/prefix]` or `https://...`. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url}: write http://HOST:PORT or https://HOST:PORT")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(parts.hostname, port, parts.scheme == "https", parts.path.rstrip("/"))


@dataclass(frozen=True, slots=True)
class Response:
    """Status, lower-case headers, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Connection:
    """One connection, opened at the first request and again after it was lost."""

    address: Address
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 10.0
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: bytes) -> Response:
        """Sends JSON and waits for the answer. Raises `ConnectionLost`."""
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._exchange(path, body)
        except (
            OSError,
            TimeoutError,
            ValueError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
        ) as error:
            await self.close()
            raise ConnectionLost(
                f"{self.address.host}:{self.address.port}: {error or 'timed out'}"
            ) from error
        except asyncio.CancelledError:
            await self.close()
            raise

    async def close(self) -> None:
        """Closes the connection; harmless when it is closed already."""
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            writer.close()
            try:
                async with asyncio.timeout(1.0):
                    await writer.wait_closed()
            except (OSError, TimeoutError):
                return

    async def _exchange(self, path: str, body: bytes) -> Response:
        if self._reader is None or self._writer is None:
            tls = True if self.address.tls else None
            self._reader, self._writer = await asyncio.open_connection(
                self.address.host, self.address.port, ssl=tls, limit=_HEAD_BYTES_MAX
            )
        lines = [
            f"POST {self.address.prefix}{path} HTTP/1.1",
            f"Host: {self.address.host}:{self.address.port}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        self._writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await self._writer.drain()
        status, headers = _head(await self._reader.readuntil(b"\r\n\r\n"))
        while 100 <= status < 200:
            status, headers = _head(await self._reader.readuntil(b"\r\n\r\n"))
        if "chunked" in headers.get("transfer-encoding", ""):
            content = await self._chunks()
        else:
            length = int(headers.get("content-length", "0"))
            content = await self._reader.readexactly(length) if length else b""
        if headers.get("connection", "").lower() == "close":
            await self.close()
        return Response(status, headers, content)

    async def _chunks(self) -> bytes:
        assert self._reader is not None
        content = b""
        while True:
            size = int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16)
            content += (await self._reader.readexactly(size + 2))[:size]
            if size == 0:
                return content


def _head(raw: bytes) -> tuple[int, dict[str, str]]:
    first, *rest = raw[:-4].decode("latin-1").split("\r\n")
    version, _, status = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(f"not HTTP: {first[:40]!r}")
    pairs = (line.partition(":") for line in rest)
    return int(status.split(" ")[0]), {name.strip().lower(): value.strip() for name, _, value in pairs}
