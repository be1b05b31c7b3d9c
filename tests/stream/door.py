"""An HTTP door for the tests of the replay: a real server with the manners of the decision service."""

import asyncio
import time
from contextlib import asynccontextmanager

import msgspec
import uvicorn


class Door:
    """Takes transactions once, knows replays and conflicts, refuses events of unknown ones."""

    def __init__(self, *, wait_s: float = 0.0, busy: int = 0, dropped: int = 0, status: int | None = None):
        self.wait_s, self.busy, self.dropped, self.status = wait_s, busy, dropped, status
        self.known: dict[str, bytes] = {}
        self.arrivals: list[tuple[str, str, float]] = []
        self.under_way = self.under_way_max = 0
        self.connections: set[tuple] = set()

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.connections.add(tuple(scope["client"]))
        self.under_way += 1
        self.under_way_max = max(self.under_way_max, self.under_way)
        status = self.status or await self.answer(scope["path"], body)
        self.under_way -= 1
        content = b'{"status":%d}' % status
        headers = [(b"content-type", b"application/json")]
        if status == 503:
            headers.append((b"retry-after", b"0.01"))
        if status != 202:  # the 202 goes out in chunks
            headers.append((b"content-length", str(len(content)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def answer(self, path: str, body: bytes) -> int:
        if self.busy:
            self.busy -= 1
            return 503
        await asyncio.sleep(self.wait_s)
        try:
            event = msgspec.json.decode(body)
        except msgspec.DecodeError:
            return 422
        name = event.get("transaction_id") if isinstance(event, dict) else None
        if not isinstance(name, str) or "~bad" in name or "\0" in name or not name:
            return 422
        self.arrivals.append((path, name, time.monotonic()))
        if path != "/v1/decisions":
            return 202 if name in self.known else 404
        if self.known.setdefault(name, body) != body:
            return 409
        return 200


@asynccontextmanager
async def serving(door):
    config = uvicorn.Config(door, host="127.0.0.1", port=0, log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task
