"""HTTP connections whose whole response must arrive before a deadline, however slowly the server sends it."""

from __future__ import annotations

import http.client
import io
import socket
import time
import urllib.request
from typing import Any


class _Before(io.RawIOBase):
    """The bytes of a socket until a deadline. A socket's own time limit begins again with each byte that arrives."""

    def __init__(self, connected: socket.socket, seconds: float):
        self._socket, self._raw = connected, connected.makefile("rb", 0)
        self._until = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the whole reply did not arrive in time")
        self._socket.settimeout(left_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response that is read until the socket's time limit is over, counted from the end of the request."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any):
        super().__init__(sock, *args, **kwargs)
        unlimited = self.fp
        self.fp: Any = io.BufferedReader(_Before(sock, sock.gettimeout() or 0))
        unlimited.close()


class _Http(http.client.HTTPConnection):
    response_class = _Response


class _Https(http.client.HTTPSConnection):
    response_class = _Response


class _Handler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Opens URLs by these connections."""

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Http, req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Https, req)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Make a redirect an error: following it would send the key to another server."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


def make_opener() -> urllib.request.OpenerDirector:
    """Return an opener of URLs: `timeout` of its `open` limits the whole response; a redirect is an error."""
    return urllib.request.build_opener(_NoRedirect, _Handler)
