"""Replies from a server: a real one, on this machine, that misbehaves."""

import contextlib
import email.utils
import json
import threading
import time

import pytest
from support.chat_server import GOOD, completion, config_for, serving

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError
from hpc_saidpo.tags import endpoint
from hpc_saidpo.tags.endpoint import Server, retry_after_s

KEY = "sk-very-secret"


DRIP_S, LIMIT_S = 0.01, 0.3
MIB = 2**20


def conversations(*texts):
    return [[{"role": "user", "content": text}] for text in texts]


def hang(handler):
    handler.server.over.wait(30)
    handler.close_connection = True


MISDEEDS = {
    "429": lambda handler: handler.reply(429, b"slow down"),
    "429 with Retry-After": lambda handler: handler.reply(429, b"slow down", Retry_After="0.05"),
    "503 with a date": lambda h: h.reply(503, b"", Retry_After=email.utils.formatdate(time.time() - 5, usegmt=True)),
    "500": lambda handler: handler.reply(500, b'{"error": {"message": "oops"}}'),
    "a time-out": hang,
    "a broken body": lambda handler: handler.reply(200, b'{"choices": [{"mess'),
    "a body that is no completion": lambda handler: handler.reply(200, b'{"object": "list"}'),
    "a body that is cut off": lambda handler: handler.reply(200, completion(GOOD)[:20], length=500),
    "no answer at all": lambda handler: setattr(handler, "close_connection", True),
}


@pytest.mark.parametrize("misdeed", MISDEEDS.values(), ids=MISDEEDS)
def test_a_failure_that_passes_is_tried_again(misdeed):
    with serving(misdeed, misdeed) as server:
        assert Server(config_for(server, timeout_s=1.0 if misdeed is hang else 60.0)).answer(
            conversations("a", "b")
        ) == [
            GOOD,
            GOOD,
        ]
        assert server.counts == {"a": 3, "b": 3}


def test_a_failure_that_lasts_is_reported():
    with serving(*[MISDEEDS["500"]] * 3) as server:
        with pytest.raises(RunError, match=r"127\.0\.0\.1.*no answer in 3 tries \(last: 500 .*oops\).*are kept"):
            Server(config_for(server, tries=3)).answer(conversations("a"))
        assert server.counts == {"a": 3}
    with pytest.raises(RunError, match="no answer in 2 tries"):  # nobody listens any more
        Server(config_for(server, tries=2)).answer(conversations("a"))


@pytest.mark.parametrize("status", [400, 401, 404, 302])
def test_a_refusal_is_reported_in_the_servers_words_and_not_tried_again(status, monkeypatch):
    monkeypatch.setenv("THE_KEY", KEY)
    said = json.dumps({"error": {"message": f"the model `m` does not exist; your key {KEY}"}}).encode()
    with serving(*[lambda handler: handler.reply(status, said, Location="http://127.0.0.1:1/")] * 9) as server:
        with pytest.raises(RunError, match=rf"tags\.model=m: {status} .*the model `m` does not exist") as caught:
            Server(config_for(server, api_key_env="THE_KEY", concurrency=1)).answer(conversations("a", "b", "c", "d"))
        assert KEY not in str(caught.value) and server.counts["a"] == 1 and server.counts["d"] == 0


def test_the_request(monkeypatch):
    monkeypatch.setenv("THE_KEY", f"{KEY}\n")
    with serving() as server:
        config = config_for(server, api_key_env="THE_KEY", body={"temperature": None, "seed": 7})
        assert Server(config).answer([]) == []
        Server(config).answer(conversations("What is ½?"))
        ((path, headers, request, _),) = server.seen
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {KEY}"
    assert request == {"model": "m", "messages": conversations("What is ½?")[0], "max_tokens": 96, "seed": 7}


@pytest.mark.parametrize("value", [None, "  ", f"{KEY}\nHost: other", f"{KEY}é"])
def test_a_key_that_is_none_is_refused_and_not_shown(value, monkeypatch):
    monkeypatch.delenv("THE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("THE_KEY", value)
    config = settings.Endpoint(api_key_env="THE_KEY")
    with pytest.raises(RunError, match=r"api_key_env=THE_KEY.*environment variable") as caught:
        endpoint.read_key(config)
    says = "contains characters that no key has" if value and value.strip() else "is not set"
    assert f"variable {says} on this node" in str(caught.value)
    assert KEY not in str(caught.value)


def test_answers_keep_their_order_and_their_number_at_once():
    three = threading.Barrier(3)

    def together(request):
        three.wait(60)  # answered only when two others are asked
        return completion(request["messages"][-1]["content"])

    with serving(answer=together) as server:
        texts = [str(i) for i in range(12)]
        assert Server(config_for(server, concurrency=3)).answer(conversations(*texts)) == texts
        assert server.most_at_once == 3


def test_the_rate_is_kept_by_all_ranks_together():
    with serving() as server:
        rank = Server(config_for(server, per_minute=3000), n_ranks=2)
        began = time.monotonic()
        rank.answer(conversations(*map(str, range(6))))
        assert server.seen[-1][-1] - began >= 5 * 60 / 1500


def test_a_requested_wait_holds_all_threads_back():
    with serving(lambda handler: handler.reply(429, b"", Retry_After="0.5")) as server:
        Server(config_for(server, concurrency=2)).answer(conversations("a", "b", "c"))
        at = sorted(when for *_, when in server.seen)
        assert at[2] - at[0] >= 0.5  # two were under way


def test_the_wait_that_a_server_requests():
    assert retry_after_s("7") == 7 and retry_after_s("1e9") == endpoint.LONGEST_WAIT_S and retry_after_s("-1") == 0
    assert 50 < retry_after_s(email.utils.formatdate(time.time() + 60, usegmt=True)) <= 60
    assert retry_after_s("soon") is retry_after_s(None) is None


def test_an_answer_without_content_is_an_empty_one():
    with serving(answer=lambda request: completion(None)) as server:
        assert Server(config_for(server)).answer(conversations("a")) == [""]


def dripping(start, part=b" "):
    """A server that begins a response and then sends a byte now and again; it counts them in `server.dripped`."""

    def misdeed(handler):
        server, handler.close_connection = handler.server, True
        server.dripped = 0
        with contextlib.suppress(OSError):
            handler.wfile.write(start)
            while not server.over.is_set() and server.dripped < 3000:
                handler.wfile.write(part)
                server.dripped += 1
                server.over.wait(DRIP_S)

    return misdeed


HEAD = b"HTTP/1.1 200 OK\r\n"
DRIPS = {
    "of the status line": dripping(b"HTTP/1.1 2"),
    "of a header": dripping(HEAD + b"X: ", b"x"),
    "of headers": dripping(HEAD, b"X: y\r\n"),
    "of the body": dripping(HEAD + b"Content-Length: 100000\r\n\r\n"),
    "of a body without length": dripping(HEAD + b"\r\n"),
    "of chunks": dripping(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "of an error": dripping(b"HTTP/1.1 500 no\r\n\r\n"),
}


@pytest.mark.parametrize("misdeed", DRIPS.values(), ids=DRIPS)
def test_a_reply_that_drips_has_a_deadline_as_a_whole(misdeed):
    with serving(misdeed) as server:
        assert Server(config_for(server, timeout_s=LIMIT_S)).answer(conversations("a")) == [GOOD]
        assert server.counts["a"] == 2 and server.dripped < 1000  # it would drip 3000 times


def test_a_reply_beyond_the_limit_is_not_read_to_its_end():
    sent = []

    def endless(handler):
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.wfile.write(HEAD + b"\r\n")
            for _ in range(3000):
                sent.append(handler.wfile.write(b" " * MIB))

    with serving(endless, endless) as server, pytest.raises(RunError, match=r"longer than 4 MiB \(tags\.reply_mib\)"):
        Server(config_for(server, tries=2)).answer(conversations("a"))
    assert sum(sent) < 100 * MIB


@pytest.mark.parametrize("status, says", [(400, "refuses a request"), (500, "no answer in 1 tries")])
def test_what_a_server_says_reaches_no_terminal_as_it_is(status, says):
    forged = "a\x1b[2J\u202eb\x00\x9b"

    def misdeed(handler):
        handler.close_connection = True
        words = json.dumps({"error": {"message": forged + "x" * 5000}}).encode()
        line = f"HTTP/1.1 {status} {forged}".encode("latin-1", "ignore")
        handler.wfile.write(line + b"\r\nContent-Length: %d\r\n\r\n" % len(words) + words)

    with serving(misdeed) as server, pytest.raises(RunError, match=says) as caught:
        Server(config_for(server, tries=1)).answer(conversations("a"))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 2500


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"1" * 5000, b'{"choices": [{"message": {"content": 1e999}}]}', b"\xff"]
)
def test_a_body_that_python_cannot_read_is_a_failure_that_passes(body):
    with serving(lambda handler: handler.reply(200, body)) as server:
        assert Server(config_for(server)).answer(conversations("a")) in ([GOOD], ["inf"])
