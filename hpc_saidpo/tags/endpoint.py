"""A server answers: chat completions by HTTP as OpenAI defines them, several at once, at a bounded rate, with patience.

urllib does: of the HTTP libraries that come with huggingface_hub, each of its versions has another one.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from .. import settings
from ..errors import RunError
from ..progress import log
from .asking import Messages

LONGEST_WAIT_S = 600.0  # that a server's Retry-After is believed
LONGEST_BACKOFF_S = 60.0
TOLD_CHARS = 500  # of the server's words, in a message
_COMES_BACK = (408, 409, 425, 429)  # and all from 500 on: trying again may help


class TryAgain(Exception):
    """A request failed in a way that may pass.

    Attributes:
        after_s: how long the server asks to be left alone, seconds; None: it does not say.
    """

    def __init__(self, message: str, after_s: float | None = None):
        super().__init__(message)
        self.after_s = after_s


class Server:
    """An endpoint, for one of several ranks, which share its rate and its concurrency."""

    def __init__(self, config: settings.Tags, n_ranks: int = 1):
        self._how, self._model, self._max_tokens = config.endpoint, config.model, config.max_new_tokens
        self.identity = identity(config)
        self._n_threads = max(1, self._how.concurrency // n_ranks)
        self._pace = Pace((self._how.per_minute or 0) / n_ranks)
        self._key = ""
        self._open = urllib.request.build_opener(_NoRedirect).open

    def answer(self, conversations: Sequence[Messages]) -> list[str]:
        """A reply to each conversation.

        Raises:
            RunError: the environment lacks the key; the server refuses a request, in its words; or does not answer in
                `tries`.
        """
        self._key = key_of(self._how)  # not before: who only reads what was answered needs none
        with ThreadPoolExecutor(self._n_threads) as pool:
            waiting = [pool.submit(self._patiently, conversation) for conversation in conversations]
            try:
                return [one.result() for one in waiting]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _patiently(self, messages: Messages) -> str:
        data = json.dumps(body(messages, self._model, self._max_tokens, self._how.body)).encode()
        for n_tried in range(1, self._how.tries + 1):
            self._pace.wait()
            try:
                return self._once(data)
            except TryAgain as failure:
                told = self._without_key(str(failure))
                log.info("  %s: try %d of %d: %s", self._how.url, n_tried, self._how.tries, told)
                if failure.after_s is not None:
                    self._pace.hold(failure.after_s)  # it means all of us
                elif n_tried < self._how.tries:
                    time.sleep(min(LONGEST_BACKOFF_S, self._how.backoff_s * 2 ** (n_tried - 1)))
        raise RunError(
            f"tags.endpoint.url={self._how.url}: no answer in {self._how.tries} tries (last: {told}): see whether it "
            "is up, lower tags.endpoint.concurrency or .per_minute, and start the same command again: what is answered "
            "is kept"
        )

    def _once(self, data: bytes) -> str:
        headers = {"Content-Type": "application/json", "User-Agent": "hpc_saidpo"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(f"{self._how.url.rstrip('/')}/chat/completions", data, headers)
        try:
            with self._open(request, timeout=self._how.timeout_s) as response:
                return content(json.loads(response.read()))
        except urllib.error.HTTPError as error:
            told = f"{error.code} {error.reason}: {_words(error)}"
            if error.code in _COMES_BACK or error.code >= 500:
                raise TryAgain(told, retry_after_s(error.headers.get("Retry-After"))) from error
            raise RunError(
                f"tags.endpoint.url={self._how.url} refuses a request for tags.model={self._model}: "
                f"{self._without_key(told)}"
            ) from None
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:  # time-outs are OSErrors
            raise TryAgain(f"{type(error).__name__}: {error}") from error

    def _without_key(self, told: str) -> str:
        return told.replace(self._key, "(key)") if self._key else told


class Pace:
    """At most so many requests a minute, 0 for any number, evenly spaced; for several threads."""

    def __init__(self, per_minute: float):
        self._gap_s = 60 / per_minute if per_minute else 0.0
        self._next, self._lock = 0.0, threading.Lock()

    def wait(self) -> None:
        """Sleep until the next request may be sent."""
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + self._gap_s
        time.sleep(at - now)

    def hold(self, seconds: float) -> None:
        """Let nobody send one for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another server: it is an error instead."""

    def redirect_request(self, *_):
        return None


def identity(config: settings.Tags) -> str:
    """What the replies of a named model depend on, wherever it runs: those of files and of servers are one set."""
    return repr(("named", config.model, config.max_new_tokens, sorted(config.endpoint.body.items())))


def body(messages: Messages, model: str, max_tokens: int, others: Mapping[str, object]) -> dict:
    """A request for one reply, by the likeliest tokens."""
    whole = {"model": model, "messages": messages, "temperature": 0, "max_tokens": max_tokens, **others}
    return {key: value for key, value in whole.items() if value is not None}


def content(response: object) -> str:
    """The reply in a response; "" where it has none.

    Raises:
        ValueError: it is no chat completion.
    """
    try:
        return str(response["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError):
        raise ValueError(f"no chat completion: {json.dumps(response)[:TOLD_CHARS]}") from None


def key_of(how: settings.Endpoint) -> str:
    """The key, from the environment; "" for none.

    Raises:
        RunError: the variable is not set, or holds what cannot be a key. The value is not told.
    """
    if not how.api_key_env:
        return ""
    key = os.environ.get(how.api_key_env, "").strip()
    if not key or not (key.isascii() and key.isprintable()):
        what = "holds characters that no key has" if key else "is not set"
        raise RunError(f"tags.endpoint.api_key_env={how.api_key_env}: this environment variable {what} on this node")
    return key


def retry_after_s(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or a date; None where it says nothing."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(0.0, seconds), LONGEST_WAIT_S)


def _words(error: urllib.error.HTTPError) -> str:
    """What the server says of its refusal."""
    try:
        said = error.read(4 * TOLD_CHARS).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        said = str(json.loads(said)["error"]["message"])
    return " ".join(said.split())[:TOLD_CHARS]
