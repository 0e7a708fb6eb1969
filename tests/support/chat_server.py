"""A server of chat completions on this machine, which misbehaves as a test configures it."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hpc_saidpo import settings

GOOD = '["algebra", "linear equations"]'


def completion(content: str | None) -> bytes:
    """The body of a response with this reply."""
    return json.dumps({"choices": [{"message": {"content": content}}]}).encode()


class Handler(BaseHTTPRequestHandler):
    """Does `server.misdeeds` to the first requests with the same last message, one each, and answers the next."""

    protocol_version = "HTTP/1.1"
    server: ChatServer

    def do_POST(self):
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = request["messages"][-1]["content"]
        with server.lock:
            server.seen.append((self.path, dict(self.headers), request, time.monotonic()))
            number = server.counts[text]
            server.counts[text] += 1
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        content = None
        try:
            if number < len(server.misdeeds):
                server.misdeeds[number](self)
            else:
                content = server.answer(request)
        finally:  # before the reply, whose reader may send its next request at once
            with server.lock:
                server.at_once -= 1
        if content is not None:
            self.reply(200, content)

    def reply(self, status: int, content: bytes, length: int | None = None, **headers: str) -> None:
        """Send a response.

        Args:
            length: a wrong Content-Length; the connection is closed after it.
        """
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)
        if length is not None:
            self.close_connection = True

    def log_message(self, *_):
        pass


Misdeed = Callable[[Handler], Any]


class ChatServer(ThreadingHTTPServer):
    """The server of a test.

    Attributes:
        misdeeds: done to the first requests with the same last message, one each.
        answer: request -> body of the response.
        over: set when the test has ended.
        seen: (path, headers, request, monotonic time) of every request.
        counts: requests by last message.
        most_at_once: largest number of requests under way at the same time.
    """

    def __init__(self, misdeeds: tuple[Misdeed, ...], answer: Callable[[dict], bytes]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.misdeeds, self.answer, self.lock, self.over = misdeeds, answer, threading.Lock(), threading.Event()
        self.seen: list[tuple[str, dict, dict, float]] = []
        self.counts: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0


@contextmanager
def serving(
    *misdeeds: Misdeed, answer: Callable[[dict], bytes] = lambda request: completion(GOOD)
) -> Iterator[ChatServer]:
    """A server that runs inside the context only."""
    server = ChatServer(misdeeds, answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def config_for(server: ChatServer | int, **endpoint: Any) -> settings.Tags:
    """The settings of a tagger behind a server, or behind a port."""
    port = server if isinstance(server, int) else server.server_port
    url = f"http://127.0.0.1:{port}/v1"
    return settings.Tags(
        mode="endpoint", model="m", endpoint=settings.Endpoint(url=url, **{"backoff_s": 0.01, **endpoint})
    )
