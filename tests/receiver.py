"""A small real HTTP server that plays the external system, for tests and for the demo.

In a test::

    with Receiver() as receiver:
        receiver.on("/orders", status=503, times=2)
        ...send something to receiver.url + "/orders"...
        self.assertEqual(receiver.requests[-1].json, {...})

As a program: ``python tests/receiver.py --port 8970``. Paths that work from any HTTP client: ``/status/503``,
``/slow/3``, ``/redirect?to=URL``, ``/broken-json``, ``/drop``, ``/large/BYTES``, ``/members?page=1&limit=100``
(250 of them), and ``/_received`` (GET lists what came in, DELETE forgets it). Every other path answers 200 and
``{"id": <counter>, "ok": true, "received": <the JSON that came in>}``.
"""

import argparse
import itertools
import json
import re
import socket
import threading
import time
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

MAX_LARGE_BYTES = 256 * 1024 * 1024
MAX_SLOW_SECONDS = 120.0


@dataclass
class Received:
    """One request as it arrived; ``connection_id`` tells whether a connection was kept alive."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: str
    json: Any
    connection_id: int
    at: float


@dataclass
class Reply:
    """One scripted answer; ``body`` is text, bytes, anything JSON can hold, or a function: request -> Reply."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: bool = False
    garbage: bool = False
    times: int | None = None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # buffered: an answer leaves in one piece
    receiver: "Receiver"

    def setup(self) -> None:
        super().setup()
        self.connection_id = next(self.receiver._connection_ids)
        self.receiver._connections.add(self.connection)

    def finish(self) -> None:
        self.receiver._connections.discard(self.connection)
        with suppress(OSError):  # the client hung up before its answer
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the receiver prints its own line per request, when asked to."""

    def _handle(self) -> None:
        url, body, content = urlsplit(self.path), self._read_body(), None
        with suppress(ValueError):
            content = json.loads(body)
        self._send(
            self.receiver._answer(
                Received(
                    method=self.command,
                    path=url.path,
                    query=parse_qs(url.query, keep_blank_values=True),
                    headers={name.lower(): value for name, value in self.headers.items()},
                    body=body.decode("utf-8", "replace"),
                    json=content,
                    connection_id=self.connection_id,
                    at=time.time(),
                )
            )
        )

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _handle

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, reply: Reply) -> None:
        stopping = self.receiver._stopping.wait(reply.delay) if reply.delay else False
        if stopping or reply.drop or reply.garbage:
            self.close_connection = True
            if reply.garbage:
                self.wfile.write(b"\x00\x01 this is not HTTP\r\n\r\n")
            return
        content = reply.body if isinstance(reply.body, (str, bytes)) else json.dumps(reply.body)
        content = content.encode() if isinstance(content, str) else content
        if reply.body is None or reply.status in (204, 304):  # these two never have a body (RFC 9110)
            content = b""
        self.send_response(reply.status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content))} | reply.headers
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent: clients that hang up are part of what is tested."""


class Receiver:
    """Listens on a loopback port (0: any free one) and remembers every request in ``requests``."""

    def __init__(self, port: int = 0, verbose: bool = False) -> None:
        self.requests: list[Received] = []
        self.verbose = verbose
        self._scripts: dict[str, deque[Reply]] = defaultdict(deque)
        self._counter, self._connection_ids = itertools.count(1), itertools.count(1)
        self._connections: set[socket.socket] = set()
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"receiver": self}))
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Receiver":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop at once: end delays and hang up on everybody, also on clients that keep a connection alive."""
        self._stopping.set()
        self._server.shutdown()
        self._server.socket.close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def serve_forever(self) -> None:
        self._server.serve_forever(poll_interval=0.05)

    def on(self, path: str, **reply: Any) -> None:
        """Script the next answer for ``path``; the keywords are the fields of :class:`Reply`.

        Answers queue up in the order given. One with ``times=N`` is given N times, one without it for good.
        """
        with self._lock:
            self._scripts[path].append(Reply(**reply))

    def clear(self) -> None:
        """Forget all requests and scripted answers."""
        with self._lock:
            self.requests.clear()
            self._scripts.clear()

    def wait_for(self, count: int, timeout: float = 10.0) -> list[Received]:
        """Wait until ``count`` requests came in, at most ``timeout`` seconds, and return those that did."""
        deadline = time.monotonic() + timeout
        while len(self.requests) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        return list(self.requests)

    def _answer(self, request: Received) -> Reply:
        with self._lock:
            if request.path == "/_received":
                if request.method == "DELETE":
                    self.requests.clear()
                return Reply(body=[asdict(received) for received in self.requests])
            self.requests.append(request)
            default = Reply(body={"id": next(self._counter), "ok": True, "received": request.json})
            scripted = self._take_scripted(request.path)
        if self.verbose:
            print(request.method, request.path, request.body[:200], flush=True)
        if scripted and callable(scripted.body):
            return scripted.body(request)
        return scripted or self._built_in(request) or default

    def _take_scripted(self, path: str) -> Reply | None:
        queue = self._scripts[path]
        if queue and queue[0].times is not None:
            queue[0].times -= 1
            return queue[0] if queue[0].times > 0 else queue.popleft()
        return queue[0] if queue else None

    def _built_in(self, request: Received) -> Reply | None:
        name, _, argument = request.path[1:].partition("/")
        number = float(argument) if re.fullmatch(r"\d+(\.\d+)?", argument) else 0.0
        if name == "status" and 200 <= number <= 599:
            return Reply(status=int(number), body={"status": int(number)})
        if name == "large":
            return Reply(body=b'"%s"' % (b"x" * int(min(number, MAX_LARGE_BYTES))))
        return {
            "slow": Reply(body={"ok": True}, delay=min(number, MAX_SLOW_SECONDS)),
            "redirect": Reply(status=302, headers={"Location": request.query.get("to", ["/"])[0]}),
            "broken-json": Reply(body='{"id": 1, "ok"'),
            "drop": Reply(drop=True),
            "members": Reply(body=_get_members(request.query)),
        }.get(name)


def _get_members(query: dict[str, list[str]], total: int = 250) -> dict[str, Any]:
    """Return a page of the members of a loyalty program."""
    page, limit = (int(query.get(name, ["100" if name == "limit" else "1"])[-1]) for name in ("page", "limit"))
    numbers = range((page - 1) * limit + 1, min(page * limit, total) + 1)
    members = [{"number": f"M-{n:04}", "name": f"Member {n}", "email": f"m{n}@example.com"} for n in numbers]
    return {"members": members, "meta": {"total": total, "next_page": page + 1 if page * limit < total else None}}


def main() -> None:
    """Serve in the foreground and print one line per request."""
    parser = argparse.ArgumentParser(description="A small external system on a loopback port.")
    parser.add_argument("--port", type=int, default=8970, help="0 chooses a free one (default: %(default)s)")
    receiver = Receiver(parser.parse_args().port, verbose=True)
    print(f"listening on {receiver.url}", flush=True)
    with suppress(KeyboardInterrupt):
        receiver.serve_forever()


if __name__ == "__main__":
    main()
