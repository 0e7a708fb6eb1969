"""A server of chat completions on this machine that misbehaves as it is told."""

import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOOD = '["algebra", "linear equations"]'


def completion(said):
    return json.dumps({"choices": [{"message": {"content": said}}]}).encode()


class Handler(BaseHTTPRequestHandler):
    """Does what `server.misdeeds` says for the first requests that ask the same, and answers the next."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = request["messages"][-1]["content"]
        with server.lock:
            server.seen.append((self.path, dict(self.headers), request, time.monotonic()))
            number = server.counts[asked]
            server.counts[asked] += 1
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            deeds = server.misdeeds
            (deeds[number] if number < len(deeds) else lambda handler: handler.reply(200, server.answer(request)))(self)
        finally:
            with server.lock:
                server.at_once -= 1

    def reply(self, status, content, length=None, **headers):
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


@contextmanager
def serving(*misdeeds, answer=lambda request: completion(GOOD)):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.misdeeds, server.answer, server.lock = misdeeds, answer, threading.Lock()
    server.over = threading.Event()
    server.seen, server.counts, server.at_once, server.most_at_once = [], Counter(), 0, 0
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def config_for(server, **settings):
    url = f"http://127.0.0.1:{server.server_port}/v1"
    return settings.Tags(
        mode="endpoint", model="m", endpoint=settings.Endpoint(url=url, **{"backoff_s": 0.01, **settings})
    )
