"""One process as a world: the last output before an abort, and signal handlers of others."""

import os
import signal
import threading

from hpc_saidpo.parallel import world
from hpc_saidpo.parallel.world import World, drain


def test_the_last_output_is_read_before_an_abort_can_drop_it():
    reader, writer = os.pipe()
    slow = threading.Timer(0.2, lambda: os.read(reader, 65536))
    with os.fdopen(writer, "w") as stream:
        stream.write("the error")
        slow.start()
        drain(stream)
        assert world._unread(writer) == 0
    slow.join()
    os.close(reader)


def test_a_reader_that_never_comes_does_not_hold_up_the_end(monkeypatch):
    monkeypatch.setattr(world, "_DRAIN_S", 0.05)
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream, open(os.devnull, "w") as no_pipe, open(os.devnull, "w") as closed:
        closed.close()
        stream.write("unread")
        drain(stream, no_pipe, closed)
        assert world._unread(writer) == len("unread")
    os.close(reader)


def test_an_existing_handler_is_left_alone():
    before = {s: signal.getsignal(s) for s in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)}
    calls = []
    try:
        for number in before:
            signal.signal(number, lambda *_: calls.append(1))
        one = World()
        one.listen(0.0)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert calls == [1] and not one.stop_request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
