"""A real HTTP server that answers what it was told, in order: for what a healthy service does not do."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reply:
    """One answer; `body` `None`: the connection is closed without one. `wait_s`: before it."""

    status: int = 200
    body: bytes | None = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0


class Script:
    """Replies in order, the last one for ever; what was asked is kept."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[str, str, bytes]] = []
        self.ended = threading.Event()
        self._lock = threading.Lock()

    def next(self, asked: tuple[str, str, bytes]) -> Reply:
        with self._lock:
            self.asked.append(asked)
            return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@contextlib.contextmanager
def serving(script: Script) -> Iterator[str]:
    """The address of a server that follows the script."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            reply = script.next((self.command, self.path, body))
            script.ended.wait(reply.wait_s)
            if reply.body is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(reply.body)))
            with contextlib.suppress(ConnectionError):
                self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client did not wait
                self.wfile.write(reply.body)

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        script.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
