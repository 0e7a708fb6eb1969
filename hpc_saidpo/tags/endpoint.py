"""Replies from a server: HTTP chat completions as OpenAI defines them, concurrent, at a bounded rate, with retries.

Uses urllib: the HTTP library that comes with huggingface_hub differs between its versions.
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
from typing import Any

from .. import settings
from ..errors import RunError, shown, words_of
from ..progress import log
from ..reading import read_bounded
from .asking import Messages
from .connection import make_opener

LONGEST_WAIT_S = 600.0  # a longer Retry-After of a server is cut to this
LONGEST_BACKOFF_S = 60.0
MIB = 2**20
SHOWN_CHARS = 500  # of the server's words, in a message
_TEMPORARY = (408, 409, 425, 429)  # HTTP codes for which another try may help, besides all from 500 on


class TryAgain(Exception):
    """A failure of a request that may pass.

    Attributes:
        after_s: time that the server requests until the next try, seconds; None: none requested.
    """

    def __init__(self, message: str, after_s: float | None = None):
        super().__init__(message)
        self.after_s = after_s


class Server:
    """An endpoint, as one of several ranks uses it. The ranks share its rate and its concurrency."""

    def __init__(self, config: settings.Tags, n_ranks: int = 1):
        self._endpoint, self._model, self._max_tokens = config.endpoint, config.model, config.max_new_tokens
        self.identity = identify(config)
        self._n_threads = max(1, self._endpoint.concurrency // n_ranks)
        self._pace = Pace((self._endpoint.per_minute or 0) / n_ranks)
        self._key = ""
        self._open, self._limit_mib = make_opener().open, config.reply_mib

    def answer(self, conversations: Sequence[Messages]) -> list[str]:
        """Return a reply to each conversation.

        Raises:
            RunError: the environment lacks the key; the server refuses a request, in its words; or it does not answer
                within `tries`.
        """
        self._key = read_key(self._endpoint)  # not earlier: stored replies can be read without a key
        failures: list[RunError] = []

        def answer_one(conversation: Messages) -> str:
            if failures:  # no further request after a refusal
                raise failures[0]
            try:
                return self._answer_one(conversation)
            except RunError as failure:
                failures.append(failure)
                raise

        with ThreadPoolExecutor(self._n_threads) as pool:
            waiting = [pool.submit(answer_one, conversation) for conversation in conversations]
            try:
                return [one.result() for one in waiting]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _answer_one(self, messages: Messages) -> str:
        endpoint = self._endpoint
        data = json.dumps(request_body(messages, self._model, self._max_tokens, endpoint.body)).encode()
        message = ""
        for n_tried in range(1, endpoint.tries + 1):
            self._pace.wait()
            try:
                return self._send(data)
            except TryAgain as failure:
                message = self._without_key(str(failure))
                log.info("  %s: try %d of %d: %s", endpoint.url, n_tried, endpoint.tries, message)
                if failure.after_s is not None:
                    self._pace.hold(failure.after_s)  # for all threads
                elif n_tried < endpoint.tries:
                    time.sleep(min(LONGEST_BACKOFF_S, endpoint.backoff_s * 2 ** (n_tried - 1)))
        raise RunError(
            f"tags.endpoint.url={endpoint.url}: no answer in {endpoint.tries} tries (last: {message}): check that the "
            "server runs, lower tags.endpoint.concurrency or .per_minute, and start the same command again: finished "
            "replies are kept"
        )

    def _send(self, data: bytes) -> str:
        url = self._endpoint.url
        headers = {"Content-Type": "application/json", "User-Agent": "hpc_saidpo"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(f"{url.rstrip('/')}/chat/completions", data, headers)
        try:
            with self._open(request, timeout=self._endpoint.timeout_s) as response:
                body = read_bounded(response, self._limit_mib * MIB)
            if len(body) > self._limit_mib * MIB:
                raise ValueError(f"the reply is longer than {self._limit_mib} MiB (tags.reply_mib)")
            return reply_of(json.loads(body))
        except urllib.error.HTTPError as error:
            message = f"{error.code} {shown(error.reason)}: {_words(error)}"
            if error.code in _TEMPORARY or error.code >= 500:
                raise TryAgain(message, retry_after_s(error.headers.get("Retry-After"))) from error
            raise RunError(
                f"tags.endpoint.url={url} refuses a request for tags.model={self._model}: {self._without_key(message)}"
            ) from None
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:  # time-outs are OSErrors
            raise TryAgain(words_of(error)) from error

    def _without_key(self, message: str) -> str:
        return message.replace(self._key, "(key)") if self._key else message


class Pace:
    """A limit on the requests per minute, evenly spaced, for several threads; 0 for no limit."""

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
        """Let no thread send a request for this time."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


def identify(config: settings.Tags) -> str:
    """Return everything that the replies of a named model depend on. Files and servers share one set of replies."""
    return repr(("named", config.model, config.max_new_tokens, sorted(config.endpoint.body.items())))


def request_body(messages: Messages, model: str, max_tokens: int, extra: Mapping[str, object]) -> dict[str, Any]:
    """Return the body of a request for one greedy reply.

    Args:
        extra: further keys; a value None removes a key.
    """
    body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": max_tokens, **extra}
    return {key: value for key, value in body.items() if value is not None}


def reply_of(response: Any) -> str:
    """Return the reply in a decoded response; "" where it has none.

    Raises:
        ValueError: it is no chat completion.
    """
    try:
        return str(response["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError):
        raise ValueError(f"no chat completion: {shown(json.dumps(response), SHOWN_CHARS)}") from None


def read_key(endpoint: settings.Endpoint) -> str:
    """Read the key from the environment; "" for none.

    Raises:
        RunError: the variable is not set, or cannot be a key. The message does not contain the value.
    """
    if not endpoint.api_key_env:
        return ""
    key = os.environ.get(endpoint.api_key_env, "").strip()
    if not key or not (key.isascii() and key.isprintable()):
        problem = "contains characters that no key has" if key else "is not set"
        raise RunError(
            f"tags.endpoint.api_key_env={endpoint.api_key_env}: this environment variable {problem} on this node"
        )
    return key


def retry_after_s(value: str | None) -> float | None:
    """Return the wait that a Retry-After header requests, a number or a date, in seconds; None if it is unreadable."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(0.0, seconds), LONGEST_WAIT_S)


def _words(error: urllib.error.HTTPError) -> str:
    """Return the server's reason for its refusal."""
    try:
        words = error.read(4 * SHOWN_CHARS).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        words = str(json.loads(words)["error"]["message"])
    return shown(" ".join(words.split()), SHOWN_CHARS)
